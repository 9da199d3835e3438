use std::rc::Rc;
use std::sync::Arc;

use latchkey_filter::profile::{Profile, SHIPPED};
use latchkey_filter::publisher::Publisher;
use latchkey_filter::replica::Replica;
use latchkey_filter::shared::{LocalData, Names, SharedData};
use latchkey_protocol::{
    Identity, KeyHash, KeyKind, Limit, PlainToken, Relation, Resource, Revision, Rule, Update,
};
use proptest::prelude::*;

use super::deltas::{Delta, Deltas};
use super::snapshots::{Cursor, Freshness, Page, Snapshots};
use crate::store::changes::{self, Changed};
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
    snapshots: Arc<Snapshots>,
    deltas: Deltas,
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
            snapshots: Arc::default(),
            deltas: Deltas::default(),
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
        let origin = Origin::of("test", "");
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

    /// Returns the first page of a snapshot, or another.
    async fn page(&self, cursor: &Cursor) -> (Page, Update) {
        let freshness = Freshness::Current;
        let page =
            self.snapshots.page(&self.store, &self.profile, cursor, freshness).await.unwrap();
        let update = serde_json::from_slice(&page.body).unwrap();
        (page, update)
    }

    /// Returns a filter that has taken in a snapshot, and what changes while it does.
    async fn filter(&self) -> Filter {
        let data: Rc<dyn SharedData> = Rc::new(LocalData::default());
        let names = Names::new("");
        let mut publisher = Publisher::new(Rc::clone(&data), names.clone());
        let (_, first) = self.page(&Cursor::Accounts(String::new())).await;
        publisher.begin(first.revision);
        take_in(&mut publisher, &first);
        let mut next = first.next;
        while let Some(cursor) = next {
            let (_, update) = self.page(&cursor.parse().ok().unwrap()).await;
            take_in(&mut publisher, &update);
            next = update.next;
        }
        publisher.publish().unwrap();
        let replica = Replica::open(data, names).unwrap();
        Filter { publisher, replica }
    }

    /// Lets a filter take in what it has not yet.
    async fn catch_up(&self, filter: &mut Filter) {
        loop {
            let after = filter.publisher.in_use().unwrap();
            let delta = self.deltas.after(&self.store, &self.profile, after).await.unwrap();
            match delta {
                Delta::Gap => panic!("a gap after {after}"),
                Delta::Nothing => return,
                Delta::Some(body) => {
                    take_in(&mut filter.publisher, &serde_json::from_slice(&body).unwrap());
                }
            }
            filter.replica.refresh();
        }
    }
}

/// A filter without its Envoy.
struct Filter {
    publisher: Publisher,
    replica: Replica,
}

fn take_in(publisher: &mut Publisher, update: &Update) {
    publisher.take_in(update).unwrap();
    while publisher.is_busy() {
        publisher.work().unwrap();
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
        generation: 0,
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
            let mut filter = world.filter().await;
            for step in steps {
                if let Step::Poll = step {
                    world.catch_up(&mut filter).await;
                }
                world.make(step).await;
                for token in &world.tokens {
                    // What is looked up is kept, and has to be forgotten when it changes.
                    filter.replica.find(&token.hash()).unwrap();
                }
            }
            world.catch_up(&mut filter).await;
            let fresh = world.filter().await.replica;
            assert_eq!(filter.replica.revision(), fresh.revision());
            for token in &world.tokens {
                assert_eq!(filter.replica.find(&token.hash()), fresh.find(&token.hash()));
            }
        });
    }
}

#[tokio::test]
async fn revision_of_another_history_is_a_gap() {
    let world = World::new().await;
    let held = world.filter().await.replica.revision();
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

/// A page that was made before the snapshot began may lack what the delta from there does not bring.
#[tokio::test]
async fn kept_page_is_not_older_than_the_snapshot() {
    let mut world = World::new().await;
    let tokens = Cursor::Tokens(None);
    let at = |world: &World, freshness| {
        let (store, profile) = (world.store.clone(), Arc::clone(&world.profile));
        let snapshots = Arc::clone(&world.snapshots);
        let cursor = tokens.clone();
        async move { snapshots.page(&store, &profile, &cursor, freshness).await.unwrap().revision }
    };
    let first = at(&world, Freshness::Current).await;
    world.make(Step::Create).await;
    let number = *world.store.watch_revision().borrow();
    assert_eq!(at(&world, Freshness::Since(first.number)).await, first);
    assert_eq!(at(&world, Freshness::Recent).await, first);
    assert_eq!(at(&world, Freshness::Since(number)).await.number, number);
    world.make(Step::Create).await;
    assert_eq!(at(&world, Freshness::Current).await.number, number + 1);
}

#[test]
fn cursor_comes_back() {
    let hash = KeyHash::of(b"x");
    for cursor in [
        Cursor::Accounts(String::new()),
        Cursor::Accounts("acme".to_owned()),
        Cursor::Tokens(None),
        Cursor::Tokens(Some(hash)),
    ] {
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
    }
    for text in ["", "x", "t0", "tzz", "t00", "\u{e4}"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

/// Few keys with many rules used to make a page that no filter could take in; each account and token is
/// on one page.
#[tokio::test]
async fn pages_are_bounded_in_bytes() {
    let mut world = World::new().await;
    let rules = |key: u32| -> Vec<Rule> {
        (0..100)
            .map(|rule| Rule {
                resource: format!("{}{key}_{rule}", "x".repeat(50)),
                actions: ["read", "create", "update", "delete"].map(str::to_owned).to_vec(),
            })
            .collect()
    };
    for key in 0..80 {
        world.make(Step::Create).await;
        let id = world.keys.last().unwrap().clone();
        let patch = KeyPatch { rules: Some(rules(key)), ..Default::default() };
        world
            .change(move |change| keys::edit(change, "acme", &id, &patch).map(drop))
            .await
            .unwrap();
    }
    let (mut next, mut accounts, mut tokens, mut pages) = (Some("a".to_owned()), 0, 0, 0);
    while let Some(cursor) = next {
        let (page, update) = world.page(&cursor.parse().ok().unwrap()).await;
        assert!(page.body.len() < 320 << 10, "{} bytes", page.body.len());
        accounts += update.account_limits.len();
        tokens += update.tokens.hashes.len();
        pages += 1;
        next = update.next;
    }
    assert!(pages > 3);
    assert_eq!((accounts, tokens), (1, 80));
}

/// A filter that was away while much changed gets it in parts, each up to a revision.
#[tokio::test]
async fn long_delta_comes_in_parts() {
    let mut world = World::new().await;
    let mut filter = world.filter().await;
    let profile = world.profile.name.clone();
    for batch in 0..5_u32 {
        world.make(Step::Create).await;
        let profile = profile.clone();
        let many = move |change: &mut crate::store::Change<'_>| {
            for token in 0..1_500_u32 {
                changes::touch(
                    change,
                    &profile,
                    &KeyHash::of(&(batch * 1_500 + token).to_le_bytes()),
                );
            }
            Ok(())
        };
        world.change(many).await.unwrap();
    }
    let after = filter.publisher.in_use().unwrap();
    let (asked, start) = (Arc::clone(&world.profile), after);
    let changed =
        world.store.read(move |db| changes::changed_since(db, &asked, start)).await.unwrap();
    let Changed::Some(part) = changed else { panic!("a gap") };
    assert!(part.is_cut && part.revision.number > after.number);
    assert!(part.removed.len() <= 2_000);
    world.catch_up(&mut filter).await;
    assert_eq!(filter.replica.revision().number, *world.store.watch_revision().borrow());
    for token in &world.tokens {
        assert!(filter.replica.find(&token.hash()).unwrap().is_some());
    }
}
