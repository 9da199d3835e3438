//! Accounts.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::changes::to_sql;
use super::correction::next_generation;
use super::{Change, Page, StoreError, keys, ledger, plans};
use crate::time::Time;

/// Who pays: owns keys, resources and usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Account {
    #[schema(examples("acme"))]
    pub(crate) id: String,
    /// Name for people.
    #[schema(examples("Acme Ltd"))]
    pub(crate) name: String,
    /// Id of its plan.
    #[schema(examples("free"))]
    pub(crate) plan: String,
    /// Name of its API profile.
    #[schema(examples("flotiq"))]
    pub(crate) profile: String,
    pub(crate) state: AccountState,
    pub(crate) created_at: Time,
}

/// Whether an account's keys can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccountState {
    Active,
    /// None of its keys can, until it is resumed.
    Suspended,
}

/// An account to make.
#[derive(Debug)]
pub(crate) struct NewAccount {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) plan: String,
    pub(crate) profile: String,
    /// The keys that it has from birth.
    pub(crate) keys: Vec<keys::NewKey>,
}

/// What to change of an account; what is absent stays.
#[derive(Debug)]
pub(crate) struct AccountPatch {
    pub(crate) name: Option<String>,
    pub(crate) plan: Option<String>,
}

/// Returns part of the list of accounts, by id.
pub(crate) fn list(connection: &Connection, page: &Page) -> Result<Vec<Account>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, plan, profile, created_at_ms, is_suspended FROM accounts
         WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let after = page.after.as_deref().unwrap_or_default();
    let rows = statement.query_map(params![after, page.sql_limit()], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Returns part of the list of accounts with a text in their id or name, by id.
pub(crate) fn search(
    connection: &Connection,
    text: &str,
    page: &Page,
) -> Result<Vec<Account>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, plan, profile, created_at_ms, is_suspended FROM accounts
         WHERE id > ?1 AND (?2 = '' OR instr(fold(id || char(10) || name), fold(?2)) > 0)
         ORDER BY id LIMIT ?3",
    )?;
    let after = page.after.as_deref().unwrap_or_default();
    let rows = statement.query_map(params![after, text, page.sql_limit()], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Returns an account.
pub(crate) fn get(connection: &Connection, id: &str) -> Result<Account, StoreError> {
    connection
        .query_row(
            "SELECT id, name, plan, profile, created_at_ms, is_suspended FROM accounts WHERE id = ?1",
            [id],
            read,
        )
        .optional()?
        .ok_or_else(|| StoreError::NotFound { what: "account", id: id.to_owned() })
}

/// Makes an account with the keys that it has from birth.
pub(crate) fn create(change: &mut Change<'_>, new: &NewAccount) -> Result<Account, StoreError> {
    check_plan(&change.transaction, &new.plan)?;
    // What proxies hold of a former account of this id is none of this one's.
    let generation = next_generation(change, &new.id)?;
    let inserted = change.transaction.execute(
        "INSERT INTO accounts (id, name, plan, profile, created_at_ms, generation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![new.id, new.name, new.plan, new.profile, change.now_ms, to_sql(generation)],
    );
    match inserted {
        Err(rusqlite::Error::SqliteFailure(error, _))
            if error.code == ErrorCode::ConstraintViolation =>
        {
            return Err(StoreError::Conflict(format!("account `{}` exists already", new.id)));
        }
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    let account = get(&change.transaction, &new.id)?;
    change.touched_accounts.push(account.id.clone());
    change.audit(Some(&new.id), "account.create", &new.id, &json!({"after": account}))?;
    for key in &new.keys {
        keys::create(change, &account, key)?;
    }
    Ok(account)
}

/// Changes an account.
pub(crate) fn edit(
    change: &mut Change<'_>,
    id: &str,
    patch: &AccountPatch,
) -> Result<Account, StoreError> {
    let before = get(&change.transaction, id)?;
    change.expect(&before)?;
    if let Some(plan) = &patch.plan {
        check_plan(&change.transaction, plan)?;
    }
    change.transaction.execute(
        "UPDATE accounts SET name = coalesce(?2, name), plan = coalesce(?3, plan) WHERE id = ?1",
        params![id, patch.name, patch.plan],
    )?;
    let after = get(&change.transaction, id)?;
    if after.plan != before.plan {
        change.touched_accounts.push(after.id.clone());
    }
    change.audit(Some(id), "account.edit", id, &json!({"before": before, "after": after}))?;
    Ok(after)
}

/// Suspends an account, so that all its tokens are refused, or ends that.
pub(crate) fn set_suspended(
    change: &mut Change<'_>,
    id: &str,
    is_suspended: bool,
) -> Result<Account, StoreError> {
    let before = get(&change.transaction, id)?;
    change.expect(&before)?;
    change.transaction.execute(
        "UPDATE accounts SET is_suspended = ?2 WHERE id = ?1",
        params![id, is_suspended],
    )?;
    let after = get(&change.transaction, id)?;
    if after.state != before.state {
        keys::touch_account(change, id)?;
    }
    let action = if is_suspended { "account.suspend" } else { "account.resume" };
    change.audit(Some(id), action, id, &json!({"before": before, "after": after}))?;
    Ok(after)
}

/// Removes an account with all that it owns; its tokens are refused from then on.
pub(crate) fn delete(change: &mut Change<'_>, id: &str) -> Result<(), StoreError> {
    let before = get(&change.transaction, id)?;
    change.expect(&before)?;
    keys::touch_account(change, id)?;
    change.touched_accounts.push(id.to_owned());
    ledger::forget_account(&change.transaction, id)?;
    change.transaction.execute("DELETE FROM accounts WHERE id = ?1", [id])?;
    change.audit(Some(id), "account.delete", id, &json!({"before": before}))
}

fn check_plan(connection: &Connection, plan: &str) -> Result<(), StoreError> {
    match plans::get(connection, plan) {
        Err(StoreError::NotFound { .. }) => Err(StoreError::Field {
            field: "plan",
            message: format!("expected the id of a plan, found `{plan}`"),
        }),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        name: row.get(1)?,
        plan: row.get(2)?,
        profile: row.get(3)?,
        created_at: Time::from_ms(row.get(4)?),
        state: if row.get(5)? { AccountState::Suspended } else { AccountState::Active },
    })
}
