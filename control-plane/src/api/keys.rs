//! Keys of an account.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use latchkey_protocol::{KeyKind, Limit, PlainToken, Rule};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Body, NeededBody, Parameters, Path, nullable, present};
use super::fields::Fields;
use super::lists::{List, ListParameters};
use super::records::{Record, at, tag_header};
use crate::app::App;
use crate::cli::TokenAccess;
use crate::error::{ApiError, Problem};
use crate::store::{self, Key, KeyPatch, NewKey, Origin};
use crate::time::Time;
use crate::token;

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKey {
    #[schema(examples("Website"))]
    pub(crate) name: String,
    /// What it may do; `[]` is nothing.
    #[schema(required, value_type = Vec<Rule>)]
    pub(crate) rules: Option<Vec<Rule>>,
    /// Whether its rules refuse requests; else what they would refuse is noted and let through.
    #[serde(default = "enforced")]
    #[schema(default = true)]
    pub(crate) enforce: bool,
    /// First moment at which it is no longer valid; never if absent.
    pub(crate) expires_at: Option<Time>,
    /// Where it is meant to be used, such as `production`.
    pub(crate) environment: Option<String>,
    /// Networks (CIDR) or addresses from which it may be used; all if absent.
    pub(crate) allowed_networks: Option<Vec<String>>,
    /// Limits of its own, beside its account's.
    pub(crate) limits: Option<Vec<Limit>>,
    pub(crate) note: Option<String>,
    /// Id of the key of the same account that it is made to replace.
    pub(crate) replaces: Option<String>,
}

/// What to change of a key; what is absent stays, what is null is cleared.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditKey {
    #[serde(default, deserialize_with = "present")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) rules: Option<Vec<Rule>>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) enforce: Option<bool>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Time>)]
    pub(crate) expires_at: Option<Option<Time>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub(crate) environment: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) allowed_networks: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<Limit>>)]
    pub(crate) limits: Option<Option<Vec<Limit>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    pub(crate) note: Option<Option<String>>,
}

/// How to regenerate a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegenerateKey {
    /// How long the token before goes on working, in seconds.
    #[serde(default)]
    #[schema(default = 0, maximum = 2592000)]
    grace_seconds: u32,
}

/// A key with its token, which is shown in this answer and never again by this API.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyAndToken {
    key: Key,
    /// Absent where tokens are shown in the panel only (`--token-access panel`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("ftq_0123456789abcdefghijklmn0aBcDe"))]
    token: Option<String>,
}

/// An answer with a token in it: no cache may keep it.
type TokenAnswer = (StatusCode, [(HeaderName, HeaderValue); 2], Json<KeyAndToken>);

/// Lists an account's keys, oldest first, revoked ones included.
#[utoipa::path(get, path = "/accounts/{account}/keys",
    params(("account" = String, Path), ListParameters),
    responses((status = 200, body = List<Key>), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Path(account): Path<String>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<List<Key>>, ApiError> {
    let page = parameters.page()?;
    let (asked, now_ms) = (page.clone(), Time::now().as_ms());
    let keys = app.store.read(move |db| store::keys::list(db, &account, &asked, now_ms)).await?;
    Ok(Json(List::cut(keys, &page, |key| key.id.clone())))
}

/// Makes a user defined key. Its token is in this answer only.
#[utoipa::path(post, path = "/accounts/{account}/keys", params(("account" = String, Path)),
    request_body = CreateKey,
    responses((status = 201, body = KeyAndToken), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<App>,
    Path(account): Path<String>,
    origin: Origin,
    Body(body): Body<CreateKey>,
) -> Result<Response, ApiError> {
    let (key, token) = issue(&app, &account, origin, body).await?;
    let path = format!("/api/v1/accounts/{account}/keys/{}", key.id);
    Ok((at(&path), with_token(&app, StatusCode::CREATED, key, &token)).into_response())
}

/// Makes a user defined key of an account; returns it with its token.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is made then.
pub(crate) async fn issue(
    app: &App,
    account: &str,
    origin: Origin,
    body: CreateKey,
) -> Result<(Key, PlainToken), ApiError> {
    issue_with(app, account, origin, body, Fields::default()).await
}

/// Makes a user defined key of an account, unless something was found wrong with it before.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is made then.
pub(crate) async fn issue_with(
    app: &App,
    account: &str,
    origin: Origin,
    body: CreateKey,
    mut fields: Fields,
) -> Result<(Key, PlainToken), ApiError> {
    let account = account.to_owned();
    let rules_of_profile = app.key_rules(&account).await?;
    let Some(rules) = body.rules else {
        return Err(ApiError::field("rules", "expected a list of rules, found nothing"));
    };
    fields.name("name", &body.name);
    fields.rules(&rules, rules_of_profile);
    check_texts(&mut fields, body.environment.as_deref(), body.note.as_deref());
    if let Some(expires_at) = body.expires_at {
        fields.future("expires_at", expires_at);
    }
    let networks = body.allowed_networks.unwrap_or_default();
    let allowed_networks = fields.networks("allowed_networks", &networks);
    let limits = body.limits.unwrap_or_default();
    fields.key_limits("limits", &limits);
    fields.finish()?;

    let id = token::new_id("key_");
    let (token, minted) = app.mint(&rules_of_profile.token, &account, &id);
    let new = NewKey {
        id,
        name: body.name,
        kind: KeyKind::UserDefined,
        rules,
        enforce: body.enforce,
        environment: body.environment,
        note: body.note,
        expires_at: body.expires_at,
        allowed_networks,
        limits,
        replaces: body.replaces,
        token: minted,
    };
    let key = app
        .store
        .change(origin, move |change| store::keys::create_for(change, &account, &new))
        .await?;
    Ok((key, token))
}

/// Returns a key.
#[utoipa::path(get, path = "/accounts/{account}/keys/{key}",
    params(("account" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Key), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path((account, id)): Path<(String, String)>,
) -> Result<Record<Key>, ApiError> {
    let now_ms = Time::now().as_ms();
    Ok(Record(app.store.read(move |db| store::keys::get(db, &account, &id, now_ms)).await?))
}

/// Changes a key.
#[utoipa::path(patch, path = "/accounts/{account}/keys/{key}",
    params(("account" = String, Path), ("key" = String, Path)), request_body = EditKey,
    responses((status = 200, body = Key), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn edit(
    State(app): State<App>,
    Path((account, id)): Path<(String, String)>,
    origin: Origin,
    Body(body): Body<EditKey>,
) -> Result<Record<Key>, ApiError> {
    Ok(Record(revise(&app, &account, &id, origin, body).await?))
}

/// Changes a key of an account.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is changed then.
pub(crate) async fn revise(
    app: &App,
    account: &str,
    id: &str,
    origin: Origin,
    body: EditKey,
) -> Result<Key, ApiError> {
    revise_with(app, account, id, origin, body, Fields::default()).await
}

/// Changes a key of an account, unless something was found wrong with it before.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is changed then.
pub(crate) async fn revise_with(
    app: &App,
    account: &str,
    id: &str,
    origin: Origin,
    body: EditKey,
    mut fields: Fields,
) -> Result<Key, ApiError> {
    let (account, id) = (account.to_owned(), id.to_owned());
    let rules_of_profile = app.key_rules(&account).await?;
    if let Some(name) = &body.name {
        fields.name("name", name);
    }
    if let Some(rules) = &body.rules {
        fields.rules(rules, rules_of_profile);
    }
    let environment = body.environment.as_ref().and_then(Option::as_deref);
    check_texts(&mut fields, environment, body.note.as_ref().and_then(Option::as_deref));
    if let Some(Some(expires_at)) = body.expires_at {
        fields.future("expires_at", expires_at);
    }
    let allowed_networks = body
        .allowed_networks
        .map(|networks| fields.networks("allowed_networks", &networks.unwrap_or_default()));
    let limits = body.limits.map(Option::unwrap_or_default);
    if let Some(limits) = &limits {
        fields.key_limits("limits", limits);
    }
    fields.finish()?;

    let patch = KeyPatch {
        name: body.name,
        rules: body.rules,
        enforce: body.enforce,
        environment: body.environment,
        note: body.note,
        expires_at: body.expires_at,
        allowed_networks,
        limits,
    };
    let key = app
        .store
        .change(origin, move |change| store::keys::edit(change, &account, &id, &patch))
        .await?;
    Ok(key)
}

/// Revokes a user defined key at once and for good; its record stays.
#[utoipa::path(delete, path = "/accounts/{account}/keys/{key}",
    params(("account" = String, Path), ("key" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn revoke(
    State(app): State<App>,
    Path((account, id)): Path<(String, String)>,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    app.store
        .change_urgently(origin, move |change| store::keys::revoke(change, &account, &id))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a key another token, in this answer only; the one before works until the grace ends.
#[utoipa::path(post, path = "/accounts/{account}/keys/{key}/regenerate",
    params(("account" = String, Path), ("key" = String, Path)), request_body = RegenerateKey,
    responses((status = 200, body = KeyAndToken), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn regenerate(
    State(app): State<App>,
    Path((account, id)): Path<(String, String)>,
    origin: Origin,
    NeededBody(body): NeededBody<RegenerateKey>,
) -> Result<TokenAnswer, ApiError> {
    let (key, token) = rotate(&app, &account, &id, origin, body.grace_seconds).await?;
    Ok(with_token(&app, StatusCode::OK, key, &token))
}

/// Gives a key another token and returns both; the one before works for so many seconds more.
///
/// # Errors
///
/// If there is no such key, it is revoked, or the grace is too long.
pub(crate) async fn rotate(
    app: &App,
    account: &str,
    id: &str,
    origin: Origin,
    grace_seconds: u32,
) -> Result<(Key, PlainToken), ApiError> {
    let (account, id) = (account.to_owned(), id.to_owned());
    if grace_seconds > MAX_GRACE_SECONDS {
        let message = format!("expected at most {MAX_GRACE_SECONDS}");
        return Err(ApiError::field("grace_seconds", message));
    }
    let grace_ms = i64::from(grace_seconds) * 1000;
    let (token, minted) = app.mint(&app.key_rules(&account).await?.token, &account, &id);
    let key = app
        .store
        .change(origin, move |change| {
            store::keys::regenerate(change, &account, &id, &minted, grace_ms)
        })
        .await?;
    Ok((key, token))
}

/// Suspends a key until it is resumed.
#[utoipa::path(post, path = "/accounts/{account}/keys/{key}/suspend",
    params(("account" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Key), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn suspend(
    state: State<App>,
    path: Path<(String, String)>,
    origin: Origin,
) -> Result<Record<Key>, ApiError> {
    set_suspended(state, path, origin, true).await
}

/// Ends the suspension of a key.
#[utoipa::path(post, path = "/accounts/{account}/keys/{key}/resume",
    params(("account" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Key), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn resume(
    state: State<App>,
    path: Path<(String, String)>,
    origin: Origin,
) -> Result<Record<Key>, ApiError> {
    set_suspended(state, path, origin, false).await
}

async fn set_suspended(
    State(app): State<App>,
    Path((account, id)): Path<(String, String)>,
    origin: Origin,
    is_suspended: bool,
) -> Result<Record<Key>, ApiError> {
    let key = app
        .store
        .change_urgently(origin, move |change| {
            store::keys::set_suspended(change, &account, &id, is_suspended)
        })
        .await?;
    Ok(Record(key))
}

/// Ends the grace in which the token before goes on working: it is refused at once.
#[utoipa::path(post, path = "/accounts/{account}/keys/{key}/end-grace",
    params(("account" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Key), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn end_grace(
    State(app): State<App>,
    Path((account, id)): Path<(String, String)>,
    origin: Origin,
) -> Result<Record<Key>, ApiError> {
    let changed = app
        .store
        .change_urgently(origin, move |change| store::keys::end_grace(change, &account, &id));
    Ok(Record(changed.await?))
}

const fn enforced() -> bool {
    true
}

fn check_texts(fields: &mut Fields, environment: Option<&str>, note: Option<&str>) {
    if let Some(environment) = environment {
        fields.text("environment", environment, MAX_ENVIRONMENT_CHARS);
    }
    if let Some(note) = note {
        fields.text("note", note, MAX_NOTE_CHARS);
    }
}

fn with_token(app: &App, status: StatusCode, key: Key, token: &PlainToken) -> TokenAnswer {
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::ETAG, tag_header(&key)),
    ];
    let token = match app.token_access {
        TokenAccess::Api => Some(token.reveal().to_owned()),
        TokenAccess::Panel => None,
    };
    (status, headers, Json(KeyAndToken { key, token }))
}

/// 30 days: the time in which everyone can be expected to have moved to the new token.
pub(super) const MAX_GRACE_SECONDS: u32 = 2_592_000;
/// A word or two.
pub(super) const MAX_ENVIRONMENT_CHARS: usize = 64;
/// A page of text.
pub(super) const MAX_NOTE_CHARS: usize = 2_000;
