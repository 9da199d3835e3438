//! The change log, and what filters get from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use latchkey_filter::profile::Profile;
use latchkey_protocol::{Identity, KeyHash, KeyKind, Limit, Resource, Revision, RightSet};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::{Change, StoreError, from_json, resources};

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

/// An account, as far as filters are concerned.
#[derive(Clone, Debug)]
pub(crate) struct AccountRow {
    pub(crate) id: String,
    pub(crate) limits: Arc<[Limit]>,
    /// Its resources; absent if they are the same as before.
    pub(crate) resources: Option<Arc<[Resource]>>,
}

/// A usable token with what it stands for.
#[derive(Debug)]
pub(crate) struct TokenRow {
    pub(crate) hash: KeyHash,
    pub(crate) key: String,
    pub(crate) kind: KeyKind,
    pub(crate) account: AccountRow,
    /// Limits of the key's own.
    pub(crate) limits: Arc<[Limit]>,
    pub(crate) rights: RightSet,
    pub(crate) networks: Vec<String>,
    pub(crate) expires_at_ms: Option<i64>,
    /// Whether its rules refuse requests.
    pub(crate) is_enforced: bool,
}

/// Returns the last revision.
pub(super) fn last(connection: &Connection) -> Result<Revision, StoreError> {
    Ok(last_with_time(connection)?.0)
}

fn last_with_time(connection: &Connection) -> Result<(Revision, i64), StoreError> {
    let sql = "SELECT revision, mark, at_ms FROM changes ORDER BY revision DESC LIMIT 1";
    Ok(connection.query_row(sql, [], |row| Ok((read_revision(row)?, row.get(2)?)))?)
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
    let oldest = to_sql(number.saturating_sub(KEPT_CHANGES));
    transaction.execute("DELETE FROM changes WHERE revision < ?1", [oldest])?;
    Ok(number)
}

/// Notes that filters have to look at a token again.
#[cfg(test)]
pub(crate) fn touch(change: &mut Change<'_>, profile: &str, hash: &KeyHash) {
    change.touched.push((profile.to_owned(), hash.as_bytes().to_vec()));
}

/// Reads the accounts and usable tokens of a profile in pages, as of one moment.
pub(crate) struct Pages<'a> {
    connection: &'a Connection,
    profile: &'a Profile,
    pub(crate) revision: Revision,
    at_ms: i64,
    limits: LimitSets,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        profile: &'a Profile,
    ) -> Result<Self, StoreError> {
        let (revision, at_ms) = last_with_time(connection)?;
        Ok(Self { connection, profile, revision, at_ms, limits: LimitSets::default() })
    }

    /// Returns the accounts that come after one, with their resources, at most so many.
    pub(crate) fn accounts(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT accounts.id, plans.limits FROM accounts JOIN plans ON plans.id = accounts.plan
             WHERE accounts.profile = ?1 AND accounts.id > ?2 ORDER BY accounts.id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![self.profile.name, after, limit])?;
        let mut accounts = Vec::new();
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            let resources = Some(resources::all(self.connection, &id)?);
            accounts.push(AccountRow { id, limits: self.limits.get(row.get(1)?)?, resources });
        }
        Ok(accounts)
    }

    /// Returns the usable tokens whose hashes come after one, or all, at most so many.
    pub(crate) fn tokens(
        &mut self,
        after: Option<&KeyHash>,
        limit: i64,
    ) -> Result<Vec<TokenRow>, StoreError> {
        let sql = format!("{USABLE} AND tokens.hash > ?3 ORDER BY tokens.hash LIMIT ?4");
        let mut statement = self.connection.prepare_cached(&sql)?;
        // A blob is greater than one without bytes, whatever it holds.
        let after = after.map_or(&[][..], |hash| hash.as_bytes());
        let mut rows = statement.query(params![self.profile.name, self.at_ms, after, limit])?;
        let mut tokens = Vec::new();
        while let Some(row) = rows.next()? {
            tokens.push(read_token(row, &mut self.limits)?);
        }
        Ok(tokens)
    }

    /// Returns the limits of each client address that calls without a token.
    pub(crate) fn anonymous_limits(&self) -> Result<Vec<Limit>, StoreError> {
        anonymous_limits(self.connection, self.profile)
    }
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
    let mut limits = LimitSets::default();
    let mut accounts = Vec::new();
    let mut statement = connection.prepare_cached(
        "WITH named AS (
           SELECT account FROM changed_accounts WHERE revision > ?1 AND revision <= ?2
         )
         SELECT accounts.id, plans.limits, accounts.id IN named AS itself
         FROM accounts JOIN plans ON plans.id = accounts.plan
         WHERE accounts.profile = ?3
           AND (accounts.id IN named OR accounts.plan IN (
             SELECT plan FROM changed_plans WHERE revision > ?1 AND revision <= ?2))
         LIMIT ?4",
    )?;
    let (from, to) = (to_sql(after.number), to_sql(upto));
    let mut rows = statement.query(params![from, to, profile.name, MAX_AT_ONCE + 1])?;
    while let Some(row) = rows.next()? {
        let (id, itself): (String, bool) = (row.get(0)?, row.get(2)?);
        let resources = if itself { Some(resources::all(connection, &id)?) } else { None };
        accounts.push(AccountRow { id, limits: limits.get(row.get(1)?)?, resources });
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

    let sql = format!("{USABLE} AND tokens.hash = ?3");
    let mut find = connection.prepare_cached(&sql)?;
    let (mut usable, mut removed) = (Vec::new(), Vec::new());
    for hash in hashes {
        let mut rows = find.query(params![profile.name, at_ms, hash.as_bytes()])?;
        match rows.next()? {
            Some(row) => usable.push(read_token(row, &mut limits)?),
            None => removed.push(hash),
        }
    }
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

fn find_revision(connection: &Connection, number: u64) -> Result<Option<Revision>, StoreError> {
    let sql = "SELECT revision, mark FROM changes WHERE revision = ?1";
    Ok(connection.query_row(sql, [to_sql(number)], read_revision).optional()?)
}

/// Returns the limits of each client address that calls without a token: those of the profile's
/// default plan that say so.
fn anonymous_limits(connection: &Connection, profile: &Profile) -> Result<Vec<Limit>, StoreError> {
    let plan = super::plans::find(connection, &profile.default_plan)?;
    let mut limits = plan.map(|plan| plan.limits).unwrap_or_default();
    limits.retain(|limit| limit.identity == Some(Identity::Anonymous));
    Ok(limits)
}

/// Returns what filters know of a key by one of its tokens; of those in their grace, the newest.
pub(crate) fn token_of_key(
    connection: &Connection,
    profile: &Profile,
    key: &str,
) -> Result<Option<TokenRow>, StoreError> {
    let newest = "tokens.grace_ends_at_ms IS NOT NULL, tokens.grace_ends_at_ms DESC";
    let sql = format!("{USABLE} AND keys.id = ?3 ORDER BY {newest} LIMIT 1");
    one_token(connection, profile, &sql, key)
}

/// Returns what filters know of a token, if they know it.
pub(crate) fn token_by_hash(
    connection: &Connection,
    profile: &Profile,
    hash: &KeyHash,
) -> Result<Option<TokenRow>, StoreError> {
    one_token(connection, profile, &format!("{USABLE} AND tokens.hash = ?3"), hash.as_bytes())
}

fn one_token(
    connection: &Connection,
    profile: &Profile,
    sql: &str,
    wanted: impl ToSql,
) -> Result<Option<TokenRow>, StoreError> {
    let (_, at_ms) = last_with_time(connection)?;
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![profile.name, at_ms, wanted])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut token = read_token(row, &mut LimitSets::default())?;
    token.account.resources = Some(resources::all(connection, &token.account.id)?);
    Ok(Some(token))
}

/// Limits by their text in the store, each read once: thousands of accounts share a plan.
#[derive(Default)]
struct LimitSets(HashMap<String, Arc<[Limit]>>);

impl LimitSets {
    fn get(&mut self, json: String) -> Result<Arc<[Limit]>, StoreError> {
        if let Some(limits) = self.0.get(&json) {
            return Ok(Arc::clone(limits));
        }
        let limits: Arc<[Limit]> = from_json::<Vec<Limit>>(&json)?.into();
        self.0.insert(json, Arc::clone(&limits));
        Ok(limits)
    }
}

/// Reads a token, without the resources of its account.
fn read_token(row: &Row<'_>, limits: &mut LimitSets) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        hash: read_hash(row, 0)?,
        key: row.get(1)?,
        kind: super::keys::read_kind(&row.get::<_, String>(2)?)?,
        account: AccountRow { id: row.get(3)?, limits: limits.get(row.get(7)?)?, resources: None },
        limits: limits.get(row.get(8)?)?,
        rights: from_json(&row.get::<_, String>(4)?)?,
        networks: from_json(&row.get::<_, String>(5)?)?,
        expires_at_ms: row.get(6)?,
        is_enforced: row.get(9)?,
    })
}

fn read_hash(row: &Row<'_>, column: usize) -> Result<KeyHash, StoreError> {
    let bytes: Vec<u8> = row.get(column)?;
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

/// Tokens of profile ?1 that are usable as of time ?2: that of a change, so that a snapshot depends
/// on its revision alone. What expires later, filters find out by themselves.
const USABLE: &str = "
    SELECT tokens.hash, keys.id, keys.kind, keys.account, keys.rules, keys.allowed_networks,
           CASE
             WHEN tokens.grace_ends_at_ms IS NULL THEN keys.expires_at_ms
             WHEN keys.expires_at_ms IS NULL THEN tokens.grace_ends_at_ms
             ELSE min(tokens.grace_ends_at_ms, keys.expires_at_ms)
           END AS ends_at_ms,
           plans.limits, keys.limits, keys.is_enforced
    FROM tokens
    JOIN keys ON keys.id = tokens.key
    JOIN accounts ON accounts.id = keys.account
    JOIN plans ON plans.id = accounts.plan
    WHERE tokens.profile = ?1
      AND keys.revoked_at_ms IS NULL
      AND NOT keys.is_suspended
      AND (ends_at_ms IS NULL OR ends_at_ms > ?2)";

/// Changes that are kept: a filter that is further behind gets a snapshot.
const KEPT_CHANGES: u64 = 100_000;

/// Tokens with which a delta is long enough; what is more comes with the next one.
const ENOUGH: usize = 2_000;

/// Most tokens of one change, and most accounts, that go into a delta; past it a snapshot in pages is
/// kinder to both sides.
const MAX_AT_ONCE: i64 = 20_000;
