//! Signing in and out.

use std::net::IpAddr;
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
use crate::api::links::normalized;
use crate::app::App;
use crate::error::ApiError;
use crate::session::{self, Visitor};
use crate::store::sessions::{self, NewSession};
use crate::store::{Origin, Person, people};
use crate::token;

#[derive(Template)]
#[template(path = "panel/sign_in.html")]
struct SignInPage {
    email: String,
    next: String,
    /// Whether a form was kept that came after its session had ended.
    has_draft: bool,
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
    let has_draft = asked.has("kept");
    Ok(frame::html(&SignInPage { email: String::new(), next, has_draft, error: None }))
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
        Some((person, checked)) => {
            let address = session::address(&parts);
            let jar = start(&app, &parts.headers, &address, person, Some(checked)).await?;
            Ok((jar, Redirect::to(&next)).into_response())
        }
        None => {
            let error = Some("The e-mail address or the password is not right.");
            let page = SignInPage { email, next, has_draft: false, error };
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

/// Returns the person of an e-mail address and a password, with the password's hash, if there is one.
///
/// # Errors
///
/// If there were too many attempts from this address or for this person.
pub(super) async fn check(
    app: &App,
    email: &str,
    password: &str,
    address: &str,
) -> Result<Option<(Person, String)>, ApiError> {
    app.panel.throttle.check(email, address)?;
    let asked = email.to_owned();
    let found = app.store.read(move |db| people::by_email(db, &asked)).await?;
    let (person, hashed) = found.unzip();
    if app.panel.passwords.matches(password.to_owned(), hashed.clone()).await? {
        return Ok(person.zip(hashed));
    }
    // Not the address that was typed: people type passwords into that field.
    tracing::warn!(address, is_known = person.is_some(), "someone could not sign in");
    Ok(None)
}

/// Starts a session in the place of the one that there is, and returns its cookie. `checked` is the hash
/// of the password that was right.
pub(super) async fn start(
    app: &App,
    headers: &HeaderMap,
    address: &str,
    person: Person,
    checked: Option<String>,
) -> Result<CookieJar, ApiError> {
    let secret = token::new_secret();
    let new = NewSession {
        hash: KeyHash::of(secret.as_bytes()),
        agent: session::agent(headers),
        checked,
        before: session::presented(headers, app).map(|secret| KeyHash::of(secret.as_bytes())),
    };
    let origin = Origin::of(&person.email, address);
    app.store.change(origin, move |change| sessions::start(change, &person, &new)).await?;
    Ok(CookieJar::new().add(session::cookie(secret, app.panel.is_secure(headers))))
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
    by_person_and_network: DefaultKeyedRateLimiter<(KeyHash, KeyHash)>,
    by_person: DefaultKeyedRateLimiter<KeyHash>,
    by_network: DefaultKeyedRateLimiter<KeyHash>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        let quota = |burst: NonZeroU32, every: Duration| {
            Quota::with_period(every).unwrap_or(Quota::per_second(burst)).allow_burst(burst)
        };
        Self {
            by_person_and_network: RateLimiter::keyed(quota(FEW, Duration::from_secs(30))),
            by_person: RateLimiter::keyed(quota(SOME, Duration::from_secs(15))),
            by_network: RateLimiter::keyed(quota(SOME, Duration::from_secs(5))),
        }
    }

    /// Counts an attempt to sign in. One that is refused for its address counts for no person: else
    /// anyone could lock everyone out.
    fn check(&self, email: &str, address: &str) -> Result<(), ApiError> {
        let (email, network) = (KeyHash::of(email.as_bytes()), network(address));
        let pairs = self.by_person_and_network.len();
        if pairs + self.by_network.len() + self.by_person.len() > CROWD {
            self.by_network.retain_recent();
            self.by_person.retain_recent();
            self.by_person_and_network.retain_recent();
        }
        self.by_network
            .check_key(&network)
            .and_then(|()| self.by_person_and_network.check_key(&(email, network)))
            .and_then(|()| self.by_person.check_key(&email))
            .map_err(|until| {
                let wait = until.wait_time_from(DefaultClock::default().now());
                ApiError::Throttled { retry_after_seconds: wait.as_secs() + 1 }
            })
    }
}

/// Returns the network of which a client has all addresses: of IPv6, the first 64 bits.
fn network(address: &str) -> KeyHash {
    let bits = match address.parse() {
        Ok(IpAddr::V4(address)) => address.octets().to_vec(),
        Ok(IpAddr::V6(address)) => address.octets()[..8].to_vec(),
        Err(_) => Vec::new(),
    };
    KeyHash::of(&bits)
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
        for _ in 0..1_000 {
            let _ = throttle.check("ada@example.com", "192.0.2.1");
        }
        assert!(throttle.check("ada@example.com", "192.0.2.2").is_ok());
        for host in 0..FEW.get() {
            assert!(throttle.check("eve@example.com", &format!("2001:db8::{host}")).is_ok());
        }
        assert!(throttle.check("eve@example.com", "2001:db8::ffff").is_err(), "it is one network");
    }
}
