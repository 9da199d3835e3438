//! Windows: the arithmetic of buckets, in one place.
//!
//! Time is cut into buckets of equal length, aligned to the epoch (UTC). A window is a number of
//! them that follow each other, the current one included: a call counts in the bucket in which it
//! is made, and stops counting when that bucket leaves the window.

use std::collections::BTreeMap;

use crate::Limit;

/// Most buckets of a window: a year of days.
pub const MAX_BUCKETS: u32 = 366;

/// The shape of a limit's window.
///
/// Counts are calls per bucket, by the bucket's number since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Length of a bucket, in milliseconds; not 0.
    bucket_ms: u64,
    /// Number of buckets; not 0.
    buckets: u64,
}

impl Window {
    /// Returns a window of so many buckets of so many seconds; none of either counts as one.
    #[must_use]
    pub const fn new(bucket_seconds: u32, buckets: u32) -> Self {
        let bucket_seconds = if bucket_seconds == 0 { 1 } else { bucket_seconds };
        let buckets = if buckets == 0 { 1 } else { buckets };
        Self { bucket_ms: bucket_seconds as u64 * 1000, buckets: buckets as u64 }
    }

    /// Returns the window's length, in seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.bucket_ms / 1000 * self.buckets
    }

    /// Returns the number of the bucket in which a moment lies.
    #[must_use]
    pub fn bucket(self, at_ms: u64) -> u64 {
        at_ms / self.bucket_ms
    }

    /// Returns the first moment of a bucket, in milliseconds since the epoch.
    #[must_use]
    pub fn starts_at_ms(self, bucket: u64) -> u64 {
        bucket.saturating_mul(self.bucket_ms)
    }

    /// Returns the first moment after a bucket.
    #[must_use]
    pub fn ends_at_ms(self, bucket: u64) -> u64 {
        self.starts_at_ms(bucket.saturating_add(1))
    }

    /// Returns the first moment at which a bucket counts no longer.
    #[must_use]
    pub fn leaves_at_ms(self, bucket: u64) -> u64 {
        self.starts_at_ms(bucket.saturating_add(self.buckets))
    }

    /// Returns the oldest bucket of the window whose last bucket is this one.
    #[must_use]
    pub fn oldest(self, bucket: u64) -> u64 {
        bucket.saturating_sub(self.buckets - 1)
    }

    /// Returns the calls that count at a moment.
    ///
    /// Buckets after the current one count as well: they are there when the clock has stepped back,
    /// and a clock that steps back must not refill anything.
    #[must_use]
    pub fn count(self, counts: &BTreeMap<u64, u64>, at_ms: u64) -> u64 {
        let oldest = self.oldest(self.bucket(at_ms));
        counts.range(oldest..).fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
    }

    /// Returns the first moment, from one on, at which a call is below an amount if none is made
    /// until then; none if the amount is 0.
    #[must_use]
    pub fn available_at_ms(
        self,
        counts: &BTreeMap<u64, u64>,
        amount: u64,
        at_ms: u64,
    ) -> Option<u64> {
        if amount == 0 {
            return None;
        }
        let mut available_at_ms = at_ms;
        let mut count = self.count(counts, at_ms);
        for (bucket, gone) in counts.range(self.oldest(self.bucket(at_ms))..) {
            if count < amount {
                break;
            }
            count -= gone;
            available_at_ms = self.leaves_at_ms(*bucket);
        }
        Some(available_at_ms)
    }

    /// Returns the first moment at which something that counts leaves; if nothing counts, that at
    /// which a call made now would.
    #[must_use]
    pub fn resets_at_ms(self, counts: &BTreeMap<u64, u64>, at_ms: u64) -> u64 {
        let current = self.bucket(at_ms);
        let mut counted = counts.range(self.oldest(current)..).filter(|(_, count)| **count > 0);
        self.leaves_at_ms(counted.next().map_or(current, |(bucket, _)| *bucket))
    }
}

impl Limit {
    /// Returns the shape of the limit's window.
    #[must_use]
    pub fn window(&self) -> Window {
        Window::new(self.bucket_seconds, self.buckets)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule without arithmetic: every admitted call is remembered with its moment.
    struct CallLog {
        bucket_ms: u64,
        buckets: u64,
        calls: Vec<u64>,
    }

    impl CallLog {
        fn counted(&self, at_ms: u64) -> u64 {
            let number = |ms: u64| i128::from(ms / self.bucket_ms);
            let counts = |call: &&u64| number(**call) > number(at_ms) - i128::from(self.buckets);
            self.calls.iter().filter(counts).count() as u64
        }
    }

    proptest! {
        /// Counters decide as a log of all calls does, at whatever moments, also if the clock steps.
        #[test]
        fn counters_decide_as_a_log_of_calls_does(
            bucket_seconds in 1_u32..5,
            buckets in 1_u32..5,
            amount in 0_u64..6,
            steps in prop::collection::vec(-9_000_i64..9_000, 1..60),
        ) {
            let window = Window::new(bucket_seconds, buckets);
            let bucket_ms = u64::from(bucket_seconds) * 1000;
            let mut log = CallLog { bucket_ms, buckets: u64::from(buckets), calls: vec![] };
            let mut counts = BTreeMap::new();
            let mut now_ms = 40_000_u64;
            for step in steps {
                now_ms = now_ms.saturating_add_signed(step);
                let counted = log.counted(now_ms);
                prop_assert_eq!(window.count(&counts, now_ms), counted);

                let available_at_ms = window.available_at_ms(&counts, amount, now_ms);
                match available_at_ms {
                    None => prop_assert_eq!(amount, 0),
                    Some(at_ms) => {
                        prop_assert!(at_ms >= now_ms && log.counted(at_ms) < amount);
                        prop_assert!(at_ms == now_ms || log.counted(at_ms - 1) >= amount);
                    }
                }
                let resets_at_ms = window.resets_at_ms(&counts, now_ms);
                prop_assert!(resets_at_ms > now_ms);
                if counted > 0 {
                    prop_assert!(log.counted(resets_at_ms) < counted);
                    prop_assert_eq!(log.counted(resets_at_ms - 1), counted);
                }
                if counted < amount {
                    log.calls.push(now_ms);
                    *counts.entry(window.bucket(now_ms)).or_default() += 1;
                }
            }
        }
    }

    #[test]
    fn bucket_begins_and_ends_at_its_edges() {
        let daily = Window::new(86_400, 30);
        let day = daily.bucket(1_704_657_599_999);
        assert_eq!(daily.bucket(daily.starts_at_ms(day)), day);
        assert_eq!(daily.bucket(daily.ends_at_ms(day) - 1), day);
        assert_eq!(daily.bucket(daily.ends_at_ms(day)), day + 1);
        // Counts today and on the 29 days after, and on the 31st day no longer.
        assert_eq!(daily.leaves_at_ms(day), daily.starts_at_ms(day + 30));
        assert_eq!(daily.seconds(), 2_592_000);
    }

    #[test]
    fn call_counts_until_its_bucket_leaves() {
        let window = Window::new(1, 10);
        let counts = BTreeMap::from([(100, 3)]);
        assert_eq!(window.count(&counts, 109_999), 3);
        assert_eq!(window.count(&counts, 110_000), 0);
        assert_eq!(window.available_at_ms(&counts, 3, 105_000), Some(110_000));
        assert_eq!(window.available_at_ms(&counts, 4, 105_000), Some(105_000));
    }

    /// A window without length used to divide by zero.
    #[test]
    fn window_of_nothing_is_one_of_a_second() {
        assert_eq!(Window::new(0, 0), Window::new(1, 1));
    }
}
