//! One key: what it may do, and what can be done with it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use latchkey_protocol::Right;

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::key_form::KeyForm;
use super::keys::{Facts, KeyCard, choices, fingerprint, go_on, hand_over, path};
use super::limit_rows;
use super::markup::{self, Markup};
use super::shelf::Shelved;
use crate::api::keys::{revise_with, rotate};
use crate::api::usage::unused_rights;
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::{Key, StoreError, keys};
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/key.html")]
struct KeyPage {
    frame: Frame,
    card: KeyCard,
    form: KeyForm,
    window: String,
    /// The token, where it was just made or asked for.
    shown: Option<Shown>,
    /// Rights that no call took since a moment.
    unused: Option<(Time, Vec<Right>)>,
    /// When the token before was last used since there is another, as far as proxies have told.
    former_used_at: Option<Time>,
    /// The key that it was made to replace.
    replaces: Option<Key>,
    /// Keys that were made to replace it.
    replacements: Vec<Key>,
}

/// A token as it is shown.
#[derive(Debug)]
struct Shown {
    token: String,
    qr: Option<Markup>,
}

/// How long the token before can go on working: seconds and what people read.
const GRACES: [(u32, &str); 6] = [
    (0, "ends at once"),
    (3_600, "works for 1 hour more"),
    (86_400, "works for 1 day more"),
    (604_800, "works for 7 days more"),
    (1_209_600, "works for 14 days more"),
    (2_592_000, "works for 30 days more"),
];

/// For how long the token before works on if nothing else is chosen, in seconds: time to change clients.
const PANEL_GRACE: u32 = 86_400;

/// Shows the key.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    method: Method,
    Path((_, id)): Path<(String, String)>,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let key = find(&app, &visitor, &id).await?;
    let choices = choices(&app, visitor.account()?).await?;
    let form = KeyForm::draft_or(draft.as_ref(), choices, |choices| KeyForm::of(&key, choices));
    // Who asks for the headers only does not see it.
    let is_shown = method == Method::GET;
    let at = Shelved(path(&key));
    let token = is_shown.then(|| app.panel.shelf.take(visitor.session, &at)).flatten();
    page(&app, visitor, key, form, token.map(|secret| secret.text), &asked).await
}

/// Saves what was filled in.
pub(super) async fn save(
    State(app): State<App>,
    visitor: Visitor,
    Path((_, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let key = find(&app, &visitor, &id).await?;
    let mut filled = KeyForm::read(&form, choices(&app, visitor.account()?).await?);
    if filled.was_reshaped(&form) {
        return page(&app, visitor, key, filled, None, &Form::default()).await;
    }
    if filled.seen != fingerprint(&key) {
        let message = "someone else has changed the key meanwhile. Open it anew to see what it is \
                       now; saving again puts what stands here in its place";
        filled.seen = fingerprint(&key);
        let filled = filled.with_errors(Errors(vec![(String::new(), message.to_owned())]));
        return page(&app, visitor, key, filled, None, &Form::default()).await;
    }
    if let Some(drops) = limit_rows::unasked_drops(&key.limits, &filled.limits, &form) {
        (filled.drops, filled.is_changed) = (drops, true);
        return page(&app, visitor, key, filled, None, &Form::default()).await;
    }
    let (body, fields) = filled.request_to_change(&key);
    match revise_with(&app, &key.account, &id, visitor.origin(), body, fields).await {
        Ok(key) => Ok(go_on(&app, &key, "key-saved")),
        Err(error) => {
            let filled = filled.with_errors(form_errors(error)?);
            page(&app, visitor, key, filled, None, &Form::default()).await
        }
    }
}

/// Gives the key another token.
pub(super) async fn regenerate(
    State(app): State<App>,
    visitor: Visitor,
    Path((_, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, Failure> {
    let grace = form.text("grace_seconds").parse().map_err(|_| {
        let found = form.text("grace_seconds");
        ApiError::field("grace_seconds", format!("expected a number of seconds, found `{found}`"))
    })?;
    let account = visitor.account()?.id.clone();
    let (key, token) = rotate(&app, &account, &id, visitor.origin(), grace).await?;
    Ok(hand_over(&app, &visitor, &key, &token, "key-regenerated"))
}

/// Ends the grace in which the token before works on.
pub(super) async fn end_grace(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let origin = visitor.origin();
    let changed =
        app.store.change_urgently(origin, move |change| keys::end_grace(change, &account, &id));
    Ok(go_on(&app, &changed.await?, "grace-ended"))
}

/// Suspends the key.
pub(super) async fn suspend(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let origin = visitor.origin();
    let changed =
        app.store.change_urgently(origin, move |c| keys::set_suspended(c, &account, &id, true));
    Ok(go_on(&app, &changed.await?, "key-suspended"))
}

/// Ends the key's suspension.
pub(super) async fn resume(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let origin = visitor.origin();
    let changed = app.store.change(origin, move |c| keys::set_suspended(c, &account, &id, false));
    Ok(go_on(&app, &changed.await?, "key-resumed"))
}

/// Removes the key for good.
pub(super) async fn revoke(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, id)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let key = find(&app, &visitor, &id).await?;
    let origin = visitor.origin();
    app.store.change_urgently(origin, move |change| keys::revoke(change, &account, &id)).await?;
    Ok(go_on(&app, &key, "key-revoked"))
}

/// Shows the token again, where it is kept; to a script as text, so that it can be copied.
pub(super) async fn reveal(
    State(app): State<App>,
    visitor: Visitor,
    Path((account, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(sealing) = app.sealing.clone() else {
        return Err(not_kept("this service keeps no tokens").into());
    };
    let (of_account, of_key) = (account.clone(), id.clone());
    let sealed = app
        .store
        .change(visitor.origin(), move |change| keys::reveal(change, &of_account, &of_key))
        .await?;
    let sealed = sealed.ok_or_else(|| not_kept("this token was made before tokens were kept"))?;
    let token = sealing
        .open(&sealed, &account, &id)
        .ok_or_else(|| not_kept("this token was kept with another sealing key"))?;
    if headers.get("accept").is_some_and(|accept| accept == "text/plain") {
        return Ok(token.reveal().to_owned().into_response());
    }
    let key = find(&app, &visitor, &id).await?;
    let form = KeyForm::of(&key, choices(&app, visitor.account()?).await?);
    page(&app, visitor, key, form, Some(token.reveal().to_owned()), &Form::default()).await
}

fn not_kept(why: &str) -> ApiError {
    StoreError::Conflict(format!("{why}; regenerate the key to get a new one")).into()
}

/// Returns a key of the account that the path names.
pub(super) async fn find(app: &App, visitor: &Visitor, id: &str) -> Result<Key, ApiError> {
    let (account, id) = (visitor.account()?.id.clone(), id.to_owned());
    let now_ms = Time::now().as_ms();
    Ok(app.store.read(move |db| keys::get(db, &account, &id, now_ms)).await?)
}

async fn page(
    app: &App,
    visitor: Visitor,
    key: Key,
    form: KeyForm,
    token: Option<String>,
    asked: &Form,
) -> Result<Response, Failure> {
    let account = visitor.account()?.clone();
    let unused = unused_rights(app, &account, &key).await?;
    let (id, replaced, now) = (key.id.clone(), key.replaces.clone(), Time::now());
    let (facts, replaces, replacements, former_used_at) = app
        .store
        .read(move |db| {
            let facts = Facts::of(db, &account, now)?;
            let replaces =
                replaced.and_then(|id| keys::get(db, &account.id, &id, now.as_ms()).ok());
            let replacements = keys::replacements(db, &account.id, &id, now.as_ms())?;
            let former_used_at = keys::former_last_used(db, &id, now.as_ms())?;
            Ok((facts, replaces, replacements, former_used_at))
        })
        .await?;
    let card = facts.card(key);
    let shown = token.map(|token| Shown { qr: markup::qr(&token), token });
    let is_refused = !form.errors.is_empty();
    let page = KeyPage {
        frame: Frame::new(visitor, "keys", card.key.name.clone()).after(asked),
        window: facts.window(),
        card,
        form,
        shown,
        unused,
        former_used_at,
        replaces,
        replacements,
    };
    Ok(frame::form_page(&page, is_refused))
}
