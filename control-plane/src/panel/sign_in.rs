//! Signing in and out.

use std::num::NonZeroU32;
use std::time::Duration;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::CookieJar;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use latchkey_protocol::KeyHash;

use super::failure::Failure;
use super::form::{Asked, Form};
use super::frame;
use crate::app::App;
use crate::error::ApiError;
use crate::session::{self, Visitor};
use crate::store::{Origin, Person, people, sessions};
use crate::token;

#[derive(Template)]
#[template(path = "panel/sign_in.html")]
struct SignInPage {
    email: String,
    next: String,
    error: Option<&'static str>,
}

/// Shows the form; who is signed in already goes on.
pub(super) async fn show(
    State(app): State<App>,
    Asked(asked): Asked,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, _) = request.into_parts();
    let next = local(asked.text("next")).to_owned();
    if session::find_visitor(&app, &parts).await?.is_some() {
        return Ok(Redirect::to(&next).into_response());
    }
    Ok(frame::html(&SignInPage { email: String::new(), next, error: None }))
}

/// Signs a person in.
pub(super) async fn sign_in(
    State(app): State<App>,
    form: Form,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, _) = request.into_parts();
    let email = normalized(form.text("email"));
    let next = local(form.text("next")).to_owned();
    match check(&app, &email, form.verbatim("password"), &session::address(&parts)).await? {
        Some(person) => {
            let jar = start(&app, &parts.headers, &session::address(&parts), person).await?;
            Ok((jar, Redirect::to(&next)).into_response())
        }
        None => {
            let error = Some("The e-mail address or the password is not right.");
            let page = SignInPage { email, next, error };
            Ok((StatusCode::UNAUTHORIZED, frame::html(&page)).into_response())
        }
    }
}

/// Ends the session.
pub(super) async fn sign_out(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    app.store.write(move |db| sessions::end(db, &visitor.session)).await?;
    let jar = CookieJar::new().add(session::expired_cookie(&headers, &app));
    Ok((jar, Redirect::to("/sign-in")).into_response())
}

/// Returns the person of an e-mail address and a password, if there is one.
///
/// # Errors
///
/// If there were too many attempts from this address or for this person.
pub(super) async fn check(
    app: &App,
    email: &str,
    password: &str,
    address: &str,
) -> Result<Option<Person>, ApiError> {
    app.panel.throttle.check(email, address)?;
    let asked = email.to_owned();
    let found = app.store.read(move |db| people::by_email(db, &asked)).await?;
    let (person, hashed) = found.unzip();
    if app.panel.passwords.matches(password.to_owned(), hashed).await {
        return Ok(person);
    }
    // Not the address that was typed: people type passwords into that field.
    tracing::warn!(address, is_known = person.is_some(), "someone could not sign in");
    Ok(None)
}

/// Starts a session and returns its cookie.
pub(super) async fn start(
    app: &App,
    headers: &HeaderMap,
    address: &str,
    person: Person,
) -> Result<CookieJar, ApiError> {
    let secret = token::new_secret();
    let (hash, agent) = (KeyHash::of(secret.as_bytes()), session::agent(headers));
    let origin = Origin { actor: person.email.clone(), address: address.to_owned() };
    app.store.change(origin, move |change| sessions::start(change, &person, &hash, &agent)).await?;
    Ok(CookieJar::new().add(session::cookie(secret, app.panel.is_secure(headers))))
}

/// Returns an e-mail address as it is stored.
pub(super) fn normalized(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Returns a path of the panel's own, whatever the text: no other site may be named.
fn local(next: &str) -> &str {
    let is_local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && !next.contains(char::is_control);
    if is_local { next } else { "/" }
}

/// Bounds how often passwords can be tried.
#[derive(Debug)]
pub(super) struct Throttle {
    by_person_and_address: DefaultKeyedRateLimiter<(String, String)>,
    by_person: DefaultKeyedRateLimiter<String>,
    by_address: DefaultKeyedRateLimiter<String>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        let quota = |burst: NonZeroU32, every: Duration| {
            Quota::with_period(every).unwrap_or(Quota::per_second(burst)).allow_burst(burst)
        };
        Self {
            by_person_and_address: RateLimiter::keyed(quota(FEW, Duration::from_secs(30))),
            by_person: RateLimiter::keyed(quota(SOME, Duration::from_secs(15))),
            by_address: RateLimiter::keyed(quota(SOME, Duration::from_secs(5))),
        }
    }

    /// Counts an attempt to sign in.
    fn check(&self, email: &str, address: &str) -> Result<(), ApiError> {
        let (email, address) = (email.to_owned(), address.to_owned());
        let each = [
            self.by_address.check_key(&address),
            self.by_person.check_key(&email),
            self.by_person_and_address.check_key(&(email, address)),
        ];
        if self.by_address.len() + self.by_person.len() > CROWD {
            self.by_address.retain_recent();
            self.by_person.retain_recent();
            self.by_person_and_address.retain_recent();
        }
        let now = DefaultClock::default().now();
        let waits = each.into_iter().filter_map(Result::err).map(|until| until.wait_time_from(now));
        match waits.max() {
            Some(wait) => Err(ApiError::Throttled { retry_after_seconds: wait.as_secs() + 1 }),
            None => Ok(()),
        }
    }
}

/// Attempts of one person from one address before each takes half a minute.
const FEW: NonZeroU32 = NonZeroU32::new(8).unwrap();

/// Attempts from one address, or for one person from anywhere, before they are slowed down: an office
/// shares an address, and a stranger must not lock a person out for good.
const SOME: NonZeroU32 = NonZeroU32::new(40).unwrap();

/// People and addresses from which on those that rested are forgotten.
const CROWD: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_pages_follow_signing_in() {
        for next in ["/", "/accounts/acme/keys?done=x"] {
            assert_eq!(local(next), next);
        }
        for next in ["", "//evil.example", "https://evil.example", "/\\evil.example", "/\n/x", "x"]
        {
            assert_eq!(local(next), "/", "{next:?}");
        }
    }

    #[test]
    fn attempts_of_one_person_are_slowed_down_and_others_go_on() {
        let throttle = Throttle::new();
        for _ in 0..FEW.get() {
            assert!(throttle.check("ada@example.com", "192.0.2.1").is_ok());
        }
        let refused = throttle.check("ada@example.com", "192.0.2.1").unwrap_err();
        assert!(
            matches!(refused, ApiError::Throttled { retry_after_seconds: 1..=31 }),
            "{refused}"
        );
        assert!(throttle.check("bob@example.com", "192.0.2.1").is_ok());
        assert!(throttle.check("ada@example.com", "192.0.2.2").is_ok());
    }
}
