//! Leases: what filters report and ask for, many of them in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use latchkey_protocol::lease::{LeaseAnswer, LeaseCall, LeaseOutcome, MAX_ENTRIES};
use tokio::sync::oneshot;

use super::recalls::Recalls;
use super::updates::check_names;
use crate::api::extract::Body;
use crate::app::App;
use crate::error::ApiError;
use crate::ledger::{self, TakenIn};
use crate::metrics::Metrics;
use crate::store::ledger::{LedgerRecords, certain_time, drop_old};
use crate::store::{Store, StoreError};
use crate::time::Time;

/// The one thread that keeps the ledger: what comes while it writes shares the next commit.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    jobs: Sender<Job>,
    thread: Arc<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    call: LeaseCall,
    answer: oneshot::Sender<Result<LeaseAnswer, StoreError>>,
}

impl Desk {
    /// Starts the thread; it ends with the last handle.
    pub(crate) fn open(clerk: Clerk) -> Self {
        let (sender, jobs) = mpsc::channel();
        let thread = thread::spawn(move || clerk.work(&jobs));
        Self { jobs: sender, thread: Arc::new(thread) }
    }

    /// Reports whether the thread works.
    pub(crate) fn is_open(&self) -> bool {
        !self.thread.is_finished()
    }

    async fn take_in(&self, call: LeaseCall) -> Result<LeaseAnswer, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { call, answer }).map_err(|_| StoreError::LedgerClosed)?;
        answered.await.map_err(|_| StoreError::LedgerClosed)?
    }
}

/// Takes in what a filter reports, and leases to it what it asks for.
pub(crate) async fn take_in(
    State(app): State<App>,
    Body(call): Body<LeaseCall>,
) -> Result<Json<LeaseAnswer>, ApiError> {
    check(&call)?;
    Ok(Json(app.desk.take_in(call).await?))
}

fn check(call: &LeaseCall) -> Result<(), ApiError> {
    check_names(&call.instance, &call.worker)?;
    let lists = [
        ("reports", call.reports.len()),
        ("credits", call.credits.len()),
        ("usage", call.usage.len()),
        ("requests", call.requests.len()),
    ];
    for (field, length) in lists {
        if length > MAX_ENTRIES {
            let message = format!("expected at most {MAX_ENTRIES} entries, found {length}");
            return Err(ApiError::field(field, message));
        }
    }
    let sequence = std::iter::once(("sequence", call.sequence));
    let numbers = sequence
        .chain(call.reports.iter().map(|report| ("reports.spent", report.spent)))
        .chain(call.credits.iter().map(|credit| ("credits.count", credit.count)))
        .chain(call.usage.iter().map(|usage| ("usage.count", usage.count)))
        .chain(call.requests.iter().map(|request| ("requests.amount", request.amount)));
    for (field, number) in numbers {
        if number > MAX_NUMBER {
            return Err(ApiError::field(field, format!("expected at most {MAX_NUMBER}")));
        }
    }
    if call.sequence == 0 {
        return Err(ApiError::field("sequence", "expected 1 or more"));
    }
    Ok(())
}

/// Who keeps the ledger.
pub(crate) struct Clerk {
    pub(crate) store: Store,
    /// Name of a profile → id of its default plan.
    pub(crate) default_plans: BTreeMap<String, String>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recalls: Arc<Recalls>,
}

impl Clerk {
    fn work(&self, jobs: &Receiver<Job>) {
        let mut swept_at = Instant::now();
        let mut sweep_at = swept_at + SWEEP_EVERY;
        loop {
            match jobs.recv_timeout(sweep_at.saturating_duration_since(Instant::now())) {
                Ok(first) => self.commit(batch(first, jobs)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= sweep_at {
                let passed_ms = u64::try_from(swept_at.elapsed().as_millis()).unwrap_or(u64::MAX);
                swept_at = Instant::now();
                let is_more = self.sweep(passed_ms);
                sweep_at = Instant::now() + if is_more { SWEEP_ON } else { SWEEP_EVERY };
            }
        }
    }

    /// Takes in calls in one transaction, and answers them when it is on the disk.
    fn commit(&self, jobs: Vec<Job>) {
        let done = self.store.keep_ledger(|connection| {
            let mut records = LedgerRecords::new(connection, &self.default_plans);
            let take_in = |job: &Job| ledger::take_in(&mut records, &job.call, now_ms());
            jobs.iter().map(take_in).collect::<Result<Vec<_>, _>>()
        });
        match done {
            Ok(done) => {
                self.metrics.lease_commits.inc();
                for (job, TakenIn { answer, recalls, excess }) in jobs.into_iter().zip(done) {
                    self.count(&answer);
                    if excess > 0 {
                        self.metrics.calls_not_believed.inc_by(excess);
                        tracing::warn!(
                            instance = job.call.instance,
                            excess,
                            "a proxy reported more calls than one can have served; they are not counted"
                        );
                    }
                    for (holder, subject) in recalls {
                        self.metrics.leases_recalled.inc();
                        self.recalls.ask(&holder, subject);
                    }
                    // The filter may have left; it asks again, and gets the same.
                    let _ = job.answer.send(Ok(answer));
                }
            }
            Err(error) if jobs.len() > 1 && !matches!(error, StoreError::Unwritable) => {
                tracing::warn!(%error, "calls for leases are taken in one by one");
                for job in jobs {
                    self.commit(vec![job]);
                }
            }
            Err(error) => {
                // That the store cannot be written is said once, by itself.
                let is_said = matches!(error, StoreError::Unwritable);
                if !is_said {
                    tracing::error!(%error, "leases could not be kept");
                }
                for job in jobs {
                    let told =
                        if is_said { StoreError::Unwritable } else { StoreError::LedgerFailed };
                    let _ = job.answer.send(Err(told));
                }
            }
        }
    }

    fn count(&self, answer: &LeaseAnswer) {
        self.metrics.lease_calls.inc();
        for outcome in &answer.outcomes {
            match outcome {
                LeaseOutcome::Granted(_) => self.metrics.leases_granted.inc(),
                LeaseOutcome::Refused(_) => self.metrics.leases_refused.inc(),
            };
        }
    }

    /// Counts lost leases as spent, and drops what is too old, so many milliseconds of a steady clock after
    /// the last time. Returns whether there is more to do.
    fn sweep(&self, passed_ms: u64) -> bool {
        let settled = self.store.keep_ledger(|connection| {
            let mut records = LedgerRecords::new(connection, &self.default_plans);
            ledger::settle_lost(&mut records, now_ms())
        });
        let lost = settled.unwrap_or_else(|error| {
            tracing::error!(%error, "lost leases could not be counted as spent");
            0
        });
        if lost > 0 {
            tracing::info!(lost, "counted leases as spent that nobody reported");
        }
        let dropped = self.store.keep_ledger(|connection| {
            let certain = certain_time(connection, now_ms(), passed_ms)?;
            drop_old(connection, certain.at_ms)
        });
        let is_more = dropped.unwrap_or_else(|error| {
            tracing::error!(%error, "old usage could not be dropped");
            false
        });
        is_more || lost > 0
    }
}

/// Returns a call and what came while the one before was written, as much as is answered soon. What
/// nobody waits for any more comes again.
fn batch(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut entries = 0;
    let mut batch = Vec::new();
    let mut next = Some(first);
    while let Some(job) = next.take() {
        if !job.answer.is_closed() {
            let rights = job.call.usage.iter().flat_map(|usage| &usage.rights).map(BTreeSet::len);
            let usage = job.call.usage.len() + rights.sum::<usize>();
            entries += job.call.reports.len() + usage + job.call.requests.len() + 1;
            batch.push(job);
        }
        if entries < MAX_BATCH {
            next = jobs.try_recv().ok();
        }
    }
    batch
}

fn now_ms() -> u64 {
    Time::now().as_ms().unsigned_abs()
}

/// Most entries of calls that share a commit, the last call's beyond: what is written in a tenth of a
/// second. The first of them waits for the last.
const MAX_BATCH: usize = 2_000;

/// How often lost leases and old counters are looked for; the first time after as long, so that
/// holders that were cut off can report first.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The same while there is more than one transaction should do.
const SWEEP_ON: Duration = Duration::from_millis(50);

/// Largest number of calls in a report, and of a call: far more than can be, and far below where sums
/// would overflow.
const MAX_NUMBER: u64 = 1 << 40;
