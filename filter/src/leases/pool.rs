//! What is held for one subject.

use std::rc::Rc;

use latchkey_protocol::Limit;
use latchkey_protocol::lease::{
    Grant, LeaseOutcome, LeaseReport, LeaseRequest, LimitState, Refusal,
};

use super::{Moment, ServerClock};

/// The leases of one subject, and what is known of its limits.
#[derive(Debug)]
pub(super) struct Pool {
    /// The limits for which leases are held.
    pub(super) limits: Rc<[Limit]>,
    held: Vec<Held>,
    /// What the limits left when the lease in use was granted, or when one was refused.
    states: Vec<Rc<LimitState>>,
    /// Per limit, the lowest that was shown in a bucket.
    shown: Vec<Shown>,
    refusal: Option<Refusal>,
    /// Local time since which others hold what is left.
    contested_since_ms: Option<u64>,
    demand: Demand,
    last_grant: u64,
    /// Whether more is granted than to calls that wait.
    has_spare: bool,
    /// Requests that wait for a lease.
    pub(super) waiting: u64,
    /// Whether the call under way asks for it.
    pub(super) is_asked: bool,
    /// Whether a lease is of use though no request waits for it.
    pub(super) is_wanted: bool,
    /// Whether the call under way asks by limits that have changed since.
    is_outdated: bool,
    /// Local time before which it is of no use to ask again.
    pub(super) ask_at_ms: u64,
    /// Server time up to which nothing is granted ahead.
    no_ahead_until_ms: u64,
    /// Local time of the last request.
    pub(super) used_at_ms: u64,
}

/// A limit and what it leaves, as it is shown to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The limit, and when something leaves its window.
    pub state: Rc<LimitState>,
    /// Calls left.
    pub remaining: u64,
}

/// What a pool has for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A lease, by its place.
    Lease(usize),
    /// Nothing, and it is known why.
    Refused,
    /// Nothing at the moment: what is left is held by others, who may return it.
    Contested,
    /// Nothing, and it is not known why.
    Nothing,
}

#[derive(Debug)]
struct Held {
    id: u64,
    amount: u64,
    spent: u64,
    reported: u64,
    starts_at_ms: u64,
    expires_at_ms: u64,
    states: Vec<Rc<LimitState>>,
}

#[derive(Clone, Copy, Debug)]
struct Shown {
    bucket: u64,
    remaining: u64,
}

impl Pool {
    pub(super) fn new(limits: &Rc<[Limit]>) -> Self {
        Self {
            limits: Rc::clone(limits),
            held: Vec::new(),
            states: Vec::new(),
            shown: Vec::new(),
            refusal: None,
            contested_since_ms: None,
            demand: Demand::default(),
            last_grant: 0,
            has_spare: true,
            waiting: 0,
            is_asked: false,
            is_wanted: false,
            is_outdated: false,
            ask_at_ms: 0,
            no_ahead_until_ms: 0,
            used_at_ms: 0,
        }
    }

    /// Goes on with other limits: what was learned of the old ones is forgotten.
    pub(super) fn change_limits(&mut self, limits: &Rc<[Limit]>, closed: &mut Vec<LeaseReport>) {
        self.start_over(closed);
        self.is_outdated = self.is_asked;
        self.limits = Rc::clone(limits);
        self.states.clear();
        self.shown.clear();
        self.has_spare = true;
    }

    /// Returns what there is for a request now.
    pub(super) fn look(&self, clock: &ServerClock, now: Moment) -> Look {
        let soonest = self.open(clock, now).min_by_key(|(_, held)| held.expires_at_ms);
        if let Some((place, _)) = soonest {
            return Look::Lease(place);
        }
        let Some(earliest_ms) = clock.earliest_ms(now.steady_us) else {
            return Look::Nothing;
        };
        match &self.refusal {
            Some(refusal) if earliest_ms < holds_until_ms(refusal) => {
                let since_ms = self.contested_since_ms;
                let is_patient =
                    since_ms.is_some_and(|since| now.steady_ms() < since + CONTEST_PATIENCE_MS);
                if is_patient { Look::Contested } else { Look::Refused }
            }
            Some(_) | None => Look::Nothing,
        }
    }

    /// Charges a call to the lease at a place. Returns whether another lease is due.
    pub(super) fn charge(
        &mut self,
        place: usize,
        clock: &ServerClock,
        now: Moment,
        closed: &mut Vec<LeaseReport>,
    ) -> bool {
        self.demand.note(now.steady_ms());
        let Some(held) = self.held.get_mut(place) else {
            return true;
        };
        if held.spent == 0 {
            self.states.clone_from(&held.states);
        }
        held.spent += 1;
        if held.spent >= held.amount {
            let held = self.held.swap_remove(place);
            held.close(closed);
        }
        self.is_short(clock, now) || self.ahead(clock, now).is_some()
    }

    /// Returns from when on to ask for the next lease: from the end of the last one held, where that
    /// is near; none where it is not, or where nothing is granted ahead.
    pub(super) fn ahead(&self, clock: &ServerClock, now: Moment) -> Option<u64> {
        let ends_at_ms = self.held.iter().map(|held| held.expires_at_ms).max()?;
        let latest_ms = clock.latest_ms(now.steady_us)?;
        let is_near = latest_ms + RENEW_AHEAD_MS >= ends_at_ms && latest_ms < ends_at_ms;
        (is_near && ends_at_ms > self.no_ahead_until_ms).then_some(ends_at_ms)
    }

    /// Returns how many calls to ask for: what was used in the last second or two and what waits,
    /// less what is held.
    pub(super) fn wanted(&self, clock: &ServerClock, now: Moment, is_ahead: bool) -> u64 {
        let demand = self.demand.recent(now.steady_ms()).saturating_add(self.waiting);
        let held = if is_ahead { 0 } else { self.left(clock, now) };
        demand.saturating_add(1).saturating_sub(held).max(self.waiting).max(1)
    }

    /// Reports whether it is time to ask for more, to be used now: where calls wait or would have, or
    /// less than half of the last lease is left.
    pub(super) fn is_short(&self, clock: &ServerClock, now: Moment) -> bool {
        let is_low = || self.left(clock, now) <= self.last_grant / 2;
        self.waiting > 0 || self.is_wanted || (self.has_spare && is_low())
    }

    /// Returns how many calls the leases that may be spent now leave.
    pub(super) fn left(&self, clock: &ServerClock, now: Moment) -> u64 {
        let open = self.open(clock, now);
        open.fold(0, |sum, (_, held)| sum.saturating_add(held.amount - held.spent))
    }

    /// Returns the leases that may be spent now, whatever the control plane's clock shows within its
    /// bounds, with their places. One that is spent whole is held no longer.
    fn open(&self, clock: &ServerClock, now: Moment) -> impl Iterator<Item = (usize, &Held)> {
        let bounds = clock.earliest_ms(now.steady_us).zip(clock.latest_ms(now.steady_us));
        self.held.iter().enumerate().filter(move |(_, held)| {
            bounds.is_some_and(|(earliest_ms, latest_ms)| {
                held.starts_at_ms <= earliest_ms && latest_ms < held.expires_at_ms
            })
        })
    }

    /// Takes in what became of a request for a lease.
    pub(super) fn take_in(
        &mut self,
        request: &LeaseRequest,
        outcome: LeaseOutcome,
        answered_ms: u64,
        clock: &ServerClock,
        now: Moment,
        closed: &mut Vec<LeaseReport>,
    ) {
        self.is_asked = false;
        self.waiting = 0;
        match (outcome, request.at_ms) {
            (LeaseOutcome::Granted(grant), _) => {
                self.grant(grant, request.waiting);
                if self.is_outdated {
                    self.close_all(closed);
                }
            }
            // It was by limits that are no more.
            (LeaseOutcome::Refused(_), _) if self.is_outdated => {}
            // There is nothing for later yet; what there is now is another question.
            (LeaseOutcome::Refused(_), Some(at_ms)) => self.no_ahead_until_ms = at_ms,
            (LeaseOutcome::Refused(refusal), None) => {
                self.refuse(refusal, request.waiting, answered_ms, clock, now);
            }
        }
        self.is_outdated = false;
    }

    fn grant(&mut self, grant: Grant, waited: u64) {
        self.has_spare = grant.amount > waited;
        self.refusal = None;
        self.contested_since_ms = None;
        self.ask_at_ms = 0;
        self.last_grant = grant.amount;
        self.held.push(Held {
            id: grant.lease,
            amount: grant.amount,
            spent: 0,
            reported: 0,
            starts_at_ms: grant.starts_at_ms,
            expires_at_ms: grant.expires_at_ms,
            states: grant.limits.into_iter().map(Rc::new).collect(),
        });
    }

    fn refuse(
        &mut self,
        refusal: Refusal,
        waited: u64,
        answered_ms: u64,
        clock: &ServerClock,
        now: Moment,
    ) {
        let now_ms = now.steady_ms();
        self.has_spare = false;
        if refusal.available_at_ms.is_some_and(|at_ms| at_ms <= answered_ms) {
            // There is something, but only for calls that wait.
            self.refusal = None;
            self.contested_since_ms = None;
            return;
        }
        if self.left(clock, now) > 0 {
            // There is no more for now; what is held is still to be spent.
            self.ask_at_ms = now_ms + CONTEST_PAUSE_MS;
            return;
        }
        self.states = refusal.limits.iter().cloned().map(Rc::new).collect();
        self.ask_at_ms = clock.local_ms(refusal.ask_again_at_ms).unwrap_or(now_ms);
        if refusal.is_contested {
            let since_ms = *self.contested_since_ms.get_or_insert(now_ms);
            if now_ms < since_ms + CONTEST_PATIENCE_MS {
                // Others are asked to give back what they have only once someone waits for it.
                let pause_ms = if waited > 0 { CONTEST_PAUSE_MS } else { 0 };
                self.ask_at_ms = now_ms + pause_ms;
            }
        } else {
            self.contested_since_ms = None;
        }
        self.refusal = Some(refusal);
    }

    /// Reports whether requests wait for what others may give back.
    pub(super) fn is_contested(&self) -> bool {
        self.waiting > 0 && self.contested_since_ms.is_some()
    }

    /// Forgets what was said so far, and gives back all leases.
    pub(super) fn start_over(&mut self, closed: &mut Vec<LeaseReport>) {
        self.close_all(closed);
        self.refusal = None;
        self.contested_since_ms = None;
        self.ask_at_ms = 0;
        self.no_ahead_until_ms = 0;
    }

    /// Returns why there is nothing, if it is known.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Returns the server time at which the first lease ends; the end of time if there is none.
    pub(super) fn first_end_ms(&self) -> u64 {
        self.held.iter().map(|held| held.expires_at_ms).min().unwrap_or(u64::MAX)
    }

    /// Closes the leases that are over.
    pub(super) fn close_expired(
        &mut self,
        clock: &ServerClock,
        now: Moment,
        closed: &mut Vec<LeaseReport>,
    ) {
        let Some(latest_ms) = clock.latest_ms(now.steady_us) else {
            return;
        };
        for held in self.held.extract_if(.., |held| latest_ms >= held.expires_at_ms) {
            held.close(closed);
        }
    }

    /// Gives back all leases.
    pub(super) fn close_all(&mut self, closed: &mut Vec<LeaseReport>) {
        for held in self.held.drain(..) {
            held.close(closed);
        }
    }

    /// Reports what was spent since the last report of leases that stay open.
    pub(super) fn report(&mut self, reports: &mut Vec<LeaseReport>) {
        for held in &mut self.held {
            if held.spent > held.reported && held.id != NO_LEASE {
                held.reported = held.spent;
                reports.push(LeaseReport { lease: held.id, spent: held.spent, is_closed: false });
            }
        }
    }

    /// Reports whether nothing is lost when the pool is forgotten.
    pub(super) fn is_idle(&self, clock: &ServerClock, now: Moment) -> bool {
        let is_refused = self.refusal.as_ref().is_some_and(|refusal| {
            clock.earliest_ms(now.steady_us).is_some_and(|ms| ms < refusal.ask_again_at_ms)
        });
        // While a refusal holds, forgetting it would cost a call.
        let is_of_use = is_refused || self.is_asked || !self.held.is_empty();
        !is_of_use && now.steady_ms() > self.used_at_ms + KEPT_IDLE_MS
    }

    /// Returns what each limit leaves, as it is to be shown now.
    ///
    /// What others hold is not in it. In one bucket it never rises while calls go on: what others
    /// return stays unseen until the next.
    pub(super) fn rates(&mut self, clock: &ServerClock, now: Moment, rates: &mut Vec<Rate>) {
        let begun = self.held.iter().filter(|held| held.spent > 0);
        let mine = begun.fold(0_u64, |sum, held| sum.saturating_add(held.amount - held.spent));
        let earliest_ms = clock.earliest_ms(now.steady_us).unwrap_or_default();
        self.shown.resize(self.states.len(), Shown { bucket: u64::MAX, remaining: 0 });
        for (state, shown) in self.states.iter().zip(&mut self.shown) {
            let bucket = state.limit.window().bucket(earliest_ms);
            let remaining = state.remaining.saturating_add(mine).min(state.limit.amount);
            let is_same = shown.bucket == bucket;
            *shown = Shown {
                bucket,
                remaining: if is_same { remaining.min(shown.remaining) } else { remaining },
            };
            rates.push(Rate { state: Rc::clone(state), remaining: shown.remaining });
        }
    }
}

impl Held {
    fn close(self, closed: &mut Vec<LeaseReport>) {
        if self.id != NO_LEASE {
            closed.push(LeaseReport { lease: self.id, spent: self.spent, is_closed: true });
        }
    }
}

/// Returns until when a refusal is the answer; one that is contested a little longer, while the next
/// one is under way.
fn holds_until_ms(refusal: &Refusal) -> u64 {
    let more_ms = if refusal.is_contested { CONTEST_GRACE_MS } else { 0 };
    refusal.ask_again_at_ms.saturating_add(more_ms)
}

/// Calls of the last one to two seconds.
#[derive(Debug, Default)]
struct Demand {
    second: u64,
    current: u64,
    before: u64,
}

impl Demand {
    fn note(&mut self, now_ms: u64) {
        let second = now_ms / 1000;
        if second != self.second {
            self.before = if second == self.second + 1 { self.current } else { 0 };
            self.current = 0;
            self.second = second;
        }
        self.current += 1;
    }

    fn recent(&self, now_ms: u64) -> u64 {
        match (now_ms / 1000).saturating_sub(self.second) {
            0 => self.before.saturating_add(self.current),
            1 => self.current,
            _ => 0,
        }
    }
}

/// Number of a grant of which nothing is reported.
const NO_LEASE: u64 = 0;

/// How long before a lease ends the next one is asked for: several round trips.
const RENEW_AHEAD_MS: u64 = 300;

/// How long requests of a subject may wait for what others return.
const CONTEST_PATIENCE_MS: u64 = 150;

/// How long to wait until asking again meanwhile.
const CONTEST_PAUSE_MS: u64 = 8;

/// How long a contested refusal holds while the next answer is under way.
const CONTEST_GRACE_MS: u64 = 1_000;

/// How long a pool is kept that holds nothing and is not used.
const KEPT_IDLE_MS: u64 = 10_000;
