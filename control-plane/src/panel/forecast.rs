//! When a limit will be reached if calls go on as they do.

use latchkey_protocol::Window;

/// What becomes of a limit at the present pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forecast {
    /// It is reached.
    Now,
    /// It will be at this moment, in milliseconds.
    At(u64),
    /// It will not be: calls drop out as fast as they come, or the window ends before.
    Never,
    /// There were no calls lately.
    Idle,
}

/// Returns when the calls in a window reach an amount.
///
/// `buckets` are first moments and calls of the window's buckets, oldest first, the current one last.
/// The pace is that of the last seven whole buckets and the current one, or since the first of them
/// with calls; of a window of one bucket, that of the bucket.
pub(super) fn forecast(
    window: Window,
    buckets: &[(u64, u64)],
    amount: u64,
    now_ms: u64,
) -> Forecast {
    let mut used = buckets.iter().fold(0_u128, |sum, (_, count)| sum + u128::from(*count));
    if used >= u128::from(amount) {
        return Forecast::Now;
    }
    let recent = buckets.get(buckets.len().saturating_sub(PACE_BUCKETS)..).unwrap_or_default();
    let mut recent = recent.iter().skip_while(|(_, count)| *count == 0).peekable();
    let Some((since_ms, _)) = recent.peek() else {
        return Forecast::Idle;
    };
    let elapsed_ms = u128::from(now_ms.saturating_sub(*since_ms).max(1));
    let calls = recent.fold(0_u128, |sum, (_, count)| sum + u128::from(*count));

    let mut at_ms = now_ms;
    // After as many buckets as the window has, all that counts came at the present pace.
    for (index, bucket) in (0..=buckets.len()).zip(window.bucket(now_ms)..) {
        let ends_at_ms = window.ends_at_ms(bucket);
        let needed_ms = (u128::from(amount) - used) * elapsed_ms / calls;
        let left_ms = u128::from(ends_at_ms.saturating_sub(at_ms));
        if needed_ms < left_ms {
            return Forecast::At(
                at_ms.saturating_add(u64::try_from(needed_ms).unwrap_or(u64::MAX)),
            );
        }
        used += calls * left_ms / elapsed_ms;
        let dropped = buckets.get(index).map_or(calls, |(_, count)| u128::from(*count));
        used = used.saturating_sub(dropped).min(u128::from(amount));
        at_ms = ends_at_ms;
        if buckets.len() == 1 {
            break;
        }
    }
    Forecast::Never
}

/// A week of days, and today.
const PACE_BUCKETS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn days(counts: &[u64]) -> Vec<(u64, u64)> {
        counts.iter().zip(100..).map(|(&count, day)| (day * DAY_MS, count)).collect()
    }

    fn month(counts: &[u64], amount: u64, now_ms: u64) -> Forecast {
        forecast(Window::new(86_400, 30), &days(counts), amount, now_ms)
    }

    #[test]
    fn limit_is_reached_when_the_pace_says() {
        // 100 a day for ten days, in the middle of the tenth, which has 50.
        let mut counts = [0; 30];
        counts[20..29].fill(100);
        counts[29] = 50;
        let now_ms = 129 * DAY_MS + DAY_MS / 2;
        assert_eq!(month(&counts, 950, now_ms), Forecast::Now);
        assert_eq!(month(&counts, 951, now_ms), Forecast::At(now_ms + DAY_MS / 100));
        assert_eq!(month(&counts, 2_000, now_ms), Forecast::At(now_ms + DAY_MS * 105 / 10));
        assert_eq!(
            month(&counts, 10_000, now_ms),
            Forecast::Never,
            "a month has 3,000 at this pace"
        );
    }

    #[test]
    fn without_calls_there_is_no_pace() {
        let now_ms = 129 * DAY_MS + 1;
        assert_eq!(month(&[0; 30], 10, now_ms), Forecast::Idle);
        let mut long_ago = [0; 30];
        long_ago[3] = 9;
        assert_eq!(month(&long_ago, 10, now_ms), Forecast::Idle);
        assert_eq!(month(&[0; 30], 0, now_ms), Forecast::Now);
    }

    #[test]
    fn window_of_one_bucket_ends_with_it() {
        let hour = Window::new(3_600, 1);
        let start_ms = 500 * 3_600_000;
        let half_past = start_ms + 1_800_000;
        let of = |count: u64| forecast(hour, &[(start_ms, count)], 1_000, half_past);
        assert_eq!(of(750), Forecast::At(start_ms + 2_400_000));
        assert_eq!(of(400), Forecast::Never);
        assert_eq!(of(1_000), Forecast::Now);
    }
}
