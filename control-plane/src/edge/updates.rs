//! Updates: snapshots in pages, then deltas, each as soon as there is one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use latchkey_filter::profile::Profile;
use latchkey_protocol::poll::{MAX_WAIT_MS, ORIGIN_HEADER, Poll};
use latchkey_protocol::{Revision, Update};

use super::deltas::Delta;
use super::draft::to_json;
use super::snapshots::{Cursor, Freshness, NoCursor};
use crate::api::extract::Parameters;
use crate::app::App;
use crate::error::ApiError;
use crate::ledger;
use crate::store::changes;

/// Answers a poll: with the next page of a snapshot, with a delta once there is one, or with 204.
pub(crate) async fn poll(
    State(app): State<App>,
    Parameters(poll): Parameters<Poll>,
) -> Result<Response, ApiError> {
    let profile = app.profile(&poll.profile)?;
    check_names(&poll.instance, &poll.worker)?;
    let workers = Workers::of(&poll)?;
    match poll.after {
        Some(after) => delta(&app, &poll, &workers, profile, after).await,
        None => snapshot(&app, &poll, &workers, profile).await,
    }
}

/// Checks by what names a filter calls itself.
pub(super) fn check_names(instance: &str, worker: &str) -> Result<(), ApiError> {
    for (field, name) in [("instance", instance), ("worker", worker)] {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(ApiError::field(field, format!("expected 1 to {MAX_NAME_BYTES} bytes")));
        }
    }
    Ok(())
}

/// Waits until there is something after a revision, for as long as the poll allows.
async fn delta(
    app: &App,
    poll: &Poll,
    workers: &Workers,
    profile: &Arc<Profile>,
    after: Revision,
) -> Result<Response, ApiError> {
    let mut revision = app.store.watch_revision();
    let mut stopping = app.stopping.clone();
    let recalled = app.recalls.watch(&workers.holders);
    let deadline =
        tokio::time::Instant::now() + Duration::from_millis(poll.wait_ms.min(MAX_WAIT_MS));
    app.snapshots.tidy();
    // A filter that does not wait has a snapshot that it will not use before it is up to date.
    let said = match poll.applied {
        Some(_) => workers.applied,
        None => (poll.wait_ms > 0).then_some(after),
    };
    let applied = of_this_history(app, said).await?;
    let mut noted = None;
    loop {
        revision.mark_unchanged();
        let delta = app.deltas.after(&app.store, profile, after).await?;
        if let Delta::Gap = delta {
            return snapshot(app, poll, workers, profile).await;
        }
        let note = || app.proxies.note(poll, workers, applied, Instant::now());
        let replaced = &**noted.get_or_insert_with(note);
        if let Delta::Some(body) = delta {
            app.metrics.deltas.inc();
            return Ok(answer(body));
        }
        let recalls = app.recalls.take(&workers.holders);
        if !recalls.is_empty() {
            return Ok(answer(Bytes::from(to_json(&Update::recall(after, recalls))?)));
        }
        let waiting = app.proxies.wait(poll, replaced);
        let _open = app.metrics.open_poll();
        let is_over = tokio::select! {
            _ = revision.changed() => false,
            () = recalled.notified() => false,
            () = replaced.notified() => true,
            () = tokio::time::sleep_until(deadline) => true,
            _ = stopping.wait_for(|&stopping| stopping) => true,
        };
        drop(waiting);
        if is_over {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}

/// The VMs for which a poll is made.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    /// By which names they hold leases.
    pub(crate) holders: Vec<Holder>,
    /// What all of them have applied, as far as the poll says so.
    applied: Option<Revision>,
}

/// A VM that holds leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its own name.
    pub(crate) worker: String,
    /// The name by which the ledger knows it.
    pub(crate) name: String,
}

impl Workers {
    fn of(poll: &Poll) -> Result<Self, ApiError> {
        let names = poll.workers.as_ref().unwrap_or(&poll.worker);
        let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
        if names.len() > MAX_WORKERS {
            let message = format!("expected at most {MAX_WORKERS} names, found {}", names.len());
            return Err(ApiError::field("workers", message));
        }
        let applied = match poll.applied.as_deref() {
            None | Some("") => None,
            Some(text) => {
                Some(text.parse().map_err(|error| ApiError::field("applied", format!("{error}")))?)
            }
        };
        let mut holders = Vec::with_capacity(names.len());
        for worker in names {
            check_names(&poll.instance, worker)?;
            let name = ledger::holder(&poll.instance, worker);
            holders.push(Holder { worker: worker.to_owned(), name });
        }
        Ok(Self { holders, applied })
    }
}

/// Returns a revision if it is in this change log; one of another store says nothing here.
async fn of_this_history(
    app: &App,
    revision: Option<Revision>,
) -> Result<Option<Revision>, ApiError> {
    let Some(revision) = revision else {
        return Ok(None);
    };
    let known = app.store.read(move |db| changes::find_revision(db, revision.number)).await?;
    Ok(known.filter(|known| *known == revision))
}

/// Answers with a page of a snapshot: the one that the poll asks for, else the first.
async fn snapshot(
    app: &App,
    poll: &Poll,
    workers: &Workers,
    profile: &Arc<Profile>,
) -> Result<Response, ApiError> {
    let applied = of_this_history(app, workers.applied).await?;
    app.proxies.note(poll, workers, applied, Instant::now());
    let first = || Cursor::Accounts(String::new());
    let (cursor, freshness) = match (&poll.cursor, poll.snapshot) {
        (Some(cursor), Some(snapshot)) => {
            let cursor: Cursor = cursor.parse().map_err(|NoCursor| {
                let expected = "expected what the page before says as `next`";
                ApiError::field("cursor", format!("{expected}, found `{cursor}`"))
            })?;
            (cursor, Freshness::Since(snapshot.number))
        }
        // One that comes from a gap needs what there is now: from an older snapshot, the way here may be
        // another gap.
        _ if poll.after.is_some() => (first(), Freshness::Current),
        _ => (first(), Freshness::Recent),
    };
    let page = app.snapshots.page(&app.store, profile, &cursor, freshness).await?;
    app.snapshots.make_ahead(&app.store, profile, &page);
    app.metrics.snapshot_pages.inc();
    Ok(answer(page.body))
}

fn answer(body: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], body).into_response()
}

/// Marks an answer as the control plane's own, so that filters can tell it from a proxy's.
pub(crate) async fn sign(mut response: Response) -> Response {
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    response.headers_mut().insert(ORIGIN_HEADER, version);
    response
}

/// Most VMs of a proxy: Envoy has one for each of its threads.
const MAX_WORKERS: usize = 1_024;

/// Longest name of an instance or worker, in bytes.
const MAX_NAME_BYTES: usize = 256;
