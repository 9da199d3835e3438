//! The audit log: who changed what, when, from where.

use rusqlite::{Connection, Row, Transaction, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::Once;
use super::{Page, StoreError, from_json, to_json};
use crate::time::Time;

/// Who makes a change, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) actor: String,
    pub(crate) address: String,
    /// Tags of which the record that is changed has to have one.
    pub(crate) expected: Option<Vec<String>>,
    /// The request, where it is made once however often it comes.
    pub(crate) once: Option<Once>,
}

impl Origin {
    /// Returns the origin of what someone does from an address.
    pub(crate) fn of(actor: &str, address: &str) -> Self {
        let (actor, address) = (actor.to_owned(), address.to_owned());
        Self { actor, address, expected: None, once: None }
    }
}

/// An entry of the audit log; never changed and never removed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    pub(crate) id: i64,
    pub(crate) at: Time,
    /// Who: `operator` for who has the operator token, `latchkey` for what the service does by itself,
    /// else the e-mail address of a person.
    pub(crate) actor: String,
    /// Address from which.
    pub(crate) from: String,
    /// Account that it concerns.
    pub(crate) account: Option<String>,
    /// What, such as `key.create`.
    #[schema(examples("key.create"))]
    pub(crate) action: String,
    /// To what: the id or name.
    pub(crate) subject: String,
    /// The record before and after; never a token.
    pub(crate) details: serde_json::Value,
}

pub(super) fn append(
    transaction: &Transaction<'_>,
    at_ms: i64,
    origin: &Origin,
    account: Option<&str>,
    action: &str,
    subject: &str,
    details: &serde_json::Value,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO audit (at_ms, actor, origin, account, action, subject, details)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![at_ms, origin.actor, origin.address, account, action, subject, to_json(details)?],
    )?;
    Ok(())
}

/// Which entries; those of which all that is given is so.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditFilter {
    pub(crate) account: Option<String>,
    /// Whether entries of a former account of its id are left out.
    pub(crate) since_account: bool,
    /// Part of the name of who made the change.
    pub(crate) actor: Option<String>,
    /// Beginning of what was done, such as `key.`.
    pub(crate) action: Option<String>,
    /// To what: all of the id or name.
    pub(crate) subject: Option<String>,
    /// From this moment on, in milliseconds.
    pub(crate) since_ms: Option<i64>,
    /// Before this moment, in milliseconds.
    pub(crate) until_ms: Option<i64>,
}

/// Returns the entries that a filter lets through and that are older than one, newest first.
pub(crate) fn search(
    connection: &Connection,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: usize,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "{SELECT}
         WHERE (?1 IS NULL OR account = ?1)
           AND (?2 IS NULL OR instr(fold(actor), fold(?2)) > 0)
           AND (?3 IS NULL OR substr(action, 1, length(?3)) = ?3)
           AND (?4 IS NULL OR subject = ?4)
           AND (?5 IS NULL OR at_ms >= ?5) AND (?6 IS NULL OR at_ms < ?6)
           AND (?7 IS NULL OR id < ?7)
           AND (NOT ?9 OR id >= (SELECT max(id) FROM audit WHERE account = ?1 AND action = 'account.create'))
         ORDER BY id DESC LIMIT ?8"
    ))?;
    let mut rows = statement.query(params![
        filter.account,
        filter.actor,
        filter.action,
        filter.subject,
        filter.since_ms,
        filter.until_ms,
        before,
        i64::try_from(limit).unwrap_or(i64::MAX),
        filter.since_account,
    ])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read(row)?);
    }
    Ok(entries)
}

/// Returns part of the log, oldest first.
pub(crate) fn list(
    connection: &Connection,
    account: Option<&str>,
    after: i64,
    page: &Page,
) -> Result<Vec<AuditEntry>, StoreError> {
    let condition = if account.is_some() { "account = ?2" } else { "?2 IS NULL" };
    let mut statement = connection
        .prepare_cached(&format!("{SELECT} WHERE id > ?1 AND {condition} ORDER BY id LIMIT ?3"))?;
    let mut rows = statement.query(params![after, account, page.sql_limit()])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(read(row)?);
    }
    Ok(entries)
}

fn read(row: &Row<'_>) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        id: row.get(0)?,
        at: Time::from_ms(row.get(1)?),
        actor: row.get(2)?,
        from: row.get(3)?,
        account: row.get(4)?,
        action: row.get(5)?,
        subject: row.get(6)?,
        details: from_json(&row.get::<_, String>(7)?)?,
    })
}

const SELECT: &str =
    "SELECT id, at_ms, actor, origin, account, action, subject, details FROM audit";
