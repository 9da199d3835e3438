//! Sessions of people who are signed in, by the hash of what the cookie holds.

use latchkey_protocol::KeyHash;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

use super::ledger::certain_ms;
use super::people::{self, Person};
use super::{Change, StoreError, familiar};
use crate::time::Time;

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) hash: KeyHash,
    /// Address from which the person signed in.
    pub(crate) address: String,
    /// What the browser called itself then.
    pub(crate) agent: String,
    pub(crate) created_at: Time,
    /// To a few minutes.
    pub(crate) seen_at: Time,
}

/// A session to start.
#[derive(Debug)]
pub(crate) struct NewSession {
    /// Hash of what the cookie will hold.
    pub(crate) hash: KeyHash,
    /// What the browser calls itself.
    pub(crate) agent: String,
    /// Hash of the password that was right; absent where none was asked for.
    pub(crate) checked: Option<String>,
    /// The browser's session before, which ends.
    pub(crate) before: Option<KeyHash>,
    /// The browser and the network, from which attempts of this person are counted apart from now on.
    pub(crate) places: Vec<KeyHash>,
}

/// Starts a session, if the password that was checked is still the person's.
pub(crate) fn start(
    change: &mut Change<'_>,
    person: &Person,
    new: &NewSession,
) -> Result<(), StoreError> {
    let now_ms = change.now_ms;
    let (_, password) = people::get(&change.transaction, &person.id)?;
    if new.checked.as_ref().is_some_and(|checked| *checked != password) {
        let message = "the password was changed meanwhile; sign in again";
        return Err(StoreError::Conflict(message.to_owned()));
    }
    drop_old(&change.transaction, certain_ms(&change.transaction, now_ms)?)?;
    if let Some(before) = &new.before {
        end(&change.transaction, before)?;
    }
    change.transaction.execute(
        "INSERT INTO sessions (hash, person, address, agent, created_at_ms, seen_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        params![new.hash.as_bytes(), person.id, change.origin.address, new.agent, now_ms],
    )?;
    familiar::note(&change.transaction, &person.id, &new.places, now_ms)?;
    change.audit(None, "person.sign_in", &person.email, &json!({}))
}

/// Returns whose session it is, and when it was last seen, unless it is too old.
pub(crate) fn find(
    connection: &Connection,
    hash: &KeyHash,
    now_ms: i64,
) -> Result<Option<(Person, i64)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT people.id, email, name, is_operator, people.created_at_ms, seen_at_ms
         FROM sessions JOIN people ON people.id = sessions.person
         WHERE hash = ?1 AND seen_at_ms > ?2 AND sessions.created_at_ms > ?3",
    )?;
    let bounds = params![hash.as_bytes(), now_ms - IDLE_MS, now_ms - LONGEST_MS];
    let found = statement.query_row(bounds, |row| Ok((people::read(row)?, row.get(5)?)));
    Ok(found.optional()?)
}

/// Notes that a session was seen.
pub(crate) fn note_seen(
    connection: &Connection,
    hash: &KeyHash,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE sessions SET seen_at_ms = ?2 WHERE hash = ?1";
    connection.execute(sql, params![hash.as_bytes(), now_ms])?;
    Ok(())
}

/// Returns a person's sessions, the newest first.
pub(crate) fn of_person(
    connection: &Connection,
    person: &str,
    now_ms: i64,
) -> Result<Vec<Session>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT hash, address, agent, created_at_ms, seen_at_ms FROM sessions
         WHERE person = ?1 AND seen_at_ms > ?2 AND created_at_ms > ?3
         ORDER BY created_at_ms DESC",
    )?;
    let bounds = params![person, now_ms - IDLE_MS, now_ms - LONGEST_MS];
    let sessions = statement.query_map(bounds, |row| {
        Ok(Session {
            hash: KeyHash::from_bytes(row.get(0)?),
            address: row.get(1)?,
            agent: row.get(2)?,
            created_at: Time::from_ms(row.get(3)?),
            seen_at: Time::from_ms(row.get(4)?),
        })
    })?;
    Ok(sessions.collect::<Result<_, _>>()?)
}

/// Ends a session.
pub(crate) fn end(connection: &Connection, hash: &KeyHash) -> Result<(), StoreError> {
    connection.execute("DELETE FROM sessions WHERE hash = ?1", [hash.as_bytes()])?;
    Ok(())
}

/// Ends all sessions of a person, as that person wants.
pub(crate) fn sign_out_everywhere(
    change: &mut Change<'_>,
    person: &Person,
) -> Result<(), StoreError> {
    end_all(&change.transaction, &person.id)?;
    change.audit(None, "person.sign_out_everywhere", &person.email, &json!({}))
}

/// Ends all sessions of a person.
pub(super) fn end_all(connection: &Connection, person: &str) -> Result<(), StoreError> {
    connection.execute("DELETE FROM sessions WHERE person = ?1", [person])?;
    Ok(())
}

fn drop_old(connection: &Connection, now_ms: i64) -> Result<(), StoreError> {
    connection.execute(
        "DELETE FROM sessions WHERE seen_at_ms <= ?1 OR created_at_ms <= ?2",
        [now_ms - IDLE_MS, now_ms - LONGEST_MS],
    )?;
    Ok(())
}

/// A session that was not used for 12 hours ends: the next working day begins with signing in.
const IDLE_MS: i64 = 12 * 3_600_000;

/// 14 days after which a session ends in any case.
const LONGEST_MS: i64 = 14 * 86_400_000;
