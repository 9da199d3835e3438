//! What all pages share: the frame around them, and how they are answered.

use askama::Template;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};

use super::drafts;
use super::form::Form;
use super::markup::{self, Markup};
use crate::error::ApiError;
use crate::session::Visitor;
use crate::store::accounts::AccountState;

/// The frame around a page: who is signed in, where one is, what was just done.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Title of the page.
    pub(crate) title: String,
    pub(crate) visitor: Visitor,
    /// Entry of the menu under which the page is.
    pub(crate) tab: &'static str,
    /// What was just done.
    pub(crate) done: Option<&'static str>,
    /// The change whose way to the proxies is shown.
    pub(crate) since: Option<u64>,
}

impl Frame {
    /// Returns the frame of a page.
    pub(crate) fn new(visitor: Visitor, tab: &'static str, title: impl Into<String>) -> Self {
        let done = visitor.has_draft.then_some(RESTORED);
        Self { title: title.into(), visitor, tab, done, since: None }
    }

    /// Says what was just done, as the query tells.
    pub(crate) fn after(mut self, asked: &Form) -> Self {
        let done = asked.text("done");
        let done = DONE.iter().find(|(name, _)| *name == done).map(|(_, text)| *text);
        self.done = self.done.or(done);
        self.since = asked.text("since").parse().ok();
        self
    }

    /// Returns the path of the account's pages.
    pub(crate) fn account_path(&self) -> String {
        format!("/accounts/{}", self.account_id())
    }

    /// Returns the account's id.
    pub(crate) fn account_id(&self) -> &str {
        self.visitor.membership.as_ref().map_or("", |(account, _)| account.id.as_str())
    }

    /// Returns the account's name.
    pub(crate) fn account_name(&self) -> &str {
        self.visitor.membership.as_ref().map_or("", |(account, _)| account.name.as_str())
    }

    /// Reports whether the account is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        let account = self.visitor.membership.as_ref().map(|(account, _)| account.state);
        account == Some(AccountState::Suspended)
    }

    /// Reports whether the page is one of an account.
    pub(crate) fn is_of_account(&self) -> bool {
        self.visitor.membership.is_some()
    }

    /// Returns what each form begins with.
    pub(crate) fn form(&self) -> Markup {
        markup::form(&self.visitor.csrf, &self.form_id(), true)
    }

    /// Returns what a form begins with that ends something for good: the return key does not send it.
    pub(crate) fn danger_form(&self) -> Markup {
        markup::form(&self.visitor.csrf, &self.form_id(), false)
    }

    fn form_id(&self) -> String {
        drafts::form_id(&self.visitor.csrf, &self.visitor.person.id)
    }
}

/// Returns a page as an answer.
pub(crate) fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be shown");
            ApiError::Panicked.into_response()
        }
    }
}

/// Returns the page of a form as an answer. If something in it is wrong, the form was not taken, and the first
/// field in error has the focus.
pub(crate) fn form_page(page: &impl Template, is_refused: bool) -> Response {
    if !is_refused {
        return html(page);
    }
    match page.render() {
        Ok(text) => {
            let focused = format!("{} autofocus", markup::INVALID);
            let text = text.replacen(markup::INVALID, &focused, 1);
            (StatusCode::BAD_REQUEST, Html(text)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page cannot be shown");
            ApiError::Panicked.into_response()
        }
    }
}

/// Adds to answers what keeps pages from being used against who reads them.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    protect(response.headers_mut());
    response
}

/// Adds to the headers of an answer what keeps pages from being used against who reads them.
pub(crate) fn protect(headers: &mut HeaderMap) {
    for (name, value) in SECURITY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

const SECURITY: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// What a page says that shows a form as it was before the session ended.
const RESTORED: &str = "You were signed out before this form was sent. What you had filled in is here \
                        again; nothing of it is saved yet.";

/// What a page says after something was done, by the name that stands in its query.
const DONE: [(&str, &str); 25] = [
    ("account-created", "The account is there."),
    ("account-deleted", "The account was removed. Its audit log stays."),
    ("account-resumed", "The account's keys work again."),
    ("account-saved", "The account was saved."),
    (
        "account-suspended",
        "The account is suspended. Nothing passes with its keys until you resume it.",
    ),
    ("grace-ended", "The token before has ended."),
    ("key-created", "The key was made."),
    ("key-regenerated", "The key has a new token."),
    ("key-resumed", "The key works again."),
    ("key-revoked", "The key was removed. Its record stays in the audit log."),
    ("key-saved", "The key was saved."),
    ("key-suspended", "The key is suspended. Nothing passes with it until you resume it."),
    ("member-removed", "The member was removed."),
    ("member-saved", "The role was changed."),
    ("operator-removed", "The operator was removed."),
    ("password-saved", "Your password was changed. Other sessions have ended."),
    ("plan-deleted", "The plan was removed."),
    ("plan-saved", "The plan was saved. Its limits hold from now on."),
    ("profile-saved", "Your name was saved."),
    ("signed-out-everywhere", "All your other sessions have ended."),
    ("type-deleted", "The content type was removed."),
    ("type-saved", "The content type was saved."),
    ("usage-corrected", "The usage was corrected."),
    ("welcome", "Welcome to Latchkey."),
    ("withdrawn", "The invitation was withdrawn."),
];
