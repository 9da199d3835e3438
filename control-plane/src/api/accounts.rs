//! Accounts.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use latchkey_filter::profile::Profile;
use latchkey_protocol::right::EVERY;
use latchkey_protocol::{KeyKind, Rule};
use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::{Body, Parameters, Path, present};
use super::fields::Fields;
use super::lists::{List, ListParameters, check_id};
use super::records::{Put, Record};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::{self, Account, AccountPatch, NewAccount, NewKey, Origin};
use crate::token;

/// An account to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAccount {
    /// Made up if absent.
    #[schema(examples("acme"))]
    pub(crate) id: Option<String>,
    /// Name for people.
    #[schema(examples("Acme Ltd"))]
    pub(crate) name: String,
    /// Id of its plan; the profile's default if absent.
    #[schema(examples("free"))]
    pub(crate) plan: Option<String>,
    /// Name of its API profile.
    #[schema(examples("flotiq"))]
    pub(crate) profile: String,
}

/// What to change of an account; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditAccount {
    #[serde(default, deserialize_with = "present")]
    pub(crate) name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub(crate) plan: Option<String>,
    /// Cannot be changed; accepted if it is what it is.
    pub(crate) profile: Option<String>,
}

/// Lists accounts, by id.
#[utoipa::path(get, path = "/accounts", params(ListParameters),
    responses((status = 200, body = List<Account>), (status = 400, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<List<Account>>, ApiError> {
    let page = parameters.page()?;
    check_id(&page)?;
    let asked = page.clone();
    let accounts = app.store.read(move |db| store::accounts::list(db, &asked)).await?;
    Ok(Json(List::cut(accounts, &page, |account| account.id.clone())))
}

/// Makes an account, with its Application keys where the profile has them.
#[utoipa::path(post, path = "/accounts", request_body = CreateAccount,
    responses((status = 201, body = Account), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<App>,
    origin: Origin,
    Body(body): Body<CreateAccount>,
) -> Result<Put<Account>, ApiError> {
    let record = open(&app, origin, body).await?;
    Ok(Put { is_new: true, path: format!("/api/v1/accounts/{}", record.id), record })
}

/// Makes an account, with its Application keys where the profile has them.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is made then.
pub(crate) async fn open(
    app: &App,
    origin: Origin,
    body: CreateAccount,
) -> Result<Account, ApiError> {
    let mut fields = Fields::default();
    if let Some(id) = &body.id {
        fields.id("id", id);
    }
    fields.name("name", &body.name);
    fields.finish()?;
    let profile = app.profile(&body.profile)?;
    let id = body.id.unwrap_or_else(|| token::new_id("acc_").to_lowercase());
    let new = NewAccount {
        name: body.name,
        plan: body.plan.unwrap_or_else(|| profile.default_plan.clone()),
        keys: application_keys(app, &id, profile),
        profile: body.profile,
        id,
    };
    Ok(app.store.change(origin, move |change| store::accounts::create(change, &new)).await?)
}

/// Returns an account.
#[utoipa::path(get, path = "/accounts/{account}", params(("account" = String, Path)),
    responses((status = 200, body = Account), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Record<Account>, ApiError> {
    Ok(Record(app.store.read(move |db| store::accounts::get(db, &id)).await?))
}

/// Changes an account.
#[utoipa::path(patch, path = "/accounts/{account}", params(("account" = String, Path)),
    request_body = EditAccount,
    responses((status = 200, body = Account), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn edit(
    State(app): State<App>,
    Path(id): Path<String>,
    origin: Origin,
    Body(body): Body<EditAccount>,
) -> Result<Record<Account>, ApiError> {
    Ok(Record(revise(&app, &id, origin, body).await?))
}

/// Changes an account.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is changed then.
pub(crate) async fn revise(
    app: &App,
    id: &str,
    origin: Origin,
    body: EditAccount,
) -> Result<Account, ApiError> {
    let id = id.to_owned();
    let mut fields = Fields::default();
    if let Some(name) = &body.name {
        fields.name("name", name);
    }
    fields.finish()?;
    if let Some(profile) = &body.profile {
        let wanted = id.clone();
        let account = app.store.read(move |db| store::accounts::get(db, &wanted)).await?;
        if *profile != account.profile {
            let message = format!("expected `{}`: it cannot be changed", account.profile);
            return Err(ApiError::field("profile", message));
        }
    }
    let patch = AccountPatch { name: body.name, plan: body.plan };
    Ok(app.store.change(origin, move |change| store::accounts::edit(change, &id, &patch)).await?)
}

/// Removes an account with all that it owns; its tokens are refused from then on.
#[utoipa::path(delete, path = "/accounts/{account}", params(("account" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    app.store.change_urgently(origin, move |change| store::accounts::delete(change, &id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Suspends an account: all its tokens are refused until it is resumed.
#[utoipa::path(post, path = "/accounts/{account}/suspend", params(("account" = String, Path)),
    responses((status = 200, body = Account), (status = 404, body = Problem)))]
pub(crate) async fn suspend(
    State(app): State<App>,
    Path(id): Path<String>,
    origin: Origin,
) -> Result<Record<Account>, ApiError> {
    Ok(Record(set_suspended(&app, &id, origin, true).await?))
}

/// Ends the suspension of an account.
#[utoipa::path(post, path = "/accounts/{account}/resume", params(("account" = String, Path)),
    responses((status = 200, body = Account), (status = 404, body = Problem)))]
pub(crate) async fn resume(
    State(app): State<App>,
    Path(id): Path<String>,
    origin: Origin,
) -> Result<Record<Account>, ApiError> {
    Ok(Record(set_suspended(&app, &id, origin, false).await?))
}

/// Suspends an account, or ends that.
///
/// # Errors
///
/// If there is no such account.
pub(crate) async fn set_suspended(
    app: &App,
    id: &str,
    origin: Origin,
    is_suspended: bool,
) -> Result<Account, ApiError> {
    let id = id.to_owned();
    let changed = app.store.change_urgently(origin, move |change| {
        store::accounts::set_suspended(change, &id, is_suspended)
    });
    Ok(changed.await?)
}

/// Returns the two keys that an account of a profile has from birth, if it has any.
///
/// Nobody sees their first tokens, unless a sealing key keeps them for the panel: they are regenerated
/// when they are first needed.
fn application_keys(app: &App, account: &str, profile: &Profile) -> Vec<NewKey> {
    if !profile.keys.application_keys {
        return Vec::new();
    }
    let keys = [
        (KeyKind::ApplicationReadWrite, "Application key: read and write", EVERY),
        (KeyKind::ApplicationReadOnly, "Application key: read only", "read"),
    ];
    keys.map(|(kind, name, action)| {
        let id = token::new_id("key_");
        NewKey {
            name: name.to_owned(),
            kind,
            rules: vec![Rule { resource: EVERY.to_owned(), actions: vec![action.to_owned()] }],
            enforce: true,
            environment: None,
            note: None,
            expires_at: None,
            allowed_networks: Vec::new(),
            limits: Vec::new(),
            replaces: None,
            token: app.mint(&profile.keys.token, account, &id).1,
            id,
        }
    })
    .to_vec()
}
