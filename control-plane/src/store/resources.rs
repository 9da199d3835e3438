//! Resources: content types with their relations.

use std::sync::Arc;

use latchkey_protocol::{Resource, Rule};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use super::{Change, Page, StoreError, accounts, from_json, to_json};

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
        resources.push(read(row, 0)?);
    }
    Ok(resources)
}

/// Returns all resources of an account.
pub(super) fn all(connection: &Connection, account: &str) -> Result<Arc<[Resource]>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT name, relations FROM resources WHERE account = ?1 ORDER BY name")?;
    let mut rows = statement.query([account])?;
    let mut resources = Vec::new();
    while let Some(row) = rows.next()? {
        resources.push(read(row, 0)?);
    }
    Ok(resources.into())
}

/// Reads a name and relations, from a column on.
fn read(row: &Row<'_>, first: usize) -> Result<Resource, StoreError> {
    let relations = from_json(&row.get::<_, String>(first + 1)?)?;
    Ok(Resource { name: row.get(first)?, relations })
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
///
/// What filters keep of an account's resources is bounded: past that, it is a conflict.
pub(crate) fn put(
    change: &mut Change<'_>,
    account: &str,
    resource: &Resource,
) -> Result<bool, StoreError> {
    accounts::get(&change.transaction, account)?;
    let before = find(&change.transaction, account, &resource.name)?;
    change.expect_any(before.as_ref())?;
    let relations = to_json(&resource.relations)?;
    change.transaction.execute(
        "INSERT INTO resources (account, name, relations) VALUES (?1, ?2, ?3)
         ON CONFLICT (account, name) DO UPDATE SET relations = excluded.relations",
        params![account, resource.name, relations],
    )?;
    let before_bytes = before.as_ref().map(|before| to_json(&before.relations)).transpose()?;
    if before_bytes.is_none_or(|before| relations.len() > before.len()) {
        check_size(&change.transaction, account)?;
    }
    change.touched_accounts.push(account.to_owned());
    let is_new = before.is_none();
    let action = if is_new { "resource.create" } else { "resource.edit" };
    let details = json!({"before": before, "after": resource});
    change.audit(Some(account), action, &resource.name, &details)?;
    Ok(is_new)
}

/// Removes a resource that no live key's rule names.
pub(crate) fn delete(change: &mut Change<'_>, account: &str, name: &str) -> Result<(), StoreError> {
    let before = get(&change.transaction, account, name)?;
    change.expect(&before)?;
    if let Some(key) = naming_key(&change.transaction, account, name)? {
        return Err(StoreError::Field {
            field: "name",
            message: format!("This content type definition is used by Api Key: {key}"),
        });
    }
    change
        .transaction
        .execute("DELETE FROM resources WHERE account = ?1 AND name = ?2", [account, name])?;
    change.touched_accounts.push(account.to_owned());
    change.audit(Some(account), "resource.delete", name, &json!({"before": before}))
}

fn check_size(connection: &Connection, account: &str) -> Result<(), StoreError> {
    let (count, bytes): (i64, i64) = connection.query_row(
        "SELECT count(*), coalesce(sum(octet_length(name) + octet_length(relations)), 0) FROM resources
         WHERE account = ?1",
        [account],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if count <= MAX_RESOURCES && bytes <= MAX_RESOURCE_BYTES {
        return Ok(());
    }
    Err(StoreError::Conflict(format!(
        "an account can have {MAX_RESOURCES} resources with {MAX_RESOURCE_BYTES} bytes of names and \
         relations; with this one it would have {count} with {bytes} bytes"
    )))
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

/// Most resources of an account: ten times those of the reference customers' largest.
const MAX_RESOURCES: i64 = 2_000;

/// Most bytes of an account's resources, which every proxy holds and each change of one sends.
const MAX_RESOURCE_BYTES: i64 = 512 << 10;
