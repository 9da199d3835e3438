//! What this VM knows of one control plane and profile, kept apart from contexts.
//!
//! Envoy replaces the root context with every change of configuration, in the same VM. What was
//! learned has to outlive it: a static leads the new one to it while the old one is still there.
//! When the last one goes, it goes too, so that no forgotten copy comes back into use.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use latchkey_protocol::{Recall, Revision};

use super::host;
use super::metrics::Metrics;
use super::shared_data::{self, HostData};
use super::waiting::WaitingRoom;
use super::wake::{Note, Wake, send};
use crate::config::Config;
use crate::leases::Leases;
use crate::poller::{Poller, Standing};
use crate::replica::Replica;
use crate::roster::{Member, Roster};
use crate::shared::Names;

/// One control plane and profile, as this VM knows it.
pub(super) struct Source {
    /// Number of this VM; its name is that in hexadecimal digits.
    vm: u32,
    names: Names,
    /// What is in use of what the VMs share; none before the first publication.
    pub(super) replica: RefCell<Option<Replica>>,
    /// The VMs, as this one last saw them.
    roster: RefCell<Roster>,
    /// Whether this VM has served requests.
    pub(super) serves: Cell<bool>,
    /// Brings updates into what the VMs share, while this VM leads.
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
    /// Returns the name of this VM.
    pub(super) fn worker(&self) -> String {
        worker(self.vm)
    }

    /// Looks whether something was published. Returns the revision that is in use here since.
    pub(super) fn look(&self) -> Option<Revision> {
        let mut replica = self.replica.borrow_mut();
        let applied = match &*replica {
            Some(replica) => replica.refresh(),
            None => {
                *replica = Replica::open(Rc::new(HostData), self.names.clone());
                replica.as_ref().map(Replica::revision)
            }
        }?;
        self.metrics.count_update(applied.number);
        Some(applied)
    }

    /// Says in the roster that this VM is alive and what it has applied. Returns whether it leads.
    pub(super) fn attend(&self) -> bool {
        let Some(queue) = self.wake.borrow().as_ref().map(Wake::queue) else {
            return false;
        };
        let me = Member {
            vm: self.vm,
            queue,
            // What is being taken in would be for nothing if another took over.
            serves: self.serves.get() && !self.poller.borrow().is_taking_in(),
            applied: self.replica.borrow().as_ref().map(Replica::revision),
            seen_at_ms: host::now().steady_ms(),
        };
        let present = shared_data::update(&self.names.roster(), |bytes| {
            let mut roster = Roster::parse(bytes.unwrap_or_default());
            roster.report(me).then(|| roster.write())
        });
        let roster = Roster::parse(&present.unwrap_or_default());
        let term = roster.term_of(self.vm);
        let before = self.roster.replace(roster).term_of(self.vm);
        if let Some(term) = term
            && before != Some(term)
        {
            self.poller.borrow_mut().start_over(term);
        }
        term.is_some()
    }

    /// Returns what there is to say of the VMs.
    pub(super) fn standing(&self) -> Standing {
        let roster = self.roster.borrow();
        let workers = roster.members().iter().map(|member| worker(member.vm)).collect();
        let in_use = self.replica.borrow().as_ref().map(Replica::revision);
        Standing { workers, applied: roster.applied(in_use) }
    }

    /// Wakes all VMs but this one.
    pub(super) fn wake_others(&self) {
        for member in self.roster.borrow().members() {
            if member.vm != self.vm {
                send(member.queue, &Note::Look);
            }
        }
    }

    /// Wakes the VM that leads, if it is another.
    pub(super) fn wake_leader(&self) {
        if let Some(leader) = self.roster.borrow().leader()
            && leader.vm != self.vm
        {
            send(leader.queue, &Note::Look);
        }
    }

    /// Asks workers for leases, each for its own.
    pub(super) fn recall(&self, recalls: Vec<Recall>) {
        let roster = self.roster.borrow();
        for Recall { worker: holder, subject } in recalls {
            let member = roster.members().iter().find(|member| worker(member.vm) == holder);
            match member {
                Some(member) if member.vm == self.vm => {
                    self.leases.borrow_mut().recall(&subject, host::now());
                }
                Some(member) => {
                    send(member.queue, &Note::Recall(subject));
                }
                // It is gone; what it held ends soon by itself.
                None => {}
            }
        }
    }

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
            let vm = random_number();
            let instance = instance(node_id);
            let names = Names::new(&format!("{id:?}"));
            let profile = &config.profile.name;
            let poller = Poller::new(profile, &instance, Rc::new(HostData), names.clone());
            Rc::new(Source {
                vm,
                replica: RefCell::new(Replica::open(Rc::new(HostData), names.clone())),
                names,
                roster: RefCell::default(),
                serves: Cell::new(false),
                poller: RefCell::new(poller),
                leases: RefCell::new(Leases::new(&instance, &worker(vm))),
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
    let mine = worker(random_number());
    // Whichever VM comes first decides for all of them.
    let random = shared_data::update("latchkey/process", |present| match present {
        Some(_) => None,
        None => Some(mine.as_bytes().to_vec()),
    });
    let random = random.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(mine);
    let node_id: String = node_id.chars().take(MAX_NODE_ID_CHARS).collect();
    if node_id.is_empty() { format!("envoy-{random}") } else { format!("{node_id}-{random}") }
}

/// Returns the name of a VM, of which nothing else in the process has the same.
fn worker(vm: u32) -> String {
    format!("{vm:08x}")
}

/// Returns a random number that is not 0.
fn random_number() -> u32 {
    let [a, b, c, d, ..] = host::random_bits().to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// Characters of a node id that tell proxies apart; the control plane takes 256 bytes in all.
const MAX_NODE_ID_CHARS: usize = 60;
