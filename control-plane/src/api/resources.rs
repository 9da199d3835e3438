//! Resources: an account's content types with their relations.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use latchkey_filter::profile::keys::KeyRules;
use latchkey_protocol::right::EVERY;
use latchkey_protocol::{Relation, Resource};
use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::{Body, Parameters, Path};
use super::lists::{List, ListParameters, unknown_cursor};
use super::records::{Put, Record};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::{self, Origin};

/// A resource to make or replace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutResource {
    /// As in the path, if given.
    name: Option<String>,
    /// Field → the content types that it may point at, or `"*"`. A field within a list or an object
    /// is named by its path, such as `sections.author`.
    #[serde(default)]
    relations: BTreeMap<String, Relation>,
}

/// Lists an account's resources, by name.
#[utoipa::path(get, path = "/accounts/{account}/resources",
    params(("account" = String, Path), ListParameters),
    responses((status = 200, body = List<Resource>), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Path(account): Path<String>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<List<Resource>>, ApiError> {
    let page = parameters.page()?;
    let rules = app.key_rules(&account).await?;
    if let Some(after) = page.after.as_deref().filter(|after| rules.check_resource(after).is_err())
    {
        return Err(unknown_cursor(after));
    }
    let asked = page.clone();
    let resources = app.store.read(move |db| store::resources::list(db, &account, &asked)).await?;
    Ok(Json(List::cut(resources, &page, |resource| resource.name.clone())))
}

/// Returns a resource of an account.
#[utoipa::path(get, path = "/accounts/{account}/resources/{name}",
    params(("account" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Resource), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Path((account, name)): Path<(String, String)>,
) -> Result<Record<Resource>, ApiError> {
    Ok(Record(app.store.read(move |db| store::resources::get(db, &account, &name)).await?))
}

/// Makes or replaces a resource.
#[utoipa::path(put, path = "/accounts/{account}/resources/{name}",
    params(("account" = String, Path), ("name" = String, Path)), request_body = PutResource,
    responses((status = 200, body = Resource), (status = 201, body = Resource),
        (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn put(
    State(app): State<App>,
    Path((account, name)): Path<(String, String)>,
    origin: Origin,
    Body(body): Body<PutResource>,
) -> Result<Put<Resource>, ApiError> {
    if let Some(other) = body.name.filter(|other| *other != name) {
        let message = format!("expected `{name}`, as in the path, found `{other}`");
        return Err(ApiError::field("name", message));
    }
    let resource = Resource { name, relations: body.relations };
    let (is_new, record) = define(&app, &account, origin, resource).await?;
    let path = format!("/api/v1/accounts/{account}/resources/{}", record.name);
    Ok(Put { is_new, path, record })
}

/// Makes or replaces a resource; returns whether it is new, and the resource.
///
/// # Errors
///
/// With the field that cannot be taken as it is; nothing is changed then.
pub(crate) async fn define(
    app: &App,
    account: &str,
    origin: Origin,
    resource: Resource,
) -> Result<(bool, Resource), ApiError> {
    let account = account.to_owned();
    check(&resource, app.key_rules(&account).await?)?;
    let defined = app
        .store
        .change(origin, move |change| {
            Ok((store::resources::put(change, &account, &resource)?, resource))
        })
        .await?;
    Ok(defined)
}

/// Removes a resource that no key's rule names.
#[utoipa::path(delete, path = "/accounts/{account}/resources/{name}",
    params(("account" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    Path((account, name)): Path<(String, String)>,
    origin: Origin,
) -> Result<StatusCode, ApiError> {
    app.store
        .change(origin, move |change| store::resources::delete(change, &account, &name))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Checks a resource; the first field that cannot be taken as it is ends that.
///
/// # Errors
///
/// With that field.
pub(crate) fn check(resource: &Resource, rules: &KeyRules) -> Result<(), ApiError> {
    if resource.name == EVERY {
        return Err(ApiError::field("name", "expected the name of one resource, found `*`"));
    }
    rules.check_resource(&resource.name).map_err(|message| ApiError::field("name", message))?;
    if resource.relations.len() > MAX_RELATIONS {
        let message = format!("expected at most {MAX_RELATIONS} fields");
        return Err(ApiError::field("relations", message));
    }
    for (field, relation) in &resource.relations {
        let at = format!("relations.{field}");
        if !is_field_path(field) {
            let message = "expected the name of a field, or the path to it such as `sections.author`: \
                           letters, digits, `_` and `-`, with dots between";
            return Err(ApiError::field(&at, message));
        }
        match relation {
            Relation::Any(text) if text == EVERY => {}
            Relation::Any(text) => {
                let message = format!("expected `\"*\"` or a list of resources, found `{text}`");
                return Err(ApiError::field(&at, message));
            }
            Relation::Some(names) if names.is_empty() => {
                let message = "expected at least one resource, or `\"*\"` for any";
                return Err(ApiError::field(&at, message));
            }
            Relation::Some(names) => {
                for (index, name) in names.iter().enumerate() {
                    if name == EVERY {
                        let message = "expected the name of one resource; for any, say `\"*\"` \
                                       in place of the list";
                        return Err(ApiError::field(&format!("{at}[{index}]"), message));
                    }
                    rules
                        .check_resource(name)
                        .map_err(|message| ApiError::field(&format!("{at}[{index}]"), message))?;
                }
            }
        }
    }
    Ok(())
}

/// Reports whether a text is what GraphQL could call a field, or a path of such names. What is not
/// would be no relation of any field, and so disarm itself.
fn is_field_path(text: &str) -> bool {
    let is_name_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_name_char);
    text.len() <= MAX_FIELD_CHARS && text.split('.').all(is_name)
}

/// A few names of the usual length.
pub(super) const MAX_FIELD_CHARS: usize = 256;

/// More relation fields than any content type of the reference customers has.
pub(super) const MAX_RELATIONS: usize = 500;
