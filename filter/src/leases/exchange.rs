//! The call to the control plane: one at a time, numbered, and made again until it is answered.

use latchkey_protocol::lease::LeaseCall;

use super::{Attempt, MAX_WAIT_MS, Moment};
use crate::backoff::Backoff;

/// What is under way.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Number of the last call.
    sequence: u64,
    /// The call that was not answered yet.
    pending: Option<LeaseCall>,
    state: State,
    pub(super) attempts: u64,
    backoff: Backoff,
    /// Since when attempts have failed, in time awake.
    failing_since_ms: Option<u64>,
    awake: Awake,
}

/// How long this VM's thread was there to take in an answer: what comes while it is busy with a crowd
/// of requests has to wait, and that is no silence of the control plane's.
#[derive(Clone, Copy, Debug, Default)]
struct Awake {
    /// At the last look, in milliseconds.
    ms: u64,
    /// Local time of the last look.
    seen_at_ms: u64,
}

impl Awake {
    /// Returns it at a moment.
    fn at(self, now_ms: u64) -> u64 {
        self.ms + now_ms.saturating_sub(self.seen_at_ms).min(MAX_AWAKE_MS)
    }

    /// Takes note that the thread has come to look.
    fn look(&mut self, now_ms: u64) {
        *self = Self { ms: self.at(now_ms), seen_at_ms: now_ms };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No attempt is under way, and none may be made before a moment.
    Idle { until_ms: u64 },
    /// One is under way since a moment, which was so long awake.
    InFlight { attempt: u64, since: Moment, awake_ms: u64 },
}

impl Exchange {
    pub(super) fn new(worker: &str) -> Self {
        Self {
            sequence: 0,
            pending: None,
            state: State::Idle { until_ms: 0 },
            attempts: 0,
            backoff: Backoff::new(worker),
            failing_since_ms: None,
            awake: Awake::default(),
        }
    }

    /// Takes note that the thread has had time to read what came, as it has before each tick.
    pub(super) fn look(&mut self, now_ms: u64) {
        self.awake.look(now_ms);
    }

    /// Reports whether an attempt may be made; one that was never answered is given up.
    pub(super) fn is_free(&self, now_ms: u64) -> bool {
        match self.state {
            State::InFlight { since, .. } => {
                now_ms >= since.steady_ms() + CALL_TIMEOUT_MS + LOST_AFTER_MS
            }
            State::Idle { until_ms } => now_ms >= until_ms,
        }
    }

    /// Reports whether a call waits for its answer.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes a call to make; it gets the next number.
    pub(super) fn put(&mut self, mut call: LeaseCall) {
        self.sequence += 1;
        call.sequence = self.sequence;
        self.pending = Some(call);
    }

    /// Makes an attempt at the call, if there is one.
    pub(super) fn attempt(&mut self, now: Moment) -> Option<Attempt> {
        let body = serde_json::to_vec(self.pending.as_ref()?).ok()?;
        self.attempts += 1;
        let awake_ms = self.awake.at(now.steady_ms());
        self.state = State::InFlight { attempt: self.attempts, since: now, awake_ms };
        Some(Attempt { number: self.attempts, body })
    }

    /// Returns when an attempt was made, if it is the one under way.
    pub(super) fn in_flight(&self, attempt: u64) -> Option<Moment> {
        match self.state {
            State::InFlight { attempt: current, since, .. } if current == attempt => Some(since),
            State::InFlight { .. } | State::Idle { .. } => None,
        }
    }

    /// Ends the exchange with an answer to the call of a number; returns the call.
    ///
    /// Where the number is higher than the call's, another store, or another holder of this name, is
    /// ahead: the call is made again with a higher one, and there is nothing to return.
    pub(super) fn complete(&mut self, sequence: u64, now_ms: u64) -> Option<LeaseCall> {
        self.backoff.reset();
        self.failing_since_ms = None;
        self.state = State::Idle { until_ms: now_ms };
        let call = self.pending.take()?;
        if sequence <= call.sequence {
            return Some(call);
        }
        self.sequence = sequence;
        self.put(call);
        None
    }

    /// Takes in that the attempt under way failed.
    pub(super) fn fail(&mut self, now_ms: u64) {
        self.failing_since_ms.get_or_insert(self.awake.at(now_ms));
        self.state = State::Idle { until_ms: now_ms + self.backoff.fail() };
    }

    /// Gives the call up; returns it.
    pub(super) fn give_up(&mut self) -> Option<LeaseCall> {
        self.pending.take()
    }

    /// Forgets that an attempt is under way: its answer will not come.
    pub(super) fn abandon(&mut self) {
        if let State::InFlight { since, .. } = self.state {
            self.state = State::Idle { until_ms: since.steady_ms() };
        }
    }

    /// Reports whether the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_since_ms.is_some()
    }

    /// Reports whether the control plane answers, or has been silent only for as long as a request may
    /// wait.
    pub(super) fn is_alive(&self, now_ms: u64) -> bool {
        let called_ms = match self.state {
            State::InFlight { awake_ms, .. } => Some(awake_ms),
            State::Idle { .. } => None,
        };
        let failed_ms = self.failing_since_ms.filter(|_| self.pending.is_some());
        let silent_since_ms = [called_ms, failed_ms].into_iter().flatten().min();
        silent_since_ms.is_none_or(|since_ms| self.awake.at(now_ms) < since_ms + MAX_WAIT_MS)
    }
}

/// Longest time that a call may take, in milliseconds: a commit to a slow disk and a lost packet.
pub const CALL_TIMEOUT_MS: u64 = 2_000;

/// How long after its time-out a call counts as lost: Envoy drops calls without a word when it
/// replaces a plugin.
pub(super) const LOST_AFTER_MS: u64 = 500;

/// Longest time between two looks that counts as awake, in milliseconds: somewhat more than a tick.
const MAX_AWAKE_MS: u64 = 70;
