//! The control plane's clock, as far as its answers tell.

/// Bounds of the control plane's time, from the times at which calls left and answers came.
///
/// An answer says a time that lies between the two. So of any moment there is an earliest and a latest
/// time that the control plane's clock may show, a round trip apart: a lease is spent only if both
/// are within it. The local clock is one that never steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServerClock {
    bounds: Option<Bounds>,
}

/// What to add to the local time to get the control plane's, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    low_us: i64,
    high_us: i64,
    /// Local time at which they were right.
    at_us: u64,
}

impl ServerClock {
    /// Takes in that the control plane said a time in answer to a call. Returns whether its clock has
    /// stepped since the answer before.
    pub(super) fn learn(&mut self, sent_us: u64, received_us: u64, server_ms: u64) -> bool {
        // The time that it said is rounded down to a millisecond.
        let server_us = server_ms.saturating_mul(1000);
        let fresh = Bounds {
            low_us: difference(server_us, received_us),
            high_us: difference(server_us.saturating_add(1000), sent_us),
            at_us: received_us,
        };
        let known = self.bounds.map(|bounds| bounds.at(received_us));
        let narrowed = known.map(|known| Bounds {
            low_us: known.low_us.max(fresh.low_us),
            high_us: known.high_us.min(fresh.high_us),
            at_us: received_us,
        });
        match narrowed {
            Some(bounds) if bounds.low_us <= bounds.high_us => {
                self.bounds = Some(bounds);
                false
            }
            stepped => {
                self.bounds = Some(fresh);
                stepped.is_some()
            }
        }
    }

    /// Returns the earliest time that the control plane's clock may show, in milliseconds; none
    /// before its first answer.
    pub(super) fn earliest_ms(&self, local_us: u64) -> Option<u64> {
        self.bounds.map(|bounds| local_us.saturating_add_signed(bounds.at(local_us).low_us) / 1000)
    }

    /// Returns the latest time that it may show, in milliseconds, rounded up.
    pub(super) fn latest_ms(&self, local_us: u64) -> Option<u64> {
        let latest = |bounds: Bounds| local_us.saturating_add_signed(bounds.at(local_us).high_us);
        self.bounds.map(|bounds| latest(bounds).div_ceil(1000))
    }

    /// Returns the local time, in milliseconds, at which the control plane's clock surely shows a
    /// time.
    pub(super) fn local_ms(&self, server_ms: u64) -> Option<u64> {
        let local = |bounds: Bounds| {
            server_ms.saturating_mul(1000).saturating_add_signed(bounds.low_us.saturating_neg())
        };
        self.bounds.map(|bounds| local(bounds).div_ceil(1000))
    }
}

impl Bounds {
    /// Returns the bounds at a later time: clocks drift apart.
    fn at(self, local_us: u64) -> Self {
        let passed_us = local_us.saturating_sub(self.at_us);
        let drift_us = i64::try_from(passed_us / PARTS_PER_DRIFT).unwrap_or(i64::MAX);
        Self {
            low_us: self.low_us.saturating_sub(drift_us),
            high_us: self.high_us.saturating_add(drift_us),
            at_us: local_us.max(self.at_us),
        }
    }
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(i64::MAX)
}

/// Two clocks come apart by one part in so many: 200 in a million, more than clocks do that are kept
/// in time, less than a tick in four minutes.
const PARTS_PER_DRIFT: u64 = 5_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_a_round_trip_apart() {
        let mut clock = ServerClock::default();
        assert_eq!(clock.earliest_ms(0), None);
        assert!(!clock.learn(100_000, 110_000, 5_105));
        assert_eq!(
            (clock.earliest_ms(110_000), clock.latest_ms(110_000)),
            (Some(5_105), Some(5_116))
        );
        // A quicker answer narrows them, a slower one does not widen them.
        assert!(!clock.learn(200_000, 202_000, 5_201));
        let narrow = (clock.earliest_ms(202_000), clock.latest_ms(202_000));
        assert_eq!(narrow, (Some(5_201), Some(5_204)));
        assert!(!clock.learn(300_000, 390_000, 5_350));
        assert_eq!(clock.earliest_ms(390_000), Some(5_388));
    }

    /// A lease that began with its answer used to be of no use until a millisecond later, so that a
    /// second one was asked for.
    #[test]
    fn time_that_was_said_is_reached_when_it_is_heard() {
        let mut clock = ServerClock::default();
        clock.learn(100_400, 100_900, 5_000);
        assert_eq!(clock.earliest_ms(100_900), Some(5_000));
    }

    #[test]
    fn step_is_noticed() {
        let mut clock = ServerClock::default();
        clock.learn(100_000, 110_000, 5_105);
        assert!(clock.learn(200_000, 210_000, 1_205));
        assert_eq!(clock.earliest_ms(210_000), Some(1_205));
        assert!(clock.learn(300_000, 310_000, 900_000));
    }

    proptest! {
        /// Whatever the delays, the true time is within the bounds.
        #[test]
        fn true_time_is_within_the_bounds(
            offset_us in 1_000_000_000_u64..2_000_000_000,
            calls in prop::collection::vec((0_u64..50_000, 0_u64..50_000, 0_u64..2_000_000), 1..40),
        ) {
            let mut clock = ServerClock::default();
            let mut local_us = 1_000_000;
            for (there_us, back_us, pause_us) in calls {
                let sent_us = local_us;
                let said_ms = (sent_us + there_us + offset_us) / 1000;
                local_us += there_us + back_us;
                prop_assert!(!clock.learn(sent_us, local_us, said_ms));
                local_us += pause_us;
                let true_ms = (local_us + offset_us) / 1000;
                prop_assert!(clock.earliest_ms(local_us).unwrap() <= true_ms);
                prop_assert!(clock.latest_ms(local_us).unwrap() >= true_ms);
            }
        }
    }
}
