//! Waking a root context, of this VM or another: calls to the control plane can only be made from there.
//!
//! A call that a request's context makes ends with the request. So a request that needs a lease puts
//! a note into a queue of this VM, and the host calls the root context that registered it. Other VMs
//! put notes there as well: that something was published, or that a lease is wanted back.

use std::cell::Cell;

use latchkey_protocol::Subject;
use proxy_wasm::hostcalls;

/// The way to a root context.
pub(super) struct Wake {
    context_id: u32,
    queue: u32,
    /// Whether a note of this VM's own is in the queue already.
    is_noted: Cell<bool>,
}

/// What a note says.
pub(super) enum Note {
    /// To look what there is to do.
    Look,
    /// To give back the leases of a subject, too.
    Recall(Subject),
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
        if !send(self.queue, &Note::Look) {
            // The tick comes anyway.
            self.is_noted.set(false);
        }
    }

    /// Takes a note out of the queue, if it is this one's.
    pub(super) fn answer(&self, queue: u32) -> Option<Note> {
        if queue != self.queue {
            return None;
        }
        self.is_noted.set(false);
        let note = hostcalls::dequeue_shared_queue(queue).ok().flatten().unwrap_or_default();
        Some(serde_json::from_slice(&note).map_or(Note::Look, Note::Recall))
    }

    /// Reports whether it wakes this root context.
    pub(super) fn is_of(&self, context_id: u32) -> bool {
        self.context_id == context_id
    }

    /// Returns the number of the queue, by which other VMs send notes.
    pub(super) fn queue(&self) -> u32 {
        self.queue
    }
}

/// Puts a note into a queue of any VM. Returns whether the host took it.
pub(super) fn send(queue: u32, note: &Note) -> bool {
    let text = match note {
        Note::Look => Vec::new(),
        Note::Recall(subject) => serde_json::to_vec(subject).unwrap_or_default(),
    };
    hostcalls::enqueue_shared_queue(queue, Some(&text)).is_ok()
}
