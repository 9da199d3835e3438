//! Up to when it is certain that time has come.
//!
//! A system's clock may be wrong by years for a while. What is dropped by such a clock is lost once it is
//! right again, and with it what limits have counted; so what is dropped goes by a time that follows the
//! clock no faster than a steady one allows, and takes a leap for true only after a day.

/// Up to when it is certain that time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CertainTime {
    /// The moment, in milliseconds since the epoch.
    pub(crate) at_ms: u64,
    /// What the clock showed when it was first seen far ahead; none while it is not.
    pub(crate) ahead_since_ms: Option<u64>,
}

impl CertainTime {
    /// Returns it as of a moment of the system's clock, so many milliseconds of a steady one after it was
    /// last looked at.
    pub(crate) fn advance(self, now_ms: u64, passed_ms: u64) -> Self {
        let latest_ms =
            self.at_ms.saturating_add(passed_ms.min(MAX_STEP_MS)).saturating_add(SLACK_MS);
        if now_ms <= latest_ms {
            return Self { at_ms: now_ms, ahead_since_ms: None };
        }
        match self.ahead_since_ms {
            // It has shown so for a day: it is right, and this service was not running.
            Some(since_ms) if now_ms >= since_ms.saturating_add(DAY_MS) => {
                Self { at_ms: since_ms, ahead_since_ms: Some(now_ms) }
            }
            Some(since_ms) if now_ms >= since_ms => Self { ahead_since_ms: Some(since_ms), ..self },
            Some(_) | None => Self { ahead_since_ms: Some(now_ms), ..self },
        }
    }
}

/// Longest time between two looks that counts as passed, whatever the steady clock says: some systems
/// make that one leap, too.
const MAX_STEP_MS: u64 = 120_000;

/// How much faster than the steady clock the system's may be set right while it runs.
const SLACK_MS: u64 = 5_000;

const DAY_MS: u64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_800_000_000_000;

    fn certain(at_ms: u64) -> CertainTime {
        CertainTime { at_ms, ahead_since_ms: None }
    }

    #[test]
    fn clock_that_runs_is_followed() {
        let mut time = certain(NOON);
        for minute in 1..100 {
            time = time.advance(NOON + minute * 60_000, 60_000);
            assert_eq!(time, certain(NOON + minute * 60_000));
        }
    }

    #[test]
    fn leap_is_not_believed_for_a_day() {
        for leap_ms in [400 * DAY_MS, DAY_MS, 3_600_000, 200_000] {
            let mut time = certain(NOON);
            for minute in 1..1_440 {
                time = time.advance(NOON + leap_ms + minute * 60_000, 60_000);
                assert_eq!(time.at_ms, NOON, "{leap_ms}");
            }
            assert_eq!(time.advance(NOON + 86_000_000, 60_000).at_ms, NOON, "{leap_ms}");
            assert_eq!(time.advance(NOON, 60_000), certain(NOON), "right again");
            let later = time.advance(NOON + leap_ms + 1_441 * 60_000, 60_000);
            assert_eq!(later.at_ms, NOON + leap_ms + 60_000, "a day ago it showed so already");
        }
    }

    #[test]
    fn steady_clock_that_leaps_along_is_not_believed() {
        let time = certain(NOON).advance(NOON + 400 * DAY_MS, 400 * DAY_MS);
        assert_eq!(time.at_ms, NOON);
    }

    #[test]
    fn clock_that_steps_back_is_followed_at_once() {
        assert_eq!(certain(NOON).advance(NOON - 9 * DAY_MS, 1), certain(NOON - 9 * DAY_MS));
    }
}
