//! The ledger: what was used and what is leased, the quota's truth.
//!
//! Pure: the time is an argument, and what is kept is read and written through [`Records`], in one
//! transaction per call. A lease is granted only from what a limit leaves when all that is used and
//! all that is leased counts against it. A lease counts whole until its holder reports what it spent
//! of it; so whatever is lost or crashes, no more is admitted than a limit allows.

pub(crate) mod allowance;
pub(crate) mod certain_time;
mod standing;

#[cfg(test)]
mod simulation;

use std::collections::BTreeSet;

use latchkey_protocol::lease::{
    Credit, Grant, KeyUsage, LeaseAnswer, LeaseCall, LeaseOutcome, LeaseReport, LeaseRequest,
    MAX_AHEAD_MS, Refusal,
};
use latchkey_protocol::{Limit, Subject};

use allowance::Allowance;
use standing::Room;
pub(crate) use standing::{Lease, Standing};

use crate::store::StoreError;

/// What the ledger keeps, as of one transaction.
pub(crate) trait Records {
    /// Returns the limits that count a subject's calls; none if there is no such subject.
    fn limits(&self, subject: &Subject) -> Result<Option<Vec<Limit>>, StoreError>;

    /// Returns what a subject used and leased, as far as it counts for limits from a moment on.
    fn standing(
        &self,
        subject: &Subject,
        limits: &[Limit],
        now_ms: u64,
    ) -> Result<Standing, StoreError>;

    /// Adds calls to a subject, made at a moment: to its day, and to its bucket of each length.
    fn add_calls(
        &mut self,
        subject: &Subject,
        at_ms: u64,
        lengths: &BTreeSet<u32>,
        count: u64,
    ) -> Result<(), StoreError>;

    /// Returns a lease and whose calls it is for.
    fn lease(&self, id: u64) -> Result<Option<(Subject, Lease)>, StoreError>;

    /// Returns the highest number of a lease that is kept.
    fn last_lease(&self) -> Result<u64, StoreError>;

    /// Returns leases that expired before a moment.
    fn expired_leases(&self, before_ms: u64) -> Result<Vec<(Subject, Lease)>, StoreError>;

    /// Keeps a lease, in place of what was kept of it.
    fn put_lease(&mut self, subject: &Subject, lease: &Lease) -> Result<(), StoreError>;

    /// Removes a lease.
    fn remove_lease(&mut self, id: u64) -> Result<(), StoreError>;

    /// Returns what is known of a holder.
    fn holder(&self, name: &str) -> Result<Option<Holder>, StoreError>;

    /// Returns how many workers of a proxy are known.
    fn workers(&self, instance: &str) -> Result<u64, StoreError>;

    /// Keeps what is known of a holder.
    fn put_holder(&mut self, name: &str, holder: &Holder) -> Result<(), StoreError>;

    /// Adds what a key was used.
    fn add_key_usage(&mut self, usage: &KeyUsage) -> Result<(), StoreError>;
}

/// What is known of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Number of its last call that was taken in.
    pub(crate) sequence: u64,
    /// When that was.
    pub(crate) seen_at_ms: u64,
    /// Calls that it may still report without a lease.
    pub(crate) credit_room: u64,
    /// Calls that it may still report as a key's.
    pub(crate) usage_room: u64,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) struct TakenIn {
    pub(crate) answer: LeaseAnswer,
    /// Holders to ask for what they have not spent.
    pub(crate) recalls: Vec<(String, Subject)>,
    /// Calls that were reported and not counted, as no proxy can have served so many since it was last
    /// heard of.
    pub(crate) excess: u64,
}

/// Takes in what a holder reports, and grants what it asks for where there is room.
///
/// A call that was taken in before changes nothing and gets the same leases again.
pub(crate) fn take_in(
    records: &mut impl Records,
    call: &LeaseCall,
    now_ms: u64,
) -> Result<TakenIn, StoreError> {
    let holder = holder(&call.instance, &call.worker);
    let known = records.holder(&holder)?;
    let last = known.map_or(0, |known| known.sequence);
    if call.sequence < last {
        let answer = LeaseAnswer { sequence: last, now_ms, outcomes: Vec::new() };
        return Ok(TakenIn { answer, recalls: Vec::new(), excess: 0 });
    }
    let is_new = call.sequence > last;
    let excess = if is_new { note(records, &holder, call, now_ms)? } else { 0 };
    let sequence = call.sequence;
    let mut caller = Caller { holder, sequence, now_ms, is_new, recalls: BTreeSet::new() };
    let outcomes = call.requests.iter().map(|request| caller.answer(records, request));
    let outcomes = outcomes.collect::<Result<_, _>>()?;
    let recalls = caller.recalls.into_iter().collect();
    Ok(TakenIn { answer: LeaseAnswer { sequence, now_ms, outcomes }, recalls, excess })
}

/// Counts what a holder reports. Returns how many calls of it cannot have been.
fn note(
    records: &mut impl Records,
    holder: &str,
    call: &LeaseCall,
    now_ms: u64,
) -> Result<u64, StoreError> {
    // Of the proxy as a whole: workers come and go, and each has another name.
    let proxy = self::holder(&call.instance, "");
    let known = records.holder(&proxy)?;
    let silent_ms = known.map(|known| now_ms.saturating_sub(known.seen_at_ms));
    let mut credits = Allowance::of_credits(known.map(|known| known.credit_room), silent_ms);
    // Workers that are new have not been heard of, whatever the others said; but a proxy has only so many.
    let is_new = records.holder(holder)?.is_none();
    if is_new && records.workers(&call.instance)? < MAX_WORKERS {
        credits.begin();
    }
    let mut uses = Allowance::of_usage(known.map(|known| known.usage_room), silent_ms);
    for report in &call.reports {
        settle(records, holder, report)?;
    }
    for credit in &call.credits {
        count_credit(records, credit, credits.take(credit.count), now_ms)?;
    }
    for usage in &call.usage {
        let last_used_at_ms = usage.last_used_at_ms.min(now_ms);
        let count = uses.take(usage.count);
        records.add_key_usage(&KeyUsage { last_used_at_ms, count, ..usage.clone() })?;
    }
    let seen = Holder {
        sequence: call.sequence,
        seen_at_ms: now_ms,
        credit_room: credits.left(),
        usage_room: uses.left(),
    };
    records.put_holder(holder, &seen)?;
    records.put_holder(&proxy, &Holder { sequence: 0, ..seen })?;
    Ok(credits.excess().saturating_add(uses.excess()))
}

/// Returns the name under which a worker of a proxy holds leases.
pub(crate) fn holder(instance: &str, worker: &str) -> String {
    format!("{instance}/{worker}")
}

/// Counts leases as spent whose holders have not been heard of since they expired; returns how many.
pub(crate) fn settle_lost(records: &mut impl Records, now_ms: u64) -> Result<usize, StoreError> {
    let lost = records.expired_leases(now_ms.saturating_sub(RETURN_MS))?;
    for (subject, lease) in &lost {
        close(records, subject, lease, lease.amount)?;
    }
    Ok(lost.len())
}

fn settle(
    records: &mut impl Records,
    holder: &str,
    report: &LeaseReport,
) -> Result<(), StoreError> {
    // One that is not there was counted as spent, whole, when its holder was not heard of.
    let Some((subject, mut lease)) = records.lease(report.lease)? else {
        return Ok(());
    };
    if lease.holder != holder {
        return Ok(());
    }
    lease.spent = lease.spent.max(report.spent.min(lease.amount));
    if report.is_closed {
        return close(records, &subject, &lease, lease.spent);
    }
    records.put_lease(&subject, &lease)
}

/// Ends a lease, with so many calls to count in the bucket for which it was granted.
fn close(
    records: &mut impl Records,
    subject: &Subject,
    lease: &Lease,
    spent: u64,
) -> Result<(), StoreError> {
    count(records, subject, lease.starts_at_ms, spent)?;
    records.remove_lease(lease.id)
}

fn count_credit(
    records: &mut impl Records,
    credit: &Credit,
    calls: u64,
    now_ms: u64,
) -> Result<(), StoreError> {
    count(records, &credit.subject, credit.at_ms.min(now_ms), calls)
}

/// Counts calls in every bucket length by which the subject is limited.
fn count(
    records: &mut impl Records,
    subject: &Subject,
    at_ms: u64,
    count: u64,
) -> Result<(), StoreError> {
    let Some(limits) = records.limits(subject)?.filter(|_| count > 0) else {
        return Ok(());
    };
    let lengths = limits.iter().map(|limit| limit.bucket_seconds.max(1)).collect();
    records.add_calls(subject, at_ms, &lengths, count)
}

/// Who makes a call, and whether it is news.
struct Caller {
    holder: String,
    sequence: u64,
    now_ms: u64,
    /// Whether the call was not taken in before.
    is_new: bool,
    recalls: BTreeSet<(String, Subject)>,
}

impl Caller {
    fn answer(
        &mut self,
        records: &mut impl Records,
        request: &LeaseRequest,
    ) -> Result<LeaseOutcome, StoreError> {
        let Some(limits) = records.limits(&request.subject)? else {
            return Ok(LeaseOutcome::Refused(Refusal {
                ask_again_at_ms: self.now_ms.saturating_add(UNKNOWN_MS),
                available_at_ms: None,
                is_contested: false,
                limits: Vec::new(),
            }));
        };
        if limits.is_empty() {
            return Ok(LeaseOutcome::Granted(self.unlimited(request)));
        }
        let mut standing = records.standing(&request.subject, &limits, self.now_ms)?;
        let starts_at_ms = request.at_ms.map_or(self.now_ms, |at_ms| {
            at_ms.clamp(self.now_ms, self.now_ms.saturating_add(MAX_AHEAD_MS))
        });
        if !self.is_new {
            let same =
                |lease: &&Lease| lease.holder == self.holder && lease.sequence == self.sequence;
            if let Some(lease) = standing.leases.iter().find(same).cloned() {
                return Ok(LeaseOutcome::Granted(granted(&standing, &limits, &lease)));
            }
            // What was refused then is refused now: a grant would be one that nobody keeps apart.
            let refusal = standing.refusal(&limits, starts_at_ms, self.now_ms);
            return Ok(LeaseOutcome::Refused(refusal));
        }

        let room = standing.room(&limits, &self.holder, starts_at_ms, self.now_ms);
        if request.waiting > room.calls {
            self.recall(&standing, &request.subject);
        }
        let amount = size(request, room);
        if room.calls == 0 {
            let refusal = standing.refusal(&limits, starts_at_ms, self.now_ms);
            return Ok(LeaseOutcome::Refused(refusal));
        }
        if amount == 0 {
            // There is nothing to spare; calls that wait would get theirs.
            return Ok(LeaseOutcome::Refused(Refusal {
                ask_again_at_ms: starts_at_ms,
                available_at_ms: Some(starts_at_ms),
                is_contested: false,
                limits: standing.states(&limits, starts_at_ms),
            }));
        }
        let ends = limits.iter().map(|limit| {
            let window = limit.window();
            window.ends_at_ms(window.bucket(starts_at_ms))
        });
        let bucket_ends_at_ms = ends.min().unwrap_or(u64::MAX);
        let lease = Lease {
            id: records.last_lease()?.saturating_add(1).max(self.now_ms.saturating_mul(1000)),
            holder: self.holder.clone(),
            sequence: self.sequence,
            amount,
            spent: 0,
            starts_at_ms,
            expires_at_ms: starts_at_ms.saturating_add(TERM_MS).min(bucket_ends_at_ms),
        };
        records.put_lease(&request.subject, &lease)?;
        standing.leases.push(lease.clone());
        Ok(LeaseOutcome::Granted(granted(&standing, &limits, &lease)))
    }

    /// Asks the other holders for what they have not spent.
    fn recall(&mut self, standing: &Standing, subject: &Subject) {
        for lease in &standing.leases {
            let is_idle = lease.expires_at_ms > self.now_ms && lease.spent < lease.amount;
            if is_idle && lease.holder != self.holder {
                self.recalls.insert((lease.holder.clone(), subject.clone()));
            }
        }
    }

    /// Lets a holder go on that has not heard yet that the limits are gone.
    fn unlimited(&self, request: &LeaseRequest) -> Grant {
        Grant {
            lease: 0,
            amount: request.amount.max(1),
            starts_at_ms: self.now_ms,
            expires_at_ms: self.now_ms.saturating_add(UNKNOWN_MS),
            limits: Vec::new(),
        }
    }
}

/// Returns how many calls to lease: what is wanted, and a little more where there is plenty, but beyond
/// the calls that wait no more than what may be spared.
fn size(request: &LeaseRequest, room: Room) -> u64 {
    let generous = (room.calls / PLENTY).min(GENEROUS_LEASE);
    let most = request.waiting.saturating_add(room.spare).min(room.calls);
    request.amount.max(generous).min(most)
}

fn granted(standing: &Standing, limits: &[Limit], lease: &Lease) -> Grant {
    Grant {
        lease: lease.id,
        amount: lease.amount,
        starts_at_ms: lease.starts_at_ms,
        expires_at_ms: lease.expires_at_ms,
        limits: standing.states(limits, lease.starts_at_ms),
    }
}

/// Workers of a proxy whose first calls are believed, those under names of earlier lives included.
const MAX_WORKERS: u64 = 1_024;

/// Longest time for which a lease is granted: a holder that vanished keeps others from its calls for so
/// long, and usage is behind by no more.
const TERM_MS: u64 = 3_000;

/// How long after its end a lease whose holder is silent waits for a report, until it is counted as
/// spent for good: as long as an outage of the network may last without inventing usage.
const RETURN_MS: u64 = 60_000;

/// Size of a lease that is granted where little is wanted but plenty is left, so that an account with
/// a few calls a second does not need a call-out for each.
const GENEROUS_LEASE: u64 = 16;

/// How many times larger than such a lease the rest has to be.
const PLENTY: u64 = 512;

/// How long an answer holds for a subject that is not known, or without limits: the holder hears of it
/// by its updates within a second.
const UNKNOWN_MS: u64 = 1_000;
