//! Updates in the making, in their lean form.

use std::collections::BTreeMap;
use std::sync::Arc;

use latchkey_protocol::{
    AccountResources, Limit, Relation, Resource, Revision, RightSet, TokenColumns, Update,
};

use crate::store::StoreError;
use crate::store::usable_tokens::{AccountRow, TokenRow};

/// An update in the making, in its lean form: each account, set of rights and set of networks once.
#[derive(Default)]
pub(crate) struct Draft {
    accounts: Table<String>,
    account_limits: Vec<u32>,
    limit_sets: Table<Arc<[Limit]>>,
    resources: Vec<AccountResources>,
    right_sets: Table<Arc<RightSet>>,
    network_sets: Table<Vec<String>>,
    tokens: TokenColumns,
    /// About how long its JSON is.
    pub(super) bytes: usize,
}

impl Draft {
    /// Adds a usable token, of an account that filters have been told of.
    pub(crate) fn add(&mut self, row: TokenRow) {
        let rules = row.rights.rules();
        let rights_bytes: usize = rules
            .iter()
            .map(|rule| {
                let actions: usize = rule.actions.iter().map(|action| action.len() + 3).sum();
                rule.resource.len() + actions + 32
            })
            .sum();
        let networks_bytes: usize = row.networks.iter().map(|network| network.len() + 3).sum();
        self.bytes += row.key.len() + TOKEN_BYTES;

        let tokens = &mut self.tokens;
        tokens.hashes.push(row.hash);
        tokens.keys.push(row.key);
        tokens.kinds.push(row.kind);
        tokens.right_sets.push(self.right_sets.index(row.rights, rights_bytes, &mut self.bytes));
        tokens.expires_at_ms.push(row.expires_at_ms.map_or(0, i64::unsigned_abs));
        let networks = if row.networks.is_empty() {
            0
        } else {
            self.network_sets.index(row.networks, networks_bytes, &mut self.bytes) + 1
        };
        tokens.network_sets.push(networks);
        if !row.is_enforced {
            let position = u32::try_from(tokens.hashes.len() - 1).unwrap_or(u32::MAX);
            tokens.shadowed.push(position);
        }
        let limits = self.limits(row.limits);
        self.tokens.limit_sets.push(limits);
        let account = self.account(row.account.id);
        self.tokens.accounts.push(account);
    }

    /// Adds an account with its limits and, where they are known, its resources. All of them come before
    /// the first token.
    pub(crate) fn add_account(&mut self, account: AccountRow) {
        let limits = self.limits(account.limits);
        let index = self.account(account.id);
        self.account_limits.push(limits);
        self.bytes += NUMBER_BYTES;
        if let Some(resources) = account.resources {
            self.bytes += resources.iter().map(resource_bytes).sum::<usize>();
            self.resources.push(AccountResources { account: index, resources: resources.to_vec() });
        }
    }

    fn account(&mut self, id: String) -> u32 {
        let bytes = id.len() + 6;
        self.accounts.index(id, bytes, &mut self.bytes)
    }

    /// Returns the index of a set of limits, plus one; 0 if it is empty.
    fn limits(&mut self, limits: Arc<[Limit]>) -> u32 {
        if limits.is_empty() {
            return 0;
        }
        let bytes = limits.iter().map(|limit| limit.name.len() + LIMIT_BYTES).sum();
        self.limit_sets.index(limits, bytes, &mut self.bytes) + 1
    }

    /// Returns a snapshot, or a page of one, with what was added.
    pub(crate) fn finish(self, revision: Revision, anonymous_limits: Vec<Limit>) -> Update {
        Update {
            accounts: self.accounts.values,
            account_limits: self.account_limits,
            limit_sets: self.limit_sets.values.iter().map(|limits| limits.to_vec()).collect(),
            anonymous_limits,
            resources: self.resources,
            right_sets: self.right_sets.values.iter().map(|rights| (**rights).clone()).collect(),
            network_sets: self.network_sets.values,
            tokens: self.tokens,
            ..Update::empty(revision)
        }
    }
}

/// Returns about how long the JSON of a resource is.
fn resource_bytes(resource: &Resource) -> usize {
    let relation = |(field, relation): (&String, &Relation)| match relation {
        Relation::Any(_) => field.len() + 8,
        Relation::Some(names) => field.len() + 8 + names.iter().map(|n| n.len() + 3).sum::<usize>(),
    };
    resource.name.len() + 32 + resource.relations.iter().map(relation).sum::<usize>()
}

/// Values, each once, with their indices.
struct Table<T> {
    values: Vec<T>,
    indices: BTreeMap<T, u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { values: Vec::new(), indices: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Table<T> {
    /// Returns the index of a value; adds its bytes to a sum if it was not there yet.
    fn index(&mut self, value: T, bytes: usize, sum: &mut usize) -> u32 {
        if let Some(&index) = self.indices.get(&value) {
            return index;
        }
        let index = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(value.clone());
        self.indices.insert(value, index);
        *sum += bytes;
        index
    }
}

/// Returns the JSON of an update.
pub(super) fn to_json(update: &Update) -> Result<Vec<u8>, StoreError> {
    Ok(serde_json::to_vec(update)?)
}

/// Length of a page, in bytes of JSON, past which nothing is added to it: what a filter takes in within
/// some milliseconds. The largest single key that the API takes is below 100 KiB.
pub(super) const MAX_PAGE_BYTES: usize = 256 << 10;

/// Length of a delta past which a snapshot in pages is kinder to both sides. A filter can take in 16 MiB
/// at once.
pub(super) const MAX_DELTA_BYTES: usize = 4 << 20;

/// What a token adds to a page beside the id of its key: 43 characters of hash, its kind, and numbers.
const TOKEN_BYTES: usize = 100;

/// What a number adds.
const NUMBER_BYTES: usize = 4;

/// What a limit adds beside its name.
const LIMIT_BYTES: usize = 100;
