//! How a subject stands with its limits: what it used, what is leased, what is left.

use std::collections::{BTreeMap, BTreeSet};

use latchkey_protocol::lease::{LimitState, MAX_AHEAD_MS, Refusal};
use latchkey_protocol::window::MAX_BUCKETS;
use latchkey_protocol::{Limit, Window};

use super::RETURN_MS;

/// What a subject used and leased.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Length of buckets, in seconds → number of the bucket → calls that were made, as far as they
    /// are in no lease any more.
    pub(crate) counts: BTreeMap<u32, BTreeMap<u64, u64>>,
    /// Leases that are not closed, expired ones included.
    pub(crate) leases: Vec<Lease>,
}

/// A share of what limits leave, in the hands of a holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: u64,
    /// Proxy and worker.
    pub(crate) holder: String,
    /// Number of the holder's call that asked for it.
    pub(crate) sequence: u64,
    pub(crate) amount: u64,
    /// What its holder reported so far.
    pub(crate) spent: u64,
    /// First moment at which it may be spent; it counts in the buckets of that moment.
    pub(crate) starts_at_ms: u64,
    /// First moment at which it may be spent no longer.
    pub(crate) expires_at_ms: u64,
}

/// What is left to lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Calls.
    pub(crate) calls: u64,
    /// Those of them that a holder may have beside what it spends at once.
    ///
    /// It is a small share of what is left: so little lies unspent with one holder when another asks
    /// for the last, and near the limit there are no leases but for calls that wait.
    pub(crate) spare: u64,
}

/// What a subject used of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// Calls that count now.
    pub(crate) used: u64,
    /// First moment at which a call will pass; none if none will.
    pub(crate) available_at_ms: Option<u64>,
    /// Calls per bucket of the window, oldest first: first moment of the bucket, and count.
    pub(crate) buckets: Vec<(u64, u64)>,
}

impl Standing {
    /// Returns what all limits leave to a lease that starts at a moment.
    ///
    /// Every window that such calls would be in must have room for them: the one that ends with their
    /// bucket, and those that end with the bucket of a lease that was granted ahead. What was used in
    /// buckets after the current one is there because the clock has stepped back; it counts always.
    pub(crate) fn room(
        &self,
        limits: &[Limit],
        holder: &str,
        starts_at_ms: u64,
        now_ms: u64,
    ) -> Room {
        let holders = self.holders(holder, now_ms);
        let mut room = Room { calls: u64::MAX, spare: u64::MAX };
        for limit in limits {
            let window = limit.window();
            let bucket = window.bucket(starts_at_ms);
            let ahead = |lease: &&Lease| is_ahead(lease, now_ms);
            let later = self.leases.iter().filter(ahead).map(|l| window.bucket(l.starts_at_ms));
            let mut ends: BTreeSet<u64> =
                later.filter(|end| *end > bucket && window.oldest(*end) <= bucket).collect();
            ends.insert(bucket);
            let taken = ends.into_iter().map(|end| self.taken(limit, window, end, now_ms)).max();
            let calls = limit.amount.saturating_sub(taken.unwrap_or_default());
            let parts = if window.seconds() <= BURST_SECONDS { BURST_PARTS } else { SPARE_PARTS };
            room.calls = room.calls.min(calls);
            room.spare = room.spare.min(calls / holders.saturating_mul(parts).max(1));
        }
        room
    }

    /// Returns the calls of the window that ends with a bucket, leased ones included.
    fn taken(&self, limit: &Limit, window: Window, end: u64, now_ms: u64) -> u64 {
        let oldest = window.oldest(end);
        let used = self.counts.get(&limit.bucket_seconds).map_or(0, |counts| {
            counts.range(oldest..).fold(0_u64, |sum, (_, count)| sum.saturating_add(*count))
        });
        let leased = self.leases.iter().filter(|lease| {
            let bucket = window.bucket(lease.starts_at_ms);
            bucket >= oldest && (bucket <= end || !is_ahead(lease, now_ms))
        });
        leased.fold(used, |sum, lease| sum.saturating_add(lease.amount))
    }

    /// Returns the number of holders that share what is left, this one included.
    fn holders(&self, holder: &str, now_ms: u64) -> u64 {
        let open = self.leases.iter().filter(|lease| lease.expires_at_ms > now_ms);
        let mut names: BTreeSet<&str> = open.map(|lease| lease.holder.as_str()).collect();
        names.insert(holder);
        u64::try_from(names.len()).unwrap_or(u64::MAX)
    }

    /// Returns what each limit leaves at a moment, all leases taken.
    pub(crate) fn states(&self, limits: &[Limit], at_ms: u64) -> Vec<LimitState> {
        let state = |limit: &Limit| {
            let counts = self.counts_with_leases(limit, |lease| lease.amount);
            let window = limit.window();
            LimitState {
                limit: limit.clone(),
                remaining: limit.amount.saturating_sub(window.count(&counts, at_ms)),
                resets_at_ms: window.resets_at_ms(&counts, at_ms),
            }
        };
        limits.iter().map(state).collect()
    }

    /// Returns why nothing is left at a moment, and when that changes.
    pub(crate) fn refusal(&self, limits: &[Limit], at_ms: u64, now_ms: u64) -> Refusal {
        let counts = |limit: &Limit| self.counts_with_leases(limit, |lease| lease.amount);
        let available_at_ms = available_at_ms(limits, at_ms, counts);
        let may_return = |lease: &&Lease| {
            lease.amount > lease.spent && lease.expires_at_ms.saturating_add(RETURN_MS) > now_ms
        };
        let least = |limit: &Limit| {
            let weight =
                |lease: &Lease| if may_return(&lease) { lease.spent } else { lease.amount };
            self.counts_with_leases(limit, weight)
        };
        // When a call passes if all that can come back does.
        let possible_at_ms =
            available_at_ms.and_then(|_| self::available_at_ms(limits, at_ms, least));
        let is_contested = possible_at_ms == Some(at_ms);
        // Accounts are made anew and stores restored: no refusal holds for ever.
        let latest = now_ms.saturating_add(MAX_REFUSAL_MS);
        let certain_at_ms = available_at_ms.map_or(latest, |ms| ms.min(latest));
        let ask_again_at_ms = if possible_at_ms < available_at_ms {
            let ends = self.leases.iter().filter(may_return).map(|lease| lease.expires_at_ms);
            let soonest = ends.min().unwrap_or(now_ms).saturating_add(REPORT_MS);
            let earliest = now_ms.saturating_add(MIN_CONTEST_MS);
            let soon = soonest.clamp(earliest, now_ms.saturating_add(MAX_CONTEST_MS));
            soon.max(possible_at_ms.unwrap_or_default()).min(certain_at_ms.max(earliest))
        } else {
            certain_at_ms
        };
        let limits = self.states(limits, at_ms);
        Refusal { ask_again_at_ms, available_at_ms, is_contested, limits }
    }

    /// Returns what was used of a limit, as it is shown to people: of a lease that can still be spent,
    /// only what was reported.
    pub(crate) fn usage(&self, limit: &Limit, now_ms: u64) -> Used {
        let window = limit.window();
        let counts = self.counts_with_leases(limit, |lease| {
            if lease.expires_at_ms > now_ms { lease.spent } else { lease.amount }
        });
        let current = window.bucket(now_ms);
        // A plan may have come from a profile that was not checked.
        let oldest = window.oldest(current).max(current.saturating_sub(u64::from(MAX_BUCKETS) - 1));
        let buckets = (oldest..=current)
            .map(|bucket| {
                let count = counts.get(&bucket).copied().unwrap_or_default();
                (window.starts_at_ms(bucket), count)
            })
            .collect();
        Used {
            used: window.count(&counts, now_ms),
            available_at_ms: window.available_at_ms(&counts, limit.amount, now_ms),
            buckets,
        }
    }

    fn counts_with_leases(
        &self,
        limit: &Limit,
        weight: impl Fn(&Lease) -> u64,
    ) -> BTreeMap<u64, u64> {
        let mut counts = self.counts.get(&limit.bucket_seconds).cloned().unwrap_or_default();
        for lease in &self.leases {
            let count = counts.entry(limit.window().bucket(lease.starts_at_ms)).or_default();
            *count = count.saturating_add(weight(lease));
        }
        counts
    }
}

/// Returns the first moment, from one on, at which all limits leave room, by what counts for each.
fn available_at_ms(
    limits: &[Limit],
    at_ms: u64,
    counts: impl Fn(&Limit) -> BTreeMap<u64, u64>,
) -> Option<u64> {
    let each = limits
        .iter()
        .map(|limit| limit.window().available_at_ms(&counts(limit), limit.amount, at_ms));
    each.collect::<Option<Vec<u64>>>()?.into_iter().max()
}

/// Reports whether a lease was granted ahead of its time, which has not come yet.
fn is_ahead(lease: &Lease, now_ms: u64) -> bool {
    lease.starts_at_ms > now_ms && lease.starts_at_ms <= now_ms.saturating_add(MAX_AHEAD_MS)
}

/// All holders together may have this part of what is left beside what they spend at once.
const SPARE_PARTS: u64 = 16;

/// The same of limits over so few seconds that what is not spent is soon back by itself; a larger part
/// spares them many waits.
const BURST_PARTS: u64 = 2;
const BURST_SECONDS: u64 = 2;

/// How long after a lease's end its holder's report is there: a tick and a call.
const REPORT_MS: u64 = 80;

/// Shortest and longest time after which it is worth asking again for what others hold.
const MIN_CONTEST_MS: u64 = 50;
const MAX_CONTEST_MS: u64 = 1_000;

/// Longest time for which a refusal holds, though it may say that a call passes only later.
const MAX_REFUSAL_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(amount: u64, bucket_seconds: u32, buckets: u32) -> Limit {
        Limit {
            name: "l".to_owned(),
            amount,
            bucket_seconds,
            buckets,
            identity: None,
            generation: 0,
        }
    }

    fn lease(amount: u64, starts_at_ms: u64, expires_at_ms: u64) -> Lease {
        let holder = "i/w".to_owned();
        Lease { id: 1, holder, sequence: 1, amount, spent: 0, starts_at_ms, expires_at_ms }
    }

    fn used(bucket_seconds: u32, bucket: u64, count: u64) -> Standing {
        let counts = BTreeMap::from([(bucket_seconds, BTreeMap::from([(bucket, count)]))]);
        Standing { counts, leases: vec![] }
    }

    #[test]
    fn leases_take_room_until_they_are_closed() {
        let mut standing = used(10, 100, 3);
        standing.leases.push(lease(4, 1_000_000, 1_003_000));
        let limits = [limit(10, 10, 1)];
        assert_eq!(standing.room(&limits, "i/v", 1_000_500, 1_000_500).calls, 3);
        assert_eq!(
            standing.room(&limits, "i/v", 1_009_999, 1_009_999).calls,
            3,
            "expired, not reported"
        );
        assert_eq!(standing.room(&limits, "i/v", 1_010_000, 1_010_000).calls, 10, "another bucket");
    }

    #[test]
    fn lease_ahead_takes_room_in_its_own_windows_only() {
        let mut standing = Standing::default();
        standing.leases.push(lease(8, 101_000, 102_000));
        let now_ms = 100_700;
        assert_eq!(standing.room(&[limit(10, 1, 1)], "i/v", now_ms, now_ms).calls, 10);
        assert_eq!(
            standing.room(&[limit(10, 1, 2)], "i/v", now_ms, now_ms).calls,
            2,
            "both are in one window"
        );
        assert_eq!(standing.room(&[limit(10, 1, 1)], "i/v", 101_000, now_ms).calls, 2);
    }

    /// A window of two buckets used to count a third one where a lease was granted ahead.
    #[test]
    fn lease_ahead_is_not_in_a_window_with_what_has_left() {
        let mut standing = used(1, 99, 6);
        standing.leases.push(lease(4, 101_000, 102_000));
        let now_ms = 100_700;
        assert_eq!(standing.room(&[limit(10, 1, 2)], "i/v", now_ms, now_ms).calls, 4);
    }

    #[test]
    fn clock_that_steps_back_refills_nothing() {
        let mut standing = used(10, 100, 9);
        standing.leases.push(lease(1, 1_005_000, 1_008_000));
        for now_ms in [1_009_000, 990_000, 500_000] {
            assert_eq!(
                standing.room(&[limit(10, 10, 1)], "i/v", now_ms, now_ms).calls,
                0,
                "{now_ms}"
            );
        }
    }

    #[test]
    fn all_limits_must_have_room() {
        let mut standing = used(10, 100, 7);
        standing.counts.insert(1, BTreeMap::from([(1_000, 4)]));
        let limits = [limit(10, 10, 1), limit(5, 1, 1)];
        assert_eq!(standing.room(&limits, "i/v", 1_000_500, 1_000_500).calls, 1);
        assert_eq!(standing.room(&limits, "i/v", 1_001_000, 1_001_000).calls, 3);
        standing.counts.insert(1, BTreeMap::from([(1_000, 5)]));
        let refusal = standing.refusal(&limits, 1_000_500, 1_000_500);
        assert_eq!((refusal.available_at_ms, refusal.is_contested), (Some(1_001_000), false));
    }

    #[test]
    fn refusal_says_when_a_call_will_pass() {
        let mut standing = used(1, 100, 2);
        standing.counts.entry(1).or_default().insert(103, 8);
        let limits = [limit(10, 1, 10)];
        let refusal = standing.refusal(&limits, 105_500, 105_500);
        assert_eq!(refusal.available_at_ms, Some(110_000));
        assert_eq!(refusal.ask_again_at_ms, 110_000);
        assert_eq!((refusal.limits[0].remaining, refusal.limits[0].resets_at_ms), (0, 110_000));

        standing.counts = BTreeMap::from([(1, BTreeMap::from([(103, 8)]))]);
        standing.leases.push(lease(2, 105_000, 105_800));
        let refusal = standing.refusal(&limits, 105_500, 105_500);
        assert_eq!(refusal.available_at_ms, Some(113_000), "never too early");
        assert_eq!((refusal.is_contested, refusal.ask_again_at_ms), (true, 105_880));
    }

    #[test]
    fn little_is_spared_near_a_limit() {
        let spare = |used_calls: u64, limit: Limit| {
            let standing = used(limit.bucket_seconds, 100, used_calls);
            let now_ms = limit.window().starts_at_ms(100);
            standing.room(&[limit], "i/v", now_ms, now_ms).spare
        };
        assert_eq!(spare(0, limit(1000, 3600, 1)), 62);
        assert_eq!(spare(985, limit(1000, 3600, 1)), 0);
        assert_eq!(spare(0, limit(10, 1, 1)), 5);
        let mut standing = used(3600, 100, 0);
        standing.leases.push(lease(1, 360_000_000, 360_003_000));
        let room = standing.room(&[limit(1001, 3600, 1)], "i/v", 360_000_000, 360_000_000);
        assert_eq!((room.calls, room.spare), (1000, 31), "two holders");
    }

    /// A quota that was full of leases only used to be refused until its oldest day left, where a
    /// throttle was used up at the same time.
    #[test]
    fn what_may_come_back_is_asked_for_again_soon() {
        let mut standing = used(1, 1_000, 10);
        standing.counts.insert(3600, BTreeMap::from([(0, 98)]));
        standing.leases.push(lease(2, 999_500, 1_000_400));
        let limits = [limit(100, 3600, 1), limit(10, 1, 1)];
        let refusal = standing.refusal(&limits, 1_000_500, 1_000_500);
        assert_eq!((refusal.available_at_ms, refusal.is_contested), (Some(3_600_000), false));
        assert_eq!(refusal.ask_again_at_ms, 1_001_000);
    }

    #[test]
    fn no_refusal_holds_for_ever() {
        let refusal = used(86_400, 0, 5).refusal(&[limit(5, 86_400, 30)], 1_000, 1_000);
        assert_eq!(refusal.available_at_ms, Some(30 * 86_400_000));
        assert_eq!(refusal.ask_again_at_ms, 61_000);
    }

    #[test]
    fn nothing_is_available_of_nothing() {
        let refusal = Standing::default().refusal(&[limit(0, 1, 1)], 5_000, 5_000);
        assert_eq!((refusal.available_at_ms, refusal.is_contested), (None, false));
    }

    /// A plan of an older version may have any number of buckets: each used to be room in memory.
    #[test]
    fn usage_of_a_window_without_bounds_is_bounded() {
        let now_ms = 1_800_000_000_000;
        for (bucket_seconds, buckets) in [(1, 2_000_000_000), (60, u32::MAX), (u32::MAX, u32::MAX)]
        {
            let usage = used(bucket_seconds, now_ms / 1000 / u64::from(bucket_seconds), 7)
                .usage(&limit(10, bucket_seconds, buckets), now_ms);
            assert_eq!((usage.used, usage.available_at_ms), (7, Some(now_ms)));
            assert!(usage.buckets.len() <= 366, "{bucket_seconds} {buckets}");
        }
    }

    #[test]
    fn usage_shows_what_was_reported_of_open_leases() {
        let mut standing = used(1, 100, 2);
        standing.leases.push(Lease { spent: 1, ..lease(5, 101_000, 101_900) });
        let usage = standing.usage(&limit(10, 1, 3), 101_500);
        assert_eq!(usage.used, 3);
        assert_eq!(usage.buckets, [(99_000, 0), (100_000, 2), (101_000, 1)]);
        assert_eq!(standing.usage(&limit(10, 1, 3), 101_900).used, 7, "expired counts as spent");
    }
}
