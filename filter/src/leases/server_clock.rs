//! The control plane's clock, as far as its answers tell.

/// Bounds of the control plane's time, from the times at which calls left and answers came.
///
/// An answer says a time that lies between the two. So of any moment there is an earliest and a latest
/// time that the control plane's clock may show, a round trip apart: a lease is spent only if both
/// are within it. The local clock is one that never steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerClock {
    bounds: Option<Bounds>,
}

/// What to add to the local time, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    low_us: i64,
    high_us: i64,
    /// Local time at which they were right.
    at_ms: u64,
}

impl ServerClock {
    /// Takes in that the control plane said a time in answer to a call. Returns whether its clock has
    /// stepped since the answer before.
    pub fn learn(&mut self, sent_ms: u64, received_ms: u64, server_ms: u64) -> bool {
        // Times are rounded down, to a millisecond: each may be almost one more.
        let fresh = Bounds {
            low_us: difference_us(server_ms, received_ms.saturating_add(1)),
            high_us: difference_us(server_ms.saturating_add(1), sent_ms),
            at_ms: received_ms,
        };
        let known = self.bounds.map(|bounds| bounds.at(received_ms));
        let narrowed = known.map(|known| Bounds {
            low_us: known.low_us.max(fresh.low_us),
            high_us: known.high_us.min(fresh.high_us),
            at_ms: received_ms,
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

    /// Returns the earliest time that the control plane's clock may show; none before its first
    /// answer.
    #[must_use]
    pub fn earliest_ms(&self, local_ms: u64) -> Option<u64> {
        self.bounds.map(|bounds| add_us(local_ms, bounds.at(local_ms).low_us))
    }

    /// Returns the latest time that it may show.
    #[must_use]
    pub fn latest_ms(&self, local_ms: u64) -> Option<u64> {
        // The local time is rounded down.
        self.bounds.map(|bounds| add_us(local_ms.saturating_add(1), bounds.at(local_ms).high_us))
    }

    /// Returns the local time at which the control plane's clock surely shows a time.
    #[must_use]
    pub fn local_ms(&self, server_ms: u64) -> Option<u64> {
        self.bounds.map(|bounds| add_us(server_ms, bounds.low_us.saturating_neg()))
    }
}

impl Bounds {
    /// Returns the bounds at a later time: clocks drift apart.
    fn at(self, local_ms: u64) -> Self {
        let passed_ms = local_ms.saturating_sub(self.at_ms);
        let drift_us = i64::try_from(passed_ms / MS_PER_DRIFT_US).unwrap_or(i64::MAX);
        Self {
            low_us: self.low_us.saturating_sub(drift_us),
            high_us: self.high_us.saturating_add(drift_us),
            at_ms: local_ms.max(self.at_ms),
        }
    }
}

fn difference_us(a_ms: u64, b_ms: u64) -> i64 {
    let difference = i128::from(a_ms) - i128::from(b_ms);
    i64::try_from(difference.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn add_us(ms: u64, us: i64) -> u64 {
    ms.saturating_add_signed(us.div_euclid(1000))
}

/// Milliseconds in which two clocks come apart by a microsecond: 200 parts in a million, more than
/// clocks do that are kept in time, less than a tick in four minutes.
const MS_PER_DRIFT_US: u64 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_a_round_trip_apart() {
        let mut clock = ServerClock::default();
        assert_eq!(clock.earliest_ms(0), None);
        assert!(!clock.learn(100, 110, 5_105));
        assert_eq!((clock.earliest_ms(110), clock.latest_ms(110)), (Some(5_104), Some(5_117)));
        // A quicker answer narrows them, a slower one does not widen them.
        assert!(!clock.learn(200, 202, 5_201));
        let narrow = (clock.earliest_ms(202), clock.latest_ms(202));
        assert!(!clock.learn(300, 390, 5_350));
        assert_eq!(narrow, (Some(5_199), Some(5_205)));
        assert_eq!(clock.earliest_ms(390), Some(5_386));
    }

    #[test]
    fn step_is_noticed() {
        let mut clock = ServerClock::default();
        clock.learn(100, 110, 5_105);
        assert!(clock.learn(200, 210, 1_205));
        assert_eq!(clock.earliest_ms(210), Some(1_204));
        assert!(clock.learn(300, 310, 900_000));
    }

    proptest! {
        /// Whatever the delays, the true time is within the bounds.
        #[test]
        fn true_time_is_within_the_bounds(
            offset in 1_000_000_u64..2_000_000,
            calls in prop::collection::vec((0_u64..50, 0_u64..50, 0_u64..2_000), 1..40),
        ) {
            let mut clock = ServerClock::default();
            let mut local = 1_000;
            for (there, back, pause) in calls {
                let sent = local;
                let said = sent + there + offset;
                local += there + back;
                prop_assert!(!clock.learn(sent, local, said));
                local += pause;
                prop_assert!(clock.earliest_ms(local).unwrap() <= local + offset);
                prop_assert!(clock.latest_ms(local).unwrap() >= local + offset);
            }
        }
    }
}
