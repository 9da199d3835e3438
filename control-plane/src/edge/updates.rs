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

/// Snapshots that are being handed out, by profile.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    kept: Mutex<HashMap<String, Vec<Kept>>>,
    /// Held while one is made, so that filters that start together share it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Kept {
    snapshot: Arc<Snapshot>,
    served_at: Instant,
}

#[derive(Debug)]
struct Snapshot {
    revision: Revision,
    pages: Vec<Bytes>,
    made_at: Instant,
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
        let profile = poll.profile.clone();
        revision.mark_unchanged();
        let changed =
            app.store.read(move |connection| changes::changed_since(connection, &profile, after));
        match changed.await? {
            Changed::Gap => return snapshot(app, poll).await,
            Changed::Tokens { revision, .. } if revision == after => {
                app.proxies.note(poll, Some(after), Instant::now());
            }
            Changed::Tokens { revision, usable, removed } => {
                app.proxies.note(poll, Some(after), Instant::now());
                let mut draft = Draft::default();
                for row in usable {
                    draft.add(row);
                }
                if draft.bytes > MAX_PAGE_BYTES {
                    return snapshot(app, poll).await;
                }
                let update = draft.finish(revision, Some(after), (0, 1), removed);
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
/// else the first page of another.
async fn snapshot(app: &App, poll: &Poll) -> Result<Response, ApiError> {
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
    let snapshot = app.snapshots.recent(&app.store, &poll.profile, patience).await?;
    app.metrics.snapshot_pages.inc();
    Ok(answer(snapshot.pages.first().cloned().unwrap_or_default()))
}

impl Snapshots {
    /// Returns the newest snapshot that is wanted, and notes that it is in use.
    fn find(&self, profile: &str, is_wanted: impl Fn(&Snapshot) -> bool) -> Option<Arc<Snapshot>> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get_mut(profile)?.iter_mut().rev().find(|kept| is_wanted(&kept.snapshot))?;
        kept.served_at = Instant::now();
        Some(Arc::clone(&kept.snapshot))
    }

    /// Returns a snapshot to which nothing has happened since, or that is younger than a while; else
    /// a new one.
    async fn recent(
        &self,
        store: &Store,
        profile: &str,
        patience: Duration,
    ) -> Result<Arc<Snapshot>, StoreError> {
        let _alone = self.making.lock().await;
        let current = *store.watch_revision().borrow();
        let will_do =
            |kept: &Snapshot| kept.revision.number == current || kept.made_at.elapsed() < patience;
        if let Some(snapshot) = self.find(profile, will_do) {
            return Ok(snapshot);
        }
        let name = profile.to_owned();
        let made = store.read(move |connection| {
            let made_at = Instant::now();
            let (revision, tokens) = changes::snapshot(connection, &name)?;
            Ok(Snapshot { revision, pages: pages(revision, tokens)?, made_at })
        });
        let snapshot = Arc::new(made.await?);
        self.keep(profile, &snapshot);
        Ok(snapshot)
    }

    /// Keeps a snapshot, and lets go of those that nobody is taking in any more.
    fn keep(&self, profile: &str, snapshot: &Arc<Snapshot>) {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.entry(profile.to_owned()).or_default();
        kept.retain(|kept| kept.served_at.elapsed() < IN_USE);
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push(Kept { snapshot: Arc::clone(snapshot), served_at: Instant::now() });
    }
}

fn pages(revision: Revision, tokens: Vec<TokenRow>) -> Result<Vec<Bytes>, StoreError> {
    let mut drafts = vec![Draft::default()];
    for row in tokens {
        match drafts.last_mut() {
            Some(draft) if draft.bytes < MAX_PAGE_BYTES => draft.add(row),
            Some(_) | None => {
                let mut draft = Draft::default();
                draft.add(row);
                drafts.push(draft);
            }
        }
    }
    let total = u32::try_from(drafts.len()).unwrap_or(u32::MAX);
    (0..total)
        .zip(drafts)
        .map(|(page, draft)| {
            let update = draft.finish(revision, None, (page, total), Vec::new());
            Ok(Bytes::from(to_json(&update)?))
        })
        .collect()
}

/// An update in the making, in its lean form: each account, set of rights and set of networks once.
#[derive(Default)]
struct Draft {
    accounts: Table<String>,
    right_sets: Table<RightSet>,
    network_sets: Table<Vec<String>>,
    tokens: TokenColumns,
    /// About how long its JSON is.
    bytes: usize,
}

impl Draft {
    fn add(&mut self, row: TokenRow) {
        let rules = row.rights.rules();
        let rights_bytes: usize = rules
            .iter()
            .map(|rule| {
                let actions: usize = rule.actions.iter().map(|action| action.len() + 3).sum();
                rule.resource.len() + actions + 32
            })
            .sum();
        let networks_bytes: usize = row.networks.iter().map(|network| network.len() + 3).sum();
        self.bytes += row.key.len() + TOKEN_BYTES;

        let tokens = &mut self.tokens;
        tokens.hashes.push(row.hash);
        tokens.keys.push(row.key);
        tokens.kinds.push(row.kind);
        let account_bytes = row.account.len() + 3;
        tokens.accounts.push(self.accounts.index(row.account, account_bytes, &mut self.bytes));
        tokens.right_sets.push(self.right_sets.index(row.rights, rights_bytes, &mut self.bytes));
        tokens.expires_at_ms.push(row.expires_at_ms.map_or(0, i64::unsigned_abs));
        let networks = if row.networks.is_empty() {
            0
        } else {
            self.network_sets.index(row.networks, networks_bytes, &mut self.bytes) + 1
        };
        tokens.network_sets.push(networks);
    }

    fn finish(
        self,
        revision: Revision,
        base: Option<Revision>,
        (page, pages): (u32, u32),
        removed_tokens: Vec<KeyHash>,
    ) -> Update {
        Update {
            revision,
            base,
            page,
            pages,
            accounts: self.accounts.values,
            right_sets: self.right_sets.values,
            network_sets: self.network_sets.values,
            tokens: self.tokens,
            removed_tokens,
        }
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
    /// Returns the index of a value; adds its bytes to a sum if it was not there yet.
    fn index(&mut self, value: T, bytes: usize, sum: &mut usize) -> u32 {
        if let Some(&index) = self.indices.get(&value) {
            return index;
        }
        let index = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.values.push(value.clone());
        self.indices.insert(value, index);
        *sum += bytes;
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

/// Length of a page or delta, in bytes of JSON, past which no token is added to it. A filter can take
/// in 16 MiB at once; the largest single key that the API takes is below 100 KiB.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// What a token adds to a page beside the id of its key: 43 characters of hash, its kind, and numbers.
const TOKEN_BYTES: usize = 100;

/// How old a snapshot may be for a filter that has none: those that start together share it, and a
/// delta follows at once. Well below the second within which a revocation must be in force.
const RECENT: Duration = Duration::from_millis(500);

/// How long after its last page a snapshot counts as in use.
const IN_USE: Duration = Duration::from_secs(10);

/// Snapshots of a profile that are kept at most: each is as large as all of its keys.
const MAX_KEPT: usize = 8;

/// Longest name of an instance or worker, in bytes.
const MAX_NAME_BYTES: usize = 256;

#[cfg(test)]
mod tests;
