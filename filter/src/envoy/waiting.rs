//! Requests that wait: for the first snapshot, for their bodies, for leases.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use proxy_wasm::hostcalls;

use super::http_context::{Gateway, Progress, Verdict, decide};
use super::source::Source;
use crate::authorize::HeaderMap;
use crate::leases::{Due, MAX_WAIT_MS, Moment};

/// The requests of a VM that wait, in their order.
#[derive(Default)]
pub(super) struct WaitingRoom(RefCell<Vec<Waiting>>);

/// A request that waits for the first snapshot, its body, or a lease.
pub(super) struct Waiting {
    context_id: u32,
    awaits: Awaits,
    /// On the clock that never steps.
    since_ms: u64,
    /// Length of its headers and body.
    bytes: usize,
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    MayWait,
    MayNotWait,
    /// It would have to wait, and too many wait already.
    NoRoom,
}

/// Decides the requests for which there may be now what they waited for, and those that waited for
/// longer than they may.
///
/// Leaves the effective context at that of the last request.
pub(super) fn serve(source: &Source, now: Moment) {
    let waiting = &source.waiting.0;
    if waiting.borrow().is_empty() {
        return;
    }
    // Where only the queue knows of a request any more, its client has left.
    waiting.borrow_mut().retain(|waiting| Rc::strong_count(&waiting.progress) > 1);
    let due: Vec<Waiting> = {
        let is_ready = source.replica.borrow().is_some();
        let leases = &mut *source.leases.borrow_mut();
        let is_due = |waiting: &mut Waiting| {
            let is_over = waiting.is_over(now);
            match &mut waiting.awaits {
                // Most answers are for others. To look is cheap, and to decide again is not.
                Awaits::Lease { dues, answers } => {
                    let is_answered = std::mem::replace(answers, leases.answers()) != *answers;
                    is_over || !leases.may_wait(now) || (is_answered && leases.has_news(dues, now))
                }
                Awaits::Snapshot => is_ready || is_over,
                Awaits::Body { .. } => is_over,
            }
        };
        waiting.borrow_mut().extract_if(.., is_due).collect()
    };
    for waiting in due {
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
}

impl WaitingRoom {
    /// Takes the request of a context out, if it waits.
    pub(super) fn take(&self, context_id: u32) -> Option<Waiting> {
        let mut all = self.0.borrow_mut();
        let index = all.iter().position(|waiting| waiting.context_id == context_id)?;
        Some(all.remove(index))
    }

    /// Reports whether one more request may wait for something, with so many bytes of headers and body.
    ///
    /// Clients that are slow with their bodies have a room of their own, and those of an account a part
    /// of it: they keep nobody else from waiting.
    fn has_room_for(&self, awaits: &Awaits, bytes: usize) -> bool {
        let waiting = self.0.borrow();
        let sum = |is_counted: &dyn Fn(&Awaits) -> bool| -> usize {
            let counted = waiting.iter().filter(|waiting| is_counted(&waiting.awaits));
            counted.map(|waiting| waiting.bytes).sum()
        };
        let is_of_body = |other: &Awaits| matches!(other, Awaits::Body { .. });
        match awaits {
            Awaits::Body { .. } => {
                let same = sum(&|other| other == awaits).saturating_add(bytes);
                let all = sum(&is_of_body).saturating_add(bytes);
                same <= MAX_WAITING_BYTES / 8 && all <= MAX_WAITING_BYTES
            }
            Awaits::Lease { .. } | Awaits::Snapshot => {
                sum(&|other| !is_of_body(other)).saturating_add(bytes) <= MAX_WAITING_BYTES
            }
        }
    }
}

impl Waiting {
    /// Returns a request that would have to wait.
    pub(super) fn new(
        context_id: u32,
        awaits: Awaits,
        gateway: &Rc<Gateway>,
        headers: HeaderMap,
        progress: Rc<Progress>,
        now: Moment,
    ) -> Self {
        let (bytes, since_ms) = (headers.0.len(), now.steady_ms());
        let gateway = Rc::clone(gateway);
        Self { context_id, awaits, since_ms, bytes, headers, gateway, progress }
    }

    /// Lets it wait; where there is no room, it is decided at once.
    pub(super) fn begin(self, now: Moment) -> Verdict {
        let source = &self.gateway.source;
        if !source.waiting.has_room_for(&self.awaits, self.bytes) {
            return self.decide(now, Patience::NoRoom);
        }
        if matches!(self.awaits, Awaits::Lease { .. }) {
            source.metrics.count_wait();
        }
        self.progress.is_waiting.set(true);
        self.wait()
    }

    /// Takes in that its body has come, of so many bytes, and decides it if it waited for that.
    pub(super) fn on_body(mut self, body_bytes: usize, now: Moment) -> Verdict {
        self.bytes += body_bytes;
        if !self.gateway.source.waiting.has_room_for(&self.awaits, self.bytes) {
            return self.decide(now, Patience::NoRoom);
        }
        match self.awaits {
            Awaits::Body { .. } => {
                let patience = self.patience(now);
                self.decide(now, patience)
            }
            Awaits::Lease { .. } | Awaits::Snapshot => self.wait(),
        }
    }

    fn wait(self) -> Verdict {
        let (awaits, gateway) = (self.awaits.clone(), Rc::clone(&self.gateway));
        gateway.source.waiting.0.borrow_mut().push(self);
        Verdict::Wait(awaits)
    }

    /// Decides it, in its context; it waits on if there is something else to wait for.
    fn decide(mut self, now: Moment, patience: Patience) -> Verdict {
        self.progress.is_waiting.set(false);
        let verdict = decide(&self.gateway, &self.headers, now, &self.progress, patience);
        let Verdict::Wait(awaits) = verdict else {
            return verdict;
        };
        self.progress.is_waiting.set(true);
        if std::mem::discriminant(&self.awaits) != std::mem::discriminant(&awaits) {
            self.since_ms = now.steady_ms();
        }
        self.awaits = awaits;
        self.wait()
    }

    fn patience(&self, now: Moment) -> Patience {
        if self.is_over(now) { Patience::MayNotWait } else { Patience::MayWait }
    }

    /// Reports whether it has waited for as long as it may.
    fn is_over(&self, now: Moment) -> bool {
        let most_ms = match self.awaits {
            Awaits::Body { .. } => MAX_BODY_WAIT_MS,
            Awaits::Lease { .. } => MAX_WAIT_MS,
            Awaits::Snapshot => self.gateway.config.startup_wait_ms,
        };
        now.steady_ms() >= self.since_ms.saturating_add(most_ms)
    }
}

/// How long a body may take on which the decision depends, in milliseconds: less than Envoy lets a
/// stream be idle in the configuration that ships with this.
const MAX_BODY_WAIT_MS: u64 = 10_000;

/// Most bytes of headers and bodies that may wait in a VM for bodies, and as many for anything else: its
/// memory is never given back.
const MAX_WAITING_BYTES: usize = 16 << 20;
