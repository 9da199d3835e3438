//! What an account used, by limit and by key.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use latchkey_protocol::{Identity, Limit, Subject, Window};
use rusqlite::Connection;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::Path;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::ledger::{self, DAY_SECONDS, HOUR_SECONDS};
use crate::store::{Key, StoreError, accounts, keys, plans};
use crate::time::Time;

/// What an account used. At most seconds behind; what is leased counts once it is reported.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Id of the account.
    account: String,
    /// Id of its plan.
    plan: String,
    /// When this was so.
    as_of: Time,
    /// The limits of its plan.
    limits: Vec<LimitUsage>,
    /// Its keys, oldest first, revoked ones included.
    keys: Vec<KeyUsage>,
    /// Calls per day (UTC) of the last 13 months, oldest first; days without calls are left out.
    days: Vec<Bucket>,
}

/// What was used of a limit.
#[derive(Debug, Serialize, ToSchema)]
struct LimitUsage {
    #[schema(examples("calls"))]
    name: String,
    /// Calls admitted in a window.
    amount: u64,
    /// Calls that count now.
    used: u64,
    /// Calls that are left.
    remaining: u64,
    /// The first moment at which a call will pass: the present if one does; null if none ever will.
    available_at: Option<Time>,
    /// Whose calls count, where the plan tells callers apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    /// Length of a bucket, in seconds.
    bucket_seconds: u32,
    /// The buckets of the window, oldest first, the current one last.
    buckets: Vec<Bucket>,
}

/// What a key was used.
#[derive(Debug, Serialize, ToSchema)]
struct KeyUsage {
    /// Id of the key.
    id: String,
    name: String,
    /// Calls in the buckets below.
    used: u64,
    last_used_at: Option<Time>,
    /// Length of a bucket, in seconds: a day, or an hour where the account's limits are shorter.
    bucket_seconds: u32,
    /// Calls per bucket over the account's longest window, oldest first; empty ones are left out.
    buckets: Vec<Bucket>,
    /// Limits of its own.
    limits: Vec<LimitUsage>,
}

/// Calls in a bucket.
#[derive(Debug, Serialize, ToSchema)]
struct Bucket {
    /// Its first moment.
    start: Time,
    count: u64,
}

/// Returns what an account used.
#[utoipa::path(get, path = "/accounts/{account}/usage", params(("account" = String, Path)),
    responses((status = 200, body = Usage), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path(account): Path<String>,
) -> Result<Json<Usage>, ApiError> {
    Ok(Json(app.store.read(move |db| usage(db, &account, Time::now())).await?))
}

fn usage(db: &Connection, id: &str, now: Time) -> Result<Usage, StoreError> {
    let now_ms = now.as_ms().unsigned_abs();
    let account = accounts::get(db, id)?;
    let plan = plans::get(db, &account.plan)?;
    // Those of calls without a token are no account's.
    let is_accounts = |limit: &&Limit| limit.identity != Some(Identity::Anonymous);
    let mut limits = Vec::new();
    for limit in plan.limits.iter().filter(is_accounts) {
        let subject = Subject::Account { account: id.into(), identity: limit.identity };
        limits.push(limit_usage(db, &subject, limit, now_ms)?);
    }

    let windows = plan.limits.iter().filter(is_accounts).map(Limit::window);
    let longest = windows.max_by_key(|window| window.seconds()).unwrap_or(UNLIMITED);
    let is_long = longest.seconds() > u64::from(DAY_SECONDS);
    let bucket_seconds = if is_long { DAY_SECONDS } else { HOUR_SECONDS };
    let window = Window::new(bucket_seconds, 1);
    let oldest_ms = longest.starts_at_ms(longest.oldest(longest.bucket(now_ms)));
    let mut counts = ledger::key_usage(db, id, bucket_seconds, window.bucket(oldest_ms))?;
    let mut by_key = Vec::new();
    for key in keys::all(db, id, now.as_ms())? {
        let counts = counts.remove(&key.id).unwrap_or_default();
        by_key.push(key_usage(db, key, window, bucket_seconds, counts, now_ms)?);
    }
    let days = buckets(Window::new(DAY_SECONDS, 1), ledger::days(db, id)?);
    Ok(Usage { account: account.id, plan: plan.id, as_of: now, limits, keys: by_key, days })
}

fn key_usage(
    db: &Connection,
    key: Key,
    window: Window,
    bucket_seconds: u32,
    counts: BTreeMap<u64, u64>,
    now_ms: u64,
) -> Result<KeyUsage, StoreError> {
    let subject =
        Subject::Key { account: key.account.as_str().into(), key: key.id.as_str().into() };
    let own = key.limits.iter().map(|limit| limit_usage(db, &subject, limit, now_ms));
    Ok(KeyUsage {
        limits: own.collect::<Result<_, _>>()?,
        id: key.id,
        name: key.name,
        used: counts.values().sum(),
        last_used_at: key.last_used_at,
        bucket_seconds,
        buckets: buckets(window, counts),
    })
}

fn limit_usage(
    db: &Connection,
    subject: &Subject,
    limit: &Limit,
    now_ms: u64,
) -> Result<LimitUsage, StoreError> {
    let usage =
        ledger::standing(db, subject, std::slice::from_ref(limit), now_ms)?.usage(limit, now_ms);
    Ok(LimitUsage {
        name: limit.name.clone(),
        amount: limit.amount,
        used: usage.used,
        remaining: limit.amount.saturating_sub(usage.used),
        available_at: usage.available_at_ms.map(time),
        identity: limit.identity,
        bucket_seconds: limit.bucket_seconds,
        buckets: usage
            .buckets
            .into_iter()
            .map(|(start_ms, count)| Bucket { start: time(start_ms), count })
            .collect(),
    })
}

fn buckets(window: Window, counts: BTreeMap<u64, u64>) -> Vec<Bucket> {
    let bucket = |(bucket, count)| Bucket { start: time(window.starts_at_ms(bucket)), count };
    counts.into_iter().map(bucket).collect()
}

fn time(ms: u64) -> Time {
    Time::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// How far back the usage of keys is shown where the account has no limits: 30 days.
const UNLIMITED: Window = Window::new(DAY_SECONDS, 30);
