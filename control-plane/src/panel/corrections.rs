//! Correcting usage: what counts as used of a limit, where what was counted is wrong.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::markup;
use crate::api::corrections::{CorrectUsage, set_used};
use crate::api::usage::of_account;
use crate::app::App;
use crate::error::ApiError;
use crate::session::Visitor;

#[derive(Template)]
#[template(path = "panel/correction.html")]
struct CorrectionPage {
    frame: Frame,
    limits: Vec<Choice>,
    /// What was chosen, in place of a limit's name and key.
    chosen: String,
    used: String,
    reason: String,
    errors: Errors,
}

/// A limit that can be chosen.
#[derive(Debug)]
struct Choice {
    /// Its name and, if it is a key's own, the key's id.
    value: String,
    /// Its name, whose it is and what counts now.
    text: String,
}

/// Shows the form.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let form = draft.unwrap_or_default();
    page(&app, visitor, &form, Errors::default(), &asked).await
}

/// Corrects the usage.
pub(super) async fn correct(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let account = visitor.account()?.id.clone();
    match correction(&form) {
        Ok(body) => match set_used(&app, &account, visitor.origin(), body).await {
            Ok(()) => {
                let to = format!("/accounts/{account}/usage?done=usage-corrected");
                Ok(Redirect::to(&to).into_response())
            }
            Err(error) => refused(&app, visitor, &form, error).await,
        },
        Err(error) => refused(&app, visitor, &form, error).await,
    }
}

fn correction(form: &Form) -> Result<CorrectUsage, ApiError> {
    let (limit, key) = match form.text("limit").split_once(' ') {
        Some((limit, key)) => (limit.to_owned(), Some(key.to_owned())),
        None => (form.text("limit").to_owned(), None),
    };
    let used = form.text("used").replace([',', ' ', '_'], "");
    let Ok(used) = used.parse() else {
        return Err(ApiError::field("used", "expected a number of calls"));
    };
    Ok(CorrectUsage { limit, key, used, reason: form.text("reason").to_owned() })
}

async fn refused(
    app: &App,
    visitor: Visitor,
    form: &Form,
    error: ApiError,
) -> Result<Response, Failure> {
    page(app, visitor, form, form_errors(error)?, &Form::default()).await
}

async fn page(
    app: &App,
    visitor: Visitor,
    form: &Form,
    errors: Errors,
    asked: &Form,
) -> Result<Response, Failure> {
    let usage = of_account(app, &visitor.account()?.id).await?;
    let mut limits = Vec::new();
    for limit in &usage.limits {
        let used = markup::number(&limit.used);
        let value = limit.name.clone();
        limits.push(Choice { text: format!("{value} of the account, {used} used"), value });
    }
    for key in &usage.keys {
        for limit in &key.limits {
            let used = markup::number(&limit.used);
            let value = format!("{} {}", limit.name, key.id);
            let text = format!("{} of the key “{}”, {used} used", limit.name, key.name);
            limits.push(Choice { value, text });
        }
    }
    let is_refused = !errors.is_empty();
    let text = |name: &str| form.text(name).to_owned();
    Ok(frame::form_page(
        &CorrectionPage {
            frame: Frame::new(visitor, "usage", "Correct usage").after(asked),
            limits,
            chosen: text("limit"),
            used: text("used"),
            reason: text("reason"),
            errors,
        },
        is_refused,
    ))
}
