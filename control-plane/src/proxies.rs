//! The proxies that are connected, and what each of them holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use latchkey_protocol::Revision;
use latchkey_protocol::poll::{MAX_WAIT_MS, Poll};
use tokio::sync::Notify;

use crate::edge::updates::{Holder, Workers};

/// All proxies that polled lately.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    seen: Mutex<BTreeMap<ProxyId, Proxy>>,
}

/// The VMs of one proxy that share what they know of one profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProxyId {
    pub(crate) instance: String,
    pub(crate) profile: String,
    /// Which of them, where one process has several.
    group: String,
}

/// What a proxy holds.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// Its VMs.
    pub(crate) holders: Vec<Holder>,
    /// What all of them have applied of this change log; absent before they have a snapshot.
    pub(crate) applied: Option<Revision>,
    /// When it was first said that they have.
    pub(crate) applied_at: Instant,
    /// When it was last heard of.
    pub(crate) seen_at: Instant,
    /// When it counts as gone unless it is heard of again.
    gone_at: Instant,
    /// Ends the poll that waits, when a later one has come.
    replaced: Arc<Notify>,
}

/// A poll that waits: until it ends, its proxy is there.
#[derive(Debug)]
pub(crate) struct WaitingPoll<'a> {
    proxies: &'a Proxies,
    id: ProxyId,
    replaced: &'a Notify,
}

impl Proxies {
    /// Takes note of a poll and of what all VMs of the one who polls hold of this change log. It ends the
    /// poll of the same proxy that waits; what is returned tells this one of the next.
    pub(crate) fn note(
        &self,
        poll: &Poll,
        workers: &Workers,
        applied: Option<Revision>,
        now: Instant,
    ) -> Arc<Notify> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= CROWD {
            seen.retain(|_, proxy| proxy.gone_at > now);
        }
        let proxy = seen.entry(ProxyId::of(poll)).or_insert_with(|| Proxy {
            holders: Vec::new(),
            applied: None,
            applied_at: now,
            seen_at: now,
            gone_at: now,
            replaced: Arc::default(),
        });
        std::mem::take(&mut proxy.replaced).notify_one();
        proxy.holders.clone_from(&workers.holders);
        if proxy.applied != applied {
            proxy.applied = applied;
            proxy.applied_at = now;
        }
        proxy.seen_at = now;
        proxy.gone_at = now + NEXT_POLL;
        Arc::clone(&proxy.replaced)
    }

    /// Takes note that a poll waits from now on.
    pub(crate) fn wait<'a>(&'a self, poll: &Poll, replaced: &'a Notify) -> WaitingPoll<'a> {
        let waiting = WaitingPoll { proxies: self, id: ProxyId::of(poll), replaced };
        waiting.expect(LONGEST_WAIT);
        waiting
    }

    /// Returns the proxies heard of lately, and forgets the others.
    pub(crate) fn connected(&self, now: Instant) -> Vec<(ProxyId, Proxy)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, proxy| proxy.gone_at > now);
        seen.iter().map(|(id, proxy)| (id.clone(), proxy.clone())).collect()
    }
}

impl ProxyId {
    fn of(poll: &Poll) -> Self {
        Self {
            instance: poll.instance.clone(),
            profile: poll.profile.clone(),
            group: poll.worker.clone(),
        }
    }
}

impl WaitingPoll<'_> {
    /// Lets its proxy count as gone unless it is heard of again within some time. Where a later poll has
    /// come, that one decides.
    fn expect(&self, within: Duration) {
        let mut seen = self.proxies.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(proxy) = seen.get_mut(&self.id)
            && std::ptr::eq(&*proxy.replaced, self.replaced)
        {
            proxy.gone_at = Instant::now() + within;
        }
    }
}

/// It was answered, or its connection was lost: either way the next poll is due.
impl Drop for WaitingPoll<'_> {
    fn drop(&mut self) {
        self.expect(NEXT_POLL);
    }
}

/// Time in which a proxy polls again: it does at once after an answer and within a second after a
/// failure, but taking in a page may last.
const NEXT_POLL: Duration = Duration::from_secs(5);

/// Proxies from which on those that are gone are looked for with each poll.
const CROWD: usize = 1_000;

/// Longest time that a poll waits, and a little more.
const LONGEST_WAIT: Duration = Duration::from_millis(MAX_WAIT_MS + 5_000);
