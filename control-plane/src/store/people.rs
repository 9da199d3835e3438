//! People who sign in to the panel, and their part in accounts.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::accounts::{self, Account};
use super::{Change, OWN_NAME, StoreError, links, sessions};
use crate::time::Time;

/// A person who signs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Person {
    pub(crate) id: String,
    /// In small letters.
    pub(crate) email: String,
    pub(crate) name: String,
    /// Whether everything is open to the person: all accounts, plans and proxies.
    pub(crate) is_operator: bool,
    pub(crate) created_at: Time,
}

/// What a member may do in an account, in ascending order: each may do what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Sees keys, usage and content types.
    Viewer,
    /// Also tests requests and reads the audit log.
    Developer,
    /// Also manages keys, content types and members.
    Admin,
    /// Also manages owners.
    Owner,
}

impl Role {
    /// All roles, the one with the most rights first.
    pub(crate) const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Developer, Self::Viewer];

    /// Returns the role's name, as it is stored and shown.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::Owner => "owner",
            Self::Viewer => "viewer",
        }
    }

    /// Returns the role of a name, if there is one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// A person's part in an account.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) person: Person,
    pub(crate) role: Role,
    pub(crate) since: Time,
}

/// A person to make.
#[derive(Clone, Debug)]
pub(crate) struct NewPerson {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: String,
    /// Hash of the password.
    pub(crate) password: String,
}

/// Returns a person by e-mail address, with the hash of the password.
pub(crate) fn by_email(
    connection: &Connection,
    email: &str,
) -> Result<Option<(Person, String)>, StoreError> {
    let sql = format!("{SELECT} WHERE email = ?1");
    Ok(connection.query_row(&sql, [email], |row| Ok((read(row)?, row.get(5)?))).optional()?)
}

/// Returns a person with the hash of the password.
pub(crate) fn get(connection: &Connection, id: &str) -> Result<(Person, String), StoreError> {
    let sql = format!("{SELECT} WHERE id = ?1");
    connection
        .query_row(&sql, [id], |row| Ok((read(row)?, row.get(5)?)))
        .optional()?
        .ok_or_else(|| StoreError::NotFound { what: "person", id: id.to_owned() })
}

/// Returns all people, by e-mail address.
pub(crate) fn all(connection: &Connection) -> Result<Vec<Person>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY email"))?;
    let people = statement.query_map([], read)?;
    Ok(people.collect::<Result<_, _>>()?)
}

/// Reports whether there is an operator.
pub(crate) fn has_operator(connection: &Connection) -> Result<bool, StoreError> {
    Ok(count_operators(connection)? > 0)
}

/// Makes a person.
pub(crate) fn create(change: &mut Change<'_>, new: &NewPerson) -> Result<Person, StoreError> {
    if by_email(&change.transaction, &new.email)?.is_some() {
        return Err(StoreError::Field {
            field: "email",
            message: "someone signs in with this address already".to_owned(),
        });
    }
    change.transaction.execute(
        "INSERT INTO people (id, email, name, password, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![new.id, new.email, new.name, new.password, change.now_ms],
    )?;
    let (person, _) = get(&change.transaction, &new.id)?;
    change.audit(None, "person.create", &person.email, &json!({"after": person}))?;
    Ok(person)
}

/// Gives a person another password, and ends all sessions.
pub(crate) fn set_password(
    change: &mut Change<'_>,
    id: &str,
    password: &str,
) -> Result<(), StoreError> {
    let (person, _) = get(&change.transaction, id)?;
    let sql = "UPDATE people SET password = ?2 WHERE id = ?1";
    change.transaction.execute(sql, [id, password])?;
    sessions::end_all(&change.transaction, id)?;
    links::withdraw_password_links(&change.transaction, id)?;
    change.audit(None, "person.set_password", &person.email, &json!({}))
}

/// Gives a person another name.
pub(crate) fn rename(change: &mut Change<'_>, id: &str, name: &str) -> Result<(), StoreError> {
    let (before, _) = get(&change.transaction, id)?;
    change.transaction.execute("UPDATE people SET name = ?2 WHERE id = ?1", [id, name])?;
    let (after, _) = get(&change.transaction, id)?;
    let details = json!({"before": before, "after": after});
    change.audit(None, "person.edit", &before.email, &details)
}

/// Makes a person an operator, or no longer one; the last one stays.
pub(crate) fn set_operator(
    change: &mut Change<'_>,
    id: &str,
    is_operator: bool,
) -> Result<(), StoreError> {
    let (person, _) = get(&change.transaction, id)?;
    if person.is_operator == is_operator {
        return Ok(());
    }
    if !is_operator && count_operators(&change.transaction)? == 1 {
        return Err(StoreError::Conflict(
            "the last operator cannot be removed; make another one first".to_owned(),
        ));
    }
    let sql = "UPDATE people SET is_operator = ?2 WHERE id = ?1";
    change.transaction.execute(sql, params![id, is_operator])?;
    // A way back must not be left open; nor the first way in, which has no name on it.
    let whose = if is_operator { OWN_NAME } else { &person.email };
    links::withdraw_all_of(&change.transaction, None, whose)?;
    let action = if is_operator { "operator.add" } else { "operator.remove" };
    change.audit(None, action, &person.email, &json!({}))
}

/// Returns the role of a person in an account, if the person is a member.
pub(crate) fn role(
    connection: &Connection,
    account: &str,
    person: &str,
) -> Result<Option<Role>, StoreError> {
    let sql = "SELECT role FROM members WHERE account = ?1 AND person = ?2";
    Ok(connection.query_row(sql, [account, person], |row| read_role(row, 0)).optional()?)
}

/// Returns the accounts of which a person is a member, by id.
pub(crate) fn memberships(
    connection: &Connection,
    person: &str,
) -> Result<Vec<(Account, Role)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT account, role FROM members WHERE person = ?1 ORDER BY account")?;
    let mut rows = statement.query([person])?;
    let mut memberships = Vec::new();
    while let Some(row) = rows.next()? {
        let account: String = row.get(0)?;
        memberships.push((accounts::get(connection, &account)?, read_role(row, 1)?));
    }
    Ok(memberships)
}

/// Returns the members of an account, by e-mail address.
pub(crate) fn members(connection: &Connection, account: &str) -> Result<Vec<Member>, StoreError> {
    accounts::get(connection, account)?;
    let mut statement = connection.prepare_cached(
        "SELECT people.id, email, name, is_operator, created_at_ms, members.role, members.since_ms
         FROM members JOIN people ON people.id = members.person
         WHERE members.account = ?1 ORDER BY email",
    )?;
    let members = statement.query_map([account], |row| {
        Ok(Member {
            person: read(row)?,
            role: read_role(row, 5)?,
            since: Time::from_ms(row.get(6)?),
        })
    })?;
    Ok(members.collect::<Result<_, _>>()?)
}

/// Gives a person a role in an account, or another one; the last owner stays one.
pub(crate) fn set_role(
    change: &mut Change<'_>,
    account: &str,
    person: &str,
    role: Role,
) -> Result<(), StoreError> {
    let (person, _) = get(&change.transaction, person)?;
    let before = self::role(&change.transaction, account, &person.id)?;
    if before == Some(role) {
        return Ok(());
    }
    if before == Some(Role::Owner) {
        check_other_owner(&change.transaction, account)?;
    }
    change.transaction.execute(
        "INSERT INTO members (account, person, role, since_ms) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (account, person) DO UPDATE SET role = excluded.role",
        params![account, person.id, role.as_str(), change.now_ms],
    )?;
    if before.is_some_and(|before| before > role) {
        links::withdraw_all_of(&change.transaction, Some(account), &person.email)?;
    }
    let action = if before.is_none() { "member.add" } else { "member.edit" };
    let details = json!({"before": before, "after": role});
    change.audit(Some(account), action, &person.email, &details)
}

/// Ends a person's part in an account; the last owner stays.
pub(crate) fn remove_member(
    change: &mut Change<'_>,
    account: &str,
    person: &str,
) -> Result<(), StoreError> {
    let (person, _) = get(&change.transaction, person)?;
    let Some(before) = role(&change.transaction, account, &person.id)? else {
        return Err(StoreError::NotFound { what: "member", id: person.id });
    };
    if before == Role::Owner {
        check_other_owner(&change.transaction, account)?;
    }
    let sql = "DELETE FROM members WHERE account = ?1 AND person = ?2";
    change.transaction.execute(sql, [account, &person.id])?;
    links::withdraw_all_of(&change.transaction, Some(account), &person.email)?;
    change.audit(Some(account), "member.remove", &person.email, &json!({"before": before}))
}

fn check_other_owner(connection: &Connection, account: &str) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM members WHERE account = ?1 AND role = 'owner'";
    let owners: u32 = connection.query_row(sql, [account], |row| row.get(0))?;
    if owners > 1 {
        return Ok(());
    }
    Err(StoreError::Conflict(
        "the last owner of an account stays; make someone else an owner first".to_owned(),
    ))
}

fn count_operators(connection: &Connection) -> Result<u32, StoreError> {
    let sql = "SELECT count(*) FROM people WHERE is_operator = 1";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// Reads a person from the first five columns.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Person> {
    Ok(Person {
        id: row.get(0)?,
        email: row.get(1)?,
        name: row.get(2)?,
        is_operator: row.get(3)?,
        created_at: Time::from_ms(row.get(4)?),
    })
}

pub(super) fn read_role(row: &Row<'_>, column: usize) -> rusqlite::Result<Role> {
    let name: String = row.get(column)?;
    Role::named(&name).ok_or(rusqlite::Error::InvalidColumnType(
        column,
        name,
        rusqlite::types::Type::Text,
    ))
}

const SELECT: &str = "SELECT id, email, name, is_operator, created_at_ms, password FROM people";
