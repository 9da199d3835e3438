//! Ledger and holders under a seeded scheduler: messages are late, lost, doubled and out of order, and
//! either side crashes at any moment. The laws are checked after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use latchkey_filter::authorize;
use latchkey_filter::leases::{Charged, Due, Leases, MAX_WAIT_MS, Moment};
use latchkey_protocol::lease::{KeyUsage, LeaseAnswer, LeaseCall};
use latchkey_protocol::{KeyHash, KeyKind, Limit, Subject};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Holder as Known, Lease, Records, Standing, TakenIn, settle_lost, take_in};
use crate::store::ledger::{LedgerRecords, days, drop_old};
use crate::store::{
    Change, MintedToken, NewAccount, NewKey, Origin, Plan, Store, StoreError, accounts, plans,
};

/// What survives a crash of the control plane.
#[derive(Clone, Default)]
struct Disk {
    limits: BTreeMap<Subject, Vec<Limit>>,
    counters: BTreeMap<(Subject, u32, u64), u64>,
    leases: BTreeMap<u64, (Subject, Lease)>,
    holders: BTreeMap<String, Known>,
    used_by_keys: u64,
}

impl Records for Disk {
    fn limits(&self, subject: &Subject) -> Result<Option<Vec<Limit>>, StoreError> {
        Ok(self.limits.get(subject).cloned())
    }

    fn standing(&self, subject: &Subject, _: &[Limit], _: u64) -> Result<Standing, StoreError> {
        let mut standing = Standing::default();
        for ((whose, bucket_seconds, bucket), count) in &self.counters {
            if whose == subject {
                standing.counts.entry(*bucket_seconds).or_default().insert(*bucket, *count);
            }
        }
        let theirs = self.leases.values().filter(|(whose, _)| whose == subject);
        standing.leases = theirs.map(|(_, lease)| lease.clone()).collect();
        Ok(standing)
    }

    fn add_calls(
        &mut self,
        subject: &Subject,
        at_ms: u64,
        lengths: &BTreeSet<u32>,
        count: u64,
    ) -> Result<(), StoreError> {
        for &seconds in lengths {
            let bucket = at_ms / 1000 / u64::from(seconds);
            *self.counters.entry((subject.clone(), seconds, bucket)).or_default() += count;
        }
        Ok(())
    }

    fn lease(&self, id: u64) -> Result<Option<(Subject, Lease)>, StoreError> {
        Ok(self.leases.get(&id).cloned())
    }

    fn last_lease(&self) -> Result<u64, StoreError> {
        Ok(self.leases.last_key_value().map_or(0, |(id, _)| *id))
    }

    fn expired_leases(&self, before_ms: u64) -> Result<Vec<(Subject, Lease)>, StoreError> {
        let expired = self.leases.values().filter(|(_, lease)| lease.expires_at_ms < before_ms);
        Ok(expired.cloned().collect())
    }

    fn put_lease(&mut self, subject: &Subject, lease: &Lease) -> Result<(), StoreError> {
        self.leases.insert(lease.id, (subject.clone(), lease.clone()));
        Ok(())
    }

    fn remove_lease(&mut self, id: u64) -> Result<(), StoreError> {
        self.leases.remove(&id);
        Ok(())
    }

    fn holder(&self, name: &str) -> Result<Option<Known>, StoreError> {
        Ok(self.holders.get(name).copied())
    }

    fn workers(&self, instance: &str) -> Result<u64, StoreError> {
        let names = self.holders.keys().filter(|name| name.starts_with(&format!("{instance}/")));
        Ok(names.count() as u64)
    }

    fn put_holder(&mut self, name: &str, holder: &Known) -> Result<(), StoreError> {
        self.holders.insert(name.to_owned(), *holder);
        Ok(())
    }

    fn add_key_usage(&mut self, usage: &KeyUsage) -> Result<(), StoreError> {
        self.used_by_keys += usage.count;
        Ok(())
    }
}

/// One Wasm VM, with a clock of its own.
struct Holder {
    leases: Leases,
    /// Number of its lives; messages for an earlier one are lost.
    life: u32,
    clock_offset_ms: u64,
    /// The call under way; an answer to another one is not heard.
    call: Option<u64>,
    next_tick_ms: u64,
    /// Requests that wait for a lease, by when each gives up.
    waiting: Vec<u64>,
}

impl Holder {
    fn new(index: usize, life: u32, clock_offset_ms: u64) -> Self {
        let leases = Leases::new("edge", &format!("{index}-{life}"));
        Self { leases, life, clock_offset_ms, call: None, next_tick_ms: 0, waiting: vec![] }
    }

    fn moment(&self, now_ms: u64) -> Moment {
        let steady_us = (now_ms - START_MS + self.clock_offset_ms) * 1000;
        Moment { steady_us, wall_ms: now_ms }
    }
}

#[derive(Clone)]
enum Message {
    Call { holder: usize, life: u32, call: u64, body: Vec<u8> },
    Answer { holder: usize, life: u32, call: u64, body: Option<Vec<u8>> },
    Recall { holder: usize, life: u32, subject: Subject },
}

struct World {
    rng: StdRng,
    now_ms: u64,
    disk: Disk,
    /// The control plane does not run before that.
    down_until_ms: u64,
    holders: Vec<Holder>,
    network: Vec<(u64, Message)>,
    is_quiet: bool,
    /// Since when nothing fails.
    well_since_ms: u64,
    subjects: Vec<Subject>,
    /// What was really admitted, by subject and second.
    admitted: BTreeMap<(Subject, u64), u64>,
    crashed_holders: u32,
    /// The real store, which has to answer alike.
    store: Option<Mirror>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let holders = rng.random_range(1..5);
        let offsets = (0..holders).map(|_| rng.random_range(0..1_000_000)).collect::<Vec<_>>();
        let mut world = Self {
            rng,
            now_ms: START_MS,
            disk: Disk::default(),
            down_until_ms: 0,
            holders: Vec::new(),
            network: Vec::new(),
            is_quiet: false,
            well_since_ms: u64::MAX - 10_000,
            subjects: Vec::new(),
            admitted: BTreeMap::new(),
            crashed_holders: 0,
            store: None,
        };
        for (index, offset) in offsets.into_iter().enumerate() {
            world.holders.push(Holder::new(index, 0, offset));
        }
        let amount = world.rng.random_range(1..120);
        let limits = match world.rng.random_range(0..4) {
            0 => vec![limit("hourly", amount, 3600, 1)],
            1 => vec![limit("rolling", amount, 1, 10)],
            2 => vec![limit("hourly", amount, 3600, 1), limit("burst", amount / 8 + 1, 1, 1)],
            _ => vec![limit("days", amount, 86_400, 30), limit("short", amount / 3 + 1, 2, 3)],
        };
        let account = Subject::Account { account: "acme".into(), identity: None };
        world.disk.limits.insert(account.clone(), limits);
        world.subjects.push(account);
        if world.rng.random_bool(0.4) {
            let key = Subject::Key { account: "acme".into(), key: "key_1".into() };
            world.disk.limits.insert(key.clone(), vec![limit("own", amount / 2 + 1, 60, 2)]);
            world.subjects.push(key);
        }
        world
    }

    fn dues(&self) -> Vec<Due> {
        let due = |subject: &Subject| Due {
            subject: subject.clone(),
            limits: Rc::from(self.disk.limits[subject].clone()),
        };
        self.subjects.iter().map(due).collect()
    }

    fn step(&mut self) {
        self.now_ms += if self.rng.random_bool(0.02) {
            self.rng.random_range(0..900)
        } else {
            self.rng.random_range(0..8)
        };
        self.deliver();
        self.tick();
        if !self.is_quiet {
            let holder = self.rng.random_range(0..self.holders.len());
            for _ in 0..self.rng.random_range(0..6) {
                self.request(holder);
            }
            self.fail();
        }
        if self.now_ms >= self.down_until_ms && self.rng.random_bool(0.01) {
            self.settle_lost();
        }
        self.check_nothing_is_lost();
    }

    fn request(&mut self, index: usize) {
        self.decide(index, self.now_ms + MAX_WAIT_MS);
        let now = self.holders[index].moment(self.now_ms);
        if self.holders[index].leases.is_call_due(now) {
            self.call(index);
        }
    }

    /// Decides a request, or lets it wait until it gives up.
    fn decide(&mut self, index: usize, until_ms: u64) {
        let dues = self.dues();
        let holder = &mut self.holders[index];
        let now = holder.moment(self.now_ms);
        let waits = self.now_ms < until_ms && holder.leases.may_wait(now);
        match holder.leases.charge(&dues, now, waits) {
            Charged::Admitted => {
                holder.leases.note_use(&key_holder(), &BTreeSet::new(), now);
                for subject in self.subjects.clone() {
                    *self.admitted.entry((subject.clone(), self.now_ms / 1000)).or_default() += 1;
                    self.check_not_over(&subject);
                }
            }
            Charged::NoLease if waits => holder.waiting.push(until_ms),
            Charged::NoLease => {
                // While all is well nobody goes without a lease and without a word why.
                let is_told = holder.leases.known_refusal(&dues, now).is_some();
                assert!(is_told || self.now_ms < self.well_since_ms + 5_000, "no answer");
            }
            Charged::Refused(_) => {}
        }
    }

    fn tick(&mut self) {
        for index in 0..self.holders.len() {
            if self.now_ms >= self.holders[index].next_tick_ms {
                let holder = &mut self.holders[index];
                holder.next_tick_ms = self.now_ms + 50;
                holder.leases.look(holder.moment(self.now_ms));
                self.call(index);
                for until_ms in std::mem::take(&mut self.holders[index].waiting) {
                    if self.now_ms < until_ms {
                        self.holders[index].waiting.push(until_ms);
                    } else {
                        self.decide(index, until_ms);
                    }
                }
            }
        }
    }

    fn call(&mut self, index: usize) {
        let holder = &mut self.holders[index];
        let now = holder.moment(self.now_ms);
        let Some(attempt) = holder.leases.call(now) else {
            return;
        };
        let (life, call, body) = (holder.life, attempt.number, attempt.body);
        holder.call = Some(call);
        self.send(&Message::Call { holder: index, life, call, body });
        // Envoy gives up on a call after a while.
        let timeout = Message::Answer { holder: index, life, call, body: None };
        self.network.push((self.now_ms + 2_000, timeout));
    }

    fn send(&mut self, message: &Message) {
        if !self.is_quiet && self.rng.random_bool(0.08) {
            return;
        }
        let copies = if !self.is_quiet && self.rng.random_bool(0.05) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = !self.is_quiet && self.rng.random_bool(0.05);
            let delay = self.rng.random_range(if slow { 100..3_000 } else { 0..20 });
            self.network.push((self.now_ms + delay, message.clone()));
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let mut due: Vec<(u64, Message)> =
            self.network.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).collect();
        due.sort_by_key(|(at_ms, _)| *at_ms);
        for (_, message) in due {
            match message {
                Message::Call { holder, life, call, body } => {
                    self.take_in(holder, life, call, &body);
                }
                Message::Answer { holder, life, call, body } => {
                    self.answer(holder, life, call, body);
                }
                Message::Recall { holder, life, subject } => {
                    if self.holders[holder].life == life {
                        let now = self.holders[holder].moment(now_ms);
                        self.holders[holder].leases.recall(&subject, now);
                        self.call(holder);
                    }
                }
            }
        }
    }

    fn take_in(&mut self, holder: usize, life: u32, call: u64, body: &[u8]) {
        let parsed: LeaseCall = serde_json::from_slice(body).unwrap();
        let refused = Message::Answer { holder, life, call, body: None };
        if self.now_ms < self.down_until_ms {
            return self.send(&refused);
        }
        let mut after = self.disk.clone();
        let TakenIn { answer, recalls, excess } =
            take_in(&mut after, &parsed, self.now_ms).unwrap();
        assert_eq!(excess, 0, "all that was served is believed");
        let crashes = !self.is_quiet && self.rng.random_bool(0.01);
        let is_kept = !crashes || self.rng.random_bool(0.5);
        if let Some(mirror) = &self.store {
            mirror.take_in(&parsed, self.now_ms, is_kept, &answer);
        }
        if crashes {
            self.down_until_ms = self.now_ms + self.rng.random_range(0..2_000);
            if !is_kept {
                // Before the commit: nothing happened.
                return self.send(&refused);
            }
        }
        self.disk = after;
        if !crashes {
            for (name, subject) in recalls {
                let names = |holder: usize, life: u32| format!("edge/{holder}-{life}");
                for holder in 0..self.holders.len() {
                    let life = self.holders[holder].life;
                    if names(holder, life) == name {
                        let subject = subject.clone();
                        self.send(&Message::Recall { holder, life, subject });
                    }
                }
            }
            let body = Some(serde_json::to_vec(&answer).unwrap());
            self.send(&Message::Answer { holder, life, call, body });
        }
    }

    fn answer(&mut self, index: usize, life: u32, call: u64, body: Option<Vec<u8>>) {
        let holder = &mut self.holders[index];
        if holder.life != life || holder.call != Some(call) {
            return;
        }
        holder.call = None;
        let now = holder.moment(self.now_ms);
        match body {
            Some(body) => holder.leases.on_answer(call, now, &body).unwrap(),
            None => holder.leases.on_failure(call, now),
        }
        for until_ms in std::mem::take(&mut self.holders[index].waiting) {
            self.decide(index, until_ms);
        }
        self.call(index);
    }

    fn fail(&mut self) {
        if self.rng.random_bool(0.001) {
            self.down_until_ms = self.now_ms + self.rng.random_range(0..4_000);
        }
        if self.rng.random_bool(0.001) {
            let index = self.rng.random_range(0..self.holders.len());
            let holder = &self.holders[index];
            self.holders[index] = Holder::new(index, holder.life + 1, holder.clock_offset_ms);
            self.crashed_holders += 1;
        }
        if self.rng.random_bool(0.001) {
            // The plugin's configuration is changed: the call under way is dropped without a word.
            let index = self.rng.random_range(0..self.holders.len());
            self.holders[index].call = None;
            self.holders[index].leases.abandon();
        }
    }

    fn admitted_since(&self, subject: &Subject, second: u64) -> u64 {
        let range = (subject.clone(), second)..=(subject.clone(), u64::MAX);
        self.admitted.range(range).map(|(_, count)| count).sum()
    }

    /// In no window more is admitted than its limit allows.
    fn check_not_over(&self, subject: &Subject) {
        for limit in &self.disk.limits[subject] {
            let window = limit.window();
            let oldest = window.oldest(window.bucket(self.now_ms));
            let admitted = self.admitted_since(subject, window.starts_at_ms(oldest) / 1000);
            assert!(admitted <= limit.amount, "{admitted} admitted, limit {limit:?}");
        }
    }

    /// What was admitted is in the ledger, used or leased, at any moment.
    fn check_nothing_is_lost(&self) {
        for subject in &self.subjects {
            let limits = &self.disk.limits[subject];
            let standing = self.disk.standing(subject, limits, self.now_ms).unwrap();
            for state in standing.states(limits, self.now_ms) {
                let window = state.limit.window();
                let oldest = window.oldest(window.bucket(self.now_ms));
                let admitted = self.admitted_since(subject, window.starts_at_ms(oldest) / 1000);
                let taken = state.limit.amount - state.remaining;
                assert!(
                    taken >= admitted,
                    "{admitted} admitted, {taken} known of {:?}",
                    state.limit
                );
            }
        }
    }

    fn settle_lost(&mut self) {
        let lost = settle_lost(&mut self.disk, self.now_ms).unwrap();
        if let Some(mirror) = &self.store {
            mirror.settle_lost(self.now_ms, lost);
        }
    }

    /// Lets everything come to rest: nothing fails and nobody asks.
    fn rest(&mut self, ms: u64) {
        self.is_quiet = true;
        self.well_since_ms = self.well_since_ms.min(self.now_ms);
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms += 10;
            self.deliver();
            self.tick();
        }
        self.settle_lost();
    }

    /// Everybody asks for as long as the promise says, and nothing fails.
    fn keep_trying(&mut self, ms: u64) {
        self.is_quiet = true;
        self.well_since_ms = self.well_since_ms.min(self.now_ms);
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms += 5;
            self.deliver();
            self.tick();
            for index in 0..self.holders.len() {
                self.request(index);
            }
        }
    }
}

/// The real store, to which the same happens.
struct Mirror {
    store: Store,
    _folder: tempfile::TempDir,
}

impl Mirror {
    /// Returns a store with an account and a key that have the limits of a world's subjects.
    async fn new(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let of = |wanted: fn(&Subject) -> bool| {
            let found = world.disk.limits.iter().find(|(subject, _)| wanted(subject));
            found.map(|(_, limits)| limits.clone()).unwrap_or_default()
        };
        let plan = Plan {
            id: "plan".to_owned(),
            name: "Plan".to_owned(),
            limits: of(|subject| matches!(subject, Subject::Account { .. })),
            max_user_keys: 1,
        };
        let key = NewKey {
            id: "key_1".to_owned(),
            name: "k".to_owned(),
            kind: KeyKind::UserDefined,
            rules: vec![],
            enforce: true,
            environment: None,
            note: None,
            expires_at: None,
            allowed_networks: vec![],
            limits: of(|subject| matches!(subject, Subject::Key { .. })),
            replaces: None,
            token: MintedToken { hash: KeyHash::of(b"t"), hint: String::new(), sealed: None },
        };
        let account = NewAccount {
            id: "acme".to_owned(),
            name: "Acme".to_owned(),
            plan: "plan".to_owned(),
            profile: "flotiq".to_owned(),
            keys: vec![key],
        };
        let origin = Origin::of("test", "");
        let put = move |change: &mut Change<'_>| {
            plans::put(change, &plan)?;
            accounts::create(change, &account).map(drop)
        };
        store.change(origin, put).await.unwrap();
        Self { store, _folder: folder }
    }

    /// Takes in a call, which must be answered like this, and forgets it if it is not kept.
    fn take_in(&self, call: &LeaseCall, now_ms: u64, is_kept: bool, expected: &LeaseAnswer) {
        let done = self.store.keep_ledger(|connection| {
            let plans = BTreeMap::new();
            let mut records = LedgerRecords::new(connection, &plans);
            let taken = take_in(&mut records, call, now_ms)?;
            assert_eq!(taken.answer, *expected);
            drop_old(connection, now_ms)?;
            if is_kept { Ok(()) } else { Err(StoreError::LedgerFailed) }
        });
        assert_eq!(done.is_ok(), is_kept);
    }

    fn settle_lost(&self, now_ms: u64, expected: usize) {
        let lost = self.store.keep_ledger(|connection| {
            let plans = BTreeMap::new();
            settle_lost(&mut LedgerRecords::new(connection, &plans), now_ms)
        });
        assert_eq!(lost.unwrap(), expected);
    }

    /// Returns the calls of an account's days, all together.
    async fn days(&self) -> u64 {
        self.store.read(|db| days(db, "acme")).await.unwrap().values().sum()
    }
}

fn key_holder() -> authorize::Holder {
    authorize::Holder { account: "acme".into(), key: "key_1".into(), token_ends_at_ms: None }
}

fn limit(name: &str, amount: u64, bucket_seconds: u32, buckets: u32) -> Limit {
    Limit { name: name.to_owned(), amount, bucket_seconds, buckets, identity: None, generation: 0 }
}

/// An hour and a day begin here, so that neither ends within a run.
const START_MS: u64 = 1_704_067_200_000;

#[test]
fn limits_hold_and_nothing_is_lost_whatever_fails() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..1_500 {
                world.step();
            }
            check_all_comes_back(&mut world);
        }));
        assert!(run.is_ok(), "seed {seed}");
    }
}

/// The real store decides as the simulation's does, and its days hold all calls.
#[tokio::test(flavor = "multi_thread")]
async fn store_keeps_what_the_ledger_needs() {
    for seed in 0..STORE_SEEDS {
        let mut world = World::new(seed);
        world.store = Some(Mirror::new(&world).await);
        for _ in 0..600 {
            world.step();
        }
        check_all_comes_back(&mut world);
        let admitted = world.admitted_since(&world.subjects[0], 0);
        let days = world.store.as_ref().unwrap().days().await;
        assert!(days >= admitted, "seed {seed}: {days} of {admitted}");
        assert!(days == admitted || world.crashed_holders > 0, "seed {seed}: {days} of {admitted}");
    }
}

/// Once all is well again nothing stays leased, and what is counted is what was admitted; at most the
/// leases of crashed holders more.
fn check_all_comes_back(world: &mut World) {
    world.rest(10_000);
    let live: Vec<String> = world
        .holders
        .iter()
        .enumerate()
        .map(|(index, holder)| format!("edge/{index}-{}", holder.life))
        .collect();
    let left = world.disk.leases.values().find(|(_, lease)| live.contains(&lease.holder));
    assert!(left.is_none(), "{left:?}");
    world.rest(70_000);
    assert!(world.disk.leases.is_empty());
    for subject in &world.subjects {
        let counted = |((whose, seconds, _), count): (&(Subject, u32, u64), &u64)| {
            (whose == subject && *seconds >= 60).then_some(*count)
        };
        let is_long = world.disk.limits[subject].iter().any(|limit| limit.bucket_seconds >= 60);
        let used: u64 = world.disk.counters.iter().filter_map(counted).sum();
        let admitted = world.admitted_since(subject, 0);
        if is_long && world.crashed_holders == 0 {
            assert_eq!(used, admitted);
            assert_eq!(world.disk.used_by_keys, admitted);
        }
        assert!(!is_long || used >= admitted);
    }
}

/// Clients that keep trying get all of a limit, within the promised time after the last failure; also
/// of one that a burst limit makes last.
#[test]
fn all_of_a_limit_is_admitted_to_those_who_keep_trying() {
    for seed in 0..SEEDS / 4 {
        let mut world = World::new(seed);
        world.subjects.truncate(1);
        let account = world.subjects[0].clone();
        let (mut limits, mut seconds) = (vec![limit("hourly", 100 + seed, 3600, 1)], 5);
        if seed % 3 == 0 {
            limits.push(limit("burst", 20 + seed / 8, 1, 1));
            seconds = 20;
        }
        world.disk.limits.insert(account.clone(), limits);
        let steps = world.rng.random_range(0..200);
        for _ in 0..steps {
            world.step();
        }
        world.down_until_ms = 0;
        world.keep_trying(seconds * 1000);
        let admitted = world.admitted_since(&account, 0);
        if world.crashed_holders == 0 {
            assert_eq!(admitted, 100 + seed, "seed {seed}");
        }
    }
}

/// Runs on the real store, which writes to the disk with each call.
const STORE_SEEDS: u64 = 12;

/// Runs of each law; a failing one names its seed.
const SEEDS: u64 = 2_000;
