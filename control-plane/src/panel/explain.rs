//! Testing a request: what the gateway would make of it.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::drafts::Draft;
use super::failure::{Errors, Failure, form_errors};
use super::form::{Asked, Form};
use super::frame::{self, Frame};
use super::markup;
use crate::api::explain::{ExplainRequest, look_into};
use crate::app::App;
use crate::error::ApiError;
use crate::explain::{Decision, Explanation};
use crate::session::Visitor;
use crate::store::{Key, KeyState, Page, keys};
use crate::time::Time;

#[derive(Template)]
#[template(path = "panel/explain.html")]
struct ExplainPage {
    frame: Frame,
    keys: Vec<Key>,
    method: String,
    path: String,
    key: String,
    body: String,
    client_address: String,
    errors: Errors,
    explanation: Option<Explanation>,
    /// The refusal's body, for reading.
    answer: Option<String>,
}

/// Methods to choose from.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// Shows the form.
pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Draft(draft): Draft,
    Asked(asked): Asked,
) -> Result<Response, Failure> {
    let form = draft.unwrap_or_default();
    let key = form.filled("key").unwrap_or_else(|| asked.text("key").to_owned());
    page(&app, visitor, &form, key, Errors::default(), None).await
}

/// Shows what would become of the request.
pub(super) async fn ask(
    State(app): State<App>,
    visitor: Visitor,
    form: Form,
) -> Result<Response, Failure> {
    let key = form.text("key").to_owned();
    let client_address = form.filled("client_address").map(|text| {
        text.parse().map_err(|_| {
            let message = format!("expected an IP address, found `{text}`");
            ApiError::field("client_address", message)
        })
    });
    let token = form.filled("token");
    let is_entered = key == "token";
    let token_error = match (is_entered, &token) {
        (true, None) => Some("enter the token"),
        (false, Some(_)) => Some("choose “a token that I enter” above, or leave this empty"),
        _ => None,
    };
    if let Some(message) = token_error {
        let errors = form_errors(ApiError::field("token", message))?;
        return page(&app, visitor, &form, key, errors, None).await;
    }
    let asked = match client_address.transpose() {
        Ok(client_address) => {
            let request = ExplainRequest {
                account: visitor.account()?.id.clone(),
                key: Some(key.clone()).filter(|key| !key.is_empty() && !is_entered),
                token,
                method: form.text("method").to_owned(),
                path: form.text("path").to_owned(),
                body: form.filled("body").map_or(Value::Null, Value::String),
                client_address,
            };
            look_into(&app, request).await
        }
        Err(error) => Err(error),
    };
    match asked {
        Ok(explanation) => {
            page(&app, visitor, &form, key, Errors::default(), Some(explanation)).await
        }
        Err(error) => page(&app, visitor, &form, key, form_errors(error)?, None).await,
    }
}

async fn page(
    app: &App,
    visitor: Visitor,
    form: &Form,
    key: String,
    errors: Errors,
    explanation: Option<Explanation>,
) -> Result<Response, Failure> {
    let account = visitor.account()?.id.clone();
    let page = Page { after: None, limit: KEYS_TO_CHOOSE };
    let mut choices =
        app.store.read(move |db| keys::list(db, &account, &page, Time::now().as_ms())).await?;
    choices.retain(|choice| choice.state != KeyState::Revoked || choice.id == key);
    let answer = explanation.as_ref().and_then(|explanation| explanation.answer.as_ref());
    let answer = answer.and_then(|answer| serde_json::to_string_pretty(answer).ok());
    let is_refused = !errors.is_empty();
    Ok(frame::form_page(
        &ExplainPage {
            frame: Frame::new(visitor, "test", "Test a request"),
            keys: choices,
            method: Some(form.text("method"))
                .filter(|text| !text.is_empty())
                .unwrap_or("GET")
                .to_owned(),
            path: form.text("path").to_owned(),
            key,
            body: form.lines("body").unwrap_or_default(),
            client_address: form.text("client_address").to_owned(),
            errors,
            explanation,
            answer,
        },
        is_refused,
    ))
}

impl Explanation {
    /// Reports whether the request would reach the API.
    fn is_permitted(&self) -> bool {
        self.decision == Decision::Permitted
    }
}

/// More are not looked through in a list; a token can be typed in.
const KEYS_TO_CHOOSE: usize = 500;
