//! Replacing a key: a new one with the same rules, both side by side, and an end to the old one.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use latchkey_protocol::{KeyKind, Window};

use super::chart::{Chart, Value};
use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::key::find;
use super::keys::{Facts, KeyCard, hand_over};
use super::markup;
use crate::api::keys::{CreateKey, issue};
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::{Key, KeyState, StoreError, keys};
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/replacement.html")]
struct ReplacementPage {
    frame: Frame,
    old: Side,
    new: Option<Side>,
    window: String,
    /// Whether the plan has no room for another key.
    is_full: bool,
    /// Name that the new key could have.
    suggestion: String,
    errors: Errors,
    /// For how long the old key must not have been used, in seconds.
    quiet_seconds: u64,
    /// When the old key will have been quiet for so long; absent if it has been.
    quiet_at: Option<Time>,
}

impl ReplacementPage {
    /// Returns the old key and, if there is one, the new.
    fn sides(&self) -> impl Iterator<Item = &Side> {
        std::iter::once(&self.old).chain(&self.new)
    }
}

/// One of the two keys.
#[derive(Debug)]
struct Side {
    card: KeyCard,
    chart: Chart,
    rows: Vec<Value>,
}

/// For how long a key can be asked to be quiet: seconds and what people read.
const QUIET: [(u64, &str); 5] = [
    (3_600, "1 hour"),
    (86_400, "1 day"),
    (259_200, "3 days"),
    (604_800, "7 days"),
    (2_592_000, "30 days"),
];

/// Shows both keys, or offers to make the new one.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Path((_, id)): Path<(String, String)>,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let old = replaceable(&app, &visitor, &id).await?;
    let draft = draft.map(|form| form.text("name").to_owned());
    let name = draft.unwrap_or_else(|| format!("{} ({})", old.name, Time::now().to_day()));
    page(&app, visitor, old, name, Errors::default(), &asked).await
}

/// Makes the new key.
pub(super) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    Path((_, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let old = replaceable(&app, &visitor, &id).await?;
    if old.state == KeyState::Revoked {
        let message = "a key that was removed cannot be replaced; make a new one";
        return Err(ApiError::from(StoreError::Conflict(message.to_owned())).into());
    }
    let name = form.text("name").to_owned();
    let replaced = old.clone();
    let body = CreateKey {
        name: name.clone(),
        rules: Some(replaced.rules),
        enforce: replaced.enforce,
        expires_at: replaced.expires_at.filter(|at| *at > Time::now()),
        environment: replaced.environment,
        allowed_networks: Some(replaced.allowed_networks),
        limits: Some(replaced.limits),
        note: replaced.note,
        replaces: Some(replaced.id),
    };
    match issue(&app, &old.account, visitor.origin(), body).await {
        Ok((key, token)) => Ok(hand_over(&app, &visitor, &key, &token, "key-created")),
        Err(error) => page(&app, visitor, old, name, form_errors(error)?, &Form::default()).await,
    }
}

/// Returns a key that can be replaced by another.
async fn replaceable(app: &App, visitor: &Visitor, id: &str) -> Result<Key, ApiError> {
    let key = find(app, visitor, id).await?;
    if key.kind == KeyKind::UserDefined { Ok(key) } else { Err(ApiError::NoSuchPath) }
}

async fn page(
    app: &App,
    visitor: Visitor,
    old: Key,
    suggestion: String,
    errors: Errors,
    asked: &Form,
) -> Result<Response, Failure> {
    let account = visitor.account()?.clone();
    let (now, id) = (Time::now(), old.id.clone());
    let (facts, replacement, count) = app
        .store
        .read(move |db| {
            let mut replacements = keys::replacements(db, &account.id, &id, now.as_ms())?;
            let facts = Facts::of(db, &account, now)?;
            Ok((facts, replacements.pop(), keys::count(db, &account.id, now.as_ms())?))
        })
        .await?;
    let quiet_seconds = asked.text("quiet").parse().unwrap_or(86_400);
    let quiet_ms = i64::try_from(quiet_seconds).unwrap_or(i64::MAX).saturating_mul(1000);
    let quiet_at = old.last_used_at.map(|used| used.as_ms().saturating_add(quiet_ms));
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(
        &ReplacementPage {
            frame: Frame::new(visitor, "keys", format!("Replace {}", old.name)).after(asked),
            old: side(&facts, old, now),
            new: replacement.map(|key| side(&facts, key, now)),
            window: facts.window(),
            // A replacement may exceed the plan by one.
            is_full: count > facts.plan.max_user_keys,
            suggestion,
            errors,
            quiet_seconds,
            quiet_at: quiet_at.filter(|at_ms| *at_ms > now.as_ms()).map(Time::from_ms),
        },
        is_refused,
    ))
}

fn side(facts: &Facts, key: Key, now: Time) -> Side {
    let seconds = facts.counts.bucket_seconds;
    let window = Window::new(seconds, 1);
    let buckets = facts.counts.window_seconds.div_ceil(u64::from(seconds)).max(1);
    let current = window.bucket(now.as_ms().unsigned_abs());
    let none = std::collections::BTreeMap::new();
    let counts = facts.counts.by_key.get(&key.id).unwrap_or(&none);
    let value = |bucket: u64| {
        let start = Time::from_unsigned_ms(window.starts_at_ms(bucket));
        let is_day = seconds.is_multiple_of(86_400);
        Value {
            name: if is_day { start.to_day() } else { start.to_text() },
            count: counts.get(&bucket).copied().unwrap_or_default(),
            at: (!is_day).then_some(start),
        }
    };
    let rows: Vec<Value> =
        (current.saturating_sub(buckets.min(MAX_BARS) - 1)..=current).map(value).collect();
    Side { chart: Chart::side_by_side(&rows, None), rows, card: facts.card(key) }
}

/// Bars that can be told apart on half a screen.
const MAX_BARS: u64 = 60;
