//! The proxies that are connected, and what each of their workers holds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use latchkey_protocol::Revision;
use latchkey_protocol::poll::{MAX_WAIT_MS, Poll};

use crate::ledger;

/// All proxies that polled lately.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    seen: Mutex<BTreeMap<WorkerId, Worker>>,
}

/// One Wasm VM of one proxy, as far as one profile is concerned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WorkerId {
    pub(crate) instance: String,
    pub(crate) profile: String,
    pub(crate) worker: String,
}

/// What a worker holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker {
    /// What it has applied of this change log; absent before it has a snapshot.
    pub(crate) applied: Option<Revision>,
    /// When it first said so.
    pub(crate) applied_at: Instant,
    /// When it was last heard of.
    pub(crate) seen_at: Instant,
    /// When it counts as gone unless it is heard of again.
    gone_at: Instant,
}

/// A poll that waits: until it ends, its worker is there.
#[derive(Debug)]
pub(crate) struct WaitingPoll<'a> {
    proxies: &'a Proxies,
    id: WorkerId,
}

impl Proxies {
    /// Takes note of a poll and of what the one who polls holds of this change log.
    pub(crate) fn note(&self, poll: &Poll, applied: Option<Revision>, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CROWD {
            seen.retain(|_, worker| worker.gone_at > now);
        }
        let worker = seen.entry(WorkerId::of(poll)).or_insert(Worker {
            applied: None,
            applied_at: now,
            seen_at: now,
            gone_at: now,
        });
        if worker.applied != applied {
            worker.applied = applied;
            worker.applied_at = now;
        }
        worker.seen_at = now;
        worker.gone_at = now + NEXT_POLL;
    }

    /// Takes note that a poll waits from now on.
    pub(crate) fn wait(&self, poll: &Poll) -> WaitingPoll<'_> {
        let id = WorkerId::of(poll);
        self.expect(&id, LONGEST_WAIT);
        WaitingPoll { proxies: self, id }
    }

    /// Lets a worker count as gone unless it is heard of again within some time.
    fn expect(&self, id: &WorkerId, within: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = seen.get_mut(id) {
            worker.gone_at = Instant::now() + within;
        }
    }

    /// Returns the workers heard of lately, and forgets the others.
    pub(crate) fn connected(&self, now: Instant) -> Vec<(WorkerId, Worker)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, worker| worker.gone_at > now);
        seen.iter().map(|(id, worker)| (id.clone(), *worker)).collect()
    }
}

impl WorkerId {
    /// Returns the name under which it holds leases.
    pub(crate) fn holder(&self) -> String {
        ledger::holder(&self.instance, &self.worker)
    }

    fn of(poll: &Poll) -> Self {
        Self {
            instance: poll.instance.clone(),
            profile: poll.profile.clone(),
            worker: poll.worker.clone(),
        }
    }
}

/// It was answered, or its connection was lost: either way the next poll is due.
impl Drop for WaitingPoll<'_> {
    fn drop(&mut self) {
        self.proxies.expect(&self.id, NEXT_POLL);
    }
}

/// Time in which a worker polls again: it does at once after an answer and within a second after a
/// failure, but taking in a page may last.
const NEXT_POLL: Duration = Duration::from_secs(5);

/// Workers from which on those that are gone are looked for with each poll.
const CROWD: usize = 1_000;

/// Longest time that a poll waits, and a little more.
const LONGEST_WAIT: Duration = Duration::from_millis(MAX_WAIT_MS + 5_000);
