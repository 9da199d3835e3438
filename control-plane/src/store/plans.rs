//! Plans.

use latchkey_filter::profile::keys::PlanDefault;
use latchkey_protocol::Limit;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Change, Page, StoreError, from_json, to_json};

/// Named limits and entitlements of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Plan {
    /// Name in paths.
    #[schema(examples("free"))]
    pub(crate) id: String,
    /// Name for people.
    #[schema(examples("Free"))]
    pub(crate) name: String,
    /// What an account may use.
    pub(crate) limits: Vec<Limit>,
    /// How many user defined keys an account may have, revoked ones not counted.
    pub(crate) max_user_keys: u32,
}

/// Returns part of the list of plans, by id.
pub(crate) fn list(connection: &Connection, page: &Page) -> Result<Vec<Plan>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, name, limits, max_user_keys FROM plans WHERE id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let after = page.after.as_deref().unwrap_or_default();
    let mut rows = statement.query(params![after, page.sql_limit()])?;
    let mut plans = Vec::new();
    while let Some(row) = rows.next()? {
        plans.push(read(row)?);
    }
    Ok(plans)
}

/// Returns a plan.
pub(crate) fn get(connection: &Connection, id: &str) -> Result<Plan, StoreError> {
    find(connection, id)?.ok_or_else(|| StoreError::NotFound { what: "plan", id: id.to_owned() })
}

pub(super) fn find(connection: &Connection, id: &str) -> Result<Option<Plan>, StoreError> {
    let sql = "SELECT id, name, limits, max_user_keys FROM plans WHERE id = ?1";
    connection.query_row(sql, [id], |row| Ok(read(row))).optional()?.transpose()
}

/// Makes or replaces a plan; returns whether it is new.
pub(crate) fn put(change: &mut Change<'_>, plan: &Plan) -> Result<bool, StoreError> {
    let before = find(&change.transaction, &plan.id)?;
    change.expect_any(before.as_ref())?;
    change.transaction.execute(
        "INSERT INTO plans (id, name, limits, max_user_keys) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET
           name = excluded.name, limits = excluded.limits, max_user_keys = excluded.max_user_keys",
        params![plan.id, plan.name, to_json(&plan.limits)?, plan.max_user_keys],
    )?;
    // A new one may be the default of a profile, whose limits hold for clients without a token.
    if before.as_ref().is_none_or(|before| before.limits != plan.limits) {
        change.touched_plans.push(plan.id.clone());
    }
    let is_new = before.is_none();
    let action = if is_new { "plan.create" } else { "plan.edit" };
    change.audit(None, action, &plan.id, &json!({"before": before, "after": plan}))?;
    Ok(is_new)
}

/// Removes a plan that no account has.
pub(crate) fn delete(change: &mut Change<'_>, id: &str) -> Result<(), StoreError> {
    let before = get(&change.transaction, id)?;
    change.expect(&before)?;
    let account: Option<String> = change
        .transaction
        .query_row("SELECT id FROM accounts WHERE plan = ?1 LIMIT 1", [id], |row| row.get(0))
        .optional()?;
    if let Some(account) = account {
        return Err(StoreError::Conflict(format!(
            "plan `{id}` is the plan of account `{account}`; give the account another plan first"
        )));
    }
    change.transaction.execute("DELETE FROM plans WHERE id = ?1", [id])?;
    change.touched_plans.push(id.to_owned());
    change.audit(None, "plan.delete", id, &json!({"before": before}))
}

/// Puts in the plans that come with a profile, the first time that the profile is installed.
pub(crate) fn install(
    change: &mut Change<'_>,
    profile: &str,
    plans: &[PlanDefault],
) -> Result<(), StoreError> {
    let is_first = change
        .transaction
        .execute("INSERT OR IGNORE INTO installed_profiles (name) VALUES (?1)", [profile])?
        == 1;
    if !is_first {
        return Ok(());
    }
    for plan in plans {
        if find(&change.transaction, &plan.id)?.is_none() {
            let plan = Plan {
                id: plan.id.clone(),
                name: plan.name.clone(),
                limits: plan.limits.clone(),
                max_user_keys: plan.max_user_keys,
            };
            put(change, &plan)?;
        }
    }
    Ok(())
}

/// Reports whether a profile's plans were put in already.
pub(crate) fn is_installed(connection: &Connection, profile: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM installed_profiles WHERE name = ?1";
    Ok(connection.query_row(sql, [profile], |_| Ok(())).optional()?.is_some())
}

fn read(row: &Row<'_>) -> Result<Plan, StoreError> {
    Ok(Plan {
        id: row.get(0)?,
        name: row.get(1)?,
        limits: from_json(&row.get::<_, String>(2)?)?,
        max_user_keys: row.get(3)?,
    })
}
