//! The audit log.
#![expect(unused_qualifications, reason = "utoipa's macro writes paths in full")]

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{Parameters, non_empty};
use super::fields::Fields;
use super::lists::{List, ListParameters, unknown_cursor};
use crate::app::App;
use crate::error::{ApiError, Problem};
use crate::store::{self, AuditEntry};

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditParameters {
    /// Only entries that concern this account.
    #[serde(default, deserialize_with = "non_empty")]
    account: Option<String>,
}

/// Lists the audit log, oldest entry first.
#[utoipa::path(get, path = "/audit", params(AuditParameters, ListParameters),
    responses((status = 200, body = List<AuditEntry>), (status = 400, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Parameters(which): Parameters<AuditParameters>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<List<AuditEntry>>, ApiError> {
    let page = parameters.page()?;
    let mut fields = Fields::default();
    if let Some(account) = &which.account {
        fields.id("account", account);
    }
    fields.finish()?;
    let after = match page.after.as_deref() {
        None => 0,
        Some(text) => match text.parse::<u32>() {
            Ok(id) if id.to_string() == text => i64::from(id),
            Ok(_) | Err(_) => return Err(unknown_cursor(text)),
        },
    };
    let asked = page.clone();
    let entries = app
        .store
        .read(move |db| store::audit::list(db, which.account.as_deref(), after, &asked))
        .await?;
    Ok(Json(List::cut(entries, &page, |entry| entry.id.to_string())))
}
