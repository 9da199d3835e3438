//! Plans.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use latchkey_protocol::Limit;
use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::{Body, Parameters, Path};
use super::fields::Fields;
use super::lists::{List, ListParameters, check_id};
use super::records::{Put, Record};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::{self, Origin, Plan, StoreError};

/// A plan to make or replace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutPlan {
    /// As in the path, if given.
    id: Option<String>,
    /// Name for people; its id if absent.
    #[schema(examples("Free"))]
    name: Option<String>,
    /// What an account may use; `[]` is without limits.
    limits: Vec<Limit>,
    /// How many user defined keys an account may have.
    #[serde(default = "default_max_user_keys")]
    max_user_keys: u32,
}

/// As many as one page of the list shows.
const fn default_max_user_keys() -> u32 {
    100
}

/// Lists plans, by id.
#[utoipa::path(get, path = "/plans", params(ListParameters),
    responses((status = 200, body = List<Plan>), (status = 400, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<List<Plan>>, ApiError> {
    let page = parameters.page()?;
    check_id(&page)?;
    let asked = page.clone();
    let plans = app.store.read(move |db| store::plans::list(db, &asked)).await?;
    Ok(Json(List::cut(plans, &page, |plan| plan.id.clone())))
}

/// Returns a plan.
#[utoipa::path(get, path = "/plans/{plan}", params(("plan" = String, Path)),
    responses((status = 200, body = Plan), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Record<Plan>, ApiError> {
    Ok(Record(app.store.read(move |db| store::plans::get(db, &id)).await?))
}

/// Makes or replaces a plan; accounts that have it get the new limits at once.
#[utoipa::path(put, path = "/plans/{plan}", params(("plan" = String, Path)), request_body = PutPlan,
    responses((status = 200, body = Plan), (status = 201, body = Plan),
        (status = 400, body = Problem)))]
pub(crate) async fn put(
    State(app): State<App>,
    Path(id): Path<String>,
    origin: Origin,
    Body(body): Body<PutPlan>,
) -> Result<Put<Plan>, ApiError> {
    if let Some(other) = body.id.filter(|other| *other != id) {
        let message = format!("expected `{id}`, as in the path, found `{other}`");
        return Err(ApiError::field("id", message));
    }
    let plan = Plan {
        name: body.name.unwrap_or_else(|| id.clone()),
        id,
        limits: body.limits,
        max_user_keys: body.max_user_keys,
    };
    let (is_new, record) = define(&app, origin, plan).await?;
    Ok(Put { is_new, path: format!("/api/v1/plans/{}", record.id), record })
}

/// Makes or replaces a plan; returns whether it is new, and the plan.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is changed then.
pub(crate) async fn define(
    app: &App,
    origin: Origin,
    plan: Plan,
) -> Result<(bool, Plan), ApiError> {
    define_with(app, origin, plan, Fields::default()).await
}

/// Makes or replaces a plan, unless something was found wrong with it before.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is changed then.
pub(crate) async fn define_with(
    app: &App,
    origin: Origin,
    plan: Plan,
    mut fields: Fields,
) -> Result<(bool, Plan), ApiError> {
    fields.id("plan", &plan.id);
    fields.name("name", &plan.name);
    fields.limits("limits", &plan.limits);
    fields.finish()?;
    let defined = app
        .store
        .change(origin, move |change| Ok((store::plans::put(change, &plan)?, plan)))
        .await?;
    Ok(defined)
}

/// Removes a plan that no account has.
#[utoipa::path(delete, path = "/plans/{plan}", params(("plan" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    withdraw(&app, &id, origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a plan that no account has.
///
/// # Errors
///
/// If there is none, or it is in use.
pub(crate) async fn withdraw(app: &App, id: &str, origin: Origin) -> Result<(), ApiError> {
    let id = id.to_owned();
    if let Some(profile) = app.profiles.all().find(|profile| profile.default_plan == id) {
        return Err(StoreError::Conflict(format!(
            "plan `{id}` is the default of profile `{}`; it can be edited, not removed",
            profile.name
        ))
        .into());
    }
    Ok(app.store.change(origin, move |change| store::plans::delete(change, &id)).await?)
}
