//! Keys and their tokens' hashes.

mod find;

use latchkey_protocol::{KeyHash, KeyKind, Limit, Rule};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::accounts::{self, Account};
use super::{Change, StoreError, plans, to_json};
use crate::time::Time;

pub(super) use find::read_kind;
pub(crate) use find::{
    KeyFilter, all, application, by_hash, count, former_last_used, get, list, replacements,
    rules_since, sealed, user_defined,
};

/// A key, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Key {
    #[schema(examples("key_5fH2kQ9sXw0a"))]
    pub(crate) id: String,
    /// Id of the account that owns it.
    pub(crate) account: String,
    pub(crate) name: String,
    pub(crate) kind: KeyKind,
    pub(crate) state: KeyState,
    /// What it may do.
    pub(crate) rules: Vec<Rule>,
    /// Whether its rules refuse requests. If not, what they would refuse is counted, told to Envoy's
    /// access log and let through.
    pub(crate) enforce: bool,
    /// Where it is meant to be used, such as `production`.
    pub(crate) environment: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) created_at: Time,
    /// First moment at which it is no longer valid.
    pub(crate) expires_at: Option<Time>,
    pub(crate) last_used_at: Option<Time>,
    /// Networks from which it may be used; none listed, all.
    pub(crate) allowed_networks: Vec<String>,
    /// Limits of its own, beside its account's.
    pub(crate) limits: Vec<Limit>,
    /// End of its token, by which a person recognizes it.
    #[schema(examples("…x7Qa"))]
    pub(crate) token_hint: Option<String>,
    /// When its token was made: with the key, or when it was last regenerated.
    pub(crate) token_created_at: Option<Time>,
    /// Until when the token before works too; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous_token_until: Option<Time>,
    /// Id of the key that it was made to replace; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<String>,
}

/// Whether a key can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyState {
    Active,
    Expired,
    Revoked,
    Suspended,
}

/// What is kept of a token that was just made.
#[derive(Clone, Debug)]
pub(crate) struct MintedToken {
    pub(crate) hash: KeyHash,
    pub(crate) hint: String,
    /// The token, encrypted; absent without a sealing key.
    pub(crate) sealed: Option<Vec<u8>>,
}

/// A key to make.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: KeyKind,
    pub(crate) rules: Vec<Rule>,
    pub(crate) enforce: bool,
    pub(crate) environment: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) expires_at: Option<Time>,
    pub(crate) allowed_networks: Vec<String>,
    pub(crate) limits: Vec<Limit>,
    /// Id of the key of the same account that it is made to replace.
    pub(crate) replaces: Option<String>,
    pub(crate) token: MintedToken,
}

/// What to change of a key; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct KeyPatch {
    pub(crate) name: Option<String>,
    pub(crate) rules: Option<Vec<Rule>>,
    pub(crate) enforce: Option<bool>,
    pub(crate) environment: Option<Option<String>>,
    pub(crate) note: Option<Option<String>>,
    pub(crate) expires_at: Option<Option<Time>>,
    pub(crate) allowed_networks: Option<Vec<String>>,
    pub(crate) limits: Option<Vec<Limit>>,
}

/// Makes a key of the account with an id.
pub(crate) fn create_for(
    change: &mut Change<'_>,
    account: &str,
    new: &NewKey,
) -> Result<Key, StoreError> {
    let account = accounts::get(&change.transaction, account)?;
    create(change, &account, new)
}

/// Makes a key. A user defined one counts against the plan.
pub(super) fn create(
    change: &mut Change<'_>,
    account: &Account,
    new: &NewKey,
) -> Result<Key, StoreError> {
    if new.kind == KeyKind::UserDefined {
        check_key_limit(change, account, new.replaces.as_deref(), 1)?;
    }
    if let Some(replaced) = &new.replaces {
        check_replaceable(change, &account.id, replaced)?;
    }
    change.transaction.execute(
        "INSERT INTO keys (id, account, kind, name, rules, environment, note, allowed_networks,
                           limits, created_at_ms, expires_at_ms, is_enforced, replaces)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            new.id,
            account.id,
            new.kind.as_str(),
            new.name,
            to_json(&new.rules)?,
            new.environment,
            new.note,
            to_json(&new.allowed_networks)?,
            to_json(&new.limits)?,
            change.now_ms,
            new.expires_at.map(Time::as_ms),
            new.enforce,
            new.replaces,
        ],
    )?;
    add_token(change, account, &new.id, &new.token)?;
    let key = get(&change.transaction, &account.id, &new.id, change.now_ms)?;
    change.audit(Some(&account.id), "key.create", &new.id, &json!({"after": key}))?;
    Ok(key)
}

/// Changes a key.
pub(crate) fn edit(
    change: &mut Change<'_>,
    account: &str,
    id: &str,
    patch: &KeyPatch,
) -> Result<Key, StoreError> {
    let before = get(&change.transaction, account, id, change.now_ms)?;
    change.expect(&before)?;
    refuse_revoked(&before)?;
    for (field, is_given) in
        [("rules", patch.rules.is_some()), ("enforce", patch.enforce.is_some())]
    {
        if before.kind != KeyKind::UserDefined && is_given {
            let message = "expected none: what an Application key may do is fixed".to_owned();
            return Err(StoreError::Field { field, message });
        }
    }
    let now_ms = change.now_ms;
    let is_over = |key: &Key| key.expires_at.is_some_and(|time| time.as_ms() <= now_ms);
    let mut set = Vec::new();
    let mut values: Vec<Option<rusqlite::types::Value>> = Vec::new();
    let mut add = |column: &'static str, value: Option<rusqlite::types::Value>| {
        set.push(format!("{column} = ?{}", values.len() + 2));
        values.push(value);
    };
    if let Some(name) = &patch.name {
        add("name", Some(name.clone().into()));
    }
    if let Some(rules) = &patch.rules {
        add("rules", Some(to_json(rules)?.into()));
        if *rules != before.rules {
            add("rules_changed_at_ms", Some(change.now_ms.into()));
        }
    }
    if let Some(enforce) = patch.enforce {
        add("is_enforced", Some(enforce.into()));
    }
    if let Some(environment) = &patch.environment {
        add("environment", environment.clone().map(Into::into));
    }
    if let Some(note) = &patch.note {
        add("note", note.clone().map(Into::into));
    }
    if let Some(expires_at) = &patch.expires_at {
        add("expires_at_ms", expires_at.map(|time| time.as_ms().into()));
    }
    if let Some(networks) = &patch.allowed_networks {
        add("allowed_networks", Some(to_json(networks)?.into()));
    }
    if let Some(limits) = &patch.limits {
        add("limits", Some(to_json(limits)?.into()));
    }
    if !set.is_empty() {
        let sql = format!("UPDATE keys SET {} WHERE id = ?1", set.join(", "));
        let id = Some(rusqlite::types::Value::from(id.to_owned()));
        change
            .transaction
            .execute(&sql, rusqlite::params_from_iter(std::iter::once(id).chain(values)))?;
    }
    touch(change, id)?;
    let after = get(&change.transaction, account, id, change.now_ms)?;
    if after.kind == KeyKind::UserDefined && is_over(&before) && !is_over(&after) {
        let account = accounts::get(&change.transaction, account)?;
        check_key_limit(change, &account, None, 0)?;
    }
    change.audit(Some(account), "key.edit", id, &json!({"before": before, "after": after}))?;
    Ok(after)
}

/// Revokes a key for good; its record stays.
pub(crate) fn revoke(change: &mut Change<'_>, account: &str, id: &str) -> Result<(), StoreError> {
    let before = get(&change.transaction, account, id, change.now_ms)?;
    change.expect(&before)?;
    if before.kind != KeyKind::UserDefined {
        return Err(StoreError::Conflict(
            "an Application key can be regenerated or suspended, never removed".to_owned(),
        ));
    }
    if before.state == KeyState::Revoked {
        return Ok(());
    }
    touch(change, id)?;
    change
        .transaction
        .execute("UPDATE keys SET revoked_at_ms = ?2 WHERE id = ?1", params![id, change.now_ms])?;
    change.transaction.execute("DELETE FROM tokens WHERE key = ?1", [id])?;
    change.audit(Some(account), "key.revoke", id, &json!({"before": before}))
}

/// Suspends a key, or ends its suspension.
pub(crate) fn set_suspended(
    change: &mut Change<'_>,
    account: &str,
    id: &str,
    is_suspended: bool,
) -> Result<Key, StoreError> {
    let before = get(&change.transaction, account, id, change.now_ms)?;
    change.expect(&before)?;
    refuse_revoked(&before)?;
    change
        .transaction
        .execute("UPDATE keys SET is_suspended = ?2 WHERE id = ?1", params![id, is_suspended])?;
    touch(change, id)?;
    let after = get(&change.transaction, account, id, change.now_ms)?;
    let action = if is_suspended { "key.suspend" } else { "key.resume" };
    change.audit(Some(account), action, id, &json!({"before": before, "after": after}))?;
    Ok(after)
}

/// Gives a key another token; the one before it goes on working for so many milliseconds.
pub(crate) fn regenerate(
    change: &mut Change<'_>,
    account: &str,
    id: &str,
    token: &MintedToken,
    grace_ms: i64,
) -> Result<Key, StoreError> {
    let owner = accounts::get(&change.transaction, account)?;
    let before = get(&change.transaction, account, id, change.now_ms)?;
    change.expect(&before)?;
    refuse_revoked(&before)?;
    touch(change, id)?;
    if grace_ms > 0 {
        // A token that is in its grace already keeps the earlier end.
        change.transaction.execute(
            "UPDATE tokens SET grace_ends_at_ms = min(coalesce(grace_ends_at_ms, ?2), ?2)
             WHERE key = ?1",
            params![id, change.now_ms.saturating_add(grace_ms)],
        )?;
        change.transaction.execute(
            "DELETE FROM tokens WHERE key = ?1 AND grace_ends_at_ms <= ?2",
            params![id, change.now_ms],
        )?;
    } else {
        change.transaction.execute("DELETE FROM tokens WHERE key = ?1", [id])?;
    }
    add_token(change, &owner, id, token)?;
    let after = get(&change.transaction, account, id, change.now_ms)?;
    let details = json!({"before": before, "after": after, "grace_seconds": grace_ms / 1000});
    change.audit(Some(account), "key.regenerate", id, &details)?;
    Ok(after)
}

/// Ends the grace of the tokens that a key had before: only its present one works from then on.
pub(crate) fn end_grace(
    change: &mut Change<'_>,
    account: &str,
    id: &str,
) -> Result<Key, StoreError> {
    let before = get(&change.transaction, account, id, change.now_ms)?;
    change.expect(&before)?;
    refuse_revoked(&before)?;
    if before.previous_token_until.is_none() {
        return Err(StoreError::Conflict(format!(
            "no token before the present one of key `{id}` works"
        )));
    }
    touch(change, id)?;
    change
        .transaction
        .execute("DELETE FROM tokens WHERE key = ?1 AND grace_ends_at_ms IS NOT NULL", [id])?;
    let after = get(&change.transaction, account, id, change.now_ms)?;
    let details = json!({"before": before, "after": after});
    change.audit(Some(account), "key.end_grace", id, &details)?;
    Ok(after)
}

/// Returns the encrypted token of a key, and notes who is shown it; none if it was not kept.
pub(crate) fn reveal(
    change: &mut Change<'_>,
    account: &str,
    id: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let key = get(&change.transaction, account, id, change.now_ms)?;
    refuse_revoked(&key)?;
    let sql = "SELECT sealed FROM tokens WHERE key = ?1 AND grace_ends_at_ms IS NULL";
    let sealed: Option<Vec<u8>> =
        change.transaction.query_row(sql, [id], |row| row.get(0)).optional()?.flatten();
    if sealed.is_some() {
        change.audit(Some(account), "key.reveal", id, &json!({"name": key.name}))?;
    }
    Ok(sealed)
}

/// Notes that filters have to look at all tokens of an account again.
pub(super) fn touch_account(change: &mut Change<'_>, account: &str) -> Result<(), StoreError> {
    touch_all(change, "keys.account = ?1", account)
}

/// Notes that filters have to look at the tokens of a key again.
pub(super) fn touch(change: &mut Change<'_>, key: &str) -> Result<(), StoreError> {
    touch_all(change, "keys.id = ?1", key)
}

fn touch_all(change: &mut Change<'_>, condition: &str, id: &str) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT accounts.profile, tokens.hash FROM tokens
         JOIN keys ON keys.id = tokens.key
         JOIN accounts ON accounts.id = keys.account
         WHERE {condition}"
    );
    let mut statement = change.transaction.prepare_cached(&sql)?;
    let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for row in rows {
        change.touched.push(row?);
    }
    Ok(())
}

fn add_token(
    change: &mut Change<'_>,
    account: &Account,
    key: &str,
    token: &MintedToken,
) -> Result<(), StoreError> {
    change.transaction.execute(
        "INSERT INTO tokens (hash, key, hint, created_at_ms, sealed) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![token.hash.as_bytes(), key, token.hint, change.now_ms, token.sealed],
    )?;
    change.touched.push((account.profile.clone(), token.hash.as_bytes().to_vec()));
    Ok(())
}

fn check_replaceable(change: &Change<'_>, account: &str, id: &str) -> Result<(), StoreError> {
    let found = get(&change.transaction, account, id, change.now_ms);
    if found.is_ok_and(|key| key.kind == KeyKind::UserDefined) {
        return Ok(());
    }
    let message = format!("expected the id of a user defined key of the account, found `{id}`");
    Err(StoreError::Field { field: "replaces", message })
}

/// Checks that the plan allows so many user defined keys more. One that is made to replace another may exceed
/// it by one until the other ends: else nobody could go over from one to the other.
fn check_key_limit(
    change: &Change<'_>,
    account: &Account,
    replaced: Option<&str>,
    more: u32,
) -> Result<(), StoreError> {
    let (connection, now_ms) = (&change.transaction, change.now_ms);
    let plan = plans::get(connection, &account.plan)?;
    let count = count(connection, &account.id, now_ms)?;
    let is_replacement = match replaced {
        Some(replaced) => find::is_first_replaced(connection, &account.id, replaced, now_ms)?,
        None => false,
    };
    if count.saturating_add(more) <= plan.max_user_keys.saturating_add(u32::from(is_replacement)) {
        return Ok(());
    }
    Err(StoreError::Conflict(format!(
        "plan `{}` allows {} user defined keys, and the account has {count}; revoke one or choose \
         another plan",
        plan.id, plan.max_user_keys
    )))
}

fn refuse_revoked(key: &Key) -> Result<(), StoreError> {
    if key.state == KeyState::Revoked {
        return Err(StoreError::Conflict(format!("key `{}` is revoked for good", key.id)));
    }
    Ok(())
}
