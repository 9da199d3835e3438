//! Browsers and networks from which people have signed in: their attempts are counted apart, so that no
//! stranger keeps a person out (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").

use latchkey_protocol::KeyHash;
use rusqlite::{Connection, params};

use super::StoreError;

/// Returns those of some browsers and networks, by their hashes, from which the person with an e-mail address
/// has signed in lately.
pub(crate) fn find(
    connection: &Connection,
    email: &str,
    places: &[KeyHash],
    now_ms: i64,
) -> Result<Option<KeyHash>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM familiar_places JOIN people ON people.id = familiar_places.person
         WHERE people.email = ?1 AND hash = ?2 AND seen_at_ms > ?3",
    )?;
    for place in places {
        if statement.exists(params![email, place.as_bytes(), now_ms - FAMILIAR_MS])? {
            return Ok(Some(*place));
        }
    }
    Ok(None)
}

/// Notes that a person has signed in from somewhere; of very many places, the latest are known.
pub(super) fn note(
    connection: &Connection,
    person: &str,
    places: &[KeyHash],
    now_ms: i64,
) -> Result<(), StoreError> {
    for place in places {
        connection.execute(
            "INSERT OR REPLACE INTO familiar_places (person, hash, seen_at_ms) VALUES (?1, ?2, ?3)",
            params![person, place.as_bytes(), now_ms],
        )?;
    }
    connection.execute(
        "DELETE FROM familiar_places WHERE person = ?1 AND hash NOT IN (
           SELECT hash FROM familiar_places WHERE person = ?1 ORDER BY seen_at_ms DESC LIMIT ?2)",
        params![person, MAX_PLACES],
    )?;
    Ok(())
}

/// How long a browser or a network is familiar: 30 days.
const FAMILIAR_MS: i64 = 30 * 86_400_000;

/// Places of one person that are remembered.
const MAX_PLACES: i64 = 40;
