//! Forms that came after their session had ended: kept for who sent them, until they have signed in again.
//!
//! Nothing is carried out by that: the person finds the form filled in as it was, and sends it or not. A
//! draft is found by a cookie of the browser that sent it, and shown to nobody but the person whom the form
//! was made for, which its id tells. Drafts are in memory, few, small, and kept for minutes; passwords and
//! tokens are never among them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar};
use latchkey_protocol::KeyHash;
use subtle::ConstantTimeEq;

use super::failure::Failure;
use super::form::{Form, encode};
use super::once;
use crate::app::App;
use crate::session;
use crate::store::Person;
use crate::token;

/// What was filled in before the session ended, for the page of the form.
#[derive(Clone, Debug)]
pub(crate) struct Draft(pub(crate) Option<Form>);

/// Drafts by the hash of what the browser's cookie holds.
#[derive(Default)]
pub(crate) struct Drafts(Mutex<HashMap<KeyHash, Kept>>);

struct Kept {
    /// Path of the form's page.
    page: String,
    form: Form,
    /// What was sent along to show where the form came from.
    csrf: String,
    /// The form's id.
    id: String,
    since: Instant,
}

impl Drafts {
    /// Keeps a form, and returns what its browser has to show for it.
    fn keep(&self, page: &str, form: &Form) -> Option<String> {
        let (csrf, id) = (form.text("csrf").to_owned(), form.filled(once::FIELD)?);
        let form = form.without(|name| {
            matches!(name, "confirm" | "csrf" | "token" | once::FIELD) || name.contains("password")
        });
        if form.size() > MAX_BYTES {
            return None;
        }
        let mut kept = self.kept();
        kept.retain(|_, draft| draft.since.elapsed() < LONGEST);
        while kept.len() >= MAX_DRAFTS || bytes(&kept) + form.size() > MAX_BYTES_IN_ALL {
            let oldest = kept.iter().min_by_key(|(_, draft)| draft.since).map(|(key, _)| *key)?;
            kept.remove(&oldest);
        }
        let secret = token::new_secret();
        let draft = Kept { page: page.to_owned(), form, csrf, id, since: Instant::now() };
        kept.insert(KeyHash::of(secret.as_bytes()), draft);
        Some(secret)
    }

    /// Takes the draft of a page away, if there is one of this person.
    fn take(&self, secret: &str, page: &str, person: &Person) -> Option<Form> {
        let mut kept = self.kept();
        let key = KeyHash::of(secret.as_bytes());
        let draft = kept.get(&key)?;
        let is_meant = draft.page == page
            && draft.since.elapsed() < LONGEST
            && is_for(&draft.id, &draft.csrf, &person.id);
        if is_meant { kept.remove(&key).map(|draft| draft.form) } else { None }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<KeyHash, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says nothing of what is in them.
impl fmt::Debug for Drafts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drafts").field("forms", &self.kept().len()).finish()
    }
}

/// Returns a new id for a form of a session, from which can be told later for whom it was made.
pub(super) fn form_id(csrf: &str, person: &str) -> String {
    let nonce = token::new_id("");
    let tag = tag(csrf, person, &nonce);
    format!("{nonce}.{tag}")
}

/// Reports whether a form was made for a person.
fn is_for(id: &str, csrf: &str, person: &str) -> bool {
    let Some((nonce, sent)) = id.split_once('.') else {
        return false;
    };
    bool::from(sent.as_bytes().ct_eq(tag(csrf, person, nonce).as_bytes()))
}

fn tag(csrf: &str, person: &str, nonce: &str) -> String {
    let hash = KeyHash::of(format!("form {csrf} {person} {nonce}").as_bytes());
    token::hex(&hash.as_bytes()[..16])
}

/// Keeps the form that someone sent who is not signed in any more, and leads to signing in.
pub(crate) fn keep(app: &App, parts: &Parts, form: &Form) -> Response {
    let path = parts.uri.path();
    let page = page_of(path);
    let kept = if is_kept(path) { app.panel.drafts.keep(&page, form) } else { None };
    let note = if kept.is_some() { "&kept=1" } else { "" };
    let to = format!("/sign-in?next={}{note}", encode(&page));
    with_cookie(app, &parts.headers, Redirect::to(&to).into_response(), kept)
}

/// Keeps the form of a person who has signed in meanwhile, in another window, and leads to its page; none if
/// it is not known to be the person's.
pub(crate) fn keep_of(app: &App, parts: &Parts, form: &Form, person: &Person) -> Option<Response> {
    let path = parts.uri.path();
    let page = page_of(path);
    let is_own = is_for(form.text(once::FIELD), form.text("csrf"), &person.id);
    let kept = app.panel.drafts.keep(&page, form).filter(|_| is_own && is_kept(path))?;
    Some(with_cookie(app, &parts.headers, Redirect::to(&page).into_response(), Some(kept)))
}

/// Returns what a person filled in on a page before the session ended.
pub(crate) fn find(app: &App, parts: &Parts, person: &Person) -> Option<Form> {
    let jar = CookieJar::from_headers(&parts.headers);
    let secret = jar.get(cookie_name(app.panel.is_secure(&parts.headers)))?.value();
    app.panel.drafts.take(secret, parts.uri.path(), person)
}

/// Takes the cookie of a draft away, which has been shown.
pub(crate) fn forget(app: &App, headers: &HeaderMap, mut response: Response) -> Response {
    let mut cookie = cookie(app.panel.is_secure(headers), String::new());
    cookie.make_removal();
    if let Ok(value) = cookie.to_string().parse() {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

fn with_cookie(
    app: &App,
    headers: &HeaderMap,
    mut response: Response,
    secret: Option<String>,
) -> Response {
    let cookie = secret.map(|secret| cookie(app.panel.is_secure(headers), secret).to_string());
    if let Some(Ok(value)) = cookie.map(|cookie| cookie.parse()) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

fn cookie(is_secure: bool, secret: String) -> Cookie<'static> {
    let mut cookie = session::cookie(secret, is_secure);
    cookie.set_name(cookie_name(is_secure));
    cookie
}

const fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { "__Host-latchkey_draft" } else { "latchkey_draft" }
}

/// Returns the path of the page with the form that is sent to a path.
pub(super) fn page_of(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["accounts", account, "delete" | "resume" | "suspend"] => {
            format!("/accounts/{account}/settings")
        }
        ["accounts", account, "members" | "invitations", ..] => {
            format!("/accounts/{account}/members")
        }
        ["accounts", account, "keys", key, action] if *action != "replace" => {
            format!("/accounts/{account}/keys/{key}")
        }
        ["accounts", account, "content-types", name, _] => {
            format!("/accounts/{account}/content-types/{name}")
        }
        ["plans", plan, _] => format!("/plans/{plan}"),
        ["operators", ..] => "/operators".to_owned(),
        ["me", ..] => "/me".to_owned(),
        ["sign-out"] => "/".to_owned(),
        _ => path.to_owned(),
    }
}

/// Reports whether a form that is sent to a path has anything that people type in and that may be kept.
fn is_kept(path: &str) -> bool {
    page_of(path) == path || path == "/operators/password-link"
}

/// The guard has found it already.
impl<S: Send + Sync> FromRequestParts<S> for Draft {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        Ok(parts.extensions.get().cloned().unwrap_or(Self(None)))
    }
}

fn bytes(kept: &HashMap<KeyHash, Kept>) -> usize {
    kept.values().map(|draft| draft.form.size()).sum()
}

/// Time in which people notice and sign in again.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Far more than people whose sessions end within minutes.
const MAX_DRAFTS: usize = 500;

/// A key with the most rules that it can have.
const MAX_BYTES: usize = 256 << 10;

/// Some hundred forms of the usual size and a few large ones.
const MAX_BYTES_IN_ALL: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    fn person(id: &str) -> Person {
        let (email, name) = (String::new(), String::new());
        Person { id: id.to_owned(), email, name, is_operator: false, created_at: Time::now() }
    }

    fn form(fields: &str) -> Form {
        let id = form_id("c", "ada");
        Form::parse(format!("csrf=c&form_id={id}&{fields}").as_bytes()).unwrap()
    }

    #[test]
    fn draft_is_for_one_person_and_holds_no_secret() {
        let drafts = Drafts::default();
        let fields = "name=Web&password=a&new_password=b&token=t&confirm=acme";
        let secret = drafts.keep("/me", &form(fields)).unwrap();
        assert!(drafts.take(&secret, "/me", &person("bob")).is_none());
        assert!(drafts.take(&secret, "/", &person("ada")).is_none());
        assert!(drafts.take("other", "/me", &person("ada")).is_none());
        let kept = drafts.take(&secret, "/me", &person("ada")).unwrap();
        assert_eq!(format!("{kept:?}"), r#"Form([("name", "Web")])"#);
        assert!(drafts.take(&secret, "/me", &person("ada")).is_none(), "it is shown once");
    }

    #[test]
    fn drafts_are_bounded() {
        let drafts = Drafts::default();
        assert!(drafts.keep("/me", &form(&format!("name={}", "x".repeat(MAX_BYTES)))).is_none());
        let large = form(&format!("name={}", "x".repeat(MAX_BYTES - 100)));
        for _ in 0..MAX_DRAFTS + 5 {
            drafts.keep("/me", &form("name=x")).unwrap();
        }
        assert_eq!(drafts.kept().len(), MAX_DRAFTS);
        for _ in 0..40 {
            drafts.keep("/me", &large).unwrap();
        }
        assert!(bytes(&drafts.kept()) <= MAX_BYTES_IN_ALL);
    }
}
