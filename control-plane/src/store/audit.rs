//! The audit log: who changed what, when, from where.

use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Page, StoreError, from_json, to_json};
use crate::time::Time;

/// Who makes a change, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) actor: String,
    pub(crate) address: String,
}

/// An entry of the audit log; never changed and never removed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    pub(crate) id: i64,
    pub(crate) at: Time,
    /// Who: `operator`, or `latchkey` for what the service does by itself.
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

/// Returns part of the log, oldest first.
pub(crate) fn list(
    connection: &Connection,
    account: Option<&str>,
    after: i64,
    page: &Page,
) -> Result<Vec<AuditEntry>, StoreError> {
    let condition = if account.is_some() { "account = ?2" } else { "?2 IS NULL" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, at_ms, actor, origin, account, action, subject, details FROM audit
         WHERE id > ?1 AND {condition} ORDER BY id LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![after, account, page.sql_limit()])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(AuditEntry {
            id: row.get(0)?,
            at: Time::from_ms(row.get(1)?),
            actor: row.get(2)?,
            from: row.get(3)?,
            account: row.get(4)?,
            action: row.get(5)?,
            subject: row.get(6)?,
            details: from_json(&row.get::<_, String>(7)?)?,
        });
    }
    Ok(entries)
}
