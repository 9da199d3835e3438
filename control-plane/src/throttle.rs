//! What all bounds on attempts share: how fast they fill up again, and how one beyond them is refused.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{NotUntil, Quota};

use crate::error::ApiError;

/// Returns the bound of so many attempts at once, and one more each time that some time has passed.
pub(crate) fn quota(burst: NonZeroU32, every: Duration) -> Quota {
    Quota::with_period(every).unwrap_or(Quota::per_second(burst)).allow_burst(burst)
}

/// Returns the error of an attempt that came too early.
pub(crate) fn throttled(until: &NotUntil<Instant>) -> ApiError {
    let wait = until.wait_time_from(DefaultClock::default().now());
    ApiError::Throttled { retry_after_seconds: wait.as_secs() + 1 }
}
