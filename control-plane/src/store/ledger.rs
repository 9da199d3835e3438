//! What the ledger keeps: counters, leases, holders, usage per key.

use std::collections::{BTreeMap, BTreeSet};

use latchkey_protocol::lease::KeyUsage;
use latchkey_protocol::window::MAX_BUCKETS;
use latchkey_protocol::{Identity, Limit, Subject, Window};
use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, params};

use super::changes::to_sql;
use super::{StoreError, from_json, right_usage};
use crate::ledger::allowance::LONGEST_SILENCE_MS;
use crate::ledger::certain_time::CertainTime;
use crate::ledger::{Holder, Lease, Records, Standing};

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

    fn read_limits(&self, sql: &str, ids: impl Params) -> Result<Option<Vec<Limit>>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let json: Option<String> = statement.query_row(ids, |row| row.get(0)).optional()?;
        json.map(|json| from_json(&json)).transpose()
    }

    /// Returns the longest window by which calls of a subject count in buckets of a length, of those that
    /// it has or may get.
    fn longest(&self, subject: &Subject, seconds: u32) -> Result<Window, StoreError> {
        let buckets = match subject {
            // They may get another plan, whose windows look back.
            Subject::Account { .. } | Subject::Key { .. } => MAX_BUCKETS,
            // There are as many as someone likes to call from, and their limits hardly change.
            Subject::Address { .. } => {
                let limits = self.limits(subject)?.unwrap_or_default();
                let of_length =
                    limits.iter().filter(|limit| limit.bucket_seconds.max(1) == seconds);
                of_length.map(|limit| limit.buckets).max().unwrap_or(1)
            }
        };
        Ok(Window::new(seconds, buckets))
    }
}

impl Records for LedgerRecords<'_> {
    fn limits(&self, subject: &Subject) -> Result<Option<Vec<Limit>>, StoreError> {
        let limits = match subject {
            Subject::Account { account, .. } => {
                let mut statement = self.connection.prepare_cached(
                    "SELECT plans.limits, accounts.generation
                     FROM accounts JOIN plans ON plans.id = accounts.plan WHERE accounts.id = ?1",
                )?;
                let row = statement
                    .query_row([account], |row| Ok((row.get::<_, String>(0)?, from_sql(row, 1)?)));
                let row = row.optional()?;
                row.map(|(json, generation)| limits_of(&json, generation)).transpose()?
            }
            Subject::Key { account, key } => {
                let sql = "SELECT limits FROM keys WHERE id = ?1 AND account = ?2";
                self.read_limits(sql, params![key, account])?
            }
            Subject::Address { profile, .. } => match self.default_plans.get(&**profile) {
                Some(plan) => self.read_limits("SELECT limits FROM plans WHERE id = ?1", [plan])?,
                None => None,
            },
        };
        Ok(limits.map(|mut limits| {
            limits.retain(|limit| subject.is_counted_by(limit));
            limits
        }))
    }

    fn standing(
        &self,
        subject: &Subject,
        limits: &[Limit],
        now_ms: u64,
    ) -> Result<Standing, StoreError> {
        standing(self.connection, subject, limits, now_ms)
    }

    fn add_calls(
        &mut self,
        subject: &Subject,
        at_ms: u64,
        lengths: &BTreeSet<u32>,
        count: u64,
    ) -> Result<(), StoreError> {
        let subject_text = text(subject);
        let mut add = self.connection.prepare_cached(
            "INSERT INTO counters (subject, bucket_seconds, bucket, count, drops_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (subject, bucket_seconds, bucket)
             DO UPDATE SET count = count + excluded.count",
        )?;
        for &seconds in lengths {
            let longest = self.longest(subject, seconds)?;
            let bucket = longest.bucket(at_ms);
            let drops_at_ms = to_sql(longest.leaves_at_ms(bucket));
            let (bucket, count) = (to_sql(bucket), to_sql(count));
            add.execute(params![subject_text, seconds, bucket, count, drops_at_ms])?;
        }
        // Of keys there is a history of their own, and of addresses none is kept.
        if let Subject::Account { .. } = subject {
            let mut add = self.connection.prepare_cached(
                "INSERT INTO daily_counts (subject, day, count) VALUES (?1, ?2, ?3)
                 ON CONFLICT (subject, day) DO UPDATE SET count = count + excluded.count",
            )?;
            let day = to_sql(Window::new(DAY_SECONDS, 1).bucket(at_ms));
            add.execute(params![subject_text, day, to_sql(count)])?;
        }
        Ok(())
    }

    fn lease(&self, id: u64) -> Result<Option<(Subject, Lease)>, StoreError> {
        let mut statement =
            self.connection.prepare_cached(&format!("{SELECT_LEASE} WHERE id = ?1"))?;
        let mut rows = statement.query([to_sql(id)])?;
        rows.next()?.map(read_lease).transpose()
    }

    fn last_lease(&self) -> Result<u64, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'leases'")?;
        Ok(statement.query_row([], |row| from_sql(row, 0)).optional()?.unwrap_or_default())
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

    fn holder(&self, name: &str) -> Result<Option<Holder>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, seen_at_ms, credit_room, usage_room FROM holders WHERE name = ?1",
        )?;
        let read = |row: &Row<'_>| {
            Ok(Holder {
                sequence: from_sql(row, 0)?,
                seen_at_ms: from_sql(row, 1)?,
                credit_room: from_sql(row, 2)?,
                usage_room: from_sql(row, 3)?,
            })
        };
        Ok(statement.query_row([name], read).optional()?)
    }

    fn workers(&self, instance: &str) -> Result<u64, StoreError> {
        // A name ends with a slash and the worker's, and `0` is the character after it.
        let mut count = self
            .connection
            .prepare_cached("SELECT count(*) FROM holders WHERE name > ?1 AND name < ?2")?;
        let range = [format!("{instance}/"), format!("{instance}0")];
        Ok(count.query_row(range, |row| from_sql(row, 0))?)
    }

    fn put_holder(&mut self, name: &str, holder: &Holder) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO holders (name, sequence, seen_at_ms, credit_room, usage_room)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        statement.execute(params![
            name,
            to_sql(holder.sequence),
            to_sql(holder.seen_at_ms),
            to_sql(holder.credit_room),
            to_sql(holder.usage_room),
        ])?;
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
        if let Some(ends_at_ms) = usage.token_ends_at_ms {
            // A token is known by its end: that of the present one is its key's, if it has any.
            let mut touch = self.connection.prepare_cached(
                "UPDATE tokens SET last_used_at_ms = max(coalesce(last_used_at_ms, 0), ?3)
                 WHERE key = ?1 AND grace_ends_at_ms = ?2",
            )?;
            touch.execute(params![usage.key, to_sql(ends_at_ms), at_ms])?;
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
        right_usage::add(self.connection, usage)
    }
}

/// Returns a plan's limits as they hold for an account of a generation.
pub(super) fn limits_of(json: &str, generation: u64) -> Result<Vec<Limit>, StoreError> {
    let mut limits: Vec<Limit> = from_json(json)?;
    for limit in &mut limits {
        limit.generation = generation;
    }
    Ok(limits)
}

/// Returns up to when it is certain that time has come, as of a moment of the system's clock, so many
/// milliseconds of a steady one after it was last asked; keeps it.
pub(crate) fn certain_time(
    connection: &Connection,
    now_ms: u64,
    passed_ms: u64,
) -> Result<CertainTime, StoreError> {
    let before =
        connection.query_row("SELECT at_ms, ahead_since_ms FROM certain_time", [], |row| {
            let ahead_since_ms: Option<i64> = row.get(1)?;
            Ok(CertainTime {
                at_ms: from_sql(row, 0)?,
                ahead_since_ms: ahead_since_ms.map(i64::unsigned_abs),
            })
        })?;
    let time = before.advance(now_ms, passed_ms);
    connection.execute(
        "UPDATE certain_time SET at_ms = ?1, ahead_since_ms = ?2",
        params![to_sql(time.at_ms), time.ahead_since_ms.map(to_sql)],
    )?;
    Ok(time)
}

/// Returns the moment up to which it is certain that time has come, or a moment before it: what is deleted for
/// its age goes by that.
pub(super) fn certain_ms(connection: &Connection, now_ms: i64) -> Result<i64, StoreError> {
    let sql = "SELECT at_ms FROM certain_time";
    let certain_ms: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(certain_ms.min(now_ms))
}

/// Returns what a subject used and leased, as far as it counts for limits from a moment on.
pub(crate) fn standing(
    connection: &Connection,
    subject: &Subject,
    limits: &[Limit],
    now_ms: u64,
) -> Result<Standing, StoreError> {
    let subject = text(subject);
    let mut standing = Standing::default();
    let mut oldest: BTreeMap<u32, u64> = BTreeMap::new();
    for limit in limits {
        let window = limit.window();
        let first = window.oldest(window.bucket(now_ms));
        let known = oldest.entry(limit.bucket_seconds).or_insert(first);
        *known = first.min(*known);
    }
    let mut statement = connection.prepare_cached(
        "SELECT bucket, count FROM counters
         WHERE subject = ?1 AND bucket_seconds = ?2 AND bucket >= ?3",
    )?;
    for (seconds, oldest) in oldest {
        let counts = standing.counts.entry(seconds).or_default();
        let mut rows = statement.query(params![subject, seconds, to_sql(oldest)])?;
        while let Some(row) = rows.next()? {
            counts.insert(from_sql(row, 0)?, from_sql(row, 1)?);
        }
    }
    let sql = format!("{SELECT_LEASE} WHERE subject = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([&subject])?;
    while let Some(row) = rows.next()? {
        standing.leases.push(read_lease(row)?.1);
    }
    Ok(standing)
}

/// Returns an account's calls per day, by the day's number.
///
/// They are those that its limits counted, every call or each identity's apart; on days without
/// limits, those that its keys reported.
pub(crate) fn days(
    connection: &Connection,
    account: &str,
) -> Result<BTreeMap<u64, u64>, StoreError> {
    let read = |sql: &str, name: &str| -> Result<BTreeMap<u64, u64>, StoreError> {
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([name], |row| Ok((from_sql(row, 0)?, from_sql(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let counted = |identity: Option<Identity>| {
        let subject = Subject::Account { account: account.into(), identity };
        read("SELECT day, count FROM daily_counts WHERE subject = ?1", &text(&subject))
    };
    let mut apart = counted(Some(Identity::Key))?;
    for (day, count) in counted(Some(Identity::Oauth))? {
        *apart.entry(day).or_default() += count;
    }
    let by_keys = read(
        "SELECT bucket, sum(count) FROM key_usage
         WHERE account = ?1 AND bucket_seconds = 86400 GROUP BY bucket",
        account,
    )?;
    let mut days = counted(None)?;
    for (day, count) in apart.into_iter().chain(by_keys) {
        let most = days.entry(day).or_default();
        *most = count.max(*most);
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
         WHERE account = ?1 AND +bucket_seconds = ?2 AND +bucket >= ?3",
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

/// Drops what is too old at a moment that has certainly come, a part of it. Returns whether there is more to
/// drop.
pub(crate) fn drop_old(connection: &Connection, now_ms: u64) -> Result<bool, StoreError> {
    let bucket_before = |seconds: u32, days: u64| {
        let before_ms = now_ms.saturating_sub(days * u64::from(DAY_SECONDS) * 1000);
        to_sql(Window::new(seconds, 1).bucket(before_ms))
    };
    let seen_before = to_sql(now_ms.saturating_sub(KEPT_HOLDERS_MS));
    let mut is_more = false;
    let mut drop_some = |sql: &str, arguments: &[&dyn ToSql]| -> Result<(), StoreError> {
        let dropped = connection.prepare_cached(sql)?.execute(arguments)?;
        is_more |= u32::try_from(dropped).is_ok_and(|dropped| dropped >= MAX_SWEPT);
        Ok(())
    };
    drop_some(
        "DELETE FROM counters WHERE (subject, bucket_seconds, bucket) IN
           (SELECT subject, bucket_seconds, bucket FROM counters WHERE drops_at_ms < ?1 LIMIT ?2)",
        &[&to_sql(now_ms), &MAX_SWEPT],
    )?;
    drop_some(
        "DELETE FROM daily_counts WHERE (subject, day) IN
           (SELECT subject, day FROM daily_counts WHERE day < ?1 LIMIT ?2)",
        &[&bucket_before(DAY_SECONDS, KEPT_DAYS), &MAX_SWEPT],
    )?;
    for (seconds, days) in [(HOUR_SECONDS, KEPT_DAYS_BY_HOUR), (DAY_SECONDS, KEPT_DAYS)] {
        drop_some(
            "DELETE FROM key_usage WHERE (account, key, bucket_seconds, bucket) IN
               (SELECT account, key, bucket_seconds, bucket FROM key_usage
                WHERE bucket_seconds = ?1 AND bucket < ?2 LIMIT ?3)",
            &[&seconds, &bucket_before(seconds, days), &MAX_SWEPT],
        )?;
    }
    drop_some("DELETE FROM holders WHERE seen_at_ms < ?1", &[&seen_before])?;
    let dropped = right_usage::drop_old(connection, to_sql(now_ms), MAX_SWEPT)?;
    is_more |= u32::try_from(dropped).is_ok_and(|dropped| dropped >= MAX_SWEPT);
    Ok(is_more)
}

/// Removes all that is kept of an account's calls.
pub(super) fn forget_account(connection: &Connection, account: &str) -> Result<(), StoreError> {
    // A name ends with a blank, and `!` is the character after it.
    let ranges = [
        (format!("account {account}"), format!("account {account}")),
        (format!("account {account} "), format!("account {account}!")),
        (format!("key {account} "), format!("key {account}!")),
    ];
    for table in ["counters", "daily_counts", "leases"] {
        let sql = format!("DELETE FROM {table} WHERE subject BETWEEN ?1 AND ?2");
        for (first, last) in &ranges {
            connection.execute(&sql, [first, last])?;
        }
    }
    connection.execute("DELETE FROM key_usage WHERE account = ?1", [account])?;
    right_usage::forget_account(connection, account)
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
pub(super) fn text(subject: &Subject) -> String {
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

/// Returns a number that is not negative.
pub(super) fn from_sql(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
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

/// How long a silent holder is remembered: far longer than a message can be on its way, and as long as
/// what it may report grows.
const KEPT_HOLDERS_MS: u64 = LONGEST_SILENCE_MS;

/// Most rows of a table that are swept in one transaction, so that no call waits long for it.
const MAX_SWEPT: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Origin, Plan, Store, plans};

    const NOON: u64 = 1_800_000_000_000;
    const DAY_MS: u64 = 86_400_000;

    fn open() -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Store::open(folder.path()).unwrap(), folder)
    }

    fn subjects() -> [Subject; 2] {
        let profile = "fltr".into();
        let address = [192, 0, 2, 1].into();
        let account = Subject::Account { account: "acme".into(), identity: None };
        [account, Subject::Address { profile, address }]
    }

    /// A clock that was 400 days ahead for one sweep used to refill all limits.
    #[test]
    fn clock_that_leaps_ahead_and_back_drops_nothing() {
        let (store, _folder) = open();
        let [account, _] = subjects();
        let limit = Limit {
            name: "l".to_owned(),
            amount: 300,
            bucket_seconds: 3_600,
            buckets: 24,
            identity: None,
            generation: 0,
        };
        let sweep = |now_ms: u64, passed_ms: u64| {
            let swept = store.keep_ledger(|connection| {
                let certain = certain_time(connection, now_ms, passed_ms)?;
                drop_old(connection, certain.at_ms)
            });
            swept.unwrap();
        };
        let used = |now_ms: u64| {
            let limits = std::slice::from_ref(&limit);
            let standing = store.keep_ledger(|db| standing(db, &account, limits, now_ms));
            standing.unwrap().usage(&limit, now_ms).used
        };
        let calls = store.keep_ledger(|connection| {
            connection.execute("UPDATE certain_time SET at_ms = ?1", [to_sql(NOON)])?;
            let plans = BTreeMap::new();
            let mut records = LedgerRecords::new(connection, &plans);
            records.add_calls(&account, NOON, &[3_600].into(), 300)
        });
        calls.unwrap();
        for ahead_days in [400, 20, 5_000] {
            for (minute, passed_ms) in [(1, 60_000), (2, 60_000), (3, ahead_days * DAY_MS)] {
                sweep(NOON + ahead_days * DAY_MS + minute * 60_000, passed_ms);
            }
            sweep(NOON + 300_000, 60_000);
            assert_eq!(used(NOON + 300_000), 300, "{ahead_days}");
        }
        // In their time, they go.
        let later_ms = NOON + 16 * DAY_MS;
        let time_passes = store.keep_ledger(|connection| {
            Ok(connection.execute("UPDATE certain_time SET at_ms = ?1", [to_sql(later_ms)])?)
        });
        time_passes.unwrap();
        sweep(later_ms + 60_000, 60_000);
        let left = store.keep_ledger(|db| {
            Ok(db.query_row("SELECT count(*) FROM counters", [], |row| row.get::<_, i64>(0))?)
        });
        assert_eq!(left.unwrap(), 0);
    }

    /// Rows of anonymous addresses used to stay for 15 days, whatever their limit's window.
    #[tokio::test]
    async fn calls_of_addresses_are_kept_for_their_window_only() {
        let (store, _folder) = open();
        let [account, address] = subjects();
        let limit = |bucket_seconds: u32, buckets: u32| Limit {
            name: format!("l{bucket_seconds}"),
            amount: 300,
            bucket_seconds,
            buckets,
            identity: Some(Identity::Anonymous),
            generation: 0,
        };
        let plan = Plan {
            id: "p".to_owned(),
            name: "p".to_owned(),
            limits: vec![limit(3_600, 2), limit(60, 30), limit(1, 1)],
            max_user_keys: 1,
        };
        let origin = Origin::of("test", "");
        store.change(origin, move |change| plans::put(change, &plan)).await.unwrap();
        let plans = BTreeMap::from([("fltr".to_owned(), "p".to_owned())]);
        let kept = store.keep_ledger(|connection| {
            let mut records = LedgerRecords::new(connection, &plans);
            let lengths = [3_600, 60, 1, 7].into();
            records.add_calls(&address, NOON, &lengths, 1)?;
            records.add_calls(&account, NOON, &lengths, 1)?;
            let mut statement = connection
                .prepare("SELECT bucket_seconds, drops_at_ms FROM counters WHERE subject = ?1")?;
            let mut read = |subject: &Subject| -> Result<Vec<(u32, u64)>, StoreError> {
                let rows = statement.query_map([text(subject)], |row| {
                    Ok((row.get(0)?, from_sql(row, 1)? - NOON))
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            };
            Ok((read(&address)?, read(&account)?))
        });
        let (of_address, of_account) = kept.unwrap();
        assert_eq!(of_address, [(1, 1_000), (7, 6_000), (60, 1_800_000), (3_600, 7_200_000)]);
        assert!(of_account.iter().all(|(seconds, ms)| *ms > u64::from(*seconds) * 365_000));
    }

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
