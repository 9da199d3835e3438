//! How many calls a holder can have admitted since it was last heard of.
//!
//! What filters report is believed, but not beyond what a proxy can serve: one that is broken must not
//! be able to use an account's limits up for good.

/// Calls that a holder may report.
#[derive(Debug)]
pub(crate) struct Allowance {
    room: u64,
    excess: u64,
}

impl Allowance {
    /// Returns how many calls without a lease a holder may report, by what was left when it was last
    /// heard of and how long ago that was; of one that is not known, neither is known.
    pub(super) fn of_credits(left: Option<u64>, silent_ms: Option<u64>) -> Self {
        Self::new(left, silent_ms, CREDITS_AT_ONCE)
    }

    /// Returns how many calls of keys a holder may report.
    pub(super) fn of_usage(left: Option<u64>, silent_ms: Option<u64>) -> Self {
        Self::new(left, silent_ms, USES_AT_ONCE)
    }

    /// What was left after a silence is left for the calls that follow, as one cannot hold everything; else
    /// it fills up again to what may be said at once.
    fn new(left: Option<u64>, silent_ms: Option<u64>, at_once: u64) -> Self {
        let (Some(left), Some(silent_ms)) = (left, silent_ms) else {
            return Self { room: at_once, excess: 0 };
        };
        let served = silent_ms.min(LONGEST_SILENCE_MS).saturating_mul(CALLS_PER_MS);
        let filled_up = left.saturating_add(served).min(at_once);
        let after_silence = at_once.saturating_add(served);
        let earned = if silent_ms >= SILENCE_MS { after_silence } else { filled_up };
        Self { room: left.max(earned), excess: 0 }
    }

    /// Lets as much be reported as a first call may.
    pub(super) fn begin(&mut self) {
        self.room = self.room.max(CREDITS_AT_ONCE);
    }

    /// Returns how many of some calls are believed.
    pub(super) fn take(&mut self, calls: u64) -> u64 {
        let believed = calls.min(self.room);
        self.room -= believed;
        self.excess = self.excess.saturating_add(calls - believed);
        believed
    }

    /// Returns how many more would be.
    pub(super) fn left(&self) -> u64 {
        self.room
    }

    /// Returns how many calls were not believed.
    pub(super) fn excess(&self) -> u64 {
        self.excess
    }
}

/// Calls that a proxy can serve in a millisecond: several times what was measured of a large machine.
const CALLS_PER_MS: u64 = 200;

/// Calls without a lease that are believed at once, of a holder that is heard of for the first time, too.
const CREDITS_AT_ONCE: u64 = 10_000;

/// Calls of keys that are believed at once: those of 5 seconds.
const USES_AT_ONCE: u64 = 1_000_000;

/// Silence from which on a holder was cut off: those that are not report several times a second.
const SILENCE_MS: u64 = 2_000;

/// Longest silence that counts; for as long holders are remembered.
pub(crate) const LONGEST_SILENCE_MS: u64 = 7 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_call_may_credit_ten_thousand() {
        let mut allowance = Allowance::of_credits(None, None);
        assert_eq!((allowance.take(9_000), allowance.take(1 << 40)), (9_000, 1_000));
        assert_eq!((allowance.left(), allowance.excess()), (0, (1 << 40) - 1_000));
    }

    #[test]
    fn silence_earns_what_a_proxy_can_serve() {
        let after =
            |left: u64, silent_ms: u64| Allowance::of_credits(Some(left), Some(silent_ms)).left();
        assert_eq!(after(0, 0), 0);
        assert_eq!(after(0, 20), 4_000);
        assert_eq!(after(9_000, 100), 10_000, "no more than at once");
        assert_eq!(after(0, 60_000), 12_010_000);
        assert_eq!(after(10_000, 3_600_000), 720_010_000);
        assert_eq!(
            after(2_900_000, 50),
            2_900_000,
            "what is left of an outage is kept for the next call"
        );
        assert_eq!(after(0, u64::MAX), after(0, LONGEST_SILENCE_MS));
    }
}
