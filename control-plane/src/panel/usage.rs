//! What an account uses: of its limits, and by key.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use latchkey_protocol::{Identity, Limit, Subject, Window};
use rusqlite::Connection;

use super::chart::{Chart, Value};
use super::failure::Failure;
use super::forecast::{Forecast, forecast};
use super::form::Asked;
use super::frame::{self, Frame};
use super::markup;
use crate::api::usage::{Bucket, LimitUsage, limit_usage, of_account};
use crate::app::App;
use crate::session::Visitor;
use crate::store::StoreError;
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/usage.html")]
struct UsagePage {
    frame: Frame,
    plan: String,
    as_of: Time,
    limits: Vec<LimitView>,
    keys: Vec<KeyRow>,
    /// Length of the window of the calls by key.
    window: String,
    /// Calls of all keys together.
    keys_total: u64,
    /// Calls per day of the last months.
    days: Option<Chart>,
    day_rows: Vec<Value>,
}

/// A limit, as it is shown.
#[derive(Debug)]
pub(super) struct LimitView {
    pub(super) usage: LimitUsage,
    /// Length of the window in words.
    pub(super) window: String,
    /// Used, in hundredths of the amount.
    pub(super) percent: u64,
    pub(super) is_used_up: bool,
    pub(super) chart: Chart,
    pub(super) rows: Vec<Value>,
    /// Whether bars add up to what is used; else each is a window of its own.
    pub(super) adds_up: bool,
    /// What drops out next: its name, its calls, and when.
    pub(super) next_out: Option<(String, u64, Time)>,
    pub(super) forecast: Option<Forecast>,
}

struct KeyRow {
    name: String,
    path: String,
    used: u64,
    /// Part of all calls, in hundredths.
    share: u64,
    last_used_at: Option<Time>,
    limits: Vec<LimitUsage>,
}

/// Shows the usage.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let account = visitor.account()?.clone();
    let usage = of_account(&app, &account.id).await?;
    let now_ms = usage.as_of.as_ms().unsigned_abs();
    let (id, limits) = (account.id.clone(), usage.limits);
    let limits = app
        .store
        .read(move |db| limits.into_iter().map(|limit| view(db, &id, limit, now_ms)).collect())
        .await?;
    let keys_total = usage.keys.iter().map(|key| key.used).sum();
    let mut keys: Vec<KeyRow> = usage
        .keys
        .into_iter()
        .filter(|key| key.used > 0 || key.last_used_at.is_some() || !key.limits.is_empty())
        .map(|key| KeyRow {
            path: format!("/accounts/{}/keys/{}", account.id, key.id),
            name: key.name,
            used: key.used,
            share: 0,
            last_used_at: key.last_used_at,
            limits: key.limits,
        })
        .collect();
    keys.sort_by_key(|key| std::cmp::Reverse(key.used));
    let used: Vec<u64> = keys.iter().map(|key| key.used).collect();
    for (key, share) in keys.iter_mut().zip(shares(&used)) {
        key.share = share;
    }
    let day_rows = every_day(&usage.days, now_ms);
    Ok(frame::html(&UsagePage {
        frame: Frame::new(visitor, "usage", "Usage").after(&asked),
        plan: usage.plan,
        as_of: usage.as_of,
        limits,
        keys,
        window: markup::duration(usage.window_seconds),
        keys_total,
        days: (!day_rows.is_empty()).then(|| Chart::side_by_side(&day_rows, None)),
        day_rows,
    }))
}

fn view(
    db: &Connection,
    account: &str,
    usage: LimitUsage,
    now_ms: u64,
) -> Result<LimitView, StoreError> {
    let buckets = u32::try_from(usage.buckets.len()).unwrap_or(1);
    let window = Window::new(usage.bucket_seconds, buckets);
    let counts: Vec<(u64, u64)> = usage
        .buckets
        .iter()
        .map(|bucket| (bucket.start.as_ms().unsigned_abs(), bucket.count))
        .collect();
    let adds_up = buckets > 1;
    let rows: Vec<Value> = if adds_up {
        values(&usage.buckets, usage.bucket_seconds)
    } else {
        values(&windows_before(db, account, &usage, now_ms)?, usage.bucket_seconds)
    };
    let chart = if adds_up {
        Chart::adding_up(&rows, usage.amount)
    } else {
        Chart::side_by_side(&rows, Some(usage.amount))
    };
    let next_out = counts.iter().find(|(_, count)| *count > 0).filter(|_| adds_up);
    let next_out = next_out.map(|&(start_ms, count)| {
        let leaves_at_ms = window.leaves_at_ms(window.bucket(start_ms));
        (name(start_ms, usage.bucket_seconds), count, Time::from_unsigned_ms(leaves_at_ms))
    });
    // Nobody plans for the next seconds.
    let is_plannable = window.seconds() >= 3_600;
    Ok(LimitView {
        window: markup::duration(window.seconds()),
        percent: percent(usage.used, usage.amount),
        is_used_up: usage.remaining == 0,
        forecast: is_plannable.then(|| forecast(window, &counts, usage.amount, now_ms)),
        usage,
        chart,
        rows,
        adds_up,
        next_out,
    })
}

/// Returns the windows of a limit of one bucket that came before the current one, and that one.
fn windows_before(
    db: &Connection,
    account: &str,
    usage: &LimitUsage,
    now_ms: u64,
) -> Result<Vec<Bucket>, StoreError> {
    let subject = Subject::Account { account: account.into(), identity: usage.identity };
    let several = Limit {
        name: usage.name.clone(),
        amount: usage.amount,
        bucket_seconds: usage.bucket_seconds,
        buckets: WINDOWS_SHOWN,
        identity: usage.identity,
        generation: 0,
    };
    Ok(limit_usage(db, &subject, &several, now_ms)?.buckets)
}

/// Returns buckets by name.
fn values(buckets: &[Bucket], bucket_seconds: u32) -> Vec<Value> {
    let value = |bucket: &Bucket| Value {
        name: name(bucket.start.as_ms().unsigned_abs(), bucket_seconds),
        count: bucket.count,
        at: (!bucket_seconds.is_multiple_of(86_400)).then_some(bucket.start),
    };
    buckets.iter().map(value).collect()
}

/// Returns calls per day from the first day with calls on, of 30 days at least; none if there were none.
fn every_day(days: &[Bucket], now_ms: u64) -> Vec<Value> {
    let window = Window::new(86_400, DAYS_SHOWN);
    let today = window.bucket(now_ms);
    let day_of = |day: &Bucket| window.bucket(day.start.as_ms().unsigned_abs());
    let Some(first) = days.first().map(day_of) else {
        return Vec::new();
    };
    let counts: BTreeMap<u64, u64> = days.iter().map(|day| (day_of(day), day.count)).collect();
    let value = |day: u64| Value {
        name: name(window.starts_at_ms(day), 86_400),
        count: counts.get(&day).copied().unwrap_or_default(),
        at: None,
    };
    (first.min(window.oldest(today))..=today).map(value).collect()
}

/// Returns the name of a bucket: its day, or the time at which it starts (UTC).
fn name(start_ms: u64, bucket_seconds: u32) -> String {
    let start = Time::from_unsigned_ms(start_ms);
    match bucket_seconds {
        seconds if seconds.is_multiple_of(86_400) => start.to_day(),
        seconds if seconds.is_multiple_of(60) => start.to_text(),
        _ => start.to_clock(),
    }
}

/// Returns a part in hundredths of a whole.
fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(u64::MAX)
}

/// Returns parts in hundredths of their sum, which add up to 100 unless the sum is nothing: each is rounded
/// down, and what is left goes to those that lost most by that.
fn shares(parts: &[u64]) -> Vec<u64> {
    let whole: u128 = parts.iter().map(|part| u128::from(*part)).sum();
    if whole == 0 {
        return vec![0; parts.len()];
    }
    let exact = parts.iter().map(|part| u128::from(*part) * 100);
    let mut shares: Vec<u64> =
        exact.clone().map(|part| u64::try_from(part / whole).unwrap_or(100)).collect();
    let left = 100_u64.saturating_sub(shares.iter().sum());
    let mut losses: Vec<(u128, &mut u64)> =
        exact.map(|part| part % whole).zip(shares.iter_mut()).collect();
    losses.sort_by_key(|(loss, _)| std::cmp::Reverse(*loss));
    for (_, share) in losses.into_iter().zip(0..left).map(|(loss, _)| loss) {
        *share += 1;
    }
    shares
}

impl LimitView {
    /// Returns whose calls count, where not all do.
    pub(super) fn whose(&self) -> &'static str {
        match self.usage.identity {
            Some(Identity::Anonymous) => "calls without a token",
            Some(Identity::Key) => "calls with API keys",
            Some(Identity::Oauth) => "calls with OAuth tokens",
            None => "all calls",
        }
    }

    /// Returns how much of the bar is filled, in hundredths.
    pub(super) fn filled(&self) -> u64 {
        self.percent.min(100)
    }
}

/// Days that are shown at least.
const DAYS_SHOWN: u32 = 30;

/// A day of hours.
const WINDOWS_SHOWN: u32 = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_of_three_equal_keys_add_up() {
        assert_eq!(shares(&[1, 1, 1]), [34, 33, 33]);
        assert_eq!(shares(&[2, 1]), [67, 33]);
        assert_eq!(shares(&[u64::MAX, u64::MAX]), [50, 50]);
        assert_eq!(shares(&[0, 0]), [0, 0]);
    }

    proptest! {
        #[test]
        fn shares_always_add_up(parts in prop::collection::vec(0..=u64::MAX, 1..300)) {
            let shares = shares(&parts);
            let whole = if parts.iter().all(|part| *part == 0) { 0 } else { 100 };
            prop_assert_eq!(shares.iter().sum::<u64>(), whole);
        }
    }
}
