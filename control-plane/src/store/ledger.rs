//! What the ledger keeps: counters, leases, holders, usage per key.

use std::collections::BTreeMap;

use latchkey_protocol::lease::KeyUsage;
use latchkey_protocol::{Identity, Limit, Subject, Window};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::changes::to_sql;
use super::{StoreError, from_json};
use crate::ledger::{BucketCalls, Lease, Records, Standing};

/// The ledger's records, as of one transaction.
pub(crate) struct LedgerRecords<'a> {
    connection: &'a Connection,
    /// Name of a profile → id of the plan whose limits count calls without a token.
    default_plans: &'a BTreeMap<String, String>,
}

impl<'a> LedgerRecords<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        default_plans: &'a BTreeMap<String, String>,
    ) -> Self {
        Self { connection, default_plans }
    }

    fn plan_limits(&self, sql: &str, id: &str) -> Result<Option<Vec<Limit>>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let json: Option<String> = statement.query_row([id], |row| row.get(0)).optional()?;
        json.map(|json| from_json(&json)).transpose()
    }
}

impl Records for LedgerRecords<'_> {
    fn limits(&self, subject: &Subject) -> Result<Option<Vec<Limit>>, StoreError> {
        let limits = match subject {
            Subject::Account { account, .. } => self.plan_limits(
                "SELECT plans.limits FROM accounts JOIN plans ON plans.id = accounts.plan
                 WHERE accounts.id = ?1",
                account,
            )?,
            Subject::Key { key, .. } => {
                self.plan_limits("SELECT limits FROM keys WHERE id = ?1", key)?
            }
            Subject::Address { profile, .. } => match self.default_plans.get(&**profile) {
                Some(plan) => self.plan_limits("SELECT limits FROM plans WHERE id = ?1", plan)?,
                None => None,
            },
        };
        Ok(limits.map(|mut limits| {
            limits.retain(|limit| subject.is_counted_by(limit));
            limits
        }))
    }

    fn standing(&self, subject: &Subject) -> Result<Standing, StoreError> {
        standing(self.connection, subject)
    }

    fn add_calls(&mut self, subject: &Subject, calls: &BucketCalls) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO counters (subject, bucket_seconds, bucket, count, leaves_at_ms, is_total)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (subject, bucket_seconds, bucket) DO UPDATE SET
               count = count + excluded.count, leaves_at_ms = excluded.leaves_at_ms,
               is_total = excluded.is_total",
        )?;
        statement.execute(params![
            text(subject),
            calls.bucket_seconds,
            to_sql(calls.bucket),
            to_sql(calls.count),
            to_sql(calls.leaves_at_ms),
            calls.is_total,
        ])?;
        Ok(())
    }

    fn lease(&self, id: u64) -> Result<Option<(Subject, Lease)>, StoreError> {
        let mut statement =
            self.connection.prepare_cached(&format!("{SELECT_LEASE} WHERE id = ?1"))?;
        let mut rows = statement.query([to_sql(id)])?;
        rows.next()?.map(read_lease).transpose()
    }

    fn last_lease(&self) -> Result<u64, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT coalesce(max(id), 0) FROM leases")?;
        Ok(statement.query_row([], |row| from_sql(row, 0))?)
    }

    fn expired_leases(&self, before_ms: u64) -> Result<Vec<(Subject, Lease)>, StoreError> {
        let sql = format!("{SELECT_LEASE} WHERE expires_at_ms < ?1 LIMIT ?2");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![to_sql(before_ms), MAX_SWEPT])?;
        let mut leases = Vec::new();
        while let Some(row) = rows.next()? {
            leases.push(read_lease(row)?);
        }
        Ok(leases)
    }

    fn put_lease(&mut self, subject: &Subject, lease: &Lease) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO leases
               (id, subject, holder, sequence, amount, spent, starts_at_ms, expires_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        statement.execute(params![
            to_sql(lease.id),
            text(subject),
            lease.holder,
            to_sql(lease.sequence),
            to_sql(lease.amount),
            to_sql(lease.spent),
            to_sql(lease.starts_at_ms),
            to_sql(lease.expires_at_ms),
        ])?;
        Ok(())
    }

    fn remove_lease(&mut self, id: u64) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("DELETE FROM leases WHERE id = ?1")?
            .execute([to_sql(id)])?;
        Ok(())
    }

    fn sequence(&self, holder: &str) -> Result<u64, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT sequence FROM holders WHERE name = ?1")?;
        let sequence = statement.query_row([holder], |row| from_sql(row, 0)).optional()?;
        Ok(sequence.unwrap_or_default())
    }

    fn put_sequence(&mut self, holder: &str, sequence: u64, now_ms: u64) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO holders (name, sequence, seen_at_ms) VALUES (?1, ?2, ?3)",
        )?;
        statement.execute(params![holder, to_sql(sequence), to_sql(now_ms)])?;
        Ok(())
    }

    fn add_key_usage(&mut self, usage: &KeyUsage) -> Result<(), StoreError> {
        let mut touch = self.connection.prepare_cached(
            "UPDATE keys SET last_used_at_ms = max(coalesce(last_used_at_ms, 0), ?3)
             WHERE id = ?2 AND account = ?1",
        )?;
        let at_ms = to_sql(usage.last_used_at_ms);
        if touch.execute(params![usage.account, usage.key, at_ms])? == 0 {
            // The account was removed since.
            return Ok(());
        }
        let mut add = self.connection.prepare_cached(
            "INSERT INTO key_usage (account, key, bucket_seconds, bucket, count)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (account, key, bucket_seconds, bucket)
             DO UPDATE SET count = count + excluded.count",
        )?;
        for seconds in [HOUR_SECONDS, DAY_SECONDS] {
            let bucket = to_sql(Window::new(seconds, 1).bucket(usage.last_used_at_ms));
            let count = to_sql(usage.count);
            add.execute(params![usage.account, usage.key, seconds, bucket, count])?;
        }
        Ok(())
    }
}

/// Returns what a subject used and leased.
pub(crate) fn standing(connection: &Connection, subject: &Subject) -> Result<Standing, StoreError> {
    let subject = text(subject);
    let mut standing = Standing::default();
    let mut statement = connection
        .prepare_cached("SELECT bucket_seconds, bucket, count FROM counters WHERE subject = ?1")?;
    let mut rows = statement.query([&subject])?;
    while let Some(row) = rows.next()? {
        let counts = standing.counts.entry(row.get(0)?).or_default();
        counts.insert(from_sql(row, 1)?, from_sql(row, 2)?);
    }
    let sql = format!("{SELECT_LEASE} WHERE subject = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([&subject])?;
    while let Some(row) = rows.next()? {
        standing.leases.push(read_lease(row)?.1);
    }
    Ok(standing)
}

/// Returns an account's calls per day, by the day's number, oldest first.
///
/// They are those that its limits count; of an account without limits, those that its keys report.
pub(crate) fn days(
    connection: &Connection,
    account: &str,
    limits: &[Limit],
) -> Result<BTreeMap<u64, u64>, StoreError> {
    let mut days = BTreeMap::new();
    let mut add = |sql: &str, name: &str| -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([name])?;
        while let Some(row) = rows.next()? {
            *days.entry(from_sql(row, 0)?).or_default() += from_sql(row, 1)?;
        }
        Ok(())
    };
    let counts = |identity: &Option<Identity>| limits.iter().any(|l| l.identity == *identity);
    // What counts every call counts those of each identity too.
    let all = [None, Some(Identity::Key), Some(Identity::Oauth)];
    let identities = if counts(&None) { &all[..1] } else { &all[1..] };
    let mut is_counted = false;
    for identity in identities.iter().filter(|identity| counts(identity)) {
        is_counted = true;
        let subject = Subject::Account { account: account.into(), identity: *identity };
        add("SELECT day, count FROM daily_counts WHERE subject = ?1", &text(&subject))?;
        add(
            "SELECT bucket * bucket_seconds / 86400, count FROM counters
             WHERE subject = ?1 AND is_total",
            &text(&subject),
        )?;
    }
    if !is_counted {
        add(
            "SELECT bucket, count FROM key_usage WHERE account = ?1 AND bucket_seconds = 86400",
            account,
        )?;
    }
    Ok(days)
}

/// Returns the calls per bucket of each key of an account, from a bucket on: key → bucket → count.
pub(crate) fn key_usage(
    connection: &Connection,
    account: &str,
    bucket_seconds: u32,
    oldest: u64,
) -> Result<BTreeMap<String, BTreeMap<u64, u64>>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT key, bucket, count FROM key_usage
         WHERE account = ?1 AND bucket_seconds = ?2 AND bucket >= ?3",
    )?;
    let mut rows = statement.query(params![account, bucket_seconds, to_sql(oldest)])?;
    let mut usage: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        usage.entry(row.get(0)?).or_default().insert(from_sql(row, 1)?, from_sql(row, 2)?);
    }
    Ok(usage)
}

/// Returns the number of calls leased out and not reported yet, by holder.
pub(crate) fn outstanding(connection: &Connection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT holder, sum(max(amount - spent, 0)) FROM leases GROUP BY holder")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, from_sql(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes daily sums of counters that have left their windows, and drops what is too old. Returns
/// whether there is more to do.
pub(crate) fn compact(connection: &Connection, now_ms: u64) -> Result<bool, StoreError> {
    // A counter that leaves now may still get what a slow holder reports.
    let before_ms = to_sql(now_ms.saturating_sub(COMPACT_AFTER_MS));
    connection.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS leaving (
           subject TEXT, bucket_seconds INTEGER, bucket INTEGER, count INTEGER, is_total INTEGER);
         DELETE FROM leaving;",
    )?;
    let leaving = connection.execute(
        "INSERT INTO leaving SELECT subject, bucket_seconds, bucket, count, is_total FROM counters
         WHERE leaves_at_ms < ?1 LIMIT ?2",
        params![before_ms, MAX_SWEPT],
    )?;
    // Of addresses no history is kept.
    connection.execute_batch(
        "INSERT INTO daily_counts (subject, day, count)
           SELECT subject, bucket * bucket_seconds / 86400, sum(count) FROM leaving
           WHERE is_total AND subject NOT GLOB 'address *' GROUP BY 1, 2
           ON CONFLICT (subject, day) DO UPDATE SET count = count + excluded.count;
         DELETE FROM counters WHERE (subject, bucket_seconds, bucket) IN
           (SELECT subject, bucket_seconds, bucket FROM leaving);",
    )?;
    let day = Window::new(DAY_SECONDS, 1).bucket(now_ms);
    let oldest_day = to_sql(day.saturating_sub(KEPT_DAYS));
    connection.execute("DELETE FROM daily_counts WHERE day < ?1", [oldest_day])?;
    for (seconds, days) in [(HOUR_SECONDS, KEPT_DAYS_BY_HOUR), (DAY_SECONDS, KEPT_DAYS)] {
        let oldest_ms = now_ms.saturating_sub(days * u64::from(DAY_SECONDS) * 1000);
        let oldest = to_sql(Window::new(seconds, 1).bucket(oldest_ms));
        connection.execute(
            "DELETE FROM key_usage WHERE bucket_seconds = ?1 AND bucket < ?2",
            params![seconds, oldest],
        )?;
    }
    connection.execute(
        "DELETE FROM holders WHERE seen_at_ms < ?1",
        [to_sql(now_ms.saturating_sub(KEPT_HOLDERS_MS))],
    )?;
    Ok(i64::try_from(leaving).is_ok_and(|count| count >= MAX_SWEPT))
}

/// Removes all that is kept of an account's calls.
pub(super) fn forget_account(connection: &Connection, account: &str) -> Result<(), StoreError> {
    for (table, column) in
        [("counters", "subject"), ("daily_counts", "subject"), ("leases", "subject")]
    {
        let sql = format!(
            "DELETE FROM {table} WHERE {column} = 'account ' || ?1
               OR {column} GLOB 'account ' || ?1 || ' *' OR {column} GLOB 'key ' || ?1 || ' *'"
        );
        connection.execute(&sql, [account])?;
    }
    connection.execute("DELETE FROM key_usage WHERE account = ?1", [account])?;
    Ok(())
}

fn read_lease(row: &Row<'_>) -> Result<(Subject, Lease), StoreError> {
    let subject: String = row.get(1)?;
    let lease = Lease {
        id: from_sql(row, 0)?,
        holder: row.get(2)?,
        sequence: from_sql(row, 3)?,
        amount: from_sql(row, 4)?,
        spent: from_sql(row, 5)?,
        starts_at_ms: from_sql(row, 6)?,
        expires_at_ms: from_sql(row, 7)?,
    };
    Ok((parse(&subject).ok_or(StoreError::Subject(subject))?, lease))
}

/// Returns a subject's name in the store; no part of it holds a blank.
fn text(subject: &Subject) -> String {
    match subject {
        Subject::Account { account, identity: None } => format!("account {account}"),
        Subject::Account { account, identity: Some(identity) } => {
            let identity = IDENTITIES.iter().find(|(known, _)| known == identity);
            format!("account {account} {}", identity.map_or("", |(_, name)| name))
        }
        Subject::Key { account, key } => format!("key {account} {key}"),
        Subject::Address { profile, address } => format!("address {profile} {address}"),
    }
}

fn parse(text: &str) -> Option<Subject> {
    let parts: Vec<&str> = text.split(' ').collect();
    match *parts.as_slice() {
        ["account", account] => Some(Subject::Account { account: account.into(), identity: None }),
        ["account", account, name] => {
            let (identity, _) = IDENTITIES.iter().find(|(_, known)| *known == name)?;
            Some(Subject::Account { account: account.into(), identity: Some(*identity) })
        }
        ["key", account, key] => Some(Subject::Key { account: account.into(), key: key.into() }),
        ["address", profile, address] => {
            Some(Subject::Address { profile: profile.into(), address: address.parse().ok()? })
        }
        _ => None,
    }
}

fn from_sql(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

const IDENTITIES: [(Identity, &str); 3] =
    [(Identity::Anonymous, "anonymous"), (Identity::Key, "key"), (Identity::Oauth, "oauth")];

const SELECT_LEASE: &str = "
    SELECT id, subject, holder, sequence, amount, spent, starts_at_ms, expires_at_ms FROM leases";

/// Bucket lengths in which the usage of keys is counted.
pub(crate) const HOUR_SECONDS: u32 = 3_600;
pub(crate) const DAY_SECONDS: u32 = 86_400;

/// Days for which daily sums are kept: 13 months.
const KEPT_DAYS: u64 = 396;

/// Days for which the hours of keys are kept.
const KEPT_DAYS_BY_HOUR: u64 = 3;

/// How long after a counter has left its window it is made part of a daily sum.
const COMPACT_AFTER_MS: u64 = 120_000;

/// How long a silent holder's number is kept: far longer than a message can be on its way.
const KEPT_HOLDERS_MS: u64 = 86_400_000;

/// Most rows that are swept in one transaction, so that no call waits long for it.
const MAX_SWEPT: i64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_is_read_as_it_was_written() {
        for subject in [
            Subject::Account { account: "acme".into(), identity: None },
            Subject::Account { account: "acme".into(), identity: Some(Identity::Oauth) },
            Subject::Key { account: "acme".into(), key: "key_1".into() },
            Subject::Address { profile: "fltr".into(), address: "2001:db8::".parse().unwrap() },
        ] {
            assert_eq!(parse(&text(&subject)), Some(subject));
        }
        for text in ["", "account", "account a b", "address fltr x", "key a"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
