//! What an account used, by limit and by key.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use latchkey_filter::authorize::rights::ANY_ACTION;
use latchkey_protocol::right::EVERY;
use latchkey_protocol::{Identity, KeyKind, Limit, Right, RightSet, Rule, Subject, Window};
use rusqlite::Connection;
use serde::Serialize;
use utoipa::ToSchema;

use super::extract::Path;
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::ledger::{self, DAY_SECONDS, HOUR_SECONDS};
use crate::store::right_usage::{RENEWED_MS, UNUSED_MS, Uses};
use crate::store::{Account, Key, Plan, StoreError, accounts, keys, plans, right_usage};
use crate::time::Time;

/// What an account used. At most seconds behind; what is leased counts once it is reported.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Id of the account.
    pub(crate) account: String,
    /// Id of its plan.
    pub(crate) plan: String,
    /// When this was so.
    pub(crate) as_of: Time,
    /// The limits of its plan.
    pub(crate) limits: Vec<LimitUsage>,
    /// Length of the window of its keys' calls, in seconds.
    #[serde(skip)]
    pub(crate) window_seconds: u64,
    /// Its keys, oldest first, revoked ones included.
    pub(crate) keys: Vec<KeyUsage>,
    /// Calls per day (UTC) of the last 13 months, oldest first; days without calls are left out.
    pub(crate) days: Vec<Bucket>,
}

/// What was used of a limit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitUsage {
    #[schema(examples("calls"))]
    pub(crate) name: String,
    /// Calls admitted in a window.
    pub(crate) amount: u64,
    /// Calls that count now.
    pub(crate) used: u64,
    /// Calls that are left.
    pub(crate) remaining: u64,
    /// The first moment at which a call will pass: the present if one does; null if none ever will.
    pub(crate) available_at: Option<Time>,
    /// Whose calls count, where the plan tells callers apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<Identity>,
    /// Length of a bucket, in seconds.
    pub(crate) bucket_seconds: u32,
    /// The buckets of the window, oldest first, the current one last.
    pub(crate) buckets: Vec<Bucket>,
}

/// What a key was used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyUsage {
    /// Id of the key.
    pub(crate) id: String,
    pub(crate) name: String,
    /// Calls in the buckets below.
    pub(crate) used: u64,
    pub(crate) last_used_at: Option<Time>,
    /// Length of a bucket, in seconds: a day, or an hour where the account's limits are shorter.
    pub(crate) bucket_seconds: u32,
    /// Calls per bucket over the account's longest window, oldest first; empty ones are left out.
    pub(crate) buckets: Vec<Bucket>,
    /// Limits of its own.
    pub(crate) limits: Vec<LimitUsage>,
    /// Which of its rights its calls took; absent of an Application key, whose rights are fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rights: Option<RightUsage>,
}

/// Which of a key's rights were needed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RightUsage {
    /// From when on uses count, to the hour: 30 days ago, or later, if the rules were changed later,
    /// or filters have told since then only.
    pub(crate) since: Time,
    /// Those that were needed, such as `blogposts:read`; of a rule with `*`, the actions. `?` is for
    /// requests that any action will do for.
    #[schema(value_type = Vec<RightUse>)]
    pub(crate) used: Vec<RightUse>,
    /// Those that were not: without them, no call since then would have been refused.
    #[schema(value_type = Vec<String>, examples(json!(["blogposts:update"])))]
    pub(crate) unused: Vec<Right>,
}

/// A right that was needed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RightUse {
    #[schema(value_type = String, examples("blogposts:read"))]
    pub(crate) right: Right,
    /// To the hour.
    pub(crate) last_used_at: Time,
}

/// Calls in a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Bucket {
    /// Its first moment.
    pub(crate) start: Time,
    pub(crate) count: u64,
}

/// Returns what an account used.
#[utoipa::path(get, path = "/accounts/{account}/usage", params(("account" = String, Path)),
    responses((status = 200, body = Usage), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path(account): Path<String>,
) -> Result<Json<Usage>, ApiError> {
    Ok(Json(of_account(&app, &account).await?))
}

/// Returns what an account used.
///
/// # Errors
///
/// If there is no such account.
pub(crate) async fn of_account(app: &App, account: &str) -> Result<Usage, ApiError> {
    let actions = app.key_rules(account).await?.actions.clone();
    let account = account.to_owned();
    Ok(app.store.read(move |db| usage(db, &account, &actions, Time::now())).await?)
}

/// Returns which of a key's rights no call took, and since when; none of an Application key, whose
/// rights are fixed.
///
/// # Errors
///
/// If the store does not answer.
pub(crate) async fn unused_rights(
    app: &App,
    account: &Account,
    key: &Key,
) -> Result<Option<(Time, Vec<Right>)>, ApiError> {
    if key.kind != KeyKind::UserDefined {
        return Ok(None);
    }
    let actions = app.profile(&account.profile)?.keys.actions.clone();
    let (id, rules, of) = (key.id.clone(), key.rules.clone(), account.id.clone());
    let rights = app.store.read(move |db| {
        let noted_since_ms = noted_since_ms(db, Time::now())?;
        let rules_since_ms = keys::rules_since(db, &of)?.remove(&id).unwrap_or_default();
        let uses = right_usage::uses(db, &of, noted_since_ms)?.remove(&id).unwrap_or_default();
        Ok(rights_used_since(&rules, &actions, &uses, noted_since_ms.max(rules_since_ms)))
    });
    let rights = rights.await?;
    Ok(Some((rights.since, rights.unused)))
}

/// Returns from when on uses of rights are known, 30 days ago at most.
fn noted_since_ms(db: &Connection, now: Time) -> Result<i64, StoreError> {
    Ok(right_usage::start_ms(db)?.max(now.as_ms() - UNUSED_MS))
}

fn usage(db: &Connection, id: &str, actions: &[String], now: Time) -> Result<Usage, StoreError> {
    let now_ms = now.as_ms().unsigned_abs();
    let account = accounts::get(db, id)?;
    let plan = plans::get(db, &account.plan)?;
    let mut limits = Vec::new();
    for limit in plan.limits.iter().filter(is_accounts) {
        let subject = Subject::Account { account: id.into(), identity: limit.identity };
        limits.push(limit_usage(db, &subject, limit, now_ms)?);
    }

    let KeyCounts { bucket_seconds, window_seconds, by_key: mut counts } =
        key_counts(db, id, &plan, now_ms)?;
    let window = Window::new(bucket_seconds, 1);
    let noted_since_ms = noted_since_ms(db, now)?;
    let mut rules_since = keys::rules_since(db, id)?;
    let mut uses = right_usage::uses(db, id, noted_since_ms)?;
    let mut by_key = Vec::new();
    for key in keys::all(db, id, now.as_ms())? {
        let counts = counts.remove(&key.id).unwrap_or_default();
        let uses = uses.remove(&key.id).unwrap_or_default();
        let rules_since_ms = rules_since.remove(&key.id).unwrap_or_default();
        let rights = (key.kind == KeyKind::UserDefined).then(|| {
            rights_used_since(&key.rules, actions, &uses, noted_since_ms.max(rules_since_ms))
        });
        let usage = key_usage(db, key, window, bucket_seconds, counts, now_ms)?;
        by_key.push(KeyUsage { rights, ..usage });
    }
    let days = buckets(Window::new(DAY_SECONDS, 1), ledger::days(db, id)?);
    Ok(Usage {
        account: account.id,
        plan: plan.id,
        as_of: now,
        limits,
        window_seconds,
        keys: by_key,
        days,
    })
}

/// Calls of an account's keys over its longest window.
#[derive(Debug)]
pub(crate) struct KeyCounts {
    /// Length of a bucket, in seconds: a day, or an hour where the account's limits are shorter.
    pub(crate) bucket_seconds: u32,
    /// Length of the window, in seconds.
    pub(crate) window_seconds: u64,
    /// Key → bucket → calls.
    pub(crate) by_key: BTreeMap<String, BTreeMap<u64, u64>>,
}

/// Returns the calls of an account's keys over its longest window.
pub(crate) fn key_counts(
    db: &Connection,
    account: &str,
    plan: &Plan,
    now_ms: u64,
) -> Result<KeyCounts, StoreError> {
    let windows = plan.limits.iter().filter(is_accounts).map(Limit::window);
    let longest = windows.max_by_key(|window| window.seconds()).unwrap_or(UNLIMITED);
    let is_long = longest.seconds() > u64::from(DAY_SECONDS);
    let bucket_seconds = if is_long { DAY_SECONDS } else { HOUR_SECONDS };
    let oldest_ms = longest.starts_at_ms(longest.oldest(longest.bucket(now_ms)));
    let oldest = Window::new(bucket_seconds, 1).bucket(oldest_ms);
    let by_key = ledger::key_usage(db, account, bucket_seconds, oldest)?;
    Ok(KeyCounts { bucket_seconds, window_seconds: longest.seconds(), by_key })
}

/// Reports whether a limit is the account's: that of calls without a token is none's.
fn is_accounts(limit: &&Limit) -> bool {
    limit.identity != Some(Identity::Anonymous)
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
        rights: None,
    })
}

/// Returns which rights of rules were used since a moment, or since calls of which that is not known.
fn rights_used_since(rules: &[Rule], actions: &[String], uses: &Uses, since_ms: i64) -> RightUsage {
    let since_ms = since_ms.max(uses.unknown_at_ms.unwrap_or(0));
    right_usage_of(rules, actions, &uses.last, since_ms)
}

/// Returns which rights of rules were used; `actions` are all that there are.
fn right_usage_of(
    rules: &[Rule],
    actions: &[String],
    uses: &BTreeMap<Right, i64>,
    since_ms: i64,
) -> RightUsage {
    let last_use = |resource: &str, action: &str| {
        uses.get(&Right::new(resource, action)).filter(|at_ms| **at_ms >= since_ms - RENEWED_MS)
    };
    let (mut used, mut unused) = (Vec::new(), Vec::new());
    for Rule { resource, actions: granted } in RightSet::from(rules.to_vec()).rules() {
        let is_every = granted.iter().any(|action| action == EVERY);
        let candidates = if is_every { actions } else { granted.as_slice() };
        let mut idle = Vec::new();
        let mut is_used = false;
        for action in candidates {
            match last_use(resource, action) {
                Some(&at_ms) => {
                    is_used = true;
                    used.push(RightUse::new(resource, action, at_ms));
                }
                None => idle.push(action),
            }
        }
        if let Some(&at_ms) = last_use(resource, ANY_ACTION) {
            used.push(RightUse::new(resource, ANY_ACTION, at_ms));
            // Whichever action the rule grants would do, so it takes one.
            if !is_used && !idle.is_empty() {
                idle.remove(0);
                is_used = true;
            }
        }
        match last_use(resource, EVERY) {
            Some(&at_ms) if is_every => used.push(RightUse::new(resource, EVERY, at_ms)),
            _ if is_every && !is_used => unused.push(Right::new(resource, EVERY)),
            _ => unused.extend(idle.into_iter().map(|action| Right::new(resource, action))),
        }
    }
    RightUsage { since: Time::from_ms(since_ms), used, unused }
}

impl RightUse {
    fn new(resource: &str, action: &str, at_ms: i64) -> Self {
        Self { right: Right::new(resource, action), last_used_at: Time::from_ms(at_ms) }
    }
}

/// Returns what a subject used of a limit.
pub(crate) fn limit_usage(
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
        available_at: usage.available_at_ms.map(Time::from_unsigned_ms),
        identity: limit.identity,
        bucket_seconds: limit.bucket_seconds,
        buckets: usage
            .buckets
            .into_iter()
            .map(|(start_ms, count)| Bucket { start: Time::from_unsigned_ms(start_ms), count })
            .collect(),
    })
}

fn buckets(window: Window, counts: BTreeMap<u64, u64>) -> Vec<Bucket> {
    let bucket = |(bucket, count)| Bucket {
        start: Time::from_unsigned_ms(window.starts_at_ms(bucket)),
        count,
    };
    counts.into_iter().map(bucket).collect()
}

/// How far back the usage of keys is shown where the account has no limits: 30 days.
const UNLIMITED: Window = Window::new(DAY_SECONDS, 30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_that_no_call_took_is_unused() {
        let actions = ["read", "create", "update"].map(str::to_owned);
        let unused = |rules: &[(&str, &[&str])], used: &[&str]| -> Vec<String> {
            let rules: Vec<Rule> = rules
                .iter()
                .map(|(resource, actions)| Rule {
                    resource: (*resource).to_owned(),
                    actions: actions.iter().map(|&action| action.to_owned()).collect(),
                })
                .collect();
            let uses = used.iter().map(|right| (right.parse().unwrap(), 1)).collect();
            let usage = right_usage_of(&rules, &actions, &uses, 0);
            usage.unused.iter().map(Right::to_string).collect()
        };
        let posts: &[(&str, &[&str])] = &[("posts", &["read", "update"]), ("tags", &["*"])];
        assert_eq!(unused(posts, &[]), ["posts:read", "posts:update", "tags:*"]);
        assert_eq!(unused(posts, &["posts:read"]), ["posts:update", "tags:*"]);
        assert_eq!(
            unused(posts, &["posts:update", "posts:read", "tags:read"]),
            ["tags:create", "tags:update"]
        );
        assert_eq!(unused(&[("*", &["*"])], &["*"]), [""; 0]);
        assert_eq!(unused(&[("*", &["*"])], &["*:read"]), ["*:create", "*:update"]);
        assert_eq!(unused(&[("tags", &["read"])], &["posts:read"]), ["tags:read"]);
        // A request that any action will do for takes one.
        assert_eq!(
            unused(posts, &["posts:?", "tags:?"]),
            ["posts:update", "tags:create", "tags:update"]
        );
        assert_eq!(unused(posts, &["posts:?", "posts:update"]), ["posts:read", "tags:*"]);
    }

    #[test]
    fn rules_that_are_gone_leave_no_trace() {
        let rules = [Rule { resource: "tags".to_owned(), actions: vec!["read".to_owned()] }];
        let hour = |hours: i64| hours * 3_600_000;
        let uses: BTreeMap<Right, i64> =
            [("*:read", hour(9)), ("tags:read", hour(5)), ("posts:read", hour(9))]
                .map(|(right, at_ms)| (right.parse().unwrap(), at_ms))
                .into();
        let used = |since_ms: i64| {
            let usage = right_usage_of(&rules, &["read".to_owned()], &uses, since_ms);
            let used: Vec<String> = usage.used.iter().map(|used| used.right.to_string()).collect();
            (used.join(" "), usage.unused.len())
        };
        assert_eq!(used(hour(5)), ("tags:read".to_owned(), 0));
        assert_eq!(used(hour(6)), ("tags:read".to_owned(), 0), "it counts for an hour");
        assert_eq!(used(hour(6) + 1), (String::new(), 1));
    }
}
