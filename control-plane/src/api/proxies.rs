//! Connected proxies.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::Parameters;
use super::lists::{List, ListParameters, unknown_cursor};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::proxies::{self, ProxyId};
use crate::store::{StoreError, ledger};

/// A connected Envoy, as far as one profile is concerned.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Proxy {
    /// Its node id, with random characters that differ after each start.
    #[schema(examples("edge-1-9f86d081"))]
    pub(crate) instance: String,
    /// Profile whose keys it holds.
    #[schema(examples("flotiq"))]
    pub(crate) profile: String,
    /// Number of its Wasm VMs: one per worker thread, and one on the main thread.
    pub(crate) workers: usize,
    /// The change that all of them have applied; null before the first snapshot.
    pub(crate) applied_revision: Option<u64>,
    /// Time since the last of them applied it, in seconds.
    pub(crate) applied_age_seconds: u64,
    /// Calls that its workers may admit by themselves, and have not reported yet.
    pub(crate) leases_outstanding: u64,
    /// The last change there is; the proxy is up to date if it has applied it.
    pub(crate) current_revision: u64,
    /// Time since it was last heard of, in seconds.
    pub(crate) seen_age_seconds: u64,
}

/// Lists the proxies that are connected; one that is gone is listed for 5 seconds more.
#[utoipa::path(get, path = "/proxies", params(ListParameters),
    responses((status = 200, body = List<Proxy>), (status = 400, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<List<Proxy>>, ApiError> {
    let page = parameters.page()?;
    if let Some(after) = page.after.as_deref().filter(|after| !after.contains(' ')) {
        return Err(unknown_cursor(after));
    }
    let mut proxies = connected(&app).await?;
    proxies.retain(|proxy| page.after.as_ref().is_none_or(|after| proxy.cursor() > *after));
    Ok(Json(List::cut(proxies, &page, Proxy::cursor)))
}

/// Returns the proxies that are connected, by instance and then by profile.
///
/// # Errors
///
/// If the store does not answer.
pub(crate) async fn connected(app: &App) -> Result<Vec<Proxy>, StoreError> {
    let now = Instant::now();
    let current = *app.store.watch_revision().borrow();
    let groups = app.proxies.connected(now);
    let outstanding = app.store.read(ledger::outstanding).await?;
    let is_same = |a: &Group, b: &Group| a.0.instance == b.0.instance && a.0.profile == b.0.profile;
    Ok(groups
        .chunk_by(is_same)
        .filter_map(|groups| proxy(groups, &outstanding, current, now))
        .collect())
}

impl Proxy {
    /// Returns its place in the list, which is sorted by instance and then by profile.
    fn cursor(&self) -> String {
        format!("{} {}", self.instance, self.profile)
    }
}

/// VMs of a proxy that share what they know, and what that is.
type Group = (ProxyId, proxies::Proxy);

fn proxy(
    groups: &[Group],
    outstanding: &BTreeMap<String, u64>,
    current_revision: u64,
    now: Instant,
) -> Option<Proxy> {
    let (id, _) = groups.first()?;
    let age = |instant: Instant| now.saturating_duration_since(instant).as_secs();
    let applied: Option<Vec<u64>> =
        groups.iter().map(|(_, group)| group.applied.map(|revision| revision.number)).collect();
    let holders = || groups.iter().flat_map(|(_, group)| &group.holders);
    Some(Proxy {
        instance: id.instance.clone(),
        profile: id.profile.clone(),
        workers: holders().count(),
        leases_outstanding: holders().filter_map(|holder| outstanding.get(&holder.name)).sum(),
        applied_revision: applied.and_then(|numbers| numbers.into_iter().min()),
        applied_age_seconds: groups.iter().map(|(_, group)| age(group.applied_at)).min()?,
        current_revision,
        seen_age_seconds: groups.iter().map(|(_, group)| age(group.seen_at)).min()?,
    })
}
