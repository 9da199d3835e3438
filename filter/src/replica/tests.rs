use latchkey_protocol::{AccountResources, Resource, Rule, TokenColumns};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A VM that publishes, and one that looks keys up.
struct Proxy {
    publisher: Publisher,
    replica: Replica,
}

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
        account_limits: vec![0],
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

impl Proxy {
    fn new() -> Self {
        let data: Rc<dyn SharedData> = Rc::new(LocalData::default());
        let names = Names::new("");
        let mut publisher = Publisher::new(Rc::clone(&data), names.clone());
        publisher.begin(revision(0));
        publisher.publish().unwrap();
        let replica = Replica::open(data, names).unwrap();
        Self { publisher, replica }
    }

    fn apply(&mut self, update: &Update) -> Result<(), UpdateError> {
        self.publisher.take_in(update)?;
        while self.publisher.is_busy() {
            self.publisher.work().unwrap();
        }
        self.replica.refresh();
        Ok(())
    }

    fn find(&self, id: u8) -> Option<Rc<KeyRecord>> {
        self.replica.find(&hash(id)).unwrap()
    }
}

#[test]
fn delta_adds_and_removes() {
    let mut proxy = Proxy::new();
    proxy.apply(&delta(0, &[1, 2], &[])).unwrap();
    assert!(proxy.find(1).is_some());
    proxy.apply(&delta(1, &[3], &[1])).unwrap();
    assert_eq!(proxy.replica.revision(), revision(2));
    assert!(proxy.find(1).is_none());
    assert_eq!(&*proxy.find(2).unwrap().id, "key_2");
    assert_eq!(&*proxy.find(3).unwrap().id, "key_3");
}

#[test]
fn key_that_is_looked_up_is_kept_until_its_page_is_named() {
    let mut proxy = Proxy::new();
    proxy.apply(&delta(0, &[1, 2], &[])).unwrap();
    let one = proxy.find(1).unwrap();
    assert!(Rc::ptr_eq(&one, &proxy.find(1).unwrap()));
    let mut other = delta(1, &[2], &[]);
    other.account_limits.clear();
    proxy.apply(&other).unwrap();
    assert!(Rc::ptr_eq(&one, &proxy.find(1).unwrap()), "another page was named");
    proxy.apply(&delta(2, &[1], &[])).unwrap();
    assert!(!Rc::ptr_eq(&one, &proxy.find(1).unwrap()));
}

#[test]
fn no_more_keys_of_a_page_are_kept_than_may_be() {
    let mut held = HeldPage::default();
    let mut proxy = Proxy::new();
    proxy.apply(&delta(0, &[1], &[])).unwrap();
    let key = proxy.find(1).unwrap();
    for id in 0..20 {
        held.keep(hash(id), &key);
        assert!(held.find(&hash(0)).is_some(), "what is used stays");
    }
    assert_eq!(held.0.len(), MAX_HELD);
    assert!(held.find(&hash(19)).is_some() && held.find(&hash(1)).is_none());
}

#[test]
fn equal_right_sets_are_held_once() {
    let mut proxy = Proxy::new();
    proxy.apply(&delta(0, &[1], &[])).unwrap();
    proxy.apply(&delta(1, &[2], &[])).unwrap();
    let [one, two] = [1, 2].map(|id| Rc::clone(&proxy.find(id).unwrap().rights));
    assert!(Rc::ptr_eq(&one, &two));
}

#[test]
fn resources_stay_until_others_come() {
    let mut proxy = Proxy::new();
    let mut first = delta(0, &[1], &[]);
    let posts = Resource { name: "posts".to_owned(), relations: BTreeMap::new() };
    first.resources = vec![AccountResources { account: 0, resources: vec![posts] }];
    proxy.apply(&first).unwrap();
    let knows_posts =
        |proxy: &Proxy, id| proxy.find(id).unwrap().account.resources().find("posts").is_some();
    assert!(knows_posts(&proxy, 1));
    proxy.apply(&delta(1, &[2], &[])).unwrap();
    assert!(knows_posts(&proxy, 1) && knows_posts(&proxy, 2));
    let mut none = delta(2, &[], &[]);
    none.resources = vec![AccountResources { account: 0, resources: vec![] }];
    proxy.apply(&none).unwrap();
    assert!(!knows_posts(&proxy, 1) && !knows_posts(&proxy, 2));
}

#[test]
fn account_that_goes_takes_what_is_known_of_it() {
    let mut proxy = Proxy::new();
    proxy.apply(&delta(0, &[1], &[])).unwrap();
    assert!(proxy.find(1).is_some());
    let mut gone = delta(1, &[], &[1]);
    gone.accounts.clear();
    gone.account_limits.clear();
    gone.removed_accounts = vec!["acme".to_owned()];
    proxy.apply(&gone).unwrap();
    assert!(proxy.find(1).is_none());
}

#[test]
fn account_that_is_only_named_stays_as_it_is() {
    let mut proxy = Proxy::new();
    let mut first = delta(0, &[1], &[]);
    let limit = Limit {
        name: "l".to_owned(),
        amount: 1,
        bucket_seconds: 1,
        buckets: 1,
        identity: None,
        generation: 0,
    };
    first.limit_sets = vec![vec![limit]];
    first.account_limits = vec![1];
    proxy.apply(&first).unwrap();
    let mut second = delta(1, &[2], &[]);
    second.accounts = vec!["other".to_owned(), "acme".to_owned()];
    second.tokens.accounts = vec![1];
    proxy.apply(&second).unwrap();
    assert_eq!(proxy.find(2).unwrap().account.limits().every_call.len(), 1);
}

/// Without its account, no limit would hold for a key.
#[test]
fn key_of_an_account_that_is_not_there_cannot_be_told_of() {
    let mut proxy = Proxy::new();
    let mut update = delta(0, &[1], &[]);
    update.account_limits.clear();
    proxy.apply(&update).unwrap();
    assert_eq!(proxy.replica.find(&hash(1)), Err(Unreadable));
    assert_eq!(proxy.find(2), None);
}

/// A VM that was busy while its pages were replaced and emptied would refuse every key.
#[test]
fn pages_that_were_emptied_are_looked_for_where_they_are_now() {
    let data: Rc<dyn SharedData> = Rc::new(LocalData::default());
    let names = Names::new("");
    let mut publisher = Publisher::new(Rc::clone(&data), names.clone());
    let mut snapshot = |number: u64| {
        let mut update = delta(number - 1, &[1], &[]);
        update.base = None;
        publisher.begin(update.revision);
        publisher.take_in(&update).unwrap();
        while publisher.is_busy() {
            publisher.work().unwrap();
        }
        publisher.publish().unwrap();
        publisher.tidy();
        while publisher.has_work() {
            publisher.work().unwrap();
        }
    };
    snapshot(5);
    let replica = Replica::open(data, names).unwrap();
    snapshot(9);
    assert_eq!(replica.revision(), revision(5));
    assert!(replica.find(&hash(1)).unwrap().is_some());
    assert_eq!(replica.revision(), revision(9));
}

#[test]
fn rejected_update_changes_nothing() {
    let mut proxy = Proxy::new();
    proxy.apply(&delta(0, &[1], &[])).unwrap();
    let gap = delta(7, &[2], &[1]);
    let mut other_store = delta(1, &[2], &[1]);
    other_store.base = Some(Revision { number: 1, mark: 99 });
    let mut page = delta(1, &[2], &[1]);
    page.base = None;
    let mut columns = delta(1, &[2], &[1]);
    columns.tokens.kinds.clear();
    let mut limits = delta(1, &[2], &[1]);
    limits.account_limits = vec![0, 0];
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
    for bad in [
        gap,
        other_store,
        page,
        columns,
        limits,
        account,
        rights,
        networks,
        shadowed,
        resources,
        network,
    ] {
        assert!(proxy.apply(&bad).is_err(), "{bad:?}");
        assert_eq!(proxy.replica.revision(), revision(1));
        assert!(proxy.find(1).is_some() && proxy.find(2).is_none(), "{bad:?}");
    }
}

proptest! {
    /// A proxy that saw every delta knows what a plain set holds, whatever it has looked up before.
    #[test]
    fn deltas_add_up(steps in prop::collection::vec((any::<[u8; 2]>(), any::<[u8; 2]>()), 0..20)) {
        let mut proxy = Proxy::new();
        let mut model = BTreeSet::new();
        for (index, (added, removed)) in steps.into_iter().enumerate() {
            // What is added in the same delta stays.
            proxy.apply(&delta(index as u64, &added, &removed)).unwrap();
            model.retain(|id| !removed.contains(id));
            model.extend(added);
            for id in 0..=u8::MAX {
                prop_assert_eq!(proxy.find(id).is_some(), model.contains(&id), "{}", id);
            }
        }
    }
}
