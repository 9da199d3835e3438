//! The API keys of an account.

use std::collections::HashSet;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use latchkey_protocol::{KeyHash, KeyKind, PlainToken};
use rusqlite::Connection;

use super::drafts::Draft;
use super::failure::{Failure, form_errors};
use super::form::{Asked, Form, encode};
use super::frame::{self, Frame};
use super::key_form::{Choices, KeyForm};
use super::markup;
use super::shelf::{Secret, Shelved};
use crate::api::keys::issue_with;
use crate::api::usage::{KeyCounts, key_counts};
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::fold::fold;
use crate::store::keys::{self, KeyFilter};
use crate::store::{Account, Key, KeyState, Page, Plan, StoreError, plans};
use crate::time::Time;
use crate::token;

/// A key, as the panel shows it.
#[derive(Debug)]
pub(super) struct KeyCard {
    pub(super) key: Key,
    /// Calls in the account's longest window.
    pub(super) used: u64,
    /// How long its token has been in use, in days.
    pub(super) age_days: u64,
    /// Whether its token can be shown again.
    pub(super) is_kept: bool,
}

impl KeyCard {
    /// Reports whether people choose what it may do, and may remove it.
    pub(super) fn is_user_defined(&self) -> bool {
        self.key.kind == KeyKind::UserDefined
    }

    /// Reports whether its token has been in use for longer than is good.
    pub(super) fn is_old(&self) -> bool {
        self.age_days >= OLD_DAYS && self.key.state != KeyState::Revoked
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.key.state == KeyState::Revoked
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.key.state == KeyState::Suspended
    }

    /// Returns the path of the key's page.
    pub(super) fn path(&self) -> String {
        path(&self.key)
    }
}

/// Returns what differs whenever what people edit of a key does.
pub(super) fn fingerprint(key: &Key) -> String {
    let Key {
        name, rules, enforce, environment, note, expires_at, allowed_networks, limits, ..
    } = key;
    let edited = serde_json::json!([
        name,
        rules,
        enforce,
        environment,
        note,
        expires_at,
        allowed_networks,
        limits
    ]);
    token::hex(KeyHash::of(edited.to_string().as_bytes()).as_bytes())
}

/// Returns the path of a key's page.
pub(super) fn path(key: &Key) -> String {
    format!("/accounts/{}/keys/{}", key.account, key.id)
}

/// What is known of an account's keys beside their records.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) counts: KeyCounts,
    kept: HashSet<String>,
    pub(super) plan: Plan,
    now_ms: i64,
}

impl Facts {
    /// Returns the facts of an account.
    pub(super) fn of(db: &Connection, account: &Account, now: Time) -> Result<Self, StoreError> {
        let now_ms = now.as_ms();
        let plan = plans::get(db, &account.plan)?;
        let counts = key_counts(db, &account.id, &plan, now_ms.unsigned_abs())?;
        Ok(Self { counts, kept: keys::sealed(db, &account.id)?, plan, now_ms })
    }

    /// Returns a key as the panel shows it.
    pub(super) fn card(&self, key: Key) -> KeyCard {
        let made_at_ms = key.token_created_at.unwrap_or(key.created_at).as_ms();
        KeyCard {
            used: self.counts.by_key.get(&key.id).map_or(0, |counts| counts.values().sum()),
            age_days: (self.now_ms - made_at_ms).max(0).unsigned_abs() / DAY_MS,
            is_kept: self.kept.contains(&key.id),
            key,
        }
    }

    /// Returns the window in which calls are shown, such as `30 days`.
    pub(super) fn window(&self) -> String {
        markup::duration(self.counts.window_seconds)
    }
}

#[derive(Template)]
#[template(path = "panel/keys.html")]
struct KeysPage {
    frame: Frame,
    application: Vec<KeyCard>,
    user_defined: Vec<KeyCard>,
    count: u32,
    plan: Plan,
    window: String,
    filter: KeyFilter,
    /// Query of the next page.
    next: Option<String>,
}

/// Lists the keys.
pub(super) async fn list(
    State(app): State<App>,
    visitor: Visitor,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let account = visitor.account()?.clone();
    let filter =
        KeyFilter { text: asked.text("search").to_owned(), with_revoked: asked.has("revoked") };
    let page = Page { after: asked.filled("after"), limit: KEYS_PER_PAGE };
    let (wanted, is_first) = (filter.clone(), page.after.is_none());
    let (facts, application, mut user_defined, count) = app
        .store
        .read(move |db| {
            let now_ms = Time::now().as_ms();
            let user_defined = keys::user_defined(db, &account.id, &wanted, &page, now_ms)?;
            let application = keys::application(db, &account.id, now_ms)?;
            let count = keys::count(db, &account.id, Time::now().as_ms())?;
            Ok((Facts::of(db, &account, Time::now())?, application, user_defined, count))
        })
        .await?;
    let has_more = user_defined.len() > KEYS_PER_PAGE;
    user_defined.truncate(KEYS_PER_PAGE);
    let last = user_defined.last().filter(|_| has_more);
    let next = last.map(|key| {
        let revoked = if filter.with_revoked { "&revoked=1" } else { "" };
        format!("after={}&search={}{revoked}", key.id, encode(&filter.text))
    });
    let cards = |keys: Vec<Key>| keys.into_iter().map(|key| facts.card(key)).collect::<Vec<_>>();
    let is_named = |key: &Key| fold(&key.name).contains(&fold(&filter.text));
    let mut application = application;
    application.retain(|key| is_first && is_named(key));
    Ok(frame::html(&KeysPage {
        frame: Frame::new(visitor, "keys", "API keys").after(&asked),
        application: cards(application),
        user_defined: cards(user_defined),
        count,
        window: facts.window(),
        plan: facts.plan,
        filter,
        next,
    }))
}

#[derive(Template)]
#[template(path = "panel/key_new.html")]
struct NewKeyPage {
    frame: Frame,
    /// Whether its token can be shown again.
    is_kept: bool,
    form: KeyForm,
    count: u32,
    plan: Plan,
}

/// Shows the form of a new key.
pub(super) async fn new(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
) -> Result<Response, Failure> {
    let choices = choices(&app, visitor.account()?).await?;
    let form = KeyForm::draft_or(draft.as_ref(), choices, KeyForm::blank);
    form_page(&app, visitor, form).await
}

/// Makes a key.
pub(super) async fn create(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let account = visitor.account()?.id.clone();
    let mut filled = KeyForm::read(&form, choices(&app, visitor.account()?).await?);
    if filled.was_reshaped(&form) {
        return form_page(&app, visitor, filled).await;
    }
    let (body, fields) = filled.request_to_make();
    match issue_with(&app, &account, visitor.origin(), body, fields).await {
        Ok((key, token)) => Ok(hand_over(&app, &visitor, &key, &token, "key-created")),
        Err(error) => form_page(&app, visitor, filled.with_errors(form_errors(error)?)).await,
    }
}

async fn form_page(app: &App, visitor: Visitor, form: KeyForm) -> Result<Response, Failure> {
    let account = visitor.account()?.clone();
    let (count, plan) = app
        .store
        .read(move |db| {
            Ok((keys::count(db, &account.id, Time::now().as_ms())?, plans::get(db, &account.plan)?))
        })
        .await?;
    let is_refused = !form.errors.is_empty();
    let page = NewKeyPage {
        frame: Frame::new(visitor, "keys", "New key"),
        is_kept: app.sealing.is_some(),
        form,
        count,
        plan,
    };
    Ok(frame::form_page(&page, is_refused))
}

/// Returns what keys of an account can have rules on.
pub(super) async fn choices(app: &App, account: &Account) -> Result<Choices, ApiError> {
    let rules = app.profile(&account.profile)?.keys.clone();
    let account = account.id.clone();
    Ok(app.store.read(move |db| Choices::of(db, &account, &rules)).await?)
}

/// Lays a token aside for the one who made it, and goes on to the page that shows it once.
pub(super) fn hand_over(
    app: &App,
    visitor: &Visitor,
    key: &Key,
    token: &PlainToken,
    done: &str,
) -> Response {
    let page = Shelved(path(key));
    let secret = Secret { text: token.reveal().to_owned(), whose: String::new() };
    app.panel.shelf.put(visitor.session, &page, secret, 1);
    let mut response = go_on(app, key, done);
    response.extensions_mut().insert(page);
    response
}

/// Goes on to a key's page, which says what was done and how far that has come.
pub(super) fn go_on(app: &App, key: &Key, done: &str) -> Response {
    let revision = *app.store.watch_revision().borrow();
    Redirect::to(&format!("{}?done={done}&since={revision}", path(key))).into_response()
}

/// A screen or two.
const KEYS_PER_PAGE: usize = 50;

/// Days after which a token should be replaced: what clients of both reference APIs are told.
const OLD_DAYS: u64 = 90;

const DAY_MS: u64 = 86_400_000;
