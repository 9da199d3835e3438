//! The change log, and what filters get from it.

use std::collections::HashMap;
use std::sync::Arc;

use latchkey_filter::profile::Profile;
use latchkey_protocol::{Identity, KeyHash, KeyKind, Limit, Resource, Revision, RightSet};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::{Change, StoreError, from_json, resources};

/// What changed between a revision and the last one.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The revision is not in this log, or too much has changed since: a snapshot is due.
    Gap,
    /// Tokens and accounts to look at again, as of the revision.
    Some {
        /// The last revision.
        revision: Revision,
        /// Those that are usable.
        usable: Vec<TokenRow>,
        /// Those that are not.
        removed: Vec<KeyHash>,
        /// Accounts whose limits or resources may be others.
        accounts: Vec<AccountRow>,
        /// Limits of each client address that calls without a token.
        anonymous_limits: Vec<Limit>,
    },
}

/// All that filters of a profile need, as of a revision.
#[derive(Debug)]
pub(crate) struct Everything {
    pub(crate) revision: Revision,
    pub(crate) tokens: Vec<TokenRow>,
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

/// Returns all usable tokens of a profile with what they stand for.
pub(crate) fn snapshot(
    connection: &Connection,
    profile: &Profile,
) -> Result<Everything, StoreError> {
    let (revision, at_ms) = last_with_time(connection)?;
    let sql = format!("{USABLE} ORDER BY tokens.hash");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![profile.name, at_ms])?;
    let mut tokens = Vec::new();
    let mut limits = LimitSets::default();
    let resources = resources::by_account(connection, &profile.name)?;
    let none: Arc<[Resource]> = Arc::from([]);
    while let Some(row) = rows.next()? {
        let mut token = read_token(row, &mut limits)?;
        let of_account = resources.get(&token.account.id).unwrap_or(&none);
        token.account.resources = Some(Arc::clone(of_account));
        tokens.push(token);
    }
    let anonymous_limits = anonymous_limits(connection, profile)?;
    Ok(Everything { revision, tokens, anonymous_limits })
}

/// Returns what changed for a profile since a revision.
pub(crate) fn changed_since(
    connection: &Connection,
    profile: &Profile,
    after: Revision,
) -> Result<Changed, StoreError> {
    let (revision, at_ms) = last_with_time(connection)?;
    let known = connection
        .query_row(
            "SELECT revision, mark FROM changes WHERE revision = ?1",
            [to_sql(after.number)],
            read_revision,
        )
        .optional()?;
    if known != Some(after) {
        return Ok(Changed::Gap);
    }
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT hash FROM changed_tokens WHERE revision > ?1 AND profile = ?2
         LIMIT ?3",
    )?;
    let mut hashes = Vec::new();
    let after = to_sql(after.number);
    let mut rows = statement.query(params![after, profile.name, MAX_DELTA_ENTRIES + 1])?;
    while let Some(row) = rows.next()? {
        hashes.push(read_hash(row, 0)?);
    }
    let mut limits = LimitSets::default();
    let mut accounts = Vec::new();
    let mut statement = connection.prepare_cached(
        "SELECT accounts.id, plans.limits,
                accounts.id IN (SELECT account FROM changed_accounts WHERE revision > ?1) AS itself
         FROM accounts JOIN plans ON plans.id = accounts.plan
         WHERE accounts.profile = ?2
           AND (itself OR accounts.plan IN (SELECT plan FROM changed_plans WHERE revision > ?1))
         LIMIT ?3",
    )?;
    let mut rows = statement.query(params![after, profile.name, MAX_DELTA_ENTRIES + 1])?;
    while let Some(row) = rows.next()? {
        let (id, itself): (String, bool) = (row.get(0)?, row.get(2)?);
        let resources = if itself { Some(resources::all(connection, &id)?) } else { None };
        accounts.push(AccountRow { id, limits: limits.get(row.get(1)?)?, resources });
    }
    let too_many = |count: usize| i64::try_from(count).is_ok_and(|n| n > MAX_DELTA_ENTRIES);
    if too_many(hashes.len()) || too_many(accounts.len()) {
        return Ok(Changed::Gap);
    }

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
    let anonymous_limits = anonymous_limits(connection, profile)?;
    Ok(Changed::Some { revision, usable, removed, accounts, anonymous_limits })
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
    WHERE accounts.profile = ?1
      AND keys.revoked_at_ms IS NULL
      AND NOT keys.is_suspended
      AND (ends_at_ms IS NULL OR ends_at_ms > ?2)";

/// Changes that are kept: a filter that is further behind gets a snapshot.
const KEPT_CHANGES: u64 = 100_000;

/// Most tokens of a delta, and most accounts; past it a snapshot in pages is kinder to both sides.
const MAX_DELTA_ENTRIES: i64 = 10_000;
