//! Corrections of usage, where what was counted is not what was used.

use latchkey_protocol::{Limit, Subject, Window};
use rusqlite::{OptionalExtension, params};
use serde_json::json;

use super::changes::to_sql;
use super::ledger::{DAY_SECONDS, from_sql, standing, text};
use super::{Change, StoreError, accounts, from_json, keys, plans, to_json};

/// What is to count as used of a limit.
#[derive(Debug)]
pub(crate) struct Correction {
    /// Id of the key of whose own limit it is; none for one of the account's plan.
    pub(crate) key: Option<String>,
    /// Name of the limit.
    pub(crate) limit: String,
    /// Calls that count in its window from now on.
    pub(crate) used: u64,
    /// Why, for the audit log.
    pub(crate) reason: String,
}

/// Sets what counts as used of a limit, in force in all proxies as soon as they hear of it.
///
/// What is too much is taken from the newest buckets first, as what was reported wrongly was so lately; what
/// is missing is added to the current one. Limits with buckets of the same length count the same calls, so
/// they are corrected together. What is leased at the moment comes on top.
///
/// # Errors
///
/// If there is no such account, key or limit; nothing is changed then.
pub(crate) fn correct(
    change: &mut Change<'_>,
    account: &str,
    correction: &Correction,
) -> Result<(), StoreError> {
    let (subject, limit) = find(change, account, correction)?;
    let window = limit.window();
    let now_ms = change.now_ms.unsigned_abs();
    let current = window.bucket(now_ms);
    let counted = standing(&change.transaction, &subject, std::slice::from_ref(&limit), now_ms)?;
    let counts = counted.counts.get(&limit.bucket_seconds).cloned().unwrap_or_default();
    let before = counts.values().fold(0_u64, |sum, count| sum.saturating_add(*count));

    let mut surplus = before.saturating_sub(correction.used);
    for (&bucket, &count) in counts.iter().rev() {
        let taken = surplus.min(count);
        surplus -= taken;
        if taken > 0 {
            add(change, &subject, &limit, bucket, -to_sql(taken))?;
        }
    }
    let missing = correction.used.saturating_sub(before);
    if missing > 0 {
        add(change, &subject, &limit, current, to_sql(missing))?;
    }
    let details = json!({
        "limit": limit.name, "key": correction.key, "before": before, "after": correction.used,
        "reason": correction.reason,
    });
    change.audit(Some(account), "usage.correct", account, &details)?;
    renew(change, account, correction.key.as_deref())
}

/// Returns whose calls a limit counts, and the limit.
fn find(
    change: &Change<'_>,
    account: &str,
    correction: &Correction,
) -> Result<(Subject, Limit), StoreError> {
    let account = accounts::get(&change.transaction, account)?;
    let limits = match &correction.key {
        Some(key) => match keys::get(&change.transaction, &account.id, key, change.now_ms) {
            Ok(key) => key.limits,
            Err(StoreError::NotFound { .. }) => {
                let message = format!("expected the id of a key of the account, found `{key}`");
                return Err(StoreError::Field { field: "key", message });
            }
            Err(error) => return Err(error),
        },
        None => plans::get(&change.transaction, &account.plan)?.limits,
    };
    let names: Vec<String> = limits.iter().map(|limit| format!("`{}`", limit.name)).collect();
    let Some(limit) = limits.into_iter().find(|limit| limit.name == correction.limit) else {
        let expected = if names.is_empty() {
            "no limit: there is none".to_owned()
        } else {
            format!("one of {}", names.join(", "))
        };
        let message = format!("expected {expected}, found `{}`", correction.limit);
        return Err(StoreError::Field { field: "limit", message });
    };
    let subject = match &correction.key {
        Some(key) => Subject::Key { account: account.id.as_str().into(), key: key.as_str().into() },
        None => Subject::Account { account: account.id.as_str().into(), identity: limit.identity },
    };
    Ok((subject, limit))
}

/// Adds calls to a bucket, or takes them from it; the day's sum goes along where it is by that limit.
fn add(
    change: &Change<'_>,
    subject: &Subject,
    limit: &Limit,
    bucket: u64,
    calls: i64,
) -> Result<(), StoreError> {
    let subject = text(subject);
    let longest = Window::new(limit.bucket_seconds, latchkey_protocol::window::MAX_BUCKETS);
    change.transaction.execute(
        "INSERT INTO counters (subject, bucket_seconds, bucket, count, drops_at_ms)
         VALUES (?1, ?2, ?3, max(?4, 0), ?5)
         ON CONFLICT (subject, bucket_seconds, bucket) DO UPDATE SET count = max(count + ?4, 0)",
        params![
            subject,
            limit.bucket_seconds,
            to_sql(bucket),
            calls,
            to_sql(longest.leaves_at_ms(bucket))
        ],
    )?;
    // Throttles count the same calls once more.
    let is_longest: bool = change.transaction.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM counters WHERE subject = ?1 AND bucket_seconds > ?2)",
        params![subject, limit.bucket_seconds],
        |row| row.get(0),
    )?;
    if is_longest {
        let day = Window::new(DAY_SECONDS, 1).bucket(longest.starts_at_ms(bucket));
        change.transaction.execute(
            "UPDATE daily_counts SET count = max(count + ?3, 0) WHERE subject = ?1 AND day = ?2",
            params![subject, to_sql(day), calls],
        )?;
    }
    Ok(())
}

/// Lets proxies forget what they were told of limits: that they are used up, for instance.
fn renew(change: &mut Change<'_>, account: &str, key: Option<&str>) -> Result<(), StoreError> {
    let generation = next_generation(change, account)?;
    let Some(key) = key else {
        change.transaction.execute(
            "UPDATE accounts SET generation = ?2 WHERE id = ?1",
            params![account, to_sql(generation)],
        )?;
        change.touched_accounts.push(account.to_owned());
        return Ok(());
    };
    let sql = "SELECT limits FROM keys WHERE id = ?1";
    let limits: String = change.transaction.query_row(sql, [key], |row| row.get(0))?;
    let mut limits: Vec<Limit> = from_json(&limits)?;
    for limit in &mut limits {
        limit.generation = generation;
    }
    change
        .transaction
        .execute("UPDATE keys SET limits = ?2 WHERE id = ?1", params![key, to_json(&limits)?])?;
    keys::touch(change, key)
}

/// Returns a number that no generation of an account, or of a former one of its id, has had: that of its
/// last entry in the audit log, if there is any.
pub(super) fn next_generation(change: &Change<'_>, account: &str) -> Result<u64, StoreError> {
    let sql = "SELECT id FROM audit WHERE account = ?1 ORDER BY id DESC LIMIT 1";
    let last = change.transaction.query_row(sql, [account], |row| from_sql(row, 0)).optional()?;
    Ok(last.unwrap_or_default())
}
