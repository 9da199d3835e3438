//! Leases: what filters report and ask for, many of them in one commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
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
use crate::store::ledger::{LedgerRecords, compact};
use crate::store::{Store, StoreError};
use crate::time::Time;

/// The one thread that keeps the ledger: what comes while it writes shares the next commit.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Sender<Job>);

#[derive(Debug)]
struct Job {
    call: LeaseCall,
    answer: oneshot::Sender<Result<LeaseAnswer, StoreError>>,
}

impl Desk {
    /// Starts the thread; it ends with the last handle.
    pub(crate) fn open(clerk: Clerk) -> Self {
        let (sender, jobs) = mpsc::channel();
        thread::spawn(move || clerk.work(&jobs));
        Self(sender)
    }

    async fn take_in(&self, call: LeaseCall) -> Result<LeaseAnswer, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Job { call, answer }).map_err(|_| StoreError::LedgerClosed)?;
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
        loop {
            match jobs.recv_timeout(SWEEP_EVERY.saturating_sub(swept_at.elapsed())) {
                Ok(first) => {
                    let more = jobs.try_iter().take(MAX_BATCH - 1);
                    self.commit(std::iter::once(first).chain(more).collect());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if swept_at.elapsed() >= SWEEP_EVERY {
                swept_at = Instant::now();
                self.sweep();
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
        self.metrics.lease_commits.inc();
        match done {
            Ok(done) => {
                for (job, TakenIn { answer, recalls }) in jobs.into_iter().zip(done) {
                    self.count(&answer);
                    for (holder, subject) in recalls {
                        self.metrics.leases_recalled.inc();
                        self.recalls.ask(&holder, subject);
                    }
                    // The filter may have left; it asks again, and gets the same.
                    let _ = job.answer.send(Ok(answer));
                }
            }
            Err(error) => {
                tracing::error!(%error, calls = jobs.len(), "leases could not be kept");
                for job in jobs {
                    let _ = job.answer.send(Err(StoreError::LedgerFailed));
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

    /// Counts lost leases as spent, and makes daily sums of old counters.
    fn sweep(&self) {
        let swept = self.store.keep_ledger(|connection| {
            let mut records = LedgerRecords::new(connection, &self.default_plans);
            let lost = ledger::settle_lost(&mut records, now_ms())?;
            compact(connection, now_ms())?;
            Ok(lost)
        });
        match swept {
            Ok(0) => {}
            Ok(lost) => tracing::info!(lost, "counted leases as spent that nobody reported"),
            Err(error) => tracing::error!(%error, "old usage could not be made into daily sums"),
        }
    }
}

fn now_ms() -> u64 {
    Time::now().as_ms().unsigned_abs()
}

/// Most calls that share a commit: the first of them waits for the last.
const MAX_BATCH: usize = 256;

/// How often lost leases and old counters are looked for; the first time after as long, so that
/// holders that were cut off can report first.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Largest number of calls in a report, and of a call: far more than can be, and far below where sums
/// would overflow.
const MAX_NUMBER: u64 = 1 << 40;
