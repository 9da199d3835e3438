//! What the host has for a VM that `std` has not: the time, the environment and randomness; and what
//! each request needs of it.
//!
//! WASI's functions are not in the SDK, and to read headers or write filter state the SDK copies each
//! part. This is the one place with unsafe code: the functions are imported by hand, and each call
//! passes pointers into buffers that outlive it.
#![expect(unsafe_code, reason = "imports of host functions have no safe form")]

use std::time::UNIX_EPOCH;

use proxy_wasm::hostcalls;

use crate::authorize::HeaderMap;
use crate::leases::Moment;

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, bytes: *mut usize) -> u32;
    fn environ_get(entries: *mut *mut u8, buffer: *mut u8) -> u32;
    fn random_get(buffer: *mut u8, bytes: usize) -> u32;
    fn clock_time_get(clock: u32, precision: u64, nanoseconds: *mut u64) -> u32;
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, pairs: *mut *mut u8, bytes: *mut usize) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_bytes: usize,
        value: *const u8,
        value_bytes: usize,
    ) -> u32;
}

/// Returns the headers of the request of the effective context; none if there are none to be had.
pub(super) fn request_headers() -> HeaderMap {
    header_map(REQUEST_HEADERS)
}

/// Returns the headers of the response of the effective context; none if there are none to be had.
pub(super) fn response_headers() -> HeaderMap {
    header_map(RESPONSE_HEADERS)
}

fn header_map(map: u32) -> HeaderMap {
    let (mut pairs, mut bytes) = (std::ptr::null_mut(), 0_usize);
    // SAFETY: both pointers are to live variables; the host writes one value to each.
    let status = unsafe { proxy_get_header_map_pairs(map, &raw mut pairs, &raw mut bytes) };
    if status != SUCCESS || pairs.is_null() {
        return HeaderMap::default();
    }
    // SAFETY: the host has asked the SDK's allocator, which is `Vec`'s, for just so many bytes, has
    // written all of them, and has forgotten the pointer.
    HeaderMap(unsafe { Vec::from_raw_parts(pairs, bytes, bytes) })
}

/// Sets an entry of the filter state that the access log can show, as `wasm.` and its name.
pub(super) fn set_filter_state(name: &str, value: &[u8]) {
    // SAFETY: the pointers are to live slices of these lengths, which the host only reads. That it may
    // refuse is no reason to refuse a request.
    let _ = unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Returns the host's time, in milliseconds since the epoch.
pub(super) fn now_ms() -> u64 {
    hostcalls::get_current_time()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// Returns the present, also on a clock that never steps.
pub(super) fn now() -> Moment {
    let mut nanoseconds = 0_u64;
    // SAFETY: the pointer is to a live integer, and the host writes one integer to it.
    let status = unsafe { clock_time_get(MONOTONIC_CLOCK, 0, &raw mut nanoseconds) };
    let wall_ms = now_ms();
    let steady_us = if status == SUCCESS { nanoseconds / 1_000 } else { wall_ms * 1_000 };
    Moment { steady_us, wall_ms }
}

/// Returns an environment variable of the VM.
///
/// Which of Envoy's own variables the VM has is said in `vm_config.environment_variables`.
pub(super) fn environment_variable(name: &str) -> Option<String> {
    let (mut count, mut bytes) = (0_usize, 0_usize);
    // SAFETY: both pointers are to live integers; the host writes one integer to each.
    if unsafe { environ_sizes_get(&raw mut count, &raw mut bytes) } != SUCCESS || bytes == 0 {
        return None;
    }
    let mut entries = vec![std::ptr::null_mut::<u8>(); count];
    let mut buffer = vec![0_u8; bytes];
    // SAFETY: the buffers have the sizes that the host gave just above, for this same environment.
    if unsafe { environ_get(entries.as_mut_ptr(), buffer.as_mut_ptr()) } != SUCCESS {
        return None;
    }
    buffer.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

/// Returns random bits from the host's cryptographic generator; 0 if it has none to give.
pub(super) fn random_bits() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: the host writes eight bytes to a buffer of eight bytes.
    if unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) } != SUCCESS {
        return 0;
    }
    u64::from_le_bytes(bytes)
}

const SUCCESS: u32 = 0;

/// The ABI's number of the map of request headers.
const REQUEST_HEADERS: u32 = 0;

/// The ABI's number of the map of response headers.
const RESPONSE_HEADERS: u32 = 2;

/// WASI's number of the clock that never steps.
const MONOTONIC_CLOCK: u32 = 1;
