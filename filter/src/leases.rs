//! Leases: what this VM may admit by itself, and when to ask for more.
//!
//! A state machine without I/O. Requests are charged to leases that are held here, one pool per
//! [`Subject`]; what is spent is reported and the next lease asked for in one call for all of them.
//! There is one call at a time. One whose answer was lost is made again, unchanged, so that the
//! control plane can tell that it knows it already.

mod exchange;
mod pool;
mod reports;
mod server_clock;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use latchkey_protocol::lease::{LeaseAnswer, LeaseCall, LeaseRequest, MAX_ENTRIES};
use latchkey_protocol::{Limit, Right, Subject};

use crate::authorize::Holder;
use crate::authorize::preflight::{Preflight, Preflights};
use exchange::Exchange;
use pool::{Look, Pool};
use reports::Reports;
use server_clock::ServerClock;

pub use exchange::CALL_TIMEOUT_MS;
pub use pool::Rate;

/// A moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds of a clock that never steps.
    pub steady_us: u64,
    /// Milliseconds since the epoch, as far as the host knows.
    pub wall_ms: u64,
}

impl Moment {
    /// Returns the time of the clock that never steps, in milliseconds.
    #[must_use]
    pub fn steady_ms(self) -> u64 {
        self.steady_us / 1000
    }
}

/// What a request has to be charged to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Whose calls are counted.
    pub subject: Subject,
    /// The limits that count them; not empty.
    pub limits: Rc<[Limit]>,
}

/// What became of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charged {
    /// All limits have room, and the call counts.
    Admitted,
    /// A limit is used up, and nothing is counted.
    Refused(LimitReached),
    /// There is no lease at the moment, and nothing is counted. Worth waiting for.
    NoLease,
}

/// Which limit is used up, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitReached {
    /// The limit that keeps the call longest; none if there is no such subject any more.
    pub limit: Option<Limit>,
    /// Milliseconds until a call will pass; none if none ever will.
    pub available_in_ms: Option<u64>,
}

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Tells it from those before.
    pub number: u64,
    /// JSON of a [`LeaseCall`].
    pub body: Vec<u8>,
}

/// The leases of one VM.
#[derive(Debug)]
pub struct Leases {
    instance: String,
    worker: String,
    clock: ServerClock,
    pools: BTreeMap<Subject, Pool>,
    /// How many of them are of addresses.
    addresses: usize,
    /// Subjects that may need a lease.
    wishes: BTreeSet<Subject>,
    /// The address for which a lease was asked last.
    last_address: Option<Subject>,
    reports: Reports,
    preflights: Preflights,
    /// When leases were last looked through for those that are over.
    swept_at_ms: u64,
    /// Server time at which the first of those held since then ends.
    first_end_ms: u64,
    exchange: Exchange,
    /// Number of answers so far; those who wait look again after each.
    answers: u64,
}

impl Leases {
    /// Returns the leases of a VM that has none.
    #[must_use]
    pub fn new(instance: &str, worker: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            worker: worker.to_owned(),
            clock: ServerClock::default(),
            pools: BTreeMap::new(),
            addresses: 0,
            wishes: BTreeSet::new(),
            last_address: None,
            reports: Reports::default(),
            preflights: Preflights::new(worker),
            swept_at_ms: 0,
            first_end_ms: u64::MAX,
            exchange: Exchange::new(worker),
            answers: 0,
        }
    }

    /// Charges a call to all that are due: to all of them or to none. One that `waits` is charged again
    /// after the next answer, unless it gives up before.
    pub fn charge(&mut self, dues: &[Due], now: Moment, waits: bool) -> Charged {
        let clock = self.clock;
        let mut looks = Vec::with_capacity(dues.len());
        for due in dues {
            let Some(pool) = self.pool(due) else {
                // Too many addresses at once; each is told to come back.
                let available_in_ms = Some(CROWDED_MS);
                return Charged::Refused(LimitReached { limit: None, available_in_ms });
            };
            pool.used_at_ms = now.steady_ms();
            looks.push(pool.look(&clock, now));
        }
        let refused = dues.iter().zip(&looks).filter(|(_, look)| **look == Look::Refused);
        if let Some(reached) = self.longest(refused.map(|(due, _)| due), now) {
            for (due, look) in dues.iter().zip(looks) {
                if look == Look::Refused {
                    self.want_back(&due.subject);
                }
            }
            return Charged::Refused(reached);
        }
        if looks.iter().any(|look| !matches!(look, Look::Lease(_))) {
            for (due, look) in dues.iter().zip(looks) {
                if !matches!(look, Look::Lease(_)) {
                    self.wish(&due.subject, now, waits);
                }
            }
            return Charged::NoLease;
        }

        for (due, look) in dues.iter().zip(looks) {
            let (Some(pool), Look::Lease(place)) = (self.pools.get_mut(&due.subject), look) else {
                continue;
            };
            if pool.charge(place, &self.clock, now, &mut self.reports.leases) {
                self.wishes.insert(due.subject.clone());
            }
        }
        self.reports.by(now.steady_ms() + REPORT_MS);
        Charged::Admitted
    }

    /// Reports whether a call that found no lease, and waits, is worth charging again; where it is not,
    /// it waits on for all that keeps it.
    ///
    /// `taken` says how many calls others that wait will take of each subject's leases; this one is
    /// added where it is worth it.
    pub fn has_news(
        &mut self,
        dues: &[Due],
        now: Moment,
        taken: &mut BTreeMap<Subject, u64>,
    ) -> bool {
        let mut missing = Vec::with_capacity(dues.len());
        for due in dues {
            let pool = self.pools.get(&due.subject);
            match pool.map(|pool| (pool.look(&self.clock, now), pool)) {
                Some((Look::Lease(_), pool)) => {
                    let others = taken.get(&due.subject).copied().unwrap_or_default();
                    if pool.left(&self.clock, now) <= others {
                        missing.push(&due.subject);
                    }
                }
                Some((Look::Contested | Look::Nothing, _)) => missing.push(&due.subject),
                Some((Look::Refused, _)) | None => return true,
            }
        }
        for subject in &missing {
            self.wish(subject, now, true);
        }
        if !missing.is_empty() {
            return false;
        }
        for due in dues {
            match taken.get_mut(&due.subject) {
                Some(count) => *count += 1,
                None => {
                    taken.insert(due.subject.clone(), 1);
                }
            }
        }
        true
    }

    /// Returns why a call that found no lease is refused, where the control plane has said it.
    #[must_use]
    pub fn known_refusal(&self, dues: &[Due], now: Moment) -> Option<LimitReached> {
        let refused = dues.iter().filter(|due| {
            self.pools.get(&due.subject).is_some_and(|pool| {
                matches!(pool.look(&self.clock, now), Look::Contested | Look::Refused)
            })
        });
        self.longest(refused, now)
    }

    /// Returns the limit that keeps a call longest, of subjects that are refused.
    fn longest<'a>(
        &self,
        refused: impl Iterator<Item = &'a Due>,
        now: Moment,
    ) -> Option<LimitReached> {
        let reached = refused.map(|due| self.reached(&due.subject, now));
        reached.reduce(|known, other| if other.lasts_longer_than(&known) { other } else { known })
    }

    /// Counts a call for which there is no lease, to be reported when the control plane is back.
    /// Returns whether there is room to remember it.
    pub fn charge_on_credit(&mut self, dues: &[Due], now: Moment) -> bool {
        let at_ms = self.server_ms(now);
        if !self.reports.add_credit(dues, at_ms) {
            return false;
        }
        self.reports.by(now.steady_ms() + REPORT_MS);
        true
    }

    /// Counts a preflight, or returns in how many seconds its client may send the next one.
    pub fn count_preflight(&mut self, preflight: Preflight, now: Moment) -> Option<u64> {
        self.preflights.count(preflight, now)
    }

    /// Counts a call for the key with which it was made, and notes the rights that it took.
    pub fn note_use(&mut self, holder: &Holder, exercised: &BTreeSet<Right>, now: Moment) {
        let at_ms = self.server_ms(now);
        self.reports.add_use(holder, exercised, at_ms);
        self.reports.by(now.steady_ms() + REPORT_MS);
    }

    /// Returns what the limits of a request leave, as far as that is known here.
    pub fn rates(&mut self, dues: &[Due], now: Moment) -> Vec<Rate> {
        let mut rates = Vec::new();
        for due in dues {
            if let Some(pool) = self.pools.get_mut(&due.subject) {
                pool.rates(&self.clock, now, &mut rates);
            }
        }
        rates
    }

    /// Returns the control plane's time, in milliseconds since the epoch: the earliest that it may
    /// be, or the host's before the first answer.
    #[must_use]
    pub fn server_ms(&self, now: Moment) -> u64 {
        self.clock.earliest_ms(now.steady_us).unwrap_or(now.wall_ms)
    }

    /// Reports whether it is of use to wait for a lease: whether the control plane answers, or has been
    /// silent only for as long as a request may wait.
    #[must_use]
    pub fn may_wait(&self, now: Moment) -> bool {
        self.exchange.is_alive(now.steady_ms())
    }

    /// Returns the number of answers so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// Takes note of a tick: what has come from outside by then has been taken in.
    pub fn look(&mut self, now: Moment) {
        self.exchange.look(now.steady_ms());
    }

    /// Returns the call to make now, if one is due.
    pub fn call(&mut self, now: Moment) -> Option<Attempt> {
        self.sweep(now);
        if !self.exchange.is_free(now.steady_ms()) {
            return None;
        }
        if !self.exchange.is_pending() {
            let call = self.next_call(now)?;
            self.exchange.put(call);
        }
        self.exchange.attempt(now)
    }

    /// Reports whether a call would be made now; costs next to nothing.
    #[must_use]
    pub fn is_call_due(&self, now: Moment) -> bool {
        let now_ms = now.steady_ms();
        let asks = |subject: &Subject| {
            self.pools.get(subject).is_some_and(|pool| now_ms >= pool.ask_at_ms)
        };
        self.exchange.is_free(now_ms)
            && (self.exchange.is_pending() || self.wishes.iter().any(asks))
    }

    /// Reports whether requests wait for what others are about to give back, so that it is worth
    /// looking again sooner than usual.
    #[must_use]
    pub fn is_contested(&self) -> bool {
        let is_contested = |subject| self.pools.get(subject).is_some_and(Pool::is_contested);
        !self.exchange.is_failing() && self.wishes.iter().any(is_contested)
    }

    /// Takes in the answer to an attempt; one to an earlier attempt changes nothing.
    ///
    /// # Errors
    ///
    /// If it is not readable; then the call is made again.
    pub fn on_answer(
        &mut self,
        attempt: u64,
        now: Moment,
        body: &[u8],
    ) -> Result<(), serde_json::Error> {
        let Some(since) = self.exchange.in_flight(attempt) else {
            return Ok(());
        };
        let answer: LeaseAnswer = match serde_json::from_slice(body) {
            Ok(answer) => answer,
            Err(error) => {
                self.on_failure(attempt, now);
                return Err(error);
            }
        };
        self.answers += 1;
        if self.clock.learn(since.steady_us, now.steady_us, answer.now_ms) {
            for pool in self.pools.values_mut() {
                pool.start_over(&mut self.reports.leases);
            }
        }
        let Some(call) = self.exchange.complete(answer.sequence, now.steady_ms()) else {
            return Ok(());
        };
        // All that wait look again after an answer, and are counted again if they wait on.
        for subject in &self.wishes {
            if let Some(pool) = self.pools.get_mut(subject) {
                pool.waiting = 0;
            }
        }
        let (answered_ms, clock) = (answer.now_ms, self.clock);
        for (request, outcome) in call.requests.iter().zip(answer.outcomes) {
            if let Some(pool) = self.pools.get_mut(&request.subject) {
                pool.take_in(request, outcome, answered_ms, &clock, now, &mut self.reports.leases);
                self.first_end_ms = self.first_end_ms.min(pool.first_end_ms());
            }
        }
        Ok(())
    }

    /// Takes in that an attempt was not answered, or not by the control plane.
    pub fn on_failure(&mut self, attempt: u64, now: Moment) {
        if self.exchange.in_flight(attempt).is_some() {
            self.exchange.fail(now.steady_ms());
        }
    }

    /// Takes in that the control plane cannot read the call, and never will: it is given up.
    pub fn on_refused_call(&mut self, attempt: u64, now: Moment) {
        if self.exchange.in_flight(attempt).is_none() {
            return;
        }
        self.exchange.fail(now.steady_ms());
        for request in self.exchange.give_up().into_iter().flat_map(|call| call.requests) {
            if let Some(pool) = self.pools.get_mut(&request.subject) {
                pool.is_asked = false;
            }
        }
    }

    /// Gives back what is not spent of a subject's leases: others wait for it.
    pub fn recall(&mut self, subject: &Subject, now: Moment) {
        if let Some(pool) = self.pools.get_mut(subject) {
            let before = self.reports.leases.len();
            pool.close_all(&mut self.reports.leases);
            // What was spent whole and is not reported yet is waited for, too.
            if before > 0 || self.reports.leases.len() > before {
                self.reports.by(now.steady_ms());
            }
        }
    }

    /// Forgets that a call is under way: its answer will not come, and it is made again.
    pub fn abandon(&mut self) {
        self.exchange.abandon();
    }

    /// Returns the pool of a subject, a new one if there is none; none if there are too many.
    fn pool(&mut self, due: &Due) -> Option<&mut Pool> {
        if is_address(&due.subject) && !self.pools.contains_key(&due.subject) {
            if self.addresses >= MAX_ADDRESSES {
                return None;
            }
            self.addresses += 1;
        }
        let pool = self.pools.entry(due.subject.clone()).or_insert_with(|| Pool::new(&due.limits));
        if !Rc::ptr_eq(&pool.limits, &due.limits) && pool.limits != due.limits {
            pool.change_limits(&due.limits, &mut self.reports.leases);
        }
        Some(pool)
    }

    /// Takes note that a call found no lease.
    fn wish(&mut self, subject: &Subject, now: Moment, waits: bool) {
        let Some(pool) = self.pools.get_mut(subject) else {
            return;
        };
        if waits {
            pool.waiting = pool.waiting.saturating_add(1);
        } else {
            pool.is_wanted = true;
        }
        // A renewal that was refused says nothing of what is given to one that waits.
        if pool.refusal().is_none() {
            pool.ask_at_ms = now.steady_ms();
        }
        self.wishes.insert(subject.clone());
    }

    /// Takes note that a call was refused for what others may still give back.
    fn want_back(&mut self, subject: &Subject) {
        if let Some(pool) = self.pools.get_mut(subject)
            && pool.refusal().is_some_and(|refusal| refusal.is_contested)
        {
            pool.is_wanted = true;
            self.wishes.insert(subject.clone());
        }
    }

    fn reached(&self, subject: &Subject, now: Moment) -> LimitReached {
        let refusal = self.pools.get(subject).and_then(Pool::refusal);
        let earliest_ms = self.clock.earliest_ms(now.steady_us).unwrap_or_default();
        let used_up = refusal.and_then(|refusal| {
            let mut empty = refusal.limits.iter().filter(|state| state.remaining == 0);
            let longest = empty.next().map(|first| {
                empty.fold(first, |a, b| if b.resets_at_ms > a.resets_at_ms { b } else { a })
            });
            longest.map(|state| state.limit.clone())
        });
        LimitReached {
            limit: used_up,
            available_in_ms: refusal
                .and_then(|refusal| refusal.available_at_ms)
                .map(|at_ms| at_ms.saturating_sub(earliest_ms)),
        }
    }

    /// Closes leases that are over, and forgets pools that are not used.
    fn sweep(&mut self, now: Moment) {
        let now_ms = now.steady_ms();
        let is_over = self.clock.latest_ms(now.steady_us).is_some_and(|ms| ms >= self.first_end_ms);
        let pause_ms = if is_over { MIN_SWEEP_MS } else { SWEEP_MS };
        if now_ms < self.swept_at_ms + pause_ms {
            return;
        }
        self.swept_at_ms = now_ms;
        let before = self.reports.leases.len();
        for pool in self.pools.values_mut() {
            pool.close_expired(&self.clock, now, &mut self.reports.leases);
        }
        let is_unspent = self.reports.leases.len() > before;
        self.pools.retain(|_, pool| !pool.is_idle(&self.clock, now));
        self.addresses = self.pools.keys().filter(|subject| is_address(subject)).count();
        self.first_end_ms = self.pools.values().map(Pool::first_end_ms).min().unwrap_or(u64::MAX);
        if is_unspent {
            self.reports.by(now_ms);
        }
    }

    /// Returns addresses in the order in which it is their turn: those after the last one that was asked
    /// for come first.
    fn in_turn(&self, addresses: BTreeSet<Subject>) -> impl Iterator<Item = Subject> + use<> {
        let mut first = addresses;
        let second = match &self.last_address {
            Some(last) => {
                let after = first.split_off(last);
                std::mem::replace(&mut first, after)
            }
            None => BTreeSet::new(),
        };
        first.into_iter().chain(second)
    }

    /// Returns a call with all that is to be said, if it is time to say something.
    fn next_call(&mut self, now: Moment) -> Option<LeaseCall> {
        let now_ms = now.steady_ms();
        let mut call = LeaseCall {
            instance: self.instance.clone(),
            worker: self.worker.clone(),
            ..LeaseCall::default()
        };
        let (mut later, mut asked_addresses) = (BTreeSet::new(), 0);
        // Those of accounts go first, and as few addresses with them as keep the answer short: a crowd
        // without tokens keeps nobody else waiting.
        let (addresses, others): (BTreeSet<Subject>, BTreeSet<Subject>) =
            std::mem::take(&mut self.wishes).into_iter().partition(is_address);
        for subject in others.into_iter().chain(self.in_turn(addresses)) {
            let Some(pool) = self.pools.get_mut(&subject) else {
                continue;
            };
            // Whoever wanted it has long gone.
            if pool.waiting == 0 && now_ms > pool.used_at_ms + WISH_MS {
                pool.is_wanted = false;
                continue;
            }
            let is_of_address = is_address(&subject);
            let is_late = is_of_address && asked_addresses >= MAX_ADDRESSES_PER_CALL;
            if now_ms < pool.ask_at_ms || is_late || call.requests.len() >= MAX_ENTRIES {
                later.insert(subject);
                continue;
            }
            let is_short = pool.is_short(&self.clock, now);
            let at_ms = if is_short { None } else { pool.ahead(&self.clock, now) };
            if !is_short && at_ms.is_none() {
                continue;
            }
            pool.is_asked = true;
            pool.is_wanted = false;
            let amount = pool.wanted(&self.clock, now, at_ms.is_some());
            let waiting = pool.waiting;
            if is_of_address {
                asked_addresses += 1;
                self.last_address = Some(subject.clone());
            }
            call.requests.push(LeaseRequest { subject, amount, waiting, at_ms });
        }
        self.wishes = later;

        let is_report_due = self.reports.are_due(now_ms);
        if call.requests.is_empty() && !is_report_due {
            return None;
        }
        if is_report_due {
            for pool in self.pools.values_mut() {
                if self.reports.leases.len() >= MAX_ENTRIES {
                    break;
                }
                pool.report(&mut self.reports.leases);
            }
        }
        self.reports.move_into(&mut call, now_ms);
        Some(call)
    }
}

impl LimitReached {
    fn lasts_longer_than(&self, other: &Self) -> bool {
        match (self.available_in_ms, other.available_in_ms) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(a), Some(b)) => a > b,
        }
    }
}

fn is_address(subject: &Subject) -> bool {
    match subject {
        Subject::Address { .. } => true,
        Subject::Account { .. } | Subject::Key { .. } => false,
    }
}

/// Longest time that a request waits for a control plane that does not answer, in milliseconds: with the
/// tick that ends it, below the promised 250.
pub const MAX_WAIT_MS: u64 = 190;

/// Longest time that a request waits for a lease while the control plane answers, in milliseconds: in a
/// crowd it may take more than one answer until it is its turn.
pub const MAX_CROWDED_WAIT_MS: u64 = 1_000;

/// How long what was spent may wait for a call that reports it.
const REPORT_MS: u64 = 1_000;

/// How long after the last request a lease is asked for that none waits for.
const WISH_MS: u64 = 2_000;

/// How often leases and pools are looked through though no lease is over.
const SWEEP_MS: u64 = 1_000;

/// The same where one is: each tick, since others may wait for what is left of it.
const MIN_SWEEP_MS: u64 = 40;

/// Most addresses that are told apart at a time: a flood of them must not fill the memory that keys
/// need. Further ones are refused for a moment.
const MAX_ADDRESSES: usize = 20_000;
const CROWDED_MS: u64 = 1_000;

/// Most addresses that a call asks for: some milliseconds of the control plane's time, for which accounts
/// that ask meanwhile have to wait.
const MAX_ADDRESSES_PER_CALL: usize = 64;

#[cfg(test)]
mod tests;
