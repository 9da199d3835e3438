//! Usable tokens, with all that filters know of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use latchkey_filter::profile::Profile;
use latchkey_protocol::{KeyHash, KeyKind, Limit, Resource, Revision, RightSet};
use rusqlite::{Connection, Row, ToSql, params};

use super::changes::{anonymous_limits, last_with_time, read_hash};
use super::ledger::{from_sql, limits_of};
use super::{StoreError, from_json, resources};

/// An account, as far as filters are concerned; with a token among many, its id alone.
#[derive(Clone, Debug)]
pub(crate) struct AccountRow {
    pub(crate) id: String,
    pub(crate) limits: Arc<[Limit]>,
    /// Its resources; absent if they are the same as before.
    pub(crate) resources: Option<Arc<[Resource]>>,
}

/// A usable token with what it stands for.
#[derive(Debug)]
pub(crate) struct TokenRow {
    pub(crate) hash: KeyHash,
    pub(crate) key: String,
    pub(crate) kind: KeyKind,
    pub(crate) account: AccountRow,
    /// Limits of the key's own.
    pub(crate) limits: Arc<[Limit]>,
    pub(crate) rights: Arc<RightSet>,
    pub(crate) networks: Vec<String>,
    pub(crate) expires_at_ms: Option<i64>,
    /// Whether its rules refuse requests.
    pub(crate) is_enforced: bool,
}

/// Reads the accounts and usable tokens of a profile in pages, as of one moment.
pub(crate) struct Pages<'a> {
    connection: &'a Connection,
    profile: &'a Profile,
    pub(crate) revision: Revision,
    at_ms: i64,
    sets: Sets,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        profile: &'a Profile,
    ) -> Result<Self, StoreError> {
        let (revision, at_ms) = last_with_time(connection)?;
        Ok(Self { connection, profile, revision, at_ms, sets: Sets::default() })
    }

    /// Returns the accounts that come after one, with their resources, at most so many.
    pub(crate) fn accounts(
        &mut self,
        after: &str,
        limit: i64,
    ) -> Result<Vec<AccountRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT accounts.id, plans.limits, accounts.generation
             FROM accounts JOIN plans ON plans.id = accounts.plan
             WHERE accounts.profile = ?1 AND accounts.id > ?2 ORDER BY accounts.id LIMIT ?3",
        )?;
        let mut rows = statement.query(params![self.profile.name, after, limit])?;
        let mut accounts = Vec::new();
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            let resources = Some(resources::all(self.connection, &id)?);
            accounts.push(AccountRow {
                id,
                limits: self.sets.limits(&row.get::<_, String>(1)?, from_sql(row, 2)?)?,
                resources,
            });
        }
        Ok(accounts)
    }

    /// Returns the usable tokens whose hashes come after one, or all, at most so many.
    pub(crate) fn tokens(
        &mut self,
        after: Option<&KeyHash>,
        limit: i64,
    ) -> Result<Vec<TokenRow>, StoreError> {
        let sql = format!("{USABLE} AND hash > ?3 ORDER BY hash LIMIT ?4");
        let mut statement = self.connection.prepare_cached(&sql)?;
        // A blob is greater than one without bytes, whatever it holds.
        let after = after.map_or(&[][..], |hash| hash.as_bytes());
        let mut rows = statement.query(params![self.profile.name, self.at_ms, after, limit])?;
        let mut tokens = Vec::new();
        while let Some(row) = rows.next()? {
            tokens.push(read_token(row, &mut self.sets)?);
        }
        Ok(tokens)
    }

    /// Returns the limits of each client address that calls without a token.
    pub(crate) fn anonymous_limits(&self) -> Result<Vec<Limit>, StoreError> {
        anonymous_limits(self.connection, self.profile)
    }
}

/// Returns what filters know of a key by one of its tokens; of those in their grace, the newest.
pub(crate) fn token_of_key(
    connection: &Connection,
    profile: &Profile,
    key: &str,
) -> Result<Option<TokenRow>, StoreError> {
    let newest = "SELECT hash FROM tokens WHERE key = ?3
                  ORDER BY grace_ends_at_ms IS NOT NULL, grace_ends_at_ms DESC LIMIT 1";
    one_token(connection, profile, &format!("{USABLE} AND hash = ({newest})"), key)
}

/// Returns what filters know of a token, if they know it.
pub(crate) fn token_by_hash(
    connection: &Connection,
    profile: &Profile,
    hash: &KeyHash,
) -> Result<Option<TokenRow>, StoreError> {
    one_token(connection, profile, &format!("{USABLE} AND hash = ?3"), hash.as_bytes())
}

fn one_token(
    connection: &Connection,
    profile: &Profile,
    sql: &str,
    wanted: impl ToSql,
) -> Result<Option<TokenRow>, StoreError> {
    let (_, at_ms) = last_with_time(connection)?;
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![profile.name, at_ms, wanted])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let mut token = read_token(row, &mut Sets::default())?;
    let limits = "SELECT plans.limits, accounts.generation
                  FROM accounts JOIN plans ON plans.id = accounts.plan WHERE accounts.id = ?1";
    let row = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, from_sql(row, 1)?));
    let (limits, generation) = connection.query_row(limits, [&token.account.id], row)?;
    token.account.limits = limits_of(&limits, generation)?.into();
    token.account.resources = Some(resources::all(connection, &token.account.id)?);
    Ok(Some(token))
}

/// Returns those of some tokens that are usable at a time, and those that are not.
pub(super) fn find(
    connection: &Connection,
    profile: &Profile,
    at_ms: i64,
    hashes: BTreeSet<KeyHash>,
    sets: &mut Sets,
) -> Result<(Vec<TokenRow>, Vec<KeyHash>), StoreError> {
    let sql = format!("{USABLE} AND hash = ?3");
    let mut find = connection.prepare_cached(&sql)?;
    let (mut usable, mut removed) = (Vec::new(), Vec::new());
    for hash in hashes {
        let mut rows = find.query(params![profile.name, at_ms, hash.as_bytes()])?;
        match rows.next()? {
            Some(row) => usable.push(read_token(row, sets)?),
            None => removed.push(hash),
        }
    }
    Ok((usable, removed))
}

/// Takes in what tokens, each of a profile, stand for since a change.
pub(super) fn keep(
    connection: &Connection,
    touched: &[(String, Vec<u8>)],
) -> Result<(), StoreError> {
    let mut remove =
        connection.prepare_cached("DELETE FROM usable_tokens WHERE profile = ?1 AND hash = ?2")?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO usable_tokens
         SELECT ?1, tokens.hash, keys.id, keys.kind, keys.account, keys.rules,
                keys.allowed_networks, keys.limits,
                CASE
                  WHEN tokens.grace_ends_at_ms IS NULL THEN keys.expires_at_ms
                  WHEN keys.expires_at_ms IS NULL THEN tokens.grace_ends_at_ms
                  ELSE min(tokens.grace_ends_at_ms, keys.expires_at_ms)
                END,
                keys.is_enforced
         FROM tokens JOIN keys ON keys.id = tokens.key JOIN accounts ON accounts.id = keys.account
         WHERE tokens.hash = ?2 AND keys.revoked_at_ms IS NULL AND NOT keys.is_suspended
           AND NOT accounts.is_suspended",
    )?;
    for (profile, hash) in touched {
        remove.execute(params![profile, hash])?;
        insert.execute(params![profile, hash])?;
    }
    Ok(())
}

/// Sets by their text in the store, each read once: thousands of accounts share a plan, and most keys
/// their rules.
#[derive(Default)]
pub(super) struct Sets {
    limits: HashMap<u64, HashMap<String, Arc<[Limit]>>>,
    own_limits: HashMap<String, Arc<[Limit]>>,
    rights: HashMap<String, Arc<RightSet>>,
}

impl Sets {
    /// Returns the limits in a text as they hold for an account of a generation.
    pub(super) fn limits(
        &mut self,
        json: &str,
        generation: u64,
    ) -> Result<Arc<[Limit]>, StoreError> {
        let known = self.limits.entry(generation).or_default();
        if let Some(limits) = known.get(json) {
            return Ok(Arc::clone(limits));
        }
        let limits: Arc<[Limit]> = limits_of(json, generation)?.into();
        known.insert(json.to_owned(), Arc::clone(&limits));
        Ok(limits)
    }

    /// Returns a key's own limits.
    fn own_limits(&mut self, json: &str) -> Result<Arc<[Limit]>, StoreError> {
        if let Some(limits) = self.own_limits.get(json) {
            return Ok(Arc::clone(limits));
        }
        let limits: Arc<[Limit]> = from_json::<Vec<Limit>>(json)?.into();
        self.own_limits.insert(json.to_owned(), Arc::clone(&limits));
        Ok(limits)
    }

    fn rights(&mut self, json: &str) -> Result<Arc<RightSet>, StoreError> {
        if let Some(rights) = self.rights.get(json) {
            return Ok(Arc::clone(rights));
        }
        let rights = Arc::new(from_json::<RightSet>(json)?);
        self.rights.insert(json.to_owned(), Arc::clone(&rights));
        Ok(rights)
    }
}

/// Reads a token, without the limits and resources of its account.
fn read_token(row: &Row<'_>, sets: &mut Sets) -> Result<TokenRow, StoreError> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(TokenRow {
        hash: read_hash(row, 0)?,
        key: row.get(1)?,
        kind: super::keys::read_kind(text(2)?)?,
        account: AccountRow { id: row.get(3)?, limits: Arc::from([]), resources: None },
        limits: sets.own_limits(text(7)?)?,
        rights: sets.rights(text(4)?)?,
        networks: from_json(text(5)?)?,
        expires_at_ms: row.get(6)?,
        is_enforced: row.get(8)?,
    })
}

/// Tokens of profile ?1 that are usable as of time ?2: that of a change, so that a snapshot depends
/// on its revision alone. What ends later, filters find out by themselves.
const USABLE: &str = "
    SELECT hash, key, kind, account, rules, allowed_networks, ends_at_ms, limits, is_enforced
    FROM usable_tokens
    WHERE profile = ?1 AND (ends_at_ms IS NULL OR ends_at_ms > ?2)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MintedToken, NewAccount, NewKey, Origin, Plan, Store, accounts, plans};
    use crate::time::Time;

    /// A change that was made while the clock was 400 days ahead used to hide keys that expire before that.
    #[tokio::test]
    async fn clock_that_was_ahead_expires_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let day_ms = 86_400_000;
        let now_ms = Time::now().as_ms();
        let key = |name: &str, expires_ms: i64| NewKey {
            id: format!("key_{name}"),
            name: name.to_owned(),
            kind: KeyKind::UserDefined,
            rules: vec![],
            enforce: true,
            environment: None,
            note: None,
            expires_at: Some(Time::from_ms(expires_ms)),
            allowed_networks: vec![],
            limits: vec![],
            replaces: None,
            token: MintedToken {
                hash: KeyHash::of(name.as_bytes()),
                hint: "h".into(),
                sealed: None,
            },
        };
        let (id, name) = ("acme".to_owned(), "Acme".to_owned());
        let limits = vec![];
        let plan = Plan { id: "p".to_owned(), name: "p".to_owned(), limits, max_user_keys: 9 };
        let keys = vec![key("soon", now_ms + 30 * day_ms), key("over", now_ms - day_ms)];
        let (plan_id, profile) = ("p".to_owned(), "flotiq".to_owned());
        let account = NewAccount { id, name, plan: plan_id, profile, keys };
        let made = store.change(Origin::of("test", ""), move |change| {
            plans::put(change, &plan)?;
            accounts::create(change, &account)
        });
        made.await.unwrap();
        let ahead_ms = now_ms + 400 * day_ms;
        let (_, json) = latchkey_filter::profile::SHIPPED[0];
        let profile = Profile::parse(json).unwrap();
        let found = store.keep_ledger(|connection| {
            connection.execute("UPDATE changes SET at_ms = ?1", [ahead_ms])?;
            let listed = Pages::new(connection, &profile)?.tokens(None, 10)?;
            let found =
                |name: &str| token_by_hash(connection, &profile, &KeyHash::of(name.as_bytes()));
            Ok((listed.len(), found("soon")?.is_some(), found("over")?.is_some()))
        });
        assert_eq!(found.unwrap(), (1, true, false));
    }
}
