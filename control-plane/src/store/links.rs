//! One-time links: invitations, and new passwords.

use latchkey_protocol::KeyHash;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use super::people::{self, Role};
use super::{Change, StoreError};
use crate::time::Time;

/// What a link is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To become a member of an account.
    Member {
        /// Id of the account.
        account: String,
        role: Role,
        /// Address of the one who is invited.
        email: String,
    },
    /// To become an operator.
    Operator {
        /// Address of the one who is invited; anyone with the link if absent.
        email: Option<String>,
    },
    /// To choose a new password.
    Password {
        /// Id of the person.
        person: String,
    },
}

/// A link that was not used yet.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Name in paths; not what the link ends with.
    pub(crate) id: String,
    pub(crate) purpose: Purpose,
    pub(crate) made_by: String,
    pub(crate) expires_at: Time,
}

/// Makes a link.
pub(crate) fn create(
    change: &mut Change<'_>,
    id: &str,
    hash: &KeyHash,
    purpose: &Purpose,
    expires_at_ms: i64,
) -> Result<(), StoreError> {
    let transaction = &change.transaction;
    let certain_ms = super::ledger::certain_ms(transaction, change.now_ms)?;
    transaction.execute("DELETE FROM links WHERE expires_at_ms <= ?1", [certain_ms])?;
    let (email, account, role, person) = match purpose {
        Purpose::Member { account, role, email } => {
            super::accounts::get(transaction, account)?;
            (Some(email), Some(account), Some(role.as_str()), None)
        }
        Purpose::Operator { email } => (email.as_ref(), None, None, None),
        Purpose::Password { person } => (None, None, None, Some(person)),
    };
    transaction.execute(
        "INSERT INTO links (hash, id, email, account, role, person, made_by, created_at_ms,
                            expires_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            hash.as_bytes(),
            id,
            email,
            account,
            role,
            person,
            change.origin.actor,
            change.now_ms,
            expires_at_ms
        ],
    )?;
    let action = match purpose {
        Purpose::Member { .. } => "member.invite",
        Purpose::Operator { .. } => "operator.invite",
        Purpose::Password { .. } => "person.password_link",
    };
    let details = json!({"email": email, "role": role, "person": person});
    change.audit(account.map(String::as_str), action, id, &details)
}

/// Returns the link that ends with what has this hash, unless it is used or too old.
pub(crate) fn find(
    connection: &Connection,
    hash: &KeyHash,
    now_ms: i64,
) -> Result<Option<Link>, StoreError> {
    let sql = format!("{SELECT} WHERE hash = ?1 AND expires_at_ms > ?2");
    Ok(connection.query_row(&sql, params![hash.as_bytes(), now_ms], read).optional()?)
}

/// Returns the links to an account that were not used yet, or those to operators.
pub(crate) fn open(
    connection: &Connection,
    account: Option<&str>,
    now_ms: i64,
) -> Result<Vec<Link>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE account IS ?1 AND person IS NULL AND expires_at_ms > ?2 ORDER BY created_at_ms"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let links = statement.query_map(params![account, now_ms], read)?;
    Ok(links.collect::<Result<_, _>>()?)
}

/// Withdraws a link to an account, or one to operators.
pub(crate) fn withdraw(
    change: &mut Change<'_>,
    account: Option<&str>,
    id: &str,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM links WHERE id = ?1 AND account IS ?2";
    if change.transaction.execute(sql, params![id, account])? == 0 {
        return Err(StoreError::NotFound { what: "invitation", id: id.to_owned() });
    }
    change.audit(account, "link.withdraw", id, &json!({}))
}

/// Withdraws all links that someone made, or that are for that person: to an account, or all.
pub(crate) fn withdraw_all_of(
    connection: &Connection,
    account: Option<&str>,
    email: &str,
) -> Result<(), StoreError> {
    connection.execute(
        "DELETE FROM links WHERE (made_by = ?1 OR email = ?1) AND (?2 IS NULL OR account = ?2)",
        params![email, account],
    )?;
    Ok(())
}

/// Withdraws the links with which a person could choose a new password.
pub(super) fn withdraw_password_links(
    connection: &Connection,
    person: &str,
) -> Result<(), StoreError> {
    connection.execute("DELETE FROM links WHERE person = ?1", [person])?;
    Ok(())
}

/// Uses a link up and gives a person what it is for.
pub(crate) fn take(
    change: &mut Change<'_>,
    hash: &KeyHash,
    person: &str,
) -> Result<(), StoreError> {
    let link = find(&change.transaction, hash, change.now_ms)?
        .ok_or_else(|| StoreError::Conflict("this link was used already, or is too old".into()))?;
    change.transaction.execute("DELETE FROM links WHERE hash = ?1", [hash.as_bytes()])?;
    let account = match &link.purpose {
        Purpose::Member { account, .. } => Some(account.as_str()),
        Purpose::Operator { .. } | Purpose::Password { .. } => None,
    };
    change.audit(account, "link.take", &link.id, &json!({"made_by": link.made_by}))?;
    match link.purpose {
        Purpose::Member { account, role, .. } => {
            // An invitation takes no rights away.
            let before = people::role(&change.transaction, &account, person)?;
            match before {
                Some(before) if before >= role => Ok(()),
                Some(_) | None => people::set_role(change, &account, person, role),
            }
        }
        Purpose::Operator { .. } => people::set_operator(change, person, true),
        Purpose::Password { .. } => Ok(()),
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Link> {
    let (email, account, person): (Option<String>, Option<String>, Option<String>) =
        (row.get(1)?, row.get(2)?, row.get(4)?);
    let purpose = match (account, person) {
        (Some(account), _) => Purpose::Member {
            account,
            role: people::read_role(row, 3)?,
            email: email.unwrap_or_default(),
        },
        (None, Some(person)) => Purpose::Password { person },
        (None, None) => Purpose::Operator { email },
    };
    Ok(Link {
        id: row.get(0)?,
        purpose,
        made_by: row.get(5)?,
        expires_at: Time::from_ms(row.get(6)?),
    })
}

const SELECT: &str = "SELECT id, email, account, role, person, made_by, expires_at_ms FROM links";
