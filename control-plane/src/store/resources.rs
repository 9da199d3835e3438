//! Resources: content types with their relations.

use std::collections::BTreeMap;

use latchkey_protocol::Rule;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{Change, Page, StoreError, accounts, from_json, to_json};

/// A content type of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Resource {
    #[schema(examples("blogposts"))]
    pub(crate) name: String,
    /// Field → the content types that it may point at.
    pub(crate) relations: BTreeMap<String, Relation>,
}

/// Where a relation may point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected `\"*\"` or a list of resources")]
pub(crate) enum Relation {
    /// `"*"`: at any content type.
    Any(String),
    /// At these.
    Some(Vec<String>),
}

/// Returns part of the list of an account's resources, by name.
pub(crate) fn list(
    connection: &Connection,
    account: &str,
    page: &Page,
) -> Result<Vec<Resource>, StoreError> {
    accounts::get(connection, account)?;
    let mut statement = connection.prepare_cached(
        "SELECT name, relations FROM resources
         WHERE account = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
    )?;
    let after = page.after.as_deref().unwrap_or_default();
    let mut rows = statement.query(params![account, after, page.sql_limit()])?;
    let mut resources = Vec::new();
    while let Some(row) = rows.next()? {
        let relations = from_json(&row.get::<_, String>(1)?)?;
        resources.push(Resource { name: row.get(0)?, relations });
    }
    Ok(resources)
}

/// Returns a resource of an account.
pub(crate) fn get(
    connection: &Connection,
    account: &str,
    name: &str,
) -> Result<Resource, StoreError> {
    accounts::get(connection, account)?;
    find(connection, account, name)?
        .ok_or_else(|| StoreError::NotFound { what: "resource", id: name.to_owned() })
}

fn find(
    connection: &Connection,
    account: &str,
    name: &str,
) -> Result<Option<Resource>, StoreError> {
    let relations: Option<String> = connection
        .query_row(
            "SELECT relations FROM resources WHERE account = ?1 AND name = ?2",
            [account, name],
            |row| row.get(0),
        )
        .optional()?;
    let Some(relations) = relations else {
        return Ok(None);
    };
    Ok(Some(Resource { name: name.to_owned(), relations: from_json(&relations)? }))
}

/// Makes or replaces a resource; returns whether it is new.
pub(crate) fn put(
    change: &mut Change<'_>,
    account: &str,
    resource: &Resource,
) -> Result<bool, StoreError> {
    accounts::get(&change.transaction, account)?;
    let before = find(&change.transaction, account, &resource.name)?;
    change.transaction.execute(
        "INSERT INTO resources (account, name, relations) VALUES (?1, ?2, ?3)
         ON CONFLICT (account, name) DO UPDATE SET relations = excluded.relations",
        params![account, resource.name, to_json(&resource.relations)?],
    )?;
    let is_new = before.is_none();
    let action = if is_new { "resource.create" } else { "resource.edit" };
    let details = json!({"before": before, "after": resource});
    change.audit(Some(account), action, &resource.name, &details)?;
    Ok(is_new)
}

/// Removes a resource that no live key's rule names.
pub(crate) fn delete(change: &mut Change<'_>, account: &str, name: &str) -> Result<(), StoreError> {
    let before = get(&change.transaction, account, name)?;
    if let Some(key) = naming_key(&change.transaction, account, name)? {
        return Err(StoreError::Field {
            field: "name",
            message: format!("This content type definition is used by Api Key: {key}"),
        });
    }
    change
        .transaction
        .execute("DELETE FROM resources WHERE account = ?1 AND name = ?2", [account, name])?;
    change.audit(Some(account), "resource.delete", name, &json!({"before": before}))
}

/// Returns the name of a key, revoked ones left out, with a rule on a resource.
fn naming_key(
    connection: &Connection,
    account: &str,
    resource: &str,
) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT name, rules FROM keys
         WHERE account = ?1 AND revoked_at_ms IS NULL ORDER BY sequence",
    )?;
    let mut rows = statement.query([account])?;
    while let Some(row) = rows.next()? {
        let rules: Vec<Rule> = from_json(&row.get::<_, String>(1)?)?;
        if rules.iter().any(|rule| rule.resource == resource) {
            return Ok(Some(row.get(0)?));
        }
    }
    Ok(None)
}
