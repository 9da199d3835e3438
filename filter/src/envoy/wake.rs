//! Waking the root context: calls to the control plane can only be made from there.
//!
//! A call that a request's context makes ends with the request. So a request that needs a lease puts
//! a note into a queue of this VM, and the host calls the root context that registered it.

use std::cell::Cell;

use proxy_wasm::hostcalls;

/// The way to a root context.
pub(super) struct Wake {
    context_id: u32,
    queue: u32,
    /// Whether a note is in the queue already.
    is_noted: Cell<bool>,
}

impl Wake {
    /// Registers a queue of the effective root context; the name of the worker is this VM's alone.
    pub(super) fn register(worker: &str, context_id: u32) -> Option<Self> {
        let name = format!("latchkey/wake/{worker}/{context_id}");
        let queue = hostcalls::register_shared_queue(&name).ok()?;
        Some(Self { context_id, queue, is_noted: Cell::new(false) })
    }

    /// Lets the host call the root context soon.
    pub(super) fn call(&self) {
        if self.is_noted.replace(true) {
            return;
        }
        if hostcalls::enqueue_shared_queue(self.queue, None).is_err() {
            // The tick comes anyway.
            self.is_noted.set(false);
        }
    }

    /// Takes the note out of the queue, if it is this one's.
    pub(super) fn answer(&self, queue: u32) -> bool {
        if queue != self.queue {
            return false;
        }
        let _ = hostcalls::dequeue_shared_queue(queue);
        self.is_noted.set(false);
        true
    }

    /// Reports whether it wakes this root context.
    pub(super) fn is_of(&self, context_id: u32) -> bool {
        self.context_id == context_id
    }
}
