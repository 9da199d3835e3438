//! Corrections of usage, where what was counted is wrong.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::extract::{Body, Path, present};
use super::fields::{Fields, MAX_AMOUNT, MAX_NAME_CHARS};
use super::usage::{Usage, of_account};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::Origin;
use crate::store::correction::{self, Correction};

/// What counts as used of a limit, where what was counted is wrong.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CorrectUsage {
    /// Name of the limit.
    #[schema(examples("calls"))]
    pub(crate) limit: String,
    /// Id of the key of whose own limit it is; absent, it is one of the account's plan.
    #[serde(default, deserialize_with = "present")]
    pub(crate) key: Option<String>,
    /// Calls that count in its window from now on.
    pub(crate) used: u64,
    /// Why, for the audit log.
    #[schema(examples("a proxy reported wrongly"))]
    pub(crate) reason: String,
}

/// Corrects what counts as used of a limit; limits with buckets of the same length count the same calls.
#[utoipa::path(post, path = "/accounts/{account}/usage/correct", params(("account" = String, Path)),
    request_body = CorrectUsage,
    responses((status = 200, body = Usage), (status = 404, body = Problem)))]
pub(crate) async fn correct(
    State(app): State<App>,
    Path(account): Path<String>,
    origin: Origin,
    Body(body): Body<CorrectUsage>,
) -> Result<Json<Usage>, ApiError> {
    set_used(&app, &account, origin, body).await?;
    Ok(Json(of_account(&app, &account).await?))
}

/// Corrects what counts as used of a limit.
///
/// # Errors
///
/// With all fields that cannot be taken as they are; nothing is changed then.
pub(crate) async fn set_used(
    app: &App,
    account: &str,
    origin: Origin,
    body: CorrectUsage,
) -> Result<(), ApiError> {
    let mut fields = Fields::default();
    if body.used > MAX_AMOUNT {
        fields.add("used", format!("expected at most {MAX_AMOUNT}"));
    }
    fields.name("reason", &body.reason);
    fields.finish()?;
    let account = account.to_owned();
    let correction =
        Correction { key: body.key, limit: body.limit, used: body.used, reason: body.reason };
    let corrected =
        app.store.change(origin, move |change| correction::correct(change, &account, &correction));
    Ok(corrected.await?)
}

/// Longest reason of a correction: a line.
pub(super) const MAX_REASON_CHARS: usize = MAX_NAME_CHARS;
