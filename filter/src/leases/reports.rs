//! What is to be reported: what was spent of leases, on credit, and with each key.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use latchkey_protocol::lease::{Credit, KeyUsage, LeaseCall, LeaseReport, MAX_ENTRIES};
use latchkey_protocol::{Right, Subject, Window};

use super::{Due, MAX_ADDRESSES, is_address};
use crate::authorize::Holder;

/// What waits to be reported.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Leases that are closed, or go on.
    pub(super) leases: Vec<LeaseReport>,
    credits: BTreeMap<(Subject, u64), u64>,
    usage: BTreeMap<Use, KeyUsage>,
    /// Number of rights in `usage`.
    rights: usize,
    /// Local time at which it is due.
    due_at_ms: Option<u64>,
}

/// What is reported of calls in one sum.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    account: Arc<str>,
    key: Arc<str>,
    /// Number of the hour since the epoch.
    hour: u64,
    /// When the token ends with which they were made.
    token_ends_at_ms: Option<NonZeroU64>,
}

impl Reports {
    /// Lets what there is be reported at a moment, unless it is sooner anyway.
    pub(super) fn by(&mut self, at_ms: u64) {
        let due_at_ms = self.due_at_ms.get_or_insert(at_ms);
        *due_at_ms = at_ms.min(*due_at_ms);
    }

    /// Reports whether it is due.
    pub(super) fn are_due(&self, now_ms: u64) -> bool {
        self.due_at_ms.is_some_and(|at_ms| now_ms >= at_ms)
    }

    /// Counts a call for which there is no lease. Returns whether there is room to remember it.
    pub(super) fn add_credit(&mut self, dues: &[Due], at_ms: u64) -> bool {
        let entries: Vec<(Subject, u64)> =
            dues.iter().map(|due| credit_entry(due, at_ms)).collect();
        let is_known = |entry| self.credits.contains_key(entry);
        let is_of_address = |(subject, _): &(Subject, u64)| is_address(subject);
        let most = if entries.iter().any(is_of_address) { MAX_ADDRESSES } else { MAX_REMEMBERED };
        if self.credits.len() >= most && !entries.iter().all(is_known) {
            return false;
        }
        for entry in entries {
            *self.credits.entry(entry).or_default() += 1;
        }
        true
    }

    /// Counts a call for the key with which it was made, and notes the rights that it took.
    pub(super) fn add_use(&mut self, holder: &Holder, exercised: &BTreeSet<Right>, at_ms: u64) {
        let Holder { account, key, token_ends_at_ms } = holder;
        let entry = Use {
            account: Arc::clone(account),
            key: Arc::clone(key),
            hour: at_ms / HOUR_MS,
            token_ends_at_ms: *token_ends_at_ms,
        };
        if self.usage.len() >= MAX_REMEMBERED && !self.usage.contains_key(&entry) {
            return;
        }
        let usage = self.usage.entry(entry).or_insert_with(|| KeyUsage {
            account: Arc::clone(account),
            key: Arc::clone(key),
            last_used_at_ms: at_ms,
            count: 0,
            rights: Some(BTreeSet::new()),
            token_ends_at_ms: token_ends_at_ms.map(NonZeroU64::get),
        });
        usage.count += 1;
        usage.last_used_at_ms = usage.last_used_at_ms.max(at_ms);
        // Where there is no room for them, it is said that they are not known.
        let Some(rights) = &mut usage.rights else {
            return;
        };
        for right in exercised {
            if !rights.contains(right) {
                rights.insert(right.clone());
                self.rights += 1;
            }
        }
        if self.rights > MAX_REMEMBERED {
            self.rights = self.rights.saturating_sub(rights.len());
            usage.rights = None;
        }
    }

    /// Moves as much into a call as it may hold; what is left is due at once.
    pub(super) fn move_into(&mut self, call: &mut LeaseCall, now_ms: u64) {
        if self.are_due(now_ms) {
            self.due_at_ms = None;
        }
        call.reports = self.leases.drain(..self.leases.len().min(MAX_ENTRIES)).collect();
        let mut rights = 0;
        while call.usage.len() < MAX_USAGE
            && rights < MAX_RIGHTS
            && let Some((_, usage)) = self.usage.pop_first()
        {
            rights += usage.rights.as_ref().map_or(0, BTreeSet::len);
            call.usage.push(usage);
        }
        self.rights = self.rights.saturating_sub(rights);
        while call.credits.len() < MAX_ENTRIES
            && let Some(((subject, at_ms), count)) = self.credits.pop_first()
        {
            call.credits.push(Credit { subject, at_ms, count });
        }
        if !(self.leases.is_empty() && self.usage.is_empty() && self.credits.is_empty()) {
            self.by(now_ms);
        }
    }
}

/// Returns under what a credit is remembered: the subject and the bucket.
///
/// The bucket is one of the shortest length that is not below a minute, so that a long outage is not
/// one entry per second; limits over seconds have forgotten by the time that it is reported.
fn credit_entry(due: &Due, at_ms: u64) -> (Subject, u64) {
    let seconds = due.limits.iter().map(|limit| limit.bucket_seconds);
    let shortest = seconds.clone().filter(|seconds| *seconds >= 60).min().or(seconds.max());
    let window = Window::new(shortest.unwrap_or_default(), 1);
    (due.subject.clone(), window.starts_at_ms(window.bucket(at_ms)))
}

/// Most entries of one kind that wait to be reported, so that an outage does not fill the memory.
const MAX_REMEMBERED: usize = 100_000;

/// Keys whose usage a call tells of at most, a part of what it may: the leases that it asks for wait until
/// all of that is written, at random places of a large store. The next call follows at once.
const MAX_USAGE: usize = 250;

/// Rights past which no more usage is added to a call: about 500 kB, a quarter of what the control plane
/// takes at once.
const MAX_RIGHTS: usize = 5_000;

const HOUR_MS: u64 = 3_600_000;
