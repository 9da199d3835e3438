//! Requests that wait: for the first snapshot, for their bodies, for leases.
//!
//! What the host is asked to do with a request, to answer it or to let it go on, it does after the
//! callback, one within the other: each goes through the response's headers, at whose end the host
//! does the next. Some hundreds of them fill the stack, which ends the VM. So one callback decides
//! some dozens at most, and the VM's own queue calls for the next ones.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use latchkey_protocol::Subject;
use proxy_wasm::hostcalls;

use super::http_context::{Gateway, Progress, Verdict, client_address, decide};
use super::source::Source;
use crate::authorize::edits::is_decisive;
use crate::authorize::{HeaderMap, charge};
use crate::crowd::{Guest, Room, Seat};
use crate::leases::{Due, MAX_CROWDED_WAIT_MS, Moment};

/// The requests of a VM that wait.
pub(super) struct WaitingRoom {
    /// Those for which there is nothing yet, in their order.
    waiting: RefCell<Vec<Waiting>>,
    /// Those to be decided, in their order.
    due: RefCell<VecDeque<Waiting>>,
    /// How often the VM's own queue has called for more of them since the last tick.
    rounds: Cell<u32>,
    /// Clients that are slow with their bodies have a room of their own.
    for_bodies: Room,
    for_all_else: Room,
}

/// A request that waits for the first snapshot, its body, or a lease.
pub(super) struct Waiting {
    context_id: u32,
    awaits: Awaits,
    /// On the clock that never steps.
    since_ms: u64,
    /// Length of its headers and body.
    bytes: usize,
    /// Its place, while it has one.
    seat: Option<Seat>,
    /// Whether it is among those to be decided.
    is_due: bool,
    headers: HeaderMap,
    gateway: Rc<Gateway>,
    progress: Rc<Progress>,
}

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The rest of its body, with a key of this account.
    Body {
        account: Arc<str>,
    },
    /// A lease for each of these; so many answers had come when there was none.
    Lease {
        dues: Vec<Due>,
        answers: u64,
    },
    Snapshot,
}

/// For what a request may wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// For anything.
    ForAll,
    /// For anything but this, for which it has waited as long as it may.
    ForAllBut(Kind),
    /// For nothing: too many wait already.
    NoRoom,
}

/// Kinds of what a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Body,
    Lease,
    Snapshot,
}

impl Patience {
    /// Reports whether a request may wait for something.
    pub(super) fn is_for(self, kind: Kind) -> bool {
        match self {
            Self::ForAll => true,
            Self::ForAllBut(other) => other != kind,
            Self::NoRoom => false,
        }
    }
}

impl Awaits {
    fn kind(&self) -> Kind {
        match self {
            Self::Body { .. } => Kind::Body,
            Self::Lease { .. } => Kind::Lease,
            Self::Snapshot => Kind::Snapshot,
        }
    }
}

/// Decides requests for which there may be now what they waited for, and those that waited for
/// longer than they may: some of them, and calls the root context again where there are more.
///
/// Leaves the effective context at that of the last request. One callback may call it once.
pub(super) fn serve(source: &Source, now: Moment) {
    let room = &source.waiting;
    if room.waiting.borrow().is_empty() && room.due.borrow().is_empty() {
        return;
    }
    // Where only the queue knows of a request any more, its client has left.
    room.waiting.borrow_mut().retain(Waiting::has_client);
    room.due.borrow_mut().retain(Waiting::has_client);
    find_due(source, now);
    for _ in 0..MAX_DECIDED {
        let Some(waiting) = room.due.borrow_mut().pop_front() else {
            return;
        };
        // The client may be gone since, and its context with it.
        if hostcalls::set_effective_context(waiting.context_id).is_err() {
            continue;
        }
        let patience = waiting.patience(now);
        match waiting.decide(now, patience) {
            Verdict::Forward => {
                let _ = hostcalls::resume_http_request();
            }
            Verdict::Replied | Verdict::Wait(_) => {}
        }
    }
    // The VM's own queue is looked at before anything that comes from outside, so that a long crowd would
    // keep answers of the control plane from being read: after some rounds, the tick goes on.
    let rounds = room.rounds.get();
    if room.is_draining()
        && rounds < MAX_ROUNDS
        && let Some(wake) = &*source.wake.borrow()
    {
        room.rounds.set(rounds + 1);
        wake.call();
    }
}

/// Puts those that are to be decided behind those that already are.
fn find_due(source: &Source, now: Moment) {
    let is_ready = source.replica.borrow().is_some();
    let leases = &mut *source.leases.borrow_mut();
    let is_silent = !leases.may_wait(now);
    let due = &mut *source.waiting.due.borrow_mut();
    // Of what is leased, those that are let through first take each one call.
    let mut taken: BTreeMap<Subject, u64> = BTreeMap::new();
    for waiting in due.iter() {
        if let Awaits::Lease { dues, .. } = &waiting.awaits {
            for due in dues {
                *taken.entry(due.subject.clone()).or_default() += 1;
            }
        }
    }
    let mut is_due = |waiting: &mut Waiting| {
        let is_over = waiting.is_over(now);
        match &mut waiting.awaits {
            // Most answers are for others. To look is cheap, and to decide again is not.
            Awaits::Lease { dues, answers } => {
                let is_answered = std::mem::replace(answers, leases.answers()) != *answers;
                is_over || is_silent || (is_answered && leases.has_news(dues, now, &mut taken))
            }
            Awaits::Snapshot => is_ready || is_over,
            Awaits::Body { .. } => is_over,
        }
    };
    for mut waiting in source.waiting.waiting.borrow_mut().extract_if(.., |waiting| is_due(waiting))
    {
        waiting.is_due = true;
        due.push_back(waiting);
    }
}

impl WaitingRoom {
    /// Reports whether there are requests to be decided.
    pub(super) fn is_draining(&self) -> bool {
        !self.due.borrow().is_empty()
    }

    /// Takes note of a tick: what came from outside has had its turn.
    pub(super) fn tick(&self) {
        self.rounds.set(0);
    }

    /// Takes the request of a context out, if it waits.
    pub(super) fn take(&self, context_id: u32) -> Option<Waiting> {
        let is_it = |waiting: &Waiting| waiting.context_id == context_id;
        let (mut waiting, mut due) = (self.waiting.borrow_mut(), self.due.borrow_mut());
        match waiting.iter().position(is_it) {
            Some(index) => Some(waiting.remove(index)),
            None => due.iter().position(is_it).and_then(|index| due.remove(index)),
        }
    }

    /// Returns a place for one that waits for something with so many bytes of headers and body; none
    /// if there is none.
    fn seat(&self, awaits: &Awaits, bytes: usize) -> Option<Seat> {
        match awaits {
            Awaits::Body { account } => {
                self.for_bodies.take(Guest::Account(Arc::clone(account)), bytes)
            }
            Awaits::Lease { dues, .. } => self.for_all_else.take(guest(dues), bytes),
            Awaits::Snapshot => self.for_all_else.take(stranger(), bytes),
        }
    }
}

impl Default for WaitingRoom {
    fn default() -> Self {
        Self {
            waiting: RefCell::default(),
            due: RefCell::default(),
            rounds: Cell::default(),
            for_bodies: Room::new(MAX_WAITING, MAX_BODY_BYTES),
            for_all_else: Room::new(MAX_WAITING, MAX_BYTES),
        }
    }
}

/// Returns whose request it is that is charged to these.
fn guest(dues: &[Due]) -> Guest {
    match dues.first().map(|due| &due.subject) {
        Some(Subject::Account { account, .. } | Subject::Key { account, .. }) => {
            Guest::Account(Arc::clone(account))
        }
        Some(Subject::Address { .. }) => Guest::Address,
        None => stranger(),
    }
}

/// Returns the one whose request the effective context is of, as far as the address tells.
fn stranger() -> Guest {
    Guest::Stranger(charge::network(client_address()))
}

impl Waiting {
    /// Returns a request that would have to wait.
    pub(super) fn new(
        context_id: u32,
        awaits: Awaits,
        gateway: &Rc<Gateway>,
        headers: &HeaderMap,
        progress: Rc<Progress>,
        now: Moment,
    ) -> Self {
        // The others have been looked at: what had to be removed is.
        let headers = headers.only(|name| is_decisive(&gateway.config.profile, name));
        let (bytes, since_ms) = (headers.0.len(), now.steady_ms());
        let gateway = Rc::clone(gateway);
        let (seat, is_due) = (None, false);
        Self { context_id, awaits, since_ms, bytes, seat, is_due, headers, gateway, progress }
    }

    /// Lets it wait; where there is no room, it is decided at once.
    pub(super) fn begin(self, now: Moment) -> Verdict {
        if matches!(self.awaits, Awaits::Lease { .. }) {
            self.gateway.source.metrics.count_wait();
        }
        self.wait(now)
    }

    /// Takes in that its body has come, of so many bytes, and decides it if it waited for that or is to
    /// be decided anyway.
    pub(super) fn on_body(mut self, body_bytes: usize, now: Moment) -> Verdict {
        self.bytes += body_bytes;
        self.seat = None;
        match self.awaits {
            Awaits::Lease { .. } | Awaits::Snapshot if !self.is_due => self.wait(now),
            Awaits::Body { .. } | Awaits::Lease { .. } | Awaits::Snapshot => {
                let patience = self.patience(now);
                self.decide(now, patience)
            }
        }
    }

    /// Lets it wait for what it awaits, in the place that it has or finds.
    fn wait(mut self, now: Moment) -> Verdict {
        let source = &self.gateway.source;
        if self.seat.is_none() {
            self.seat = source.waiting.seat(&self.awaits, self.bytes);
        }
        if self.seat.is_none() {
            return self.decide(now, Patience::NoRoom);
        }
        self.is_due = false;
        self.progress.is_waiting.set(true);
        let (awaits, gateway) = (self.awaits.clone(), Rc::clone(&self.gateway));
        gateway.source.waiting.waiting.borrow_mut().push(self);
        Verdict::Wait(awaits)
    }

    /// Decides it, in its context; it waits on if there is something else to wait for.
    fn decide(mut self, now: Moment, patience: Patience) -> Verdict {
        self.progress.is_waiting.set(false);
        let verdict = decide(&self.gateway, &self.headers, now, &self.progress, patience);
        let Verdict::Wait(awaits) = verdict else {
            return verdict;
        };
        if self.awaits.kind() != awaits.kind() {
            self.since_ms = now.steady_ms();
            self.seat = None;
        }
        self.awaits = awaits;
        self.wait(now)
    }

    /// Reports whether its client is still there.
    fn has_client(&self) -> bool {
        Rc::strong_count(&self.progress) > 1
    }

    fn patience(&self, now: Moment) -> Patience {
        if self.is_over(now) { Patience::ForAllBut(self.awaits.kind()) } else { Patience::ForAll }
    }

    /// Reports whether it has waited for as long as it may.
    fn is_over(&self, now: Moment) -> bool {
        let most_ms = match self.awaits {
            Awaits::Body { .. } => MAX_BODY_WAIT_MS,
            // While the control plane is silent, it is due before.
            Awaits::Lease { .. } => MAX_CROWDED_WAIT_MS,
            Awaits::Snapshot => self.gateway.config.startup_wait_ms,
        };
        now.steady_ms() >= self.since_ms.saturating_add(most_ms)
    }
}

/// How long a body may take on which the decision depends, in milliseconds: less than Envoy lets a
/// stream be idle in the configuration that ships with this.
const MAX_BODY_WAIT_MS: u64 = 10_000;

/// Most requests that one callback decides: a tenth of what was seen to fill the stack, of which
/// other filters take a part.
const MAX_DECIDED: usize = 32;

/// How often the VM's own queue calls for the next requests between two ticks: some milliseconds.
const MAX_ROUNDS: u32 = 3;

/// Most requests that may wait in a VM for bodies, and as many for anything else: an eighth of them is
/// a crowd of 4,000 with keys of one account.
const MAX_WAITING: usize = 32_768;

/// Most bytes of headers and bodies that may wait in a VM for anything but bodies: an eighth of them is
/// that crowd with 2 KiB each. Its memory is never given back.
const MAX_BYTES: usize = 64 << 20;

/// Most bytes of headers and bodies that may wait in a VM for bodies.
const MAX_BODY_BYTES: usize = 32 << 20;
