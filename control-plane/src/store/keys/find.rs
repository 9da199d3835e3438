//! Finding keys.

use std::collections::{HashMap, HashSet};

use latchkey_protocol::{KeyHash, KeyKind};
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use super::{Key, KeyState};
use crate::store::ledger::limits_of;
use crate::store::{Page, StoreError, accounts, from_json};
use crate::time::Time;

/// Returns part of the list of an account's keys, oldest first.
pub(crate) fn list(
    connection: &Connection,
    account: &str,
    page: &Page,
    now_ms: i64,
) -> Result<Vec<Key>, StoreError> {
    accounts::get(connection, account)?;
    let sequence = "SELECT sequence FROM keys WHERE id = ?1 AND account = ?2";
    let after: i64 = match &page.after {
        None => 0,
        Some(after) => connection
            .query_row(sequence, [after.as_str(), account], |row| row.get(0))
            .optional()?
            .ok_or_else(|| StoreError::Field {
                field: "after",
                message: format!("expected `next` of the part before, found `{after}`"),
            })?,
    };
    let sql = format!(
        "{SELECT} WHERE keys.account = ?1 AND keys.sequence > ?2
         ORDER BY keys.sequence LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query(params![account, after, page.sql_limit()])?;
    read_all(rows, now_ms)
}

/// Which user defined keys of an account.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyFilter {
    /// Part of the name, the environment, the note or the end of the token; all if empty.
    pub(crate) text: String,
    /// Whether revoked ones are among them.
    pub(crate) with_revoked: bool,
}

/// Returns part of the list of an account's user defined keys, the newest first; the page's cursor is
/// the id of the last key before.
pub(crate) fn user_defined(
    connection: &Connection,
    account: &str,
    filter: &KeyFilter,
    page: &Page,
    now_ms: i64,
) -> Result<Vec<Key>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE keys.account = ?1 AND keys.kind = ?2 AND (?3 OR keys.revoked_at_ms IS NULL)
           AND (?4 = '' OR instr(fold(concat_ws(char(10), keys.name, keys.environment, keys.note,
                 (SELECT hint FROM tokens WHERE tokens.key = keys.id AND grace_ends_at_ms IS NULL))),
                 fold(?4)) > 0)
           AND (?5 IS NULL OR keys.sequence < (SELECT sequence FROM keys WHERE id = ?5))
         ORDER BY keys.sequence DESC LIMIT ?6"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query(params![
        account,
        KeyKind::UserDefined.as_str(),
        filter.with_revoked,
        filter.text,
        page.after,
        page.sql_limit()
    ])?;
    read_all(rows, now_ms)
}

/// Returns the Application keys of an account.
pub(crate) fn application(
    connection: &Connection,
    account: &str,
    now_ms: i64,
) -> Result<Vec<Key>, StoreError> {
    let sql =
        format!("{SELECT} WHERE keys.account = ?1 AND keys.kind <> ?2 ORDER BY keys.sequence");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query([account, KeyKind::UserDefined.as_str()])?;
    read_all(rows, now_ms)
}

/// Returns the live keys that were made to replace a key.
pub(crate) fn replacements(
    connection: &Connection,
    account: &str,
    id: &str,
    now_ms: i64,
) -> Result<Vec<Key>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE keys.account = ?1 AND keys.replaces = ?2 AND keys.revoked_at_ms IS NULL
         ORDER BY keys.sequence"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query([account, id])?;
    read_all(rows, now_ms)
}

/// Returns the ids of the keys of an account whose token can be shown again.
pub(crate) fn sealed(
    connection: &Connection,
    account: &str,
) -> Result<HashSet<String>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT keys.id FROM keys JOIN tokens ON tokens.key = keys.id
         WHERE keys.account = ?1 AND sealed IS NOT NULL AND grace_ends_at_ms IS NULL",
    )?;
    let ids = statement.query_map([account], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Returns when one of the tokens that a key had before was last used in its grace, if proxies have told of
/// that.
pub(crate) fn former_last_used(
    connection: &Connection,
    key: &str,
    now_ms: i64,
) -> Result<Option<Time>, StoreError> {
    let sql = "SELECT max(last_used_at_ms) FROM tokens WHERE key = ?1 AND grace_ends_at_ms > ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let at_ms: Option<i64> = statement.query_row(params![key, now_ms], |row| row.get(0))?;
    Ok(at_ms.map(Time::from_ms))
}

/// Returns how many user defined keys of an account count against its plan.
pub(crate) fn count(
    connection: &Connection,
    account: &str,
    now_ms: i64,
) -> Result<u32, StoreError> {
    let sql = format!("SELECT count(*) FROM keys WHERE {COUNTED}");
    let counted = params![account, KeyKind::UserDefined.as_str(), now_ms];
    Ok(connection.query_row(&sql, counted, |row| row.get(0))?)
}

/// Reports whether a key counts against the plan and none that counts was made to replace it.
pub(super) fn is_first_replaced(
    connection: &Connection,
    account: &str,
    key: &str,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM keys WHERE {COUNTED} AND id = ?4)
           AND NOT EXISTS (SELECT 1 FROM keys WHERE {COUNTED} AND replaces = ?4)"
    );
    let counted = params![account, KeyKind::UserDefined.as_str(), now_ms, key];
    Ok(connection.query_row(&sql, counted, |row| row.get(0))?)
}

/// Returns since when the keys of an account have the rules that they have, in milliseconds, by key.
pub(crate) fn rules_since(
    connection: &Connection,
    account: &str,
) -> Result<HashMap<String, i64>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, coalesce(rules_changed_at_ms, created_at_ms) FROM keys WHERE account = ?1",
    )?;
    let rows = statement.query_map([account], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Returns all keys of an account, oldest first.
pub(crate) fn all(
    connection: &Connection,
    account: &str,
    now_ms: i64,
) -> Result<Vec<Key>, StoreError> {
    list(connection, account, &Page::everything(), now_ms)
}

/// Returns a key of an account.
pub(crate) fn get(
    connection: &Connection,
    account: &str,
    id: &str,
    now_ms: i64,
) -> Result<Key, StoreError> {
    accounts::get(connection, account)?;
    let sql = format!("{SELECT} WHERE keys.account = ?1 AND keys.id = ?2");
    connection
        .query_row(&sql, [account, id], |row| Ok(read(row, now_ms)))
        .optional()?
        .ok_or_else(|| StoreError::NotFound { what: "key", id: id.to_owned() })?
}

/// Returns the account and the id of the key that a token is of.
pub(crate) fn by_hash(
    connection: &Connection,
    hash: &KeyHash,
) -> Result<Option<(String, String)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT keys.account, keys.id FROM tokens JOIN keys ON keys.id = tokens.key
         WHERE tokens.hash = ?1",
    )?;
    Ok(statement.query_row([hash.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

fn read_all(mut rows: Rows<'_>, now_ms: i64) -> Result<Vec<Key>, StoreError> {
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(read(row, now_ms)?);
    }
    Ok(keys)
}

fn read(row: &Row<'_>, now_ms: i64) -> Result<Key, StoreError> {
    let expires_at_ms: Option<i64> = row.get(10)?;
    let (is_suspended, revoked_at_ms): (bool, Option<i64>) = (row.get(11)?, row.get(12)?);
    let state = if revoked_at_ms.is_some() {
        KeyState::Revoked
    } else if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        KeyState::Expired
    } else if is_suspended {
        KeyState::Suspended
    } else {
        KeyState::Active
    };
    Ok(Key {
        id: row.get(0)?,
        account: row.get(1)?,
        kind: read_kind(&row.get::<_, String>(2)?)?,
        name: row.get(3)?,
        rules: from_json(&row.get::<_, String>(4)?)?,
        enforce: row.get(15)?,
        environment: row.get(5)?,
        note: row.get(6)?,
        allowed_networks: from_json(&row.get::<_, String>(7)?)?,
        limits: limits_of(&row.get::<_, String>(8)?, 0)?,
        created_at: Time::from_ms(row.get(9)?),
        expires_at: expires_at_ms.map(Time::from_ms),
        last_used_at: row.get::<_, Option<i64>>(13)?.map(Time::from_ms),
        state,
        token_hint: row.get(14)?,
        token_created_at: row.get::<_, Option<i64>>(16)?.map(Time::from_ms),
        previous_token_until: row
            .get::<_, Option<i64>>(17)?
            .filter(|at_ms| *at_ms > now_ms)
            .map(Time::from_ms),
        replaces: row.get(18)?,
    })
}

/// Kinds are stored by their name in JSON.
pub(in crate::store) fn read_kind(name: &str) -> Result<KeyKind, StoreError> {
    Ok(serde_json::from_value(serde_json::Value::from(name))?)
}

/// Keys that count against a plan: those that work now or may again.
const COUNTED: &str = "account = ?1 AND kind = ?2 AND revoked_at_ms IS NULL
    AND (expires_at_ms IS NULL OR expires_at_ms > ?3)";

const SELECT: &str = "
    SELECT keys.id, keys.account, keys.kind, keys.name, keys.rules, keys.environment, keys.note,
           keys.allowed_networks, keys.limits, keys.created_at_ms, keys.expires_at_ms,
           keys.is_suspended, keys.revoked_at_ms, keys.last_used_at_ms,
           (SELECT hint FROM tokens WHERE tokens.key = keys.id AND grace_ends_at_ms IS NULL),
           keys.is_enforced,
           (SELECT created_at_ms FROM tokens WHERE tokens.key = keys.id AND grace_ends_at_ms IS NULL),
           (SELECT max(grace_ends_at_ms) FROM tokens WHERE tokens.key = keys.id),
           keys.replaces
    FROM keys";
