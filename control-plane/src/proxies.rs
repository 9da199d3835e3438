//! The proxies that are connected, and what each of their workers holds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use latchkey_protocol::Revision;
use latchkey_protocol::poll::{MAX_WAIT_MS, Poll};

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
}

impl Proxies {
    /// Takes note of a poll and of what the one who polls holds of this change log.
    pub(crate) fn note(&self, poll: &Poll, applied: Option<Revision>, now: Instant) {
        let id = WorkerId {
            instance: poll.instance.clone(),
            profile: poll.profile.clone(),
            worker: poll.worker.clone(),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CROWD {
            seen.retain(|_, worker| now.saturating_duration_since(worker.seen_at) < GONE_AFTER);
        }
        let worker =
            seen.entry(id).or_insert(Worker { applied: None, applied_at: now, seen_at: now });
        if worker.applied != applied {
            worker.applied = applied;
            worker.applied_at = now;
        }
        worker.seen_at = now;
    }

    /// Returns the workers heard of lately, and forgets the others.
    pub(crate) fn connected(&self, now: Instant) -> Vec<(WorkerId, Worker)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, worker| now.saturating_duration_since(worker.seen_at) < GONE_AFTER);
        seen.iter().map(|(id, worker)| (id.clone(), *worker)).collect()
    }
}

/// Workers from which on those that are gone are looked for with each poll.
const CROWD: usize = 1_000;

/// Silence after which a worker counts as gone: a poll lasts [`MAX_WAIT_MS`] at most and the next
/// follows at once.
const GONE_AFTER: Duration = Duration::from_millis(MAX_WAIT_MS + 5_000);
