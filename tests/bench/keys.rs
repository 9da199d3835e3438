//! Many keys, without asking the management API for each: that would take an hour for a million.
//!
//! The API makes a plan, an account with its content types, and a key for each of some different
//! lists of rules; the rest are copies of these rows, put into the store while nothing else has it
//! open. The token of each follows from its number, so that clients know them all.

use std::path::{Path, PathBuf};

use latchkey_protocol::{KeyHash, TokenFormat};
use latchkey_tests::{ControlPlane, ports};
use rusqlite::{Connection, Transaction, params};
use serde_json::{Value, json};

/// How many keys there are, in how many accounts; they are spread evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Number of keys.
    pub(crate) keys: u32,
    /// Number of accounts.
    pub(crate) accounts: u32,
}

/// The data of a control plane.
#[derive(Clone, Debug)]
pub(crate) struct Dataset {
    /// How much it is.
    pub(crate) scale: Scale,
    /// Folder of the store.
    pub(crate) data: PathBuf,
    /// Token of a key whose account has nothing left.
    pub(crate) used_up: String,
}

impl Scale {
    /// Returns the id of a key's account.
    pub(crate) fn account(self, key: u32) -> String {
        format!("account-{:04}", key % self.accounts)
    }

    /// Returns some of the keys, with all accounts among them, in an order that follows none of theirs.
    pub(crate) fn some_keys(self, count: u32) -> impl Iterator<Item = u32> {
        let (start, keys) = (self.keys / 3, u64::from(self.keys));
        (0..count.min(self.keys)).filter_map(move |index| {
            let place = u64::from(start) + u64::from(index) * STRIDE;
            u32::try_from(place % keys).ok()
        })
    }

    /// Makes the data in an empty folder.
    ///
    /// # Errors
    ///
    /// If the control plane does not start or refuses, or the store is another than expected.
    pub(crate) async fn make(self, folder: &Path) -> anyhow::Result<Dataset> {
        let data = folder.join("data");
        let mut control_plane =
            ControlPlane::start(ports::free()?, &data, folder, None, &[]).await?;
        let templates = make_templates(&control_plane).await?;
        let used_up = make_used_up(&control_plane).await?;
        control_plane.stop().await?;
        let mut store = Connection::open(data.join("latchkey.db"))?;
        store.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;")?;
        let transaction = store.transaction()?;
        self.copy_accounts(&transaction)?;
        self.copy_keys(&transaction, &templates)?;
        transaction.commit()?;
        drop(store);
        // Else the first commit that is measured would wait for all of this to be on the disk.
        std::fs::File::open(data.join("latchkey.db"))?.sync_all()?;
        Ok(Dataset { scale: self, data, used_up })
    }

    fn copy_accounts(self, transaction: &Transaction<'_>) -> anyhow::Result<()> {
        let mut account = transaction.prepare(
            "INSERT INTO accounts (id, name, plan, profile, created_at_ms)
             SELECT ?1, ?1, plan, profile, created_at_ms FROM accounts WHERE id = ?2",
        )?;
        let mut resources = transaction.prepare(
            "INSERT INTO resources (account, name, relations)
             SELECT ?1, name, relations FROM resources WHERE account = ?2",
        )?;
        for index in 0..self.accounts {
            let id = self.account(index);
            account.execute(params![id, TEMPLATE])?;
            resources.execute(params![id, TEMPLATE])?;
        }
        Ok(())
    }

    fn copy_keys(self, transaction: &Transaction<'_>, templates: &[String]) -> anyhow::Result<()> {
        let mut key = transaction.prepare(
            "INSERT INTO keys (id, account, kind, name, rules, environment, note,
                               allowed_networks, limits, created_at_ms, is_enforced)
             SELECT ?1, ?2, kind, ?1, rules, environment, note, allowed_networks, limits,
                    created_at_ms, is_enforced
             FROM keys WHERE id = ?3",
        )?;
        for (index, template) in (0..self.keys).zip(templates.iter().cycle()) {
            key.execute(params![key_id(index), self.account(index), template])?;
        }
        let mut token = transaction.prepare(
            "INSERT INTO tokens (hash, key, hint, created_at_ms)
             SELECT ?1, ?2, ?3, created_at_ms FROM keys WHERE id = ?2",
        )?;
        // In the order of their index, which is many times faster.
        let mut hashes: Vec<(KeyHash, u32)> =
            (0..self.keys).map(|index| (KeyHash::of(token_of(index).as_bytes()), index)).collect();
        hashes.sort_unstable();
        for (hash, index) in hashes {
            let hint = format!("…{}", token_of(index).get(30..).unwrap_or_default());
            token.execute(params![hash.as_bytes(), key_id(index), hint])?;
        }
        transaction.execute(
            "INSERT INTO usable_tokens (profile, hash, key, kind, account, rules,
                                        allowed_networks, limits, ends_at_ms, is_enforced)
             SELECT accounts.profile, tokens.hash, keys.id, keys.kind, keys.account, keys.rules,
                    keys.allowed_networks, keys.limits, NULL, keys.is_enforced
             FROM tokens JOIN keys ON keys.id = tokens.key JOIN accounts ON accounts.id = keys.account
             WHERE tokens.hash NOT IN (SELECT hash FROM usable_tokens)
             ORDER BY accounts.profile, tokens.hash",
            [],
        )?;
        Ok(())
    }
}

/// Returns the id of a key.
pub(crate) fn key_id(index: u32) -> String {
    format!("key_{index:014}")
}

/// Returns the token of a key; those from the number of keys on are nobody's.
pub(crate) fn token_of(index: u32) -> String {
    let digits: String = KeyHash::of(&index.to_le_bytes())
        .as_bytes()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let format = TokenFormat { prefix: "ftq_".to_owned(), random_chars: 24 };
    format.token(&digits).reveal().to_owned()
}

/// Makes the rows to copy, and returns the ids of the keys among them.
async fn make_templates(control_plane: &ControlPlane) -> anyhow::Result<Vec<String>> {
    // So much that it is never reached.
    let limit = json!({"name": "hourly", "amount": 1_000_000_000_000_u64, "bucket_seconds": 3600, "buckets": 1});
    let plan = json!({"name": "Bench", "limits": [limit], "max_user_keys": 100_000});
    control_plane.call("PUT", "/plans/bench", &plan).await?;
    let account = json!({"id": TEMPLATE, "name": "Bench", "plan": "bench", "profile": "flotiq"});
    control_plane.call("POST", "/accounts", &account).await?;
    for (name, relations) in content_types() {
        let path = format!("/accounts/{TEMPLATE}/resources/{name}");
        control_plane.call("PUT", &path, &json!({"relations": relations})).await?;
    }
    let mut ids = Vec::new();
    for index in 0..RULE_SETS {
        let key = json!({"name": format!("Template {index}"), "rules": rules(index)});
        ids.push(control_plane.create_key(TEMPLATE, &key).await?.id);
    }
    Ok(ids)
}

/// Makes an account with nothing left, and returns the token of its key.
async fn make_used_up(control_plane: &ControlPlane) -> anyhow::Result<String> {
    let limits = json!([{"name": "per_second", "amount": 0, "bucket_seconds": 1, "buckets": 1}]);
    Ok(control_plane.create_limited_account("used-up", &limits).await?.token)
}

fn content_types() -> [(&'static str, Value); 10] {
    [
        ("articles", json!({"author": ["authors"], "category": ["categories"]})),
        ("authors", json!({"portrait": ["pictures"]})),
        ("categories", json!({"parent": ["categories"]})),
        ("events", json!({"place": ["places"], "speakers": ["authors"]})),
        ("orders", json!({"items": ["products"]})),
        ("pages", json!({"teasers": ["articles", "events"]})),
        ("pictures", json!({})),
        ("places", json!({})),
        ("products", json!({"category": ["categories"], "pictures": ["pictures"]})),
        ("reviews", json!({"product": ["products"]})),
    ]
}

/// Returns one of the lists of rules: all read articles and what they lead to, none reads orders.
fn rules(index: u32) -> Value {
    let mut rules = vec![
        json!({"resource": "articles", "actions": ["read"]}),
        json!({"resource": "authors", "actions": ["read"]}),
        json!({"resource": "categories", "actions": ["read"]}),
        json!({"resource": "pictures", "actions": ["read"]}),
    ];
    for (bit, name) in ["events", "pages", "places", "products", "reviews"].iter().enumerate() {
        if index >> bit & 1 == 1 {
            let actions: &[&str] =
                if index >= 32 { &["read", "create", "update"] } else { &["read"] };
            rules.push(json!({"resource": name, "actions": actions}));
        }
    }
    Value::from(rules)
}

/// Account whose rows are copied.
const TEMPLATE: &str = "template";

/// Different lists of rules among the keys.
const RULE_SETS: u32 = 50;

/// Prime, so that steps of it visit every key.
const STRIDE: u64 = 99_991;
