//! What this VM knows of one control plane and profile, kept apart from contexts.
//!
//! Envoy replaces the root context with every change of configuration, in the same VM. What was
//! learned has to outlive it: a static leads the new one to it while the old one is still there.
//! When the last one goes, it goes too, so that no forgotten copy comes back into use.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::host;
use super::metrics::Metrics;
use super::shared_data;
use super::waiting::WaitingRoom;
use super::wake::Wake;
use crate::config::Config;
use crate::leases::Leases;
use crate::poller::Poller;

/// One control plane and profile, as this VM knows it.
pub(super) struct Source {
    /// Name of this VM.
    pub(super) worker: String,
    pub(super) poller: RefCell<Poller>,
    pub(super) leases: RefCell<Leases>,
    /// By what a request wakes a root context; none while there is no root context to wake.
    pub(super) wake: RefCell<Option<Wake>>,
    /// Requests that wait for the first snapshot, their bodies or a lease.
    pub(super) waiting: WaitingRoom,
    /// Whether it was said that bodies are not read.
    is_warned: Cell<bool>,
    pub(super) metrics: Metrics,
}

impl Source {
    /// Logs, once, that requests are refused since their bodies are not read.
    pub(super) fn warn_of_unread_bodies(&self) {
        if !self.is_warned.replace(true) {
            log::error!(
                "latchkey: a request whose body decides is refused, since bodies are not read here: \
                 on its route, use a filter with `allow_on_headers_stop_iteration: true` and \
                 `root_id: bodies`"
            );
        }
    }
}

thread_local! {
    static SOURCES: RefCell<BTreeMap<Id, Weak<Source>>> = const { RefCell::new(BTreeMap::new()) };
}

/// What makes two configurations share what they know.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    profile: String,
    cluster: String,
    authority: String,
    path_prefix: String,
}

/// Returns what this VM knows of a configuration's control plane and profile.
pub(super) fn source(config: &Config, node_id: &str) -> Rc<Source> {
    let control_plane = &config.control_plane;
    let id = Id {
        profile: config.profile.name.clone(),
        cluster: control_plane.cluster.clone(),
        authority: control_plane.authority.clone(),
        path_prefix: control_plane.path_prefix.clone(),
    };
    SOURCES.with_borrow_mut(|sources| {
        let make = || {
            let worker = format!("{:08x}", host::random_bits() & 0xffff_ffff);
            let instance = instance(node_id);
            let poller = Poller::new(&config.profile.name, &instance, &worker);
            Rc::new(Source {
                poller: RefCell::new(poller),
                leases: RefCell::new(Leases::new(&instance, &worker)),
                worker,
                wake: RefCell::new(None),
                waiting: WaitingRoom::default(),
                is_warned: Cell::new(false),
                metrics: Metrics::define(),
            })
        };
        sources.retain(|_, source| source.strong_count() > 0);
        if let Some(source) = sources.get(&id).and_then(Weak::upgrade) {
            return source;
        }
        let source = make();
        sources.insert(id, Rc::downgrade(&source));
        source
    })
}

/// Returns the name of this Envoy process: its node id and a random part, since nodes may share an
/// id and a restarted Envoy is another proxy.
fn instance(node_id: &str) -> String {
    let random = format!("{:08x}", host::random_bits() & 0xffff_ffff);
    let random = shared_data::get_or_set("latchkey/process", random.as_bytes())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or(random);
    let node_id: String = node_id.chars().take(MAX_NODE_ID_CHARS).collect();
    if node_id.is_empty() { format!("envoy-{random}") } else { format!("{node_id}-{random}") }
}

/// Characters of a node id that tell proxies apart; the control plane takes 256 bytes in all.
const MAX_NODE_ID_CHARS: usize = 60;
