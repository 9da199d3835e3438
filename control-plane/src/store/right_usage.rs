//! When each right of a key was last needed.

use std::collections::BTreeMap;

use latchkey_protocol::Right;
use latchkey_protocol::lease::KeyUsage;
use rusqlite::{Connection, params};

use super::StoreError;
use super::changes::to_sql;

/// Rights of the keys of an account: key → right → when it was last needed, in milliseconds.
pub(crate) type LastUses = BTreeMap<String, BTreeMap<Right, i64>>;

/// Notes the rights that calls with a key took.
///
/// A right is written again once an hour only: that it is in use does not change with each call.
pub(super) fn add(connection: &Connection, usage: &KeyUsage) -> Result<(), StoreError> {
    let mut add = connection.prepare_cached(
        "INSERT INTO right_usage (account, key, right, last_used_at_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (account, key, right)
         DO UPDATE SET last_used_at_ms = excluded.last_used_at_ms
         WHERE excluded.last_used_at_ms >= last_used_at_ms + ?5",
    )?;
    let at_ms = to_sql(usage.last_used_at_ms);
    for right in &usage.rights {
        add.execute(params![usage.account, usage.key, right.to_string(), at_ms, RENEWED_MS])?;
    }
    Ok(())
}

/// Returns when the rights of an account's keys were last needed, from a moment on.
pub(crate) fn last_uses(
    connection: &Connection,
    account: &str,
    since_ms: i64,
) -> Result<LastUses, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key, right, last_used_at_ms FROM right_usage
         WHERE account = ?1 AND last_used_at_ms >= ?2",
    )?;
    let mut rows = statement.query(params![account, since_ms])?;
    let mut uses = LastUses::new();
    while let Some(row) = rows.next()? {
        let right: String = row.get(1)?;
        // What is no right was written by another release, and is none that a rule could have.
        if let Ok(right) = right.parse() {
            uses.entry(row.get(0)?).or_default().insert(right, row.get(2)?);
        }
    }
    Ok(uses)
}

/// Returns since when the use of rights is noted, in milliseconds.
pub(crate) fn start_ms(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("SELECT at_ms FROM right_usage_start", [], |row| row.get(0))?)
}

/// Drops what was not needed since a moment, at most so many rows; returns how many it were.
pub(super) fn drop_old(
    connection: &Connection,
    before_ms: i64,
    most: u32,
) -> Result<usize, StoreError> {
    let mut drop = connection.prepare_cached(
        "DELETE FROM right_usage WHERE (account, key, right) IN
           (SELECT account, key, right FROM right_usage WHERE last_used_at_ms < ?1 LIMIT ?2)",
    )?;
    Ok(drop.execute(params![before_ms, most])?)
}

/// Removes what is kept of an account.
pub(super) fn forget_account(connection: &Connection, account: &str) -> Result<(), StoreError> {
    connection.execute("DELETE FROM right_usage WHERE account = ?1", [account])?;
    Ok(())
}

/// How long a use counts as the last one, in milliseconds.
const RENEWED_MS: i64 = 3_600_000;
