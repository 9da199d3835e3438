//! This proxy's copy of the snapshot: token hash → key.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;
use latchkey_protocol::{Identity, KeyHash, KeyKind, Limit, Revision, RightSet, Update};

use crate::resources::Resources;

/// All usable keys of one profile, as of a revision.
#[derive(Debug)]
pub struct Replica {
    revision: Revision,
    keys: HashMap<KeyHash, KeyRecord, BuildHasherDefault<HashPrefix>>,
    accounts: BTreeMap<Arc<str>, Rc<AccountRecord>>,
    limit_sets: BTreeSet<Rc<[Limit]>>,
    anonymous_limits: Rc<[Limit]>,
    right_sets: BTreeSet<Rc<RightSet>>,
    network_sets: BTreeSet<Rc<[IpNet]>>,
    resource_sets: BTreeSet<Rc<Resources>>,
    /// Number of sets at which those that no key uses any more are dropped.
    sweep_at: usize,
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Id of the key.
    pub id: Arc<str>,
    /// Kind of the key.
    pub kind: KeyKind,
    /// The account that owns it.
    pub account: Rc<AccountRecord>,
    /// Limits of its own; most keys have none.
    pub limits: Option<Rc<[Limit]>>,
    /// What the key holds.
    pub rights: Rc<RightSet>,
    /// Whether what its rights forbid is noted and let through.
    pub is_shadowed: bool,
    /// Networks from which it may be used; absent, all.
    pub networks: Option<Rc<[IpNet]>>,
    /// First moment at which the token is no longer valid, in milliseconds since the epoch.
    pub expires_at_ms: Option<NonZeroU64>,
}

/// Who owns keys.
#[derive(Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// Its id.
    pub id: Arc<str>,
    limits: RefCell<AccountLimits>,
    resources: RefCell<Rc<Resources>>,
}

/// The limits of an account that count calls with an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountLimits {
    /// Those that count every call.
    pub every_call: Rc<[Limit]>,
    /// Those that count calls with an API key apart from others.
    pub with_key: Rc<[Limit]>,
}

impl AccountRecord {
    /// Returns its limits, as of the last update.
    #[must_use]
    pub fn limits(&self) -> AccountLimits {
        self.limits.borrow().clone()
    }

    /// Returns its resources, as of the last update.
    #[must_use]
    pub fn resources(&self) -> Rc<Resources> {
        Rc::clone(&self.resources.borrow())
    }
}

/// Why an update was not applied; the replica is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A delta that starts from another revision than the replica's.
    #[error("the delta starts from revision {base}, the replica is at {held}")]
    Gap {
        /// What the delta starts from.
        base: Revision,
        /// What the replica holds.
        held: Revision,
    },
    /// Columns of different lengths.
    #[error("the columns of tokens differ in length")]
    Columns,
    /// An index past the end of its table.
    #[error("index {index} is past the end of `{table}`")]
    Index {
        /// Name of the table.
        table: &'static str,
        /// The index.
        index: u32,
    },
    /// A network that is no CIDR.
    #[error("`{0}` is no network")]
    Network(String),
    /// A page of another snapshot than the one being taken in, or out of order.
    #[error("page {found} came where page {expected} was expected")]
    Page {
        /// Page that came.
        found: u32,
        /// Page that was expected.
        expected: u32,
    },
}

impl Replica {
    /// Returns an empty replica, to which the pages of a snapshot are added.
    #[must_use]
    pub fn empty(revision: Revision) -> Self {
        Self {
            revision,
            keys: HashMap::default(),
            accounts: BTreeMap::new(),
            limit_sets: BTreeSet::new(),
            anonymous_limits: Rc::from([]),
            right_sets: BTreeSet::new(),
            network_sets: BTreeSet::new(),
            resource_sets: BTreeSet::new(),
            sweep_at: MIN_SWEEP,
        }
    }

    /// Returns the revision up to which all changes are in.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Reports whether there are no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns what a token stands for.
    #[must_use]
    pub fn find(&self, hash: &KeyHash) -> Option<&KeyRecord> {
        self.keys.get(hash)
    }

    /// Returns the limits of each client address that calls without a token.
    #[must_use]
    pub fn anonymous_limits(&self) -> &Rc<[Limit]> {
        &self.anonymous_limits
    }

    /// Applies a delta, whole or not at all.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`] if the delta does not fit; the replica is unchanged.
    pub fn apply_delta(&mut self, base: Revision, update: Update) -> Result<(), UpdateError> {
        if base != self.revision {
            return Err(UpdateError::Gap { base, held: self.revision });
        }
        let revision = update.revision;
        self.add(update)?;
        self.revision = revision;
        Ok(())
    }

    /// Adds the tokens of a page or delta and removes those that it names.
    ///
    /// # Errors
    ///
    /// An [`UpdateError`] if it contradicts itself; the replica is unchanged.
    pub fn add(&mut self, update: Update) -> Result<(), UpdateError> {
        let Parts { records, limits, resources } = self.parts(&update)?;
        for (account, limits) in limits {
            account.limits.replace(limits);
        }
        for (account, resources) in resources {
            account.resources.replace(resources);
        }
        let anonymous_limits = update.anonymous_limits.as_slice();
        if *self.anonymous_limits != *anonymous_limits {
            self.anonymous_limits = intern(&mut self.limit_sets, Rc::from(anonymous_limits));
        }
        for hash in &update.removed_tokens {
            self.keys.remove(hash);
        }
        self.keys.extend(update.tokens.hashes.into_iter().zip(records));
        self.sweep();
        Ok(())
    }

    /// Returns what an update brings; nothing that is in use is changed.
    fn parts(&mut self, update: &Update) -> Result<Parts, UpdateError> {
        let tokens = &update.tokens;
        let count = tokens.hashes.len();
        let lengths = [
            tokens.keys.len(),
            tokens.kinds.len(),
            tokens.accounts.len(),
            tokens.right_sets.len(),
            tokens.expires_at_ms.len(),
            tokens.network_sets.len(),
        ];
        if lengths.iter().any(|&length| length != count) {
            return Err(UpdateError::Columns);
        }
        let has_column = |column: &Vec<u32>, length| column.is_empty() || column.len() == length;
        if !has_column(&update.account_limits, update.accounts.len())
            || !has_column(&tokens.limit_sets, count)
        {
            return Err(UpdateError::Columns);
        }
        let mut limit_sets: Vec<Rc<[Limit]>> = vec![Rc::from([])];
        for limits in &update.limit_sets {
            limit_sets.push(intern(&mut self.limit_sets, Rc::from(limits.as_slice())));
        }
        let mut accounts = Vec::with_capacity(update.accounts.len());
        let mut changed = Vec::new();
        let account_limits = update.account_limits.iter().copied().chain(std::iter::repeat(0));
        for (id, limits) in update.accounts.iter().zip(account_limits) {
            let limits = entry("limit_sets", &limit_sets, limits)?;
            let limits = AccountLimits {
                every_call: self.counting(&limits, None),
                with_key: self.counting(&limits, Some(Identity::Key)),
            };
            let account = match self.accounts.get(id.as_str()) {
                Some(account) => Rc::clone(account),
                None => {
                    let id: Arc<str> = Arc::from(id.as_str());
                    let account = Rc::new(AccountRecord {
                        id: Arc::clone(&id),
                        limits: RefCell::new(limits.clone()),
                        resources: RefCell::default(),
                    });
                    self.accounts.insert(id, Rc::clone(&account));
                    account
                }
            };
            changed.push((Rc::clone(&account), limits));
            accounts.push(account);
        }
        let mut resources = Vec::with_capacity(update.resources.len());
        for given in &update.resources {
            let account = entry("accounts", &accounts, given.account)?;
            let known = Rc::new(Resources::new(&given.resources));
            resources.push((account, intern(&mut self.resource_sets, known)));
        }
        let right_sets: Vec<Rc<RightSet>> = update
            .right_sets
            .iter()
            .map(|rights| intern(&mut self.right_sets, Rc::new(rights.clone())))
            .collect();
        let mut network_sets: Vec<Option<Rc<[IpNet]>>> = vec![None];
        for networks in &update.network_sets {
            let networks: Rc<[IpNet]> =
                networks.iter().map(|network| parse_network(network)).collect::<Result<_, _>>()?;
            network_sets.push(Some(intern(&mut self.network_sets, networks)));
        }

        let mut records = Vec::with_capacity(count);
        let columns = tokens.keys.iter().zip(&tokens.kinds).zip(&tokens.accounts);
        let columns = columns.zip(&tokens.right_sets).zip(&tokens.network_sets);
        let own_limits = tokens.limit_sets.iter().copied().chain(std::iter::repeat(0));
        for ((((((key, kind), account), rights), networks), &expires_at_ms), limits) in
            columns.zip(&tokens.expires_at_ms).zip(own_limits)
        {
            let limits = entry("limit_sets", &limit_sets, limits)?;
            records.push(KeyRecord {
                id: key.as_str().into(),
                kind: *kind,
                account: entry("accounts", &accounts, *account)?,
                limits: (!limits.is_empty()).then_some(limits),
                rights: entry("right_sets", &right_sets, *rights)?,
                is_shadowed: false,
                networks: entry("network_sets", &network_sets, *networks)?,
                expires_at_ms: NonZeroU64::new(expires_at_ms),
            });
        }
        for &position in &tokens.shadowed {
            let at = usize::try_from(position).ok();
            let record = at.and_then(|at| records.get_mut(at));
            let out_of_range = UpdateError::Index { table: "tokens", index: position };
            record.ok_or(out_of_range)?.is_shadowed = true;
        }
        Ok(Parts { records, limits: changed, resources })
    }

    /// Returns the limits of a set that count calls as one identity apart, or all calls.
    fn counting(&mut self, limits: &Rc<[Limit]>, identity: Option<Identity>) -> Rc<[Limit]> {
        if limits.iter().all(|limit| limit.identity == identity) {
            return Rc::clone(limits);
        }
        let counting: Vec<Limit> =
            limits.iter().filter(|limit| limit.identity == identity).cloned().collect();
        intern(&mut self.limit_sets, Rc::from(counting))
    }

    /// Drops sets that no key uses, now and then: looking at all of them costs as much as there
    /// are, so it waits until there are twice as many as after the last time.
    fn sweep(&mut self) {
        if self.sets() < self.sweep_at {
            return;
        }
        self.accounts.retain(|_, account| Rc::strong_count(account) > 1);
        self.limit_sets.retain(|limits| Rc::strong_count(limits) > 1);
        self.right_sets.retain(|rights| Rc::strong_count(rights) > 1);
        self.network_sets.retain(|networks| Rc::strong_count(networks) > 1);
        self.resource_sets.retain(|resources| Rc::strong_count(resources) > 1);
        self.sweep_at = MIN_SWEEP.max(2 * self.sets());
    }

    fn sets(&self) -> usize {
        let of_keys = self.right_sets.len() + self.network_sets.len() + self.limit_sets.len();
        self.accounts.len() + self.resource_sets.len() + of_keys
    }
}

/// What an update brings.
struct Parts {
    /// What its tokens stand for, in the order of their hashes.
    records: Vec<KeyRecord>,
    limits: Vec<(Rc<AccountRecord>, AccountLimits)>,
    resources: Vec<(Rc<AccountRecord>, Rc<Resources>)>,
}

fn intern<T: Ord + ?Sized>(known: &mut BTreeSet<Rc<T>>, value: Rc<T>) -> Rc<T> {
    if let Some(same) = known.get(&value) {
        return Rc::clone(same);
    }
    known.insert(Rc::clone(&value));
    value
}

fn entry<T: Clone>(table: &'static str, entries: &[T], index: u32) -> Result<T, UpdateError> {
    usize::try_from(index)
        .ok()
        .and_then(|at| entries.get(at))
        .cloned()
        .ok_or(UpdateError::Index { table, index })
}

fn parse_network(text: &str) -> Result<IpNet, UpdateError> {
    text.parse().map_err(|_| UpdateError::Network(text.to_owned()))
}

/// Takes a hash's first eight bytes for its place in the table.
///
/// SHA-256 needs no second hash. Only the control plane puts entries in, so nobody can crowd them.
#[derive(Clone, Copy, Debug, Default)]
struct HashPrefix(u64);

impl Hasher for HashPrefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // The length that is written before the bytes of an array.
    fn write_usize(&mut self, _length: usize) {}
}

/// Sets below which sweeping is not worth its while.
const MIN_SWEEP: usize = 1024;

#[cfg(test)]
mod tests {
    use latchkey_protocol::{AccountResources, Resource, Rule, TokenColumns};
    use proptest::prelude::*;

    use super::*;

    fn revision(number: u64) -> Revision {
        Revision { number, mark: number }
    }

    fn hash(id: u8) -> KeyHash {
        KeyHash::of(&[id])
    }

    fn delta(base: u64, added: &[u8], removed: &[u8]) -> Update {
        let count = added.len();
        Update {
            base: Some(revision(base)),
            accounts: vec!["acme".to_owned()],
            right_sets: vec![RightSet::from(vec![Rule {
                resource: "*".to_owned(),
                actions: vec!["read".to_owned()],
            }])],
            tokens: TokenColumns {
                hashes: added.iter().map(|&id| hash(id)).collect(),
                keys: added.iter().map(|id| format!("key_{id}")).collect(),
                kinds: vec![KeyKind::UserDefined; count],
                accounts: vec![0; count],
                right_sets: vec![0; count],
                expires_at_ms: vec![0; count],
                network_sets: vec![0; count],
                ..TokenColumns::default()
            },
            removed_tokens: removed.iter().map(|&id| hash(id)).collect(),
            ..Update::empty(revision(base + 1))
        }
    }

    fn apply(replica: &mut Replica, update: Update) -> Result<(), UpdateError> {
        replica.apply_delta(update.base.unwrap(), update)
    }

    #[test]
    fn delta_adds_and_removes() {
        let mut replica = Replica::empty(revision(0));
        apply(&mut replica, delta(0, &[1, 2], &[])).unwrap();
        apply(&mut replica, delta(1, &[3], &[1])).unwrap();
        assert_eq!(replica.revision(), revision(2));
        assert!(replica.find(&hash(1)).is_none());
        assert_eq!(&*replica.find(&hash(2)).unwrap().id, "key_2");
        assert_eq!(replica.len(), 2);
    }

    #[test]
    fn equal_right_sets_are_held_once() {
        let mut replica = Replica::empty(revision(0));
        apply(&mut replica, delta(0, &[1], &[])).unwrap();
        apply(&mut replica, delta(1, &[2], &[])).unwrap();
        let [one, two] = [1, 2].map(|id| Rc::clone(&replica.find(&hash(id)).unwrap().rights));
        assert!(Rc::ptr_eq(&one, &two));
    }

    #[test]
    fn resources_stay_until_others_come() {
        let mut replica = Replica::empty(revision(0));
        let mut first = delta(0, &[1], &[]);
        let posts = Resource { name: "posts".to_owned(), relations: BTreeMap::new() };
        first.resources = vec![AccountResources { account: 0, resources: vec![posts] }];
        apply(&mut replica, first).unwrap();
        apply(&mut replica, delta(1, &[2], &[])).unwrap();
        let knows_posts = |replica: &Replica| {
            replica.find(&hash(2)).unwrap().account.resources().find("posts").is_some()
        };
        assert!(knows_posts(&replica));
        let mut none = delta(2, &[], &[]);
        none.resources = vec![AccountResources { account: 0, resources: vec![] }];
        apply(&mut replica, none).unwrap();
        assert!(!knows_posts(&replica));
    }

    #[test]
    fn rejected_update_changes_nothing() {
        let mut replica = Replica::empty(revision(0));
        apply(&mut replica, delta(0, &[1], &[])).unwrap();
        let gap = delta(7, &[2], &[1]);
        let mut other_store = delta(1, &[2], &[1]);
        other_store.base = Some(Revision { number: 1, mark: 99 });
        let mut columns = delta(1, &[2], &[1]);
        columns.tokens.kinds.clear();
        let mut account = delta(1, &[2], &[1]);
        account.tokens.accounts = vec![1];
        let mut rights = delta(1, &[2], &[1]);
        rights.tokens.right_sets = vec![u32::MAX];
        let mut networks = delta(1, &[2], &[1]);
        networks.tokens.network_sets = vec![1];
        let mut shadowed = delta(1, &[2], &[1]);
        shadowed.tokens.shadowed = vec![1];
        let mut resources = delta(1, &[2], &[1]);
        resources.resources = vec![AccountResources { account: 1, resources: vec![] }];
        let mut network = delta(1, &[2], &[1]);
        network.network_sets = vec![vec!["10.0.0.0/99".to_owned()]];
        for bad in
            [gap, other_store, columns, account, rights, networks, shadowed, resources, network]
        {
            assert!(apply(&mut replica, bad.clone()).is_err(), "{bad:?}");
            assert_eq!(replica.revision(), revision(1));
            assert_eq!((replica.find(&hash(1)).is_some(), replica.len()), (true, 1), "{bad:?}");
        }
    }

    proptest! {
        /// A replica that saw every delta holds what a plain set holds.
        #[test]
        fn deltas_add_up(steps in prop::collection::vec((any::<[u8; 2]>(), any::<[u8; 2]>()), 0..20)) {
            let mut replica = Replica::empty(revision(0));
            let mut model = BTreeSet::new();
            for (index, (added, removed)) in steps.into_iter().enumerate() {
                apply(&mut replica, delta(index as u64, &added, &removed)).unwrap();
                model.retain(|id| !removed.contains(id));
                model.extend(added);
            }
            prop_assert_eq!(replica.len(), model.len());
            prop_assert!(model.iter().all(|&id| replica.find(&hash(id)).is_some()));
        }
    }
}
