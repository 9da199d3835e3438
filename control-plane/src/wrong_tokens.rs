//! Calls with a token that is none: slowed down, and told of in a bounded number of lines.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, RateLimiter};

use crate::client_address::network_of;
use crate::error::ApiError;
use crate::throttle::{quota, throttled};

/// Counts calls with wrong tokens. One with the right token passes whatever others do.
#[derive(Debug)]
pub(crate) struct WrongTokens {
    by_network: DefaultKeyedRateLimiter<IpAddr>,
    lines: DefaultDirectRateLimiter,
    /// Calls that no line told of.
    untold: AtomicU64,
}

impl WrongTokens {
    pub(crate) fn new() -> Self {
        Self {
            by_network: RateLimiter::keyed(quota(ATTEMPTS, Duration::from_millis(500))),
            lines: RateLimiter::direct(quota(LINES, Duration::from_secs(30))),
            untold: AtomicU64::new(0),
        }
    }

    /// Takes note of a call with a wrong token, or without one. Returns how it is refused: as it is, or for
    /// being one of too many.
    pub(crate) fn note(
        &self,
        address: Option<IpAddr>,
        expected: &str,
        refusal: ApiError,
    ) -> ApiError {
        let until = address.and_then(|address| {
            if self.by_network.len() >= CROWD {
                self.by_network.retain_recent();
            }
            self.by_network.check_key(&network_of(address)).err()
        });
        if self.lines.check().is_ok() {
            let untold = self.untold.swap(0, Ordering::Relaxed);
            let address = address.map(|address| address.to_string());
            tracing::warn!(address, untold, "a call was refused: {expected}");
        } else {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        match until {
            Some(until) => throttled(&until),
            None => refusal,
        }
    }
}

/// Wrong calls of one network before each takes half a second: several programs may have been given an old
/// token.
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// Lines of the log before there is one in half a minute.
const LINES: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Networks from which on those that rested are forgotten.
const CROWD: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_calls_of_one_network_are_slowed_down() {
        let wrong = WrongTokens::new();
        let note = |address: &str| {
            matches!(
                wrong.note(Some(address.parse().unwrap()), "x", ApiError::NoSuchPath),
                ApiError::Throttled { retry_after_seconds: 1..=2 }
            )
        };
        for _ in 0..ATTEMPTS.get() {
            assert!(!note("192.0.2.1"));
        }
        assert!(note("192.0.2.1") && note("::ffff:192.0.2.1"));
        assert!(!note("192.0.2.2") && !note("::ffff:192.0.2.3"));
        for index in 0..ATTEMPTS.get() {
            assert!(!note(&format!("2001:db8::{index}")));
        }
        assert!(note("2001:db8::ffff"));
        assert_eq!(
            wrong.untold.load(Ordering::Relaxed),
            u64::from(2 * ATTEMPTS.get() + 5 - LINES.get())
        );
    }
}
