//! Preflights: requests by which a browser asks an API what a page may send (Fetch standard, section
//! 4.8). They carry no token, so they pass without one.
//!
//! A preflight has no body, and each address has so many a minute: what passes without a key must be of
//! no other use. Each worker counts by itself, in a table of one size whatever comes.

use std::net::IpAddr;
use std::num::NonZeroU16;

use latchkey_protocol::KeyHash;

use super::body::Body;
use super::charge::network;
use super::{Headers, Rejection, Request};
use crate::leases::Moment;
use crate::profile::Profile;
use crate::profile::carriers;

/// A preflight to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// By which its client is counted.
    address: IpAddr,
    /// How many a client may send in a minute.
    most: NonZeroU16,
}

/// Returns the preflight that a request is; none if it is another kind of request.
///
/// # Errors
///
/// [`Rejection::BodyTooLarge`] if it has a body.
pub(super) fn preflight(
    profile: &Profile,
    request: &Request<'_>,
    method: &str,
) -> Result<Option<Preflight>, Rejection> {
    if !is_one(profile, request.headers, method) {
        return Ok(None);
    }
    if request.body != Body::Whole(b"") {
        return Err(Rejection::BodyTooLarge);
    }
    let address = network((request.client_address)());
    Ok(Some(Preflight { address, most: profile.preflights_per_minute }))
}

fn is_one(profile: &Profile, headers: Headers<'_>, method: &str) -> bool {
    method == "OPTIONS"
        && match profile.preflight {
            carriers::Preflight::Cors => {
                headers.named("access-control-request-method").next().is_some()
            }
            carriers::Preflight::EveryOptions => true,
        }
}

/// How many preflights have come in this minute.
#[derive(Debug)]
pub struct Preflights {
    /// Keeps clients from choosing the place in which they are counted.
    seed: String,
    minute: u64,
    /// By place; clients share one by chance only.
    counts: Vec<u16>,
}

impl Preflights {
    /// Returns a table without any; the seed is this worker's alone.
    #[must_use]
    pub fn new(seed: &str) -> Self {
        Self { seed: seed.to_owned(), minute: 0, counts: Vec::new() }
    }

    /// Counts a preflight, or returns in how many seconds its client may send the next one.
    pub fn count(&mut self, preflight: Preflight, now: Moment) -> Option<u64> {
        let minute = now.steady_ms() / MINUTE_MS;
        // Only forwards: a clock that stepped back must not begin anew.
        if self.counts.is_empty() || minute > self.minute {
            self.counts.clear();
            self.counts.resize(PLACES, 0);
            self.minute = minute;
        }
        let [low, high, ..] =
            *KeyHash::of(format!("{} {}", self.seed, preflight.address).as_bytes()).as_bytes();
        let count = self.counts.get_mut(usize::from(u16::from_le_bytes([low, high])))?;
        if *count < preflight.most.get() {
            *count += 1;
            return None;
        }
        let ends_at_ms = (self.minute + 1).saturating_mul(MINUTE_MS);
        Some(ends_at_ms.saturating_sub(now.steady_ms()).div_ceil(1000).max(1))
    }
}

const MINUTE_MS: u64 = 60_000;

/// One for each number of 16 bits: 128 KiB.
const PLACES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment { steady_us: ms * 1000, wall_ms: 0 }
    }

    #[test]
    fn each_address_has_so_many_a_minute() {
        let most = NonZeroU16::new(3).unwrap();
        let of = |address: &str| Preflight { address: address.parse().unwrap(), most };
        let mut preflights = Preflights::new("w");
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::", "2001:db8:0:1::", "198.51.100.7"] {
            for _ in 0..3 {
                assert_eq!(preflights.count(of(address), at(30_000)), None, "{address}");
            }
            assert_eq!(preflights.count(of(address), at(30_001)), Some(30), "{address}");
            assert_eq!(preflights.count(of(address), at(59_999)), Some(1), "{address}");
        }
        assert_eq!(preflights.count(of("192.0.2.1"), at(60_000)), None, "a minute later");
    }

    #[test]
    fn crowd_of_addresses_takes_no_memory() {
        let most = NonZeroU16::new(600).unwrap();
        let mut preflights = Preflights::new("w");
        for index in 0..200_000_u32 {
            let address = IpAddr::from(index.to_be_bytes());
            assert_eq!(preflights.count(Preflight { address, most }, at(1)), None);
        }
        assert_eq!(preflights.counts.len(), PLACES);
    }
}
