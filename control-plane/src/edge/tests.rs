use std::sync::Arc;
use std::time::Duration;

use latchkey_filter::profile::{Profile, SHIPPED};
use latchkey_filter::replica::Replica;
use latchkey_protocol::{
    Identity, KeyHash, KeyKind, Limit, PlainToken, Relation, Resource, Revision, RightSet, Rule,
    Update,
};
use proptest::prelude::*;

use super::draft::Draft;
use super::snapshots::{MAX_KEPT, Snapshots, pages};
use crate::store::changes::{self, AccountRow, Changed, Everything, TokenRow};
use crate::store::{
    AccountPatch, KeyPatch, NewAccount, NewKey, Origin, Plan, Store, StoreError, accounts, keys,
    plans, resources,
};
use crate::token;

const PROFILE: &str = "flotiq";

/// Names of resources; keys' rules name the first one, too.
const RESOURCES: [&str; 3] = ["posts", "topics", "places"];

/// A store with an account, and all tokens that it ever had.
struct World {
    store: Store,
    snapshots: Snapshots,
    _folder: tempfile::TempDir,
    profile: Arc<Profile>,
    keys: Vec<String>,
    tokens: Vec<PlainToken>,
}

#[derive(Clone, Debug)]
enum Step {
    Create,
    Edit(usize),
    Suspend(usize, bool),
    Regenerate(usize, i64),
    Revoke(usize),
    RemoveAccount,
    EditPlan(u64),
    ChangePlan(bool),
    LimitKey(usize, u64),
    Enforce(usize, bool),
    PutResource(usize, usize),
    RemoveResource(usize),
    /// Lets the filter catch up.
    Poll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Create),
        2 => any::<usize>().prop_map(Step::Edit),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(key, on)| Step::Suspend(key, on)),
        2 => (any::<usize>(), 0_i64..2).prop_map(|(key, grace)| Step::Regenerate(key, grace * 60_000)),
        2 => any::<usize>().prop_map(Step::Revoke),
        1 => Just(Step::RemoveAccount),
        2 => (0_u64..4).prop_map(Step::EditPlan),
        2 => any::<bool>().prop_map(Step::ChangePlan),
        1 => (any::<usize>(), 0_u64..3).prop_map(|(key, amount)| Step::LimitKey(key, amount)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(key, on)| Step::Enforce(key, on)),
        2 => (0_usize..3, 0_usize..4).prop_map(|(name, to)| Step::PutResource(name, to)),
        1 => (0_usize..3).prop_map(Step::RemoveResource),
        4 => Just(Step::Poll),
    ]
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let profile = Arc::new(Profile::parse(SHIPPED[0].1).unwrap());
        let store = Store::open(folder.path()).unwrap();
        let plans = profile.plans.clone();
        let world = Self {
            store,
            snapshots: Snapshots::default(),
            _folder: folder,
            profile,
            keys: vec![],
            tokens: vec![],
        };
        world.change(move |change| plans::install(change, PROFILE, &plans)).await.unwrap();
        world.make_account().await;
        world
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut crate::store::Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let origin = Origin { actor: "test".to_owned(), address: String::new() };
        self.store.change(origin, work).await
    }

    async fn make_account(&self) {
        let new = NewAccount {
            id: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "custom".to_owned(),
            profile: PROFILE.to_owned(),
            keys: vec![],
        };
        self.change(move |change| accounts::create(change, &new)).await.unwrap();
    }

    fn mint(&mut self) -> crate::store::MintedToken {
        let token = token::generate(&self.profile.keys.token);
        let minted = token::minted(&token, None);
        self.tokens.push(token);
        minted
    }

    fn key(&self, index: usize) -> Option<String> {
        let count = self.keys.len();
        self.keys.get(index.checked_rem(count)?).cloned()
    }

    /// Makes a change; what the store refuses changes nothing.
    async fn make(&mut self, step: Step) {
        let rule = |resource: &str| Rule {
            resource: resource.to_owned(),
            actions: vec!["read".to_owned()],
        };
        let _ = match step {
            Step::Create => {
                let new = NewKey {
                    id: token::new_id("key_"),
                    name: "k".to_owned(),
                    kind: KeyKind::UserDefined,
                    rules: vec![rule("posts")],
                    enforce: true,
                    environment: None,
                    note: None,
                    expires_at: None,
                    allowed_networks: vec!["10.0.0.0/8".to_owned()],
                    limits: vec![],
                    replaces: None,
                    token: self.mint(),
                };
                self.keys.push(new.id.clone());
                self.change(move |change| keys::create_for(change, "acme", &new).map(drop)).await
            }
            Step::Edit(index) => {
                let Some(key) = self.key(index) else { return };
                let rules = Some(vec![rule(if index % 2 == 0 { "tags" } else { "authors" })]);
                let patch = KeyPatch { rules, ..Default::default() };
                self.change(move |change| keys::edit(change, "acme", &key, &patch).map(drop)).await
            }
            Step::Suspend(index, on) => {
                let Some(key) = self.key(index) else { return };
                self.change(move |change| keys::set_suspended(change, "acme", &key, on).map(drop))
                    .await
            }
            Step::Regenerate(index, grace_ms) => {
                let Some(key) = self.key(index) else { return };
                let token = self.mint();
                self.change(move |change| {
                    keys::regenerate(change, "acme", &key, &token, grace_ms).map(drop)
                })
                .await
            }
            Step::Revoke(index) => {
                let Some(key) = self.key(index) else { return };
                self.change(move |change| keys::revoke(change, "acme", &key)).await
            }
            Step::RemoveAccount => {
                self.change(|change| accounts::delete(change, "acme")).await.unwrap();
                self.make_account().await;
                Ok(())
            }
            Step::EditPlan(amount) => {
                let plan = Plan {
                    id: "custom".to_owned(),
                    name: "Custom".to_owned(),
                    limits: limits(amount),
                    max_user_keys: 500,
                };
                self.change(move |change| plans::put(change, &plan).map(drop)).await
            }
            Step::ChangePlan(is_custom) => {
                let plan = Some(if is_custom { "custom" } else { "growth" }.to_owned());
                let patch = AccountPatch { name: None, plan };
                self.change(move |change| accounts::edit(change, "acme", &patch).map(drop)).await
            }
            Step::LimitKey(index, amount) => {
                let Some(key) = self.key(index) else { return };
                let patch = KeyPatch { limits: Some(limits(amount)), ..KeyPatch::default() };
                self.change(move |change| keys::edit(change, "acme", &key, &patch).map(drop)).await
            }
            Step::Enforce(index, enforce) => {
                let Some(key) = self.key(index) else { return };
                let patch = KeyPatch { enforce: Some(enforce), ..KeyPatch::default() };
                self.change(move |change| keys::edit(change, "acme", &key, &patch).map(drop)).await
            }
            Step::PutResource(name, to) => {
                let relation = RESOURCES.get(to).map(|name| vec![(*name).to_owned()]);
                let relation = relation.map_or(Relation::Any("*".to_owned()), Relation::Some);
                let resource = Resource {
                    name: RESOURCES[name].to_owned(),
                    relations: [("to".to_owned(), relation)].into(),
                };
                self.change(move |change| resources::put(change, "acme", &resource).map(drop)).await
            }
            Step::RemoveResource(name) => {
                self.change(move |change| resources::delete(change, "acme", RESOURCES[name])).await
            }
            Step::Poll => Ok(()),
        };
    }

    async fn snapshot(&self) -> Replica {
        let snapshot =
            self.snapshots.recent(&self.store, &self.profile, Duration::ZERO).await.unwrap();
        let mut replica = Replica::empty(snapshot.revision);
        for page in &snapshot.pages {
            replica.add(serde_json::from_slice(page).unwrap()).unwrap();
        }
        replica
    }

    async fn catch_up(&self, replica: &mut Replica) {
        let after = replica.revision();
        let profile = Arc::clone(&self.profile);
        let changed =
            self.store.read(move |db| changes::changed_since(db, &profile, after)).await.unwrap();
        let Changed::Some { revision, usable, removed, accounts, anonymous_limits } = changed
        else {
            panic!("a gap after {after}");
        };
        if revision != after {
            let mut draft = Draft::default();
            usable.into_iter().for_each(|row| draft.add(row));
            for account in accounts {
                draft.add_account(account);
            }
            let update = draft.finish(revision, Some(after), (0, 1), removed, anonymous_limits);
            replica.apply_delta(after, update).unwrap();
        }
    }
}

/// Limits of an amount; none of them for 0.
fn limits(amount: u64) -> Vec<Limit> {
    let limit = |identity| Limit {
        name: format!("l{amount}"),
        amount,
        bucket_seconds: 60,
        buckets: 1,
        identity,
    };
    if amount == 0 { vec![] } else { vec![limit(None), limit(Some(Identity::Key))] }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However a filter catches up, it knows what one that starts anew knows.
    #[test]
    fn deltas_lead_where_the_snapshot_is(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            let mut replica = world.snapshot().await;
            for step in steps {
                if let Step::Poll = step {
                    world.catch_up(&mut replica).await;
                }
                world.make(step).await;
            }
            world.catch_up(&mut replica).await;
            let fresh = world.snapshot().await;
            assert_eq!(replica.revision(), fresh.revision());
            assert_eq!(replica.len(), fresh.len());
            for token in &world.tokens {
                assert_eq!(replica.find(&token.hash()), fresh.find(&token.hash()));
            }
        });
    }
}

#[tokio::test]
async fn revision_of_another_history_is_a_gap() {
    let world = World::new().await;
    let held = world.snapshot().await.revision();
    for after in [
        Revision { mark: held.mark ^ 1, ..held },
        Revision { number: held.number + 1, ..held },
        Revision { number: u64::MAX, ..held },
    ] {
        let profile = Arc::clone(&world.profile);
        let changed = world.store.read(move |db| changes::changed_since(db, &profile, after)).await;
        assert!(matches!(changed, Ok(Changed::Gap)), "{after}");
    }
}

#[tokio::test]
async fn change_that_is_refused_leaves_no_trace() {
    let world = World::new().await;
    let before = *world.store.watch_revision().borrow();
    let refused: Result<(), StoreError> = world
        .change(|change| {
            accounts::delete(change, "acme")?;
            Err(StoreError::Conflict("not so".to_owned()))
        })
        .await;
    assert!(refused.is_err());
    assert_eq!(*world.store.watch_revision().borrow(), before);
    assert!(world.store.read(|db| accounts::get(db, "acme")).await.is_ok());
}

/// Filters that take in several pages used to push each other's snapshot out with every change.
#[tokio::test]
async fn snapshot_that_is_being_taken_in_outlives_changes() {
    let mut world = World::new().await;
    let first = world.snapshots.recent(&world.store, &world.profile, Duration::ZERO).await.unwrap();
    for _ in 0..MAX_KEPT - 1 {
        world.make(Step::Create).await;
        let newer =
            world.snapshots.recent(&world.store, &world.profile, Duration::ZERO).await.unwrap();
        assert_ne!(newer.revision, first.revision);
        assert!(world.snapshots.find(PROFILE, |kept| kept.revision == first.revision).is_some());
    }
}

/// A snapshot of thousands of keys would else have the resources of most accounts on every page.
#[test]
fn resources_are_on_the_first_page_that_needs_them() {
    let resources: Arc<[Resource]> =
        Arc::from([Resource { name: "posts".to_owned(), relations: [].into() }]);
    let rule = |key: u32| Rule {
        resource: format!("{}{key}", "x".repeat(50_000)),
        actions: vec!["read".to_owned()],
    };
    let tokens = (0..200_u32).map(|key| TokenRow {
        hash: KeyHash::of(&key.to_le_bytes()),
        key: format!("key_{key}"),
        kind: KeyKind::UserDefined,
        account: AccountRow {
            id: "acme".to_owned(),
            limits: Arc::from([]),
            resources: Some(Arc::clone(&resources)),
        },
        limits: Arc::from([]),
        rights: RightSet::from(vec![rule(key)]),
        networks: vec![],
        expires_at_ms: None,
        is_enforced: key % 2 == 0,
    });
    let revision = Revision { number: 1, mark: 1 };
    let everything = Everything { revision, tokens: tokens.collect(), anonymous_limits: vec![] };
    let pages = pages(everything).unwrap();
    assert!(pages.len() > 1);
    let mut replica = Replica::empty(revision);
    for (index, page) in pages.iter().enumerate() {
        let update: Update = serde_json::from_slice(page).unwrap();
        assert_eq!(update.resources.len(), usize::from(index == 0));
        replica.add(update).unwrap();
    }
    for key in 0..200_u32 {
        let record = replica.find(&KeyHash::of(&key.to_le_bytes())).unwrap();
        assert!(record.account.resources().find("posts").is_some());
        assert_eq!(record.is_shadowed, key % 2 == 1);
    }
}

/// Few keys with many rules used to make a page that no filter could take in.
#[test]
fn pages_are_bounded_in_bytes() {
    let rules = |key: u32| -> Vec<Rule> {
        (0..500)
            .map(|rule| Rule {
                resource: format!("{}{key}_{rule}", "x".repeat(50)),
                actions: ["read", "create", "update", "delete"].map(str::to_owned).to_vec(),
            })
            .collect()
    };
    let tokens = (0..300_u32).map(|key| TokenRow {
        hash: KeyHash::of(&key.to_le_bytes()),
        key: format!("key_{key}"),
        kind: KeyKind::UserDefined,
        account: AccountRow { id: "acme".to_owned(), limits: Arc::from([]), resources: None },
        limits: Arc::from([]),
        rights: RightSet::from(rules(key)),
        networks: vec![],
        expires_at_ms: None,
        is_enforced: true,
    });
    let pages = pages(Everything {
        revision: Revision { number: 1, mark: 1 },
        tokens: tokens.collect(),
        anonymous_limits: vec![],
    })
    .unwrap();
    assert!(pages.len() > 3);
    let mut count = 0;
    for page in pages {
        assert!(page.len() < 8 << 20, "{} bytes", page.len());
        count += serde_json::from_slice::<Update>(&page).unwrap().tokens.hashes.len();
    }
    assert_eq!(count, 300);
}
