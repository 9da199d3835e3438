//! The change log, and what filters get from it.

use std::collections::{BTreeMap, BTreeSet};

use latchkey_filter::profile::Profile;
use latchkey_protocol::{Identity, KeyHash, Limit, Revision};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ledger::from_sql;
use super::usable_tokens::{self, AccountRow, Sets, TokenRow};
use super::{Change, StoreError, resources};
use crate::time::Time;

/// What changed after a revision.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The revision is not in this log, or too much has changed at once: a snapshot is due.
    Gap,
    /// Tokens and accounts to look at again.
    Some(Changes),
}

/// Tokens and accounts to look at again, as of a revision.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The revision up to which they are: the last one, unless there is more.
    pub(crate) revision: Revision,
    /// Whether there are changes after that.
    pub(crate) is_cut: bool,
    /// Tokens that are usable.
    pub(crate) usable: Vec<TokenRow>,
    /// Those that are not.
    pub(crate) removed: Vec<KeyHash>,
    /// Accounts whose limits or resources may be others.
    pub(crate) accounts: Vec<AccountRow>,
    /// Accounts that there are no longer.
    pub(crate) removed_accounts: Vec<String>,
    /// Limits of each client address that calls without a token.
    pub(crate) anonymous_limits: Vec<Limit>,
}

/// Returns the last revision.
pub(super) fn last(connection: &Connection) -> Result<Revision, StoreError> {
    Ok(last_with_time(connection)?.0)
}

pub(super) fn last_with_time(connection: &Connection) -> Result<(Revision, i64), StoreError> {
    let sql = "SELECT revision, mark, at_ms FROM changes ORDER BY revision DESC LIMIT 1";
    let (revision, at_ms): (Revision, i64) =
        connection.query_row(sql, [], |row| Ok((read_revision(row)?, row.get(2)?)))?;
    // The clock may have been ahead then; what it made expire has not.
    Ok((revision, at_ms.min(Time::now().as_ms())))
}

/// Appends a change with all that it touches, and returns its number.
pub(super) fn append(change: &Change<'_>) -> Result<u64, StoreError> {
    let transaction = &change.transaction;
    transaction.execute(
        "INSERT INTO changes (revision, mark, at_ms)
         SELECT max(revision) + 1, random(), ?1 FROM changes",
        [change.now_ms],
    )?;
    let number = last(transaction)?.number;
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO changed_tokens (revision, profile, hash) VALUES (?1, ?2, ?3)",
    )?;
    for (profile, hash) in &change.touched {
        insert.execute(params![to_sql(number), profile, hash])?;
    }
    for (table, column, touched) in [
        ("changed_accounts", "account", &change.touched_accounts),
        ("changed_plans", "plan", &change.touched_plans),
    ] {
        let sql = format!("INSERT OR IGNORE INTO {table} (revision, {column}) VALUES (?1, ?2)");
        for id in touched {
            transaction.prepare_cached(&sql)?.execute(params![to_sql(number), id])?;
        }
    }
    usable_tokens::keep(transaction, &change.touched)?;
    let oldest = to_sql(number.saturating_sub(KEPT_CHANGES));
    transaction.execute("DELETE FROM changes WHERE revision < ?1", [oldest])?;
    Ok(number)
}

/// Notes that filters have to look at a token again.
#[cfg(test)]
pub(crate) fn touch(change: &mut Change<'_>, profile: &str, hash: &KeyHash) {
    change.touched.push((profile.to_owned(), hash.as_bytes().to_vec()));
}

/// Returns what changed for a profile after a revision; of very much, the first part.
pub(crate) fn changed_since(
    connection: &Connection,
    profile: &Profile,
    after: Revision,
) -> Result<Changed, StoreError> {
    let (last, at_ms) = last_with_time(connection)?;
    if find_revision(connection, after.number)? != Some(after) {
        return Ok(Changed::Gap);
    }
    let Some((upto, hashes)) = changed_tokens(connection, profile, after.number, last.number)?
    else {
        return Ok(Changed::Gap);
    };
    let Some(revision) = find_revision(connection, upto)? else {
        return Ok(Changed::Gap);
    };
    let mut sets = Sets::default();
    let mut accounts = Vec::new();
    // By the accounts that are named, not by all of the profile: hence the `+`.
    let mut statement = connection.prepare_cached(
        "WITH named AS (
           SELECT account FROM changed_accounts WHERE revision > ?1 AND revision <= ?2
         )
         SELECT accounts.id, plans.limits, accounts.id IN named AS itself, accounts.generation
         FROM accounts JOIN plans ON plans.id = accounts.plan
         WHERE +accounts.profile = ?3
           AND (accounts.id IN named OR accounts.plan IN (
             SELECT plan FROM changed_plans WHERE revision > ?1 AND revision <= ?2))
         LIMIT ?4",
    )?;
    let (from, to) = (to_sql(after.number), to_sql(upto));
    let mut rows = statement.query(params![from, to, profile.name, MAX_AT_ONCE + 1])?;
    while let Some(row) = rows.next()? {
        let (id, itself): (String, bool) = (row.get(0)?, row.get(2)?);
        let resources = if itself { Some(resources::all(connection, &id)?) } else { None };
        accounts.push(AccountRow {
            id,
            limits: sets.limits(&row.get::<_, String>(1)?, from_sql(row, 3)?)?,
            resources,
        });
    }
    if accounts.len() > usize::try_from(MAX_AT_ONCE).unwrap_or(usize::MAX) {
        return Ok(Changed::Gap);
    }
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT account FROM changed_accounts
         WHERE revision > ?1 AND revision <= ?2 AND account NOT IN (SELECT id FROM accounts)",
    )?;
    let gone = statement.query_map(params![from, to], |row| row.get(0))?;
    let removed_accounts = gone.collect::<Result<_, _>>()?;

    let (usable, removed) = usable_tokens::find(connection, profile, at_ms, hashes, &mut sets)?;
    Ok(Changed::Some(Changes {
        revision,
        is_cut: upto < last.number,
        usable,
        removed,
        accounts,
        removed_accounts,
        anonymous_limits: anonymous_limits(connection, profile)?,
    }))
}

/// Returns which tokens changed after a revision, and up to which one: the last, or where there are
/// enough for one delta; none if one change alone has too many.
fn changed_tokens(
    connection: &Connection,
    profile: &Profile,
    after: u64,
    last: u64,
) -> Result<Option<(u64, BTreeSet<KeyHash>)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT revision, hash FROM changed_tokens WHERE revision > ?1 AND profile = ?2
         ORDER BY revision LIMIT ?3",
    )?;
    let mut rows = statement.query(params![to_sql(after), profile.name, MAX_AT_ONCE + 1])?;
    let mut by_revision: BTreeMap<u64, Vec<KeyHash>> = BTreeMap::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let revision = row.get::<_, i64>(0)?.unsigned_abs();
        by_revision.entry(revision).or_default().push(read_hash(row, 1)?);
        count += 1;
    }
    if count > MAX_AT_ONCE {
        // The last of them may have more.
        by_revision.pop_last();
    }
    let (mut upto, mut hashes) = (None, BTreeSet::new());
    for (revision, changed) in by_revision {
        if upto.is_some() && hashes.len() + changed.len() > ENOUGH {
            return Ok(upto.map(|upto| (upto, hashes)));
        }
        hashes.extend(changed);
        upto = Some(revision);
    }
    let upto = if count > MAX_AT_ONCE { upto } else { Some(last) };
    Ok(upto.map(|upto| (upto, hashes)))
}

/// Returns the revision of a number, if this log has it.
pub(crate) fn find_revision(
    connection: &Connection,
    number: u64,
) -> Result<Option<Revision>, StoreError> {
    let sql = "SELECT revision, mark FROM changes WHERE revision = ?1";
    Ok(connection.query_row(sql, [to_sql(number)], read_revision).optional()?)
}

/// Returns the limits of each client address that calls without a token: those of the profile's
/// default plan that say so.
pub(super) fn anonymous_limits(
    connection: &Connection,
    profile: &Profile,
) -> Result<Vec<Limit>, StoreError> {
    let plan = super::plans::find(connection, &profile.default_plan)?;
    let mut limits = plan.map(|plan| plan.limits).unwrap_or_default();
    limits.retain(|limit| limit.identity == Some(Identity::Anonymous));
    Ok(limits)
}

pub(super) fn read_hash(row: &Row<'_>, column: usize) -> Result<KeyHash, StoreError> {
    let bytes = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    bytes.try_into().map(KeyHash::from_bytes).map_err(|_| StoreError::Hash)
}

fn read_revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    let (number, mark): (i64, i64) = (row.get(0)?, row.get(1)?);
    Ok(Revision { number: number.unsigned_abs(), mark: mark.cast_unsigned() })
}

/// SQLite's integers are signed; all numbers here stay far below where that matters.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Changes that are kept: a filter that is further behind gets a snapshot.
const KEPT_CHANGES: u64 = 100_000;

/// Tokens with which a delta is long enough; what is more comes with the next one.
const ENOUGH: usize = 2_000;

/// Most tokens of one change, and most accounts, that go into a delta; past it a snapshot in pages is
/// kinder to both sides.
const MAX_AT_ONCE: i64 = 20_000;
