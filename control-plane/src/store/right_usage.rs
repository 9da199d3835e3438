//! When each right of a key was last needed.

use std::collections::{BTreeMap, HashMap};

use latchkey_protocol::Right;
use latchkey_protocol::lease::KeyUsage;
use rusqlite::{Connection, params};

use super::StoreError;
use super::changes::to_sql;

/// What is known of how a key's rights were used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Right → when it was last needed, to the hour, in milliseconds.
    pub(crate) last: BTreeMap<Right, i64>,
    /// Last time of calls of which it is not known what they needed, in milliseconds.
    pub(crate) unknown_at_ms: Option<i64>,
}

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
    let mut put = |right: String| {
        add.execute(params![usage.account, usage.key, right, at_ms, RENEWED_MS]).map(drop)
    };
    match &usage.rights {
        Some(rights) => {
            for right in rights {
                put(right.to_string())?;
            }
        }
        None => put(UNKNOWN.to_owned())?,
    }
    Ok(())
}

/// Returns how the rights of an account's keys were used, by key, from a moment on; to the hour.
pub(crate) fn uses(
    connection: &Connection,
    account: &str,
    since_ms: i64,
) -> Result<HashMap<String, Uses>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key, right, last_used_at_ms FROM right_usage
         WHERE account = ?1 AND last_used_at_ms > ?2",
    )?;
    let mut rows = statement.query(params![account, since_ms.saturating_sub(RENEWED_MS)])?;
    let mut uses: HashMap<String, Uses> = HashMap::new();
    while let Some(row) = rows.next()? {
        let of_key = uses.entry(row.get(0)?).or_default();
        let (right, at_ms): (String, i64) = (row.get(1)?, row.get(2)?);
        if right == UNKNOWN {
            of_key.unknown_at_ms = Some(at_ms.saturating_add(RENEWED_MS));
        } else if let Ok(right) = right.parse() {
            of_key.last.insert(right, at_ms);
        }
    }
    Ok(uses)
}

/// Returns since when the use of rights is noted, in milliseconds.
pub(crate) fn start_ms(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.query_row("SELECT at_ms FROM right_usage_start", [], |row| row.get(0))?)
}

/// Drops what was not needed for longer than anybody asks, at most so many rows; returns how many it
/// were.
pub(super) fn drop_old(
    connection: &Connection,
    now_ms: i64,
    most: u32,
) -> Result<usize, StoreError> {
    let mut drop = connection.prepare_cached(
        "DELETE FROM right_usage WHERE (account, key, right) IN
           (SELECT account, key, right FROM right_usage WHERE last_used_at_ms < ?1 LIMIT ?2)",
    )?;
    Ok(drop.execute(params![now_ms.saturating_sub(UNUSED_MS + 2 * RENEWED_MS), most])?)
}

/// Removes what is kept of an account.
pub(super) fn forget_account(connection: &Connection, account: &str) -> Result<(), StoreError> {
    connection.execute("DELETE FROM right_usage WHERE account = ?1", [account])?;
    Ok(())
}

/// How long a right may go unused before it counts as unused, in milliseconds: 30 days.
pub(crate) const UNUSED_MS: i64 = 30 * 86_400_000;

/// How long a use counts as the last one, in milliseconds.
pub(crate) const RENEWED_MS: i64 = 3_600_000;

/// Stands for rights that a holder did not tell; no right has this name.
const UNKNOWN: &str = "";

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn store() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        for migration in super::super::MIGRATIONS {
            connection.execute_batch(migration).unwrap();
        }
        connection
    }

    fn usage(account: &str, rights: Option<&[&str]>, at_ms: i64) -> KeyUsage {
        KeyUsage {
            account: account.into(),
            key: "key_1".into(),
            last_used_at_ms: at_ms.unsigned_abs(),
            count: 1,
            rights: rights
                .map(|rights| rights.iter().map(|right| right.parse().unwrap()).collect()),
            token_ends_at_ms: None,
        }
    }

    fn last(connection: &Connection, since_ms: i64) -> Vec<(String, i64)> {
        let uses = uses(connection, "acme", since_ms).unwrap().remove("key_1").unwrap_or_default();
        uses.last.into_iter().map(|(right, at_ms)| (right.to_string(), at_ms)).collect()
    }

    #[test]
    fn use_counts_from_the_moment_that_is_asked_for() {
        let store = store();
        let start = 1_000 * HOUR_MS;
        let end = start + UNUSED_MS;
        // Of the second use only the first one is written, and it counts for an hour.
        for at_ms in [start - HOUR_MS / 2, start + HOUR_MS / 3] {
            add(&store, &usage("acme", Some(&["posts:read"]), at_ms)).unwrap();
        }
        assert_eq!(last(&store, start), [("posts:read".to_owned(), start - HOUR_MS / 2)]);
        assert_eq!(last(&store, start + HOUR_MS), []);
        add(&store, &usage("acme", Some(&["posts:read"]), start + HOUR_MS)).unwrap();
        assert_eq!(last(&store, start + HOUR_MS), [("posts:read".to_owned(), start + HOUR_MS)]);
        // Another worker tells later what was earlier.
        add(&store, &usage("acme", Some(&["posts:read", "tags:read"]), start)).unwrap();
        assert_eq!(last(&store, start).len(), 2);
        assert_eq!(last(&store, start + HOUR_MS), [("posts:read".to_owned(), start + HOUR_MS)]);
        assert_eq!(drop_old(&store, end + 2 * HOUR_MS, 10).unwrap(), 0);
        assert_eq!(drop_old(&store, end + 2 * HOUR_MS + 1, 10).unwrap(), 1);
        assert_eq!(last(&store, start).len(), 1);
    }

    #[test]
    fn calls_of_which_the_rights_are_not_told_are_remembered() {
        let store = store();
        add(&store, &usage("acme", None, 5 * HOUR_MS)).unwrap();
        add(&store, &usage("acme", Some(&[]), 9 * HOUR_MS)).unwrap();
        let uses_of_key = uses(&store, "acme", 0).unwrap().remove("key_1").unwrap();
        assert_eq!(uses_of_key.unknown_at_ms, Some(6 * HOUR_MS));
        assert!(uses_of_key.last.is_empty());
    }

    #[test]
    fn account_that_is_removed_is_forgotten() {
        let store = store();
        for account in ["acme", "other"] {
            add(&store, &usage(account, Some(&["posts:read"]), 1)).unwrap();
        }
        forget_account(&store, "acme").unwrap();
        assert_eq!(last(&store, 0), []);
        assert_eq!(uses(&store, "other", 0).unwrap().len(), 1);
    }
}
