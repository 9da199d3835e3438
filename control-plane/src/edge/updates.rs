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

use super::draft::{Draft, MAX_PAGE_BYTES, to_json};
use super::snapshots::RECENT;
use crate::api::extract::Parameters;
use crate::app::App;
use crate::error::ApiError;
use crate::ledger;
use crate::store::changes::{self, Changed};

/// Answers a poll: with the next page of a snapshot, with a delta once there is one, or with 204.
pub(crate) async fn poll(
    State(app): State<App>,
    Parameters(poll): Parameters<Poll>,
) -> Result<Response, ApiError> {
    let profile = app.profile(&poll.profile)?;
    check_names(&poll.instance, &poll.worker)?;
    match poll.after {
        Some(after) => delta(&app, &poll, profile, after).await,
        None => snapshot(&app, &poll, profile).await,
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
    profile: &Arc<Profile>,
    after: Revision,
) -> Result<Response, ApiError> {
    let mut revision = app.store.watch_revision();
    let mut stopping = app.stopping.clone();
    let holder = ledger::holder(&poll.instance, &poll.worker);
    let recalled = app.recalls.watch(&holder);
    let wait = Duration::from_millis(poll.wait_ms.min(MAX_WAIT_MS));
    // A filter that does not wait has a snapshot that it will not use before it is up to date.
    let applied = (poll.wait_ms > 0).then_some(after);
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let asked = Arc::clone(profile);
        revision.mark_unchanged();
        let changed =
            app.store.read(move |connection| changes::changed_since(connection, &asked, after));
        match changed.await? {
            Changed::Gap => return snapshot(app, poll, profile).await,
            Changed::Some { revision, .. } if revision == after => {
                app.proxies.note(poll, applied, Instant::now());
            }
            Changed::Some { revision, usable, removed, accounts, anonymous_limits } => {
                app.proxies.note(poll, applied, Instant::now());
                let mut draft = Draft::default();
                for row in usable {
                    draft.add(row);
                }
                for account in accounts {
                    draft.add_account(account);
                }
                if draft.bytes > MAX_PAGE_BYTES {
                    return snapshot(app, poll, profile).await;
                }
                let update = draft.finish(revision, Some(after), (0, 1), removed, anonymous_limits);
                app.metrics.deltas.inc();
                return Ok(answer(Bytes::from(to_json(&update)?)));
            }
        }
        let recalls = app.recalls.take(&holder);
        if !recalls.is_empty() {
            return Ok(answer(Bytes::from(to_json(&Update::recall(after, recalls))?)));
        }
        let waiting = app.proxies.wait(poll);
        let _open = app.metrics.open_poll();
        let is_over = tokio::select! {
            _ = revision.changed() => false,
            () = recalled.notified() => false,
            () = tokio::time::sleep_until(deadline) => true,
            _ = stopping.wait_for(|&stopping| stopping) => true,
        };
        drop(waiting);
        if is_over {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
    }
}

/// Answers with a page of a snapshot: of the one that the filter is taking in if it is still there,
/// else the first page of another.
async fn snapshot(app: &App, poll: &Poll, profile: &Arc<Profile>) -> Result<Response, ApiError> {
    app.proxies.note(poll, None, Instant::now());
    if let Some(wanted) = poll.snapshot
        && let Some(snapshot) = app.snapshots.find(&poll.profile, |kept| kept.revision == wanted)
    {
        let page = usize::try_from(poll.page).ok().and_then(|page| snapshot.pages.get(page));
        let Some(page) = page else {
            let last = snapshot.pages.len().saturating_sub(1);
            let message = format!("expected 0 to {last}, found {}", poll.page);
            return Err(ApiError::field("page", message));
        };
        app.metrics.snapshot_pages.inc();
        return Ok(answer(page.clone()));
    }
    // One that comes from a gap needs what there is now: from an older snapshot, the way here may be
    // another gap.
    let patience = if poll.after.is_some() { Duration::ZERO } else { RECENT };
    let snapshot = app.snapshots.recent(&app.store, profile, patience).await?;
    app.metrics.snapshot_pages.inc();
    Ok(answer(snapshot.pages.first().cloned().unwrap_or_default()))
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

/// Longest name of an instance or worker, in bytes.
const MAX_NAME_BYTES: usize = 256;
