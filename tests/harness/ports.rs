//! Free ports on 127.0.0.1.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::bail;

/// Returns a port on which nothing listens, and that this process has not returned before.
///
/// The ports lie below those that the kernel gives to outgoing connections, so that none can take
/// one between now and its use.
///
/// # Errors
///
/// If all are taken.
pub fn free() -> anyhow::Result<u16> {
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = u16::try_from(std::process::id() * 61 % u32::from(COUNT))?;
        let port = FIRST + (start + next) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

static NEXT: AtomicU16 = AtomicU16::new(0);
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
