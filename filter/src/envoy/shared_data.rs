//! Data that all VMs of one Envoy share: the one compare-and-swap loop.

use proxy_wasm::hostcalls;

/// Returns the value of a key, setting it first if it has none.
///
/// Whichever VM comes first decides the value for all of them.
pub(super) fn get_or_set(key: &str, value: &[u8]) -> Option<Vec<u8>> {
    for _ in 0..MAX_TRIES {
        match hostcalls::get_shared_data(key) {
            Ok((Some(present), _)) if !present.is_empty() => return Some(present),
            Ok(_) => {}
            Err(_) => return None,
        }
        // For a key that is absent the host takes any number; for one that is present, only the
        // number of its last write. So of several VMs that found the key absent, one succeeds.
        if hostcalls::set_shared_data(key, Some(value), Some(NO_WRITE)).is_ok() {
            return Some(value.to_vec());
        }
    }
    None
}

/// A number that no write has: the host counts writes up from 1.
const NO_WRITE: u32 = u32::MAX;

/// Tries before giving up; a second one succeeds unless keys can vanish, and they cannot.
const MAX_TRIES: u32 = 4;
