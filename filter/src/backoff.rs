//! How long to wait after a failure before trying again.

/// A wait that grows with each failure in a row.
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    /// Share of the wait that is this one's own, in percent.
    spread: u64,
}

impl Backoff {
    /// Returns the back-off of a worker. Proxies that lost the control plane together do not come
    /// back together: each waits a share of its own, spread by its random name.
    #[must_use]
    pub fn new(worker: &str) -> Self {
        Self { failures: 0, spread: worker.bytes().map(u64::from).sum::<u64>() % 50 }
    }

    /// Takes note of a failure; returns how long to wait, in milliseconds.
    pub fn fail(&mut self) -> u64 {
        self.failures = self.failures.saturating_add(1);
        let wait_ms = MIN_MS << self.failures.min(8).saturating_sub(1);
        wait_ms.min(MAX_MS) * (75 + self.spread) / 100
    }

    /// Takes note of a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Wait after the first failure, in milliseconds: a restarted control plane is back in less.
const MIN_MS: u64 = 50;

/// Longest wait, in milliseconds: below the second within which a change must be in force once the
/// control plane is back.
const MAX_MS: u64 = 600;
