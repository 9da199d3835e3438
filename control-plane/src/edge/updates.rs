//! Updates: snapshots in pages, then deltas, each as soon as there is one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use latchkey_protocol::poll::{MAX_WAIT_MS, ORIGIN_HEADER, Poll};
use latchkey_protocol::{KeyHash, Revision, RightSet, TokenColumns, Update};

use crate::api::extract::Parameters;
use crate::error::ApiError;
use crate::router::App;
use crate::store::changes::{self, Changed, TokenRow};
use crate::store::{Store, StoreError};
use crate::time::Time;

/// Snapshots that were made lately, by profile.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    made: Mutex<HashMap<String, Arc<Snapshot>>>,
}

#[derive(Debug)]
struct Snapshot {
    revision: Revision,
    pages: Vec<Bytes>,
}

/// Answers a poll: with the next page of a snapshot, with a delta once there is one, or with 204.
pub(crate) async fn poll(
    State(app): State<App>,
    Parameters(poll): Parameters<Poll>,
) -> Result<Response, ApiError> {
    if app.profiles.get(&poll.profile).is_none() {
        let expected = app.profiles.names();
        let message = format!("expected one of {expected}, found `{}`", poll.profile);
        return Err(ApiError::field("profile", message));
    }
    for (field, name) in [("instance", &poll.instance), ("worker", &poll.worker)] {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(ApiError::field(field, format!("expected 1 to {MAX_NAME_BYTES} bytes")));
        }
    }
    match poll.after {
        Some(after) => delta(&app, &poll, after).await,
        None => snapshot(&app, &poll).await,
    }
}

/// Waits until there is something after a revision, for as long as the poll allows.
async fn delta(app: &App, poll: &Poll, after: Revision) -> Result<Response, ApiError> {
    let mut revision = app.store.watch_revision();
    let mut stopping = app.stopping.clone();
    let wait = Duration::from_millis(poll.wait_ms.min(MAX_WAIT_MS));
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let now_ms = Time::now().as_ms();
        let profile = poll.profile.clone();
        revision.mark_unchanged();
        let changed = app
            .store
            .read(move |connection| changes::changed_since(connection, &profile, after, now_ms));
        match changed.await? {
            Changed::Gap => return snapshot(app, poll).await,
            Changed::Tokens { revision, .. } if revision == after => {
                app.proxies.note(poll, Some(after), Instant::now());
            }
            Changed::Tokens { revision, usable, removed } => {
                let update = update(revision, Some(after), (0, 1), usable, removed);
                app.proxies.note(poll, Some(after), Instant::now());
                app.metrics.deltas.inc();
                return Ok(answer(Bytes::from(to_json(&update)?)));
            }
        }
        let _open = app.metrics.open_poll();
        tokio::select! {
            _ = revision.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Ok(StatusCode::NO_CONTENT.into_response()),
            _ = stopping.wait_for(|&stopping| stopping) => return Ok(StatusCode::NO_CONTENT.into_response()),
        }
    }
}

/// Answers with a page of a snapshot: of the one that the filter is taking in if it is still there,
/// else the first page of the present one.
async fn snapshot(app: &App, poll: &Poll) -> Result<Response, ApiError> {
    app.proxies.note(poll, None, Instant::now());
    let wanted = poll.snapshot.filter(|_| poll.after.is_none());
    let current = *app.store.watch_revision().borrow();
    let found = app.snapshots.find(&poll.profile, wanted, current);
    let snapshot = match found {
        Some(snapshot) => snapshot,
        None => app.snapshots.make(&app.store, &poll.profile).await?,
    };
    let page = if wanted == Some(snapshot.revision) { poll.page } else { 0 };
    let bytes = usize::try_from(page).ok().and_then(|page| snapshot.pages.get(page));
    let Some(bytes) = bytes else {
        let message = format!("expected 0 to {}, found {page}", snapshot.pages.len() - 1);
        return Err(ApiError::field("page", message));
    };
    app.metrics.snapshot_pages.inc();
    Ok(answer(bytes.clone()))
}

impl Snapshots {
    /// Returns the snapshot that is wanted, or one to which nothing has happened since.
    fn find(&self, profile: &str, wanted: Option<Revision>, current: u64) -> Option<Arc<Snapshot>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = made.get(profile)?;
        let is_wanted = wanted == Some(snapshot.revision);
        let is_current = snapshot.revision.number == current;
        (is_wanted || is_current).then(|| Arc::clone(snapshot))
    }

    async fn make(&self, store: &Store, profile: &str) -> Result<Arc<Snapshot>, StoreError> {
        let name = profile.to_owned();
        let snapshot = store
            .read(move |connection| {
                let now_ms = Time::now().as_ms();
                let (revision, tokens) = changes::snapshot(connection, &name, now_ms)?;
                Ok(Snapshot { revision, pages: pages(revision, tokens)? })
            })
            .await?;
        let snapshot = Arc::new(snapshot);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(profile.to_owned(), Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

fn pages(revision: Revision, tokens: Vec<TokenRow>) -> Result<Vec<Bytes>, StoreError> {
    let count = tokens.len().div_ceil(TOKENS_PER_PAGE).max(1);
    let total = u32::try_from(count).unwrap_or(u32::MAX);
    let mut tokens = tokens.into_iter();
    (0..total)
        .map(|page| {
            let some = tokens.by_ref().take(TOKENS_PER_PAGE).collect();
            let update = update(revision, None, (page, total), some, Vec::new());
            Ok(Bytes::from(to_json(&update)?))
        })
        .collect()
}

/// Returns an update in its lean form: each account, set of rights and set of networks once.
fn update(
    revision: Revision,
    base: Option<Revision>,
    (page, pages): (u32, u32),
    usable: Vec<TokenRow>,
    removed_tokens: Vec<KeyHash>,
) -> Update {
    let mut accounts = Table::default();
    let mut right_sets: Table<RightSet> = Table::default();
    let mut network_sets: Table<Vec<String>> = Table::default();
    let mut tokens = TokenColumns::default();
    for row in usable {
        tokens.hashes.push(row.hash);
        tokens.keys.push(row.key);
        tokens.kinds.push(row.kind);
        tokens.accounts.push(accounts.index(row.account));
        tokens.right_sets.push(right_sets.index(row.rights));
        tokens.expires_at_ms.push(row.expires_at_ms.map_or(0, i64::unsigned_abs));
        tokens.network_sets.push(match row.networks.is_empty() {
            true => 0,
            false => network_sets.index(row.networks).saturating_add(1),
        });
    }
    Update {
        revision,
        base,
        page,
        pages,
        accounts: accounts.values,
        right_sets: right_sets.values,
        network_sets: network_sets.values,
        tokens,
        removed_tokens,
    }
}

/// Values, each once, with their indices.
struct Table<T> {
    values: Vec<T>,
    indices: BTreeMap<T, u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { values: Vec::new(), indices: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Table<T> {
    fn index(&mut self, value: T) -> u32 {
        if let Some(&index) = self.indices.get(&value) {
            return index;
        }
        let index = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(value.clone());
        self.indices.insert(value, index);
        index
    }
}

fn to_json(update: &Update) -> Result<Vec<u8>, StoreError> {
    Ok(serde_json::to_vec(update)?)
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

/// Tokens of a page: about 2 MB of JSON, well below the 16 MiB that a filter can take in at once.
const TOKENS_PER_PAGE: usize = 20_000;

/// Longest name of an instance or worker, in bytes.
const MAX_NAME_BYTES: usize = 256;

#[cfg(test)]
mod tests;
