//! Data that all VMs of one Envoy share, and the one compare-and-swap loop.

use proxy_wasm::hostcalls;

use crate::shared::{SharedData, Write};

/// The host's shared data.
#[derive(Debug)]
pub(super) struct HostData;

impl SharedData for HostData {
    fn get(&self, name: &str) -> Option<(Vec<u8>, Write)> {
        match hostcalls::get_shared_data(name) {
            Ok((value, Some(write))) => Some((value.unwrap_or_default(), Write(write))),
            Ok((_, None)) | Err(_) => None,
        }
    }

    fn set(&self, name: &str, value: &[u8], over: Option<Write>) -> bool {
        hostcalls::set_shared_data(name, Some(value), over.map(|write| write.0)).is_ok()
    }
}

/// Changes the value of a name: what was there, if anything, becomes what is returned; nothing is
/// written where nothing is. Returns what is there since.
pub(super) fn update(
    name: &str,
    mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    for _ in 0..MAX_TRIES {
        let (present, write) = HostData.get(name).unzip();
        let Some(value) = change(present.as_deref()) else {
            return present;
        };
        if HostData.set(name, &value, Some(write.unwrap_or(Write::NONE))) {
            return Some(value);
        }
    }
    None
}

/// Tries before giving up: each time another VM came first, of which there are some dozens.
const MAX_TRIES: u32 = 64;
