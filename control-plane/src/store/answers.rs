//! Answers to requests that are made once, however often they are sent.

use latchkey_protocol::KeyHash;
use rusqlite::{Connection, OptionalExtension, params};

use super::ledger::certain_ms;
use super::{Change, StoreError};

/// A request that is made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Once {
    /// Hash of the name that the client gave it.
    pub(crate) name: KeyHash,
    /// Hash of what it says.
    pub(crate) content: KeyHash,
}

/// What became of such a request.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Hash of what it said.
    pub(crate) content: KeyHash,
    /// Its answer, encrypted; absent if it was lost, or is still to come.
    pub(crate) answer: Option<Vec<u8>>,
}

/// Returns what became of a request of a name, if one was made in the last day.
pub(crate) fn find(
    connection: &Connection,
    name: &KeyHash,
    now_ms: i64,
) -> Result<Option<Answered>, StoreError> {
    let found = connection
        .query_row(
            "SELECT content, answer FROM answers WHERE name = ?1 AND at_ms > ?2",
            params![name.as_bytes(), now_ms - KEPT_MS],
            |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)),
        )
        .optional()?;
    let answered = |(content, answer): (Vec<u8>, _)| {
        let content = <[u8; 32]>::try_from(content).map_err(|_| StoreError::Hash)?;
        Ok(Answered { content: KeyHash::from_bytes(content), answer })
    };
    found.map(answered).transpose()
}

/// Takes note, with what a request changes, that it was made; what is older than a day goes.
pub(super) fn note(change: &Change<'_>, once: &Once) -> Result<(), StoreError> {
    let connection = &change.transaction;
    let certain_ms = certain_ms(connection, change.now_ms)?;
    connection.execute("DELETE FROM answers WHERE at_ms <= ?1", [certain_ms - KEPT_MS])?;
    let count: i64 = connection.query_row("SELECT count(*) FROM answers", [], |row| row.get(0))?;
    if count >= MAX_ANSWERS {
        let message = format!(
            "there were {count} requests with `Idempotency-Key` in a day; send this one without"
        );
        return Err(StoreError::Conflict(message));
    }
    let inserted = connection.execute(
        "INSERT OR IGNORE INTO answers (name, content, at_ms) VALUES (?1, ?2, ?3)",
        params![once.name.as_bytes(), once.content.as_bytes(), change.now_ms],
    )?;
    if inserted == 0 {
        let message = "a request with this `Idempotency-Key` is being worked on";
        return Err(StoreError::Conflict(message.to_owned()));
    }
    Ok(())
}

/// Keeps the answer to a request, encrypted.
pub(crate) fn keep(
    connection: &Connection,
    name: &KeyHash,
    answer: &[u8],
) -> Result<(), StoreError> {
    connection.execute(
        "UPDATE answers SET answer = ?2 WHERE name = ?1",
        params![name.as_bytes(), answer],
    )?;
    Ok(())
}

/// How long an answer is kept: a day.
const KEPT_MS: i64 = 86_400_000;

/// Answers that are kept at most.
const MAX_ANSWERS: i64 = 100_000;
