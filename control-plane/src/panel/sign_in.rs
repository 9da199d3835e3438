//! Signing in and out.

use std::num::NonZeroU32;
use std::time::Duration;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum_extra::extract::cookie::CookieJar;
use governor::{DefaultKeyedRateLimiter, RateLimiter};
use latchkey_protocol::KeyHash;

use super::failure::Failure;
use super::form::{Asked, Form};
use super::frame;
use crate::api::links::normalized;
use crate::app::App;
use crate::client_address::network_of;
use crate::error::ApiError;
use crate::session::{self, Visitor};
use crate::store::sessions::{self, NewSession};
use crate::store::{Origin, Person, familiar, people};
use crate::throttle::{quota, throttled};
use crate::time::Time;
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
    let address = session::address(&parts);
    let whence = Whence::of(&app, &parts.headers, &address);
    match check(&app, &email, form.verbatim("password"), &whence).await? {
        Some((person, checked)) => {
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

/// Where an attempt to sign in comes from.
#[derive(Debug)]
pub(super) struct Whence<'a> {
    pub(super) address: &'a str,
    /// Hash of what the browser's own cookie holds.
    pub(super) browser: Option<KeyHash>,
}

impl<'a> Whence<'a> {
    pub(super) fn of(app: &App, headers: &HeaderMap, address: &'a str) -> Self {
        let browser = session::browser(headers, app).map(|secret| KeyHash::of(secret.as_bytes()));
        Self { address, browser }
    }

    /// Returns by what it is known, if someone has signed in from there: the browser before the network.
    fn places(&self) -> Vec<KeyHash> {
        self.browser.into_iter().chain([network(self.address)]).collect()
    }
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
    whence: &Whence<'_>,
) -> Result<Option<(Person, String)>, ApiError> {
    let (asked, places, now_ms) = (email.to_owned(), whence.places(), Time::now().as_ms());
    let known = app.store.read(move |db| familiar::find(db, &asked, &places, now_ms)).await?;
    match known {
        Some(place) => app.panel.throttle.check_familiar(email, place, whence)?,
        None => app.panel.throttle.check(email, whence.address)?,
    }
    let (asked, address) = (email.to_owned(), whence.address);
    let found = app.store.read(move |db| people::by_email(db, &asked)).await?;
    let (person, hashed) = found.unzip();
    if app.panel.passwords.matches(password.to_owned(), hashed.clone(), known.is_some()).await? {
        return Ok(person.zip(hashed));
    }
    // Not the address that was typed: people type passwords into that field.
    tracing::warn!(address, is_known = person.is_some(), "someone could not sign in");
    Ok(None)
}

/// The cookies of a session, as they stand in an answer.
pub(super) type Cookies = AppendHeaders<[(HeaderName, String); 2]>;

/// Starts a session in the place of the one that there is, and returns its cookies. `checked` is the hash
/// of the password that was right.
pub(super) async fn start(
    app: &App,
    headers: &HeaderMap,
    address: &str,
    person: Person,
    checked: Option<String>,
) -> Result<Cookies, ApiError> {
    let secret = token::new_secret();
    let browser = session::browser(headers, app).unwrap_or_else(token::new_secret);
    let new = NewSession {
        hash: KeyHash::of(secret.as_bytes()),
        agent: session::agent(headers),
        checked,
        before: session::presented(headers, app).map(|secret| KeyHash::of(secret.as_bytes())),
        places: vec![KeyHash::of(browser.as_bytes()), network(address)],
    };
    let origin = Origin::of(&person.email, address);
    // Operators must get in to take access away; what others may do, they can do for them.
    if person.is_operator {
        let started =
            app.store.change_urgently(origin, move |change| sessions::start(change, &person, &new));
        started.await?;
    } else {
        app.store.change(origin, move |change| sessions::start(change, &person, &new)).await?;
    }
    let is_secure = app.panel.is_secure(headers);
    // In this order: programs take the first for the session's.
    let cookies = [session::cookie(secret, is_secure), session::browser_cookie(browser, is_secure)];
    Ok(AppendHeaders(cookies.map(|cookie| (header::SET_COOKIE, cookie.to_string()))))
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
    by_person_and_familiar_place: DefaultKeyedRateLimiter<(KeyHash, KeyHash)>,
    /// Of a network from which people have signed in, for all of them together.
    by_familiar_network: DefaultKeyedRateLimiter<KeyHash>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            by_person_and_network: RateLimiter::keyed(quota(FEW, Duration::from_secs(30))),
            by_person: RateLimiter::keyed(quota(SOME, Duration::from_secs(15))),
            by_network: RateLimiter::keyed(quota(SOME, Duration::from_secs(5))),
            by_person_and_familiar_place: RateLimiter::keyed(quota(FEW, Duration::from_secs(30))),
            by_familiar_network: RateLimiter::keyed(quota(SOME, Duration::from_secs(5))),
        }
    }

    /// Counts an attempt to sign in. One that is refused for its address counts for no person: else
    /// anyone could lock everyone out.
    fn check(&self, email: &str, address: &str) -> Result<(), ApiError> {
        let (email, network) = (KeyHash::of(email.as_bytes()), network(address));
        self.tidy();
        self.by_network
            .check_key(&network)
            .and_then(|()| self.by_person_and_network.check_key(&(email, network)))
            .and_then(|()| self.by_person.check_key(&email))
            .map_err(|until| throttled(&until))
    }

    /// Counts an attempt from where the person has signed in before: by itself, whatever others try.
    fn check_familiar(
        &self,
        email: &str,
        place: KeyHash,
        whence: &Whence<'_>,
    ) -> Result<(), ApiError> {
        self.tidy();
        // Colleagues share a network, and one of them may be after the others; a browser is its person's.
        if whence.browser != Some(place) {
            self.by_familiar_network.check_key(&place).map_err(|until| throttled(&until))?;
        }
        let entry = (KeyHash::of(email.as_bytes()), place);
        self.by_person_and_familiar_place.check_key(&entry).map_err(|until| throttled(&until))
    }

    /// Forgets those that rested, where there are many.
    fn tidy(&self) {
        let pairs = self.by_person_and_network.len() + self.by_person_and_familiar_place.len();
        let networks = self.by_network.len() + self.by_familiar_network.len();
        if pairs + networks + self.by_person.len() > CROWD {
            self.by_network.retain_recent();
            self.by_person.retain_recent();
            self.by_person_and_network.retain_recent();
            self.by_person_and_familiar_place.retain_recent();
            self.by_familiar_network.retain_recent();
        }
    }
}

/// Returns the network of which a client has all addresses: of IPv6, the first 64 bits.
fn network(address: &str) -> KeyHash {
    let network = address.parse().map(|address| network_of(address).to_string());
    KeyHash::of(network.unwrap_or_default().as_bytes())
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

    /// 48 wrong passwords from six networks used to keep the right person out.
    #[test]
    fn strangers_keep_nobody_out_of_a_familiar_place() {
        let throttle = Throttle::new();
        for stranger in 0..60 {
            for _ in 0..=FEW.get() {
                let _ = throttle.check("ada@example.com", &format!("192.0.2.{stranger}"));
            }
        }
        assert!(throttle.check("ada@example.com", "198.51.100.1").is_err());
        let (browser, other) = (KeyHash::of(b"browser"), KeyHash::of(b"other"));
        let whence = Whence { address: "198.51.100.1", browser: Some(browser) };
        let check = |email: &str, place| throttle.check_familiar(email, place, &whence);
        for place in [browser, other] {
            for _ in 0..FEW.get() {
                assert!(check("ada@example.com", place).is_ok());
            }
            assert!(check("ada@example.com", place).is_err());
        }
        assert!(check("bob@example.com", browser).is_ok());
        for colleague in 0..SOME.get() {
            let _ = check(&format!("{colleague}@example.com"), other);
        }
        assert!(check("eve@example.com", other).is_err(), "one network for all of its people");
        assert!(check("eve@example.com", browser).is_ok());
    }

    #[test]
    fn ipv4_seen_through_ipv6_is_one_network_an_address() {
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
    }
}
