//! The change log, and what filters get from it.

use latchkey_protocol::{KeyHash, KeyKind, Revision, RightSet};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{StoreError, from_json};

/// What changed between a revision and the last one.
#[derive(Debug)]
pub(crate) enum Changed {
    /// The revision is not in this log, or too much has changed since: a snapshot is due.
    Gap,
    /// Tokens to look at again, as of the revision.
    Tokens {
        /// The last revision.
        revision: Revision,
        /// Those that are usable.
        usable: Vec<TokenRow>,
        /// Those that are not.
        removed: Vec<KeyHash>,
    },
}

/// A usable token with what it stands for.
#[derive(Debug)]
pub(crate) struct TokenRow {
    pub(crate) hash: KeyHash,
    pub(crate) key: String,
    pub(crate) kind: KeyKind,
    pub(crate) account: String,
    pub(crate) rights: RightSet,
    pub(crate) networks: Vec<String>,
    pub(crate) expires_at_ms: Option<i64>,
}

/// Returns the last revision.
pub(super) fn last(connection: &Connection) -> Result<Revision, StoreError> {
    Ok(last_with_time(connection)?.0)
}

fn last_with_time(connection: &Connection) -> Result<(Revision, i64), StoreError> {
    let sql = "SELECT revision, mark, at_ms FROM changes ORDER BY revision DESC LIMIT 1";
    Ok(connection.query_row(sql, [], |row| Ok((read_revision(row)?, row.get(2)?)))?)
}

/// Appends a change with the tokens that it touches, and returns its number.
pub(super) fn append(
    transaction: &Transaction<'_>,
    now_ms: i64,
    touched: &[(String, Vec<u8>)],
) -> Result<u64, StoreError> {
    transaction.execute(
        "INSERT INTO changes (revision, mark, at_ms)
         SELECT max(revision) + 1, random(), ?1 FROM changes",
        [now_ms],
    )?;
    let number = last(transaction)?.number;
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO changed_tokens (revision, profile, hash) VALUES (?1, ?2, ?3)",
    )?;
    for (profile, hash) in touched {
        insert.execute(params![to_sql(number), profile, hash])?;
    }
    let oldest = to_sql(number.saturating_sub(KEPT_CHANGES));
    transaction.execute("DELETE FROM changes WHERE revision < ?1", [oldest])?;
    Ok(number)
}

/// Returns all usable tokens of a profile, and the revision as of which they are.
pub(crate) fn snapshot(
    connection: &Connection,
    profile: &str,
) -> Result<(Revision, Vec<TokenRow>), StoreError> {
    let (revision, at_ms) = last_with_time(connection)?;
    let sql = format!("{USABLE} ORDER BY tokens.hash");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![profile, at_ms])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        tokens.push(read_token(row)?);
    }
    Ok((revision, tokens))
}

/// Returns what changed for a profile since a revision.
pub(crate) fn changed_since(
    connection: &Connection,
    profile: &str,
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
    let mut rows = statement.query(params![to_sql(after.number), profile, MAX_DELTA_TOKENS + 1])?;
    while let Some(row) = rows.next()? {
        hashes.push(read_hash(row, 0)?);
    }
    if i64::try_from(hashes.len()).is_ok_and(|count| count > MAX_DELTA_TOKENS) {
        return Ok(Changed::Gap);
    }

    let sql = format!("{USABLE} AND tokens.hash = ?3");
    let mut find = connection.prepare_cached(&sql)?;
    let (mut usable, mut removed) = (Vec::new(), Vec::new());
    for hash in hashes {
        let mut rows = find.query(params![profile, at_ms, hash.as_bytes()])?;
        match rows.next()? {
            Some(row) => usable.push(read_token(row)?),
            None => removed.push(hash),
        }
    }
    Ok(Changed::Tokens { revision, usable, removed })
}

fn read_token(row: &Row<'_>) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        hash: read_hash(row, 0)?,
        key: row.get(1)?,
        kind: super::keys::read_kind(&row.get::<_, String>(2)?)?,
        account: row.get(3)?,
        rights: from_json(&row.get::<_, String>(4)?)?,
        networks: from_json(&row.get::<_, String>(5)?)?,
        expires_at_ms: row.get(6)?,
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

/// SQLite's integers are signed; revisions stay far below where that matters.
fn to_sql(number: u64) -> i64 {
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
           END AS ends_at_ms
    FROM tokens
    JOIN keys ON keys.id = tokens.key
    JOIN accounts ON accounts.id = keys.account
    WHERE accounts.profile = ?1
      AND keys.revoked_at_ms IS NULL
      AND NOT keys.is_suspended
      AND (ends_at_ms IS NULL OR ends_at_ms > ?2)";

/// Changes that are kept: a filter that is further behind gets a snapshot.
const KEPT_CHANGES: u64 = 100_000;

/// Most tokens of a delta; past it a snapshot in pages is kinder to both sides.
const MAX_DELTA_TOKENS: i64 = 10_000;
