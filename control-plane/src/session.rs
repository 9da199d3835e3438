//! Who is signed in, and whether a page is open to that person.
//!
//! The cookie holds 256 random bits; the store knows their SHA-256. What a page needs stands beside it
//! in the table of routes (`panel.rs`), and is checked here before the page's own code runs.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use cookie::CookieBuilder;
use latchkey_protocol::KeyHash;
use subtle::ConstantTimeEq;

use crate::app::App;
use crate::client_address::ClientAddress;
use crate::error::ApiError;
use crate::panel::drafts::{self, Draft};
use crate::panel::failure::Failure;
use crate::panel::form::{Form, encode};
use crate::panel::once::{self, Sent};
use crate::store::{Account, Origin, Person, Role, StoreError, accounts, people, sessions};
use crate::time::Time;

/// What a page of the panel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: anyone may see it.
    Nothing,
    /// A person who is signed in.
    SignedIn,
    /// At least this role in the account that the path names; operators have all.
    Member(Role),
    /// An operator.
    Operator,
}

/// The person who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) person: Person,
    /// Hash of the session's cookie.
    pub(crate) session: KeyHash,
    /// What forms have to send along: no other site knows it.
    pub(crate) csrf: String,
    /// Address of the client.
    pub(crate) address: String,
    /// Whether the page shows what the person filled in before a session ended.
    pub(crate) has_draft: bool,
    /// The account that the path names, and what the person may do in it.
    pub(crate) membership: Option<(Account, Role)>,
}

impl Visitor {
    /// Returns who makes a change, for the audit log.
    pub(crate) fn origin(&self) -> Origin {
        Origin::of(&self.person.email, &self.address)
    }

    /// Returns the account that the path names.
    ///
    /// # Errors
    ///
    /// That there is nothing, where the path names none.
    pub(crate) fn account(&self) -> Result<&Account, ApiError> {
        self.membership.as_ref().map(|(account, _)| account).ok_or(ApiError::NoSuchPath)
    }

    /// Reports whether the person may do in the account what takes a role.
    pub(crate) fn may(&self, role: Role) -> bool {
        self.membership.as_ref().is_some_and(|(_, held)| *held >= role)
    }

    /// Reports whether the person may manage keys.
    pub(crate) fn is_admin(&self) -> bool {
        self.may(Role::Admin)
    }

    /// Reports whether the person may test requests and read the audit log.
    pub(crate) fn is_developer(&self) -> bool {
        self.may(Role::Developer)
    }
}

/// Lets a request pass to a page only if the page is open to who makes it.
pub(crate) async fn guard(
    State((app, needs)): State<(App, Needs)>,
    path: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let account = path.iter().find(|(name, _)| *name == "account").map(|(_, id)| id.to_owned());
    let request = match admit(&app, needs, account, request).await {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    if let Some(sent) = request.extensions().get().copied() {
        return once::take(&app, sent, request, next).await;
    }
    let has_draft = request.extensions().get::<Draft>().is_some();
    let headers = if has_draft { request.headers().clone() } else { HeaderMap::new() };
    let answer = next.run(request).await;
    if has_draft { drafts::forget(&app, &headers, answer) } else { answer }
}

async fn admit(
    app: &App,
    needs: Needs,
    account: Option<String>,
    request: Request,
) -> Result<Request, Response> {
    let (mut parts, body) = request.into_parts();
    let refuse = |error: ApiError| Failure::from(error).into_response();

    // The form first: what the person may do must be true when it is done, however late that is.
    let form = match parts.method {
        Method::POST => {
            let sender = find_visitor(app, &parts).await.map_err(|error| refuse(error.into()))?;
            Some(read_form(app, needs, sender.is_some(), &parts, body).await.map_err(refuse)?)
        }
        _ => None,
    };
    let visitor = find_visitor(app, &parts).await.map_err(|error| refuse(error.into()))?;
    if let Some(form) = form {
        // Before anything else, so that another site learns nothing from the answer.
        if needs != Needs::Nothing
            && let Some(visitor) = &visitor
        {
            let sent = form.text("csrf").as_bytes();
            if !bool::from(sent.ct_eq(visitor.csrf.as_bytes())) {
                let kept = drafts::keep_of(app, &parts, &form, &visitor.person);
                return Err(kept.unwrap_or_else(|| refuse(ApiError::Forged)));
            }
        }
        // Also where the session or the right to do it ended with what the form did.
        if let Some(sent) = sent(app, needs, &parts, &form) {
            if let Some(answer) = once::again(app, &sent).await {
                return Err(answer);
            }
            parts.extensions.insert(sent);
        }
        parts.extensions.insert(form);
    }
    if needs == Needs::Nothing {
        return Ok(Request::from_parts(parts, Body::empty()));
    }
    let Some(mut visitor) = visitor else {
        if let Some(form) = parts.extensions.get::<Form>() {
            return Err(drafts::keep(app, &parts, form));
        }
        let asked = parts.uri.path_and_query().map_or("/", |asked| asked.as_str());
        return Err(Redirect::to(&format!("/sign-in?next={}", encode(asked))).into_response());
    };
    if let Some(account) = account {
        let person = visitor.person.clone();
        let membership = app.store.read(move |db| membership(db, &person, &account)).await;
        visitor.membership = Some(membership.map_err(|error| refuse(error.into()))?);
    }
    let is_open = match needs {
        Needs::Nothing | Needs::SignedIn => true,
        Needs::Member(role) => visitor.may(role),
        Needs::Operator => visitor.person.is_operator,
    };
    if !is_open {
        return Err(refuse(ApiError::Forbidden(match needs {
            Needs::Member(role) => {
                format!("this takes the role {} in the account", role.as_str())
            }
            Needs::Nothing | Needs::SignedIn | Needs::Operator => {
                "this is for operators".to_owned()
            }
        })));
    }
    if parts.method == Method::GET
        && let Some(draft) = drafts::find(app, &parts, &visitor.person)
    {
        visitor.has_draft = true;
        parts.extensions.insert(Draft(Some(draft)));
    }
    parts.extensions.insert(visitor);
    Ok(Request::from_parts(parts, Body::empty()))
}

/// Returns what tells a form apart, if it can be: it has an id and comes from the sender's own page.
fn sent(app: &App, needs: Needs, parts: &Parts, form: &Form) -> Option<Sent> {
    let path = parts.uri.path();
    if needs == Needs::Nothing {
        return Sent::of_link(path, form);
    }
    let secret = presented(&parts.headers, app)?;
    let is_own = form.text("csrf").as_bytes().ct_eq(csrf_of(&secret).as_bytes());
    bool::from(is_own).then(|| Sent::of(KeyHash::of(secret.as_bytes()), path, form))?
}

/// Reads a form, as long as one may be from who sends it, if there is room for it at the moment.
async fn read_form(
    app: &App,
    needs: Needs,
    is_signed_in: bool,
    parts: &Parts,
    body: Body,
) -> Result<Form, ApiError> {
    let (room, most) = match (is_signed_in, needs) {
        (true, _) => (&app.panel.reading, MAX_FORM_BYTES),
        (false, Needs::Nothing) => (&app.panel.reading_of_strangers, MAX_SHORT_FORM_BYTES),
        (false, Needs::SignedIn | Needs::Member(_) | Needs::Operator) => {
            (&app.panel.reading_of_strangers, MAX_DRAFT_BYTES)
        }
    };
    let address = parts.extensions.get().map(|ClientAddress(address)| *address);
    let _room = room.enter(address, most)?;
    let body = tokio::time::timeout(FORM_TIME, to_bytes(body, most)).await;
    let body = body.map_err(|_| ApiError::Malformed("the form did not come in time".to_owned()))?;
    Form::parse(&body.map_err(|_| ApiError::TooLarge)?).ok_or(ApiError::TooLarge)
}

/// Returns an account and the person's role in it. For who has none, the account does not exist.
fn membership(
    db: &rusqlite::Connection,
    person: &Person,
    id: &str,
) -> Result<(Account, Role), StoreError> {
    let account = accounts::get(db, id)?;
    if person.is_operator {
        return Ok((account, Role::Owner));
    }
    match people::role(db, id, &person.id)? {
        Some(role) => Ok((account, role)),
        None => Err(StoreError::NotFound { what: "account", id: id.to_owned() }),
    }
}

/// Returns who is signed in, if anyone is.
pub(crate) async fn find_visitor(app: &App, parts: &Parts) -> Result<Option<Visitor>, StoreError> {
    let Some(secret) = presented(&parts.headers, app) else {
        return Ok(None);
    };
    let (hash, now_ms) = (KeyHash::of(secret.as_bytes()), Time::now().as_ms());
    let found = app.store.read(move |db| sessions::find(db, &hash, now_ms)).await?;
    let Some((person, seen_at_ms)) = found else {
        return Ok(None);
    };
    if now_ms - seen_at_ms > SEEN_EVERY_MS {
        // It is no reason to keep someone out that this cannot be kept.
        let _ = app.store.write(move |db| sessions::note_seen(db, &hash, now_ms)).await;
    }
    Ok(Some(Visitor {
        person,
        session: hash,
        csrf: csrf_of(&secret),
        address: address(parts),
        has_draft: false,
        membership: None,
    }))
}

/// Returns what the session's cookie holds, if there is one.
pub(crate) fn presented(headers: &HeaderMap, app: &App) -> Option<String> {
    let name = cookie_name(app.panel.is_secure(headers));
    CookieJar::from_headers(headers).get(name).map(|cookie| cookie.value().to_owned())
}

/// Returns the address of the client.
pub(crate) fn address(parts: &Parts) -> String {
    let client = parts.extensions.get::<ClientAddress>();
    client.map_or(String::new(), |ClientAddress(address)| address.to_string())
}

/// Returns the cookie of a session, which ends with the browser at the latest.
pub(crate) fn cookie(secret: String, is_secure: bool) -> Cookie<'static> {
    let mut cookie = Cookie::new(cookie_name(is_secure), secret);
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_secure(is_secure);
    cookie.set_same_site(SameSite::Lax);
    cookie
}

/// Returns what takes the cookie of a session away.
pub(crate) fn expired_cookie(headers: &HeaderMap, app: &App) -> Cookie<'static> {
    let mut cookie = cookie(String::new(), app.panel.is_secure(headers));
    cookie.make_removal();
    cookie
}

/// Returns what the browser's own cookie holds, if there is one: who has signed in with it is tried apart
/// from strangers.
pub(crate) fn browser(headers: &HeaderMap, app: &App) -> Option<String> {
    let name = browser_cookie_name(app.panel.is_secure(headers));
    let jar = CookieJar::from_headers(headers);
    jar.get(name).map(|cookie| cookie.value().to_owned()).filter(|secret| !secret.is_empty())
}

/// Returns the browser's own cookie, which says of nobody who it is and lets nobody in.
pub(crate) fn browser_cookie(secret: String, is_secure: bool) -> Cookie<'static> {
    let mut cookie = cookie(secret, is_secure);
    cookie.set_name(browser_cookie_name(is_secure));
    CookieBuilder::from(cookie).max_age(BROWSER_TIME.try_into().unwrap_or_default()).build()
}

const fn browser_cookie_name(is_secure: bool) -> &'static str {
    if is_secure { "__Host-latchkey_browser" } else { "latchkey_browser" }
}

/// The prefix makes browsers insist on TLS, this host and all paths (RFC 6265bis, section 4.1.3.2).
const fn cookie_name(is_secure: bool) -> &'static str {
    if is_secure { "__Host-latchkey_session" } else { "latchkey_session" }
}

/// Returns what forms of a session send along, from which the session's secret cannot be told.
pub(crate) fn csrf_of(secret: &str) -> String {
    let hash = KeyHash::of(format!("csrf {secret}").as_bytes());
    crate::token::hex(hash.as_bytes())
}

/// The guard has found it already.
impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        parts.extensions.get().cloned().ok_or_else(|| ApiError::Panicked.into())
    }
}

/// Returns what a browser calls itself, to recognize a session by.
pub(crate) fn agent(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    agent.unwrap_or_default().chars().take(MAX_AGENT_CHARS).collect()
}

/// Time in which a form has to come.
const FORM_TIME: Duration = Duration::from_secs(30);

/// A long form has some hundred rules of some hundred bytes.
const MAX_FORM_BYTES: usize = 1 << 20;

/// The longest form of a session that has ended that is kept.
const MAX_DRAFT_BYTES: usize = 256 << 10;

/// A form that anyone may send: an address, a name, passwords.
const MAX_SHORT_FORM_BYTES: usize = 16 << 10;

/// How exactly it is known when a session was last seen: every look would be a write.
const SEEN_EVERY_MS: i64 = 5 * 60_000;

/// How long a browser is familiar after its last sign-in.
const BROWSER_TIME: Duration = Duration::from_secs(30 * 86_400);

/// Browsers' names are shorter.
const MAX_AGENT_CHARS: usize = 300;
