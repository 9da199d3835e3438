//! Deciding a request: the stages in order, pure and with the time as an argument.
//!
//! [`token`] finds what the client presented, [`path`] brings the path into the one form that is
//! judged and forwarded, the route table says what is needed, [`reach`] adds what parameters and the
//! [`body`] ask for, [`rights`] compares it with what the key holds, and [`charge`] counts the call.
//! [`edits`] says how the request changes before it is forwarded or refused.

pub mod body;
pub mod charge;
pub mod edits;
pub mod headers;
pub mod path;
pub mod preflight;
pub mod query;
pub mod reach;
pub mod rights;
pub mod spelling;
pub mod token;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use latchkey_protocol::{KeyHash, Limit, Right};

use crate::leases::Due;
use crate::profile::Profile;
use crate::profile::routes::{AccessLevel, Route};
use crate::replica::{KeyRecord, Replica};
use body::Body;
use edits::{Edits, Rewrite};
use path::{CanonicalPath, PathError};
use preflight::Preflight;
use query::Query;
use reach::{Asked, Needed};
use spelling::is_same_header;
use token::{Found, Presented, Unusable};

pub use headers::{HeaderMap, Headers};

/// What is judged.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// All headers.
    pub headers: Headers<'a>,
    /// The body, as far as it is there; looked at only where what is needed depends on it.
    pub body: Body<'a>,
    /// The time, in milliseconds since the epoch.
    pub now_ms: u64,
    /// Returns the client's address; asked only where it matters: for keys that are bound to networks
    /// and for clients without a token that are counted.
    pub client_address: &'a dyn Fn() -> Option<IpAddr>,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// What was decided, and how the request changes either way.
#[derive(Debug)]
pub struct Judgement<'a> {
    /// Whether the request may go on.
    pub outcome: Result<Permit, Rejection>,
    /// Whose key was presented, where the token is of one; known for many a refused request too.
    pub holder: Option<Holder>,
    /// What the call is charged to if it is permitted.
    pub dues: Vec<Due>,
    /// The preflight that the request is, to be counted if it is permitted.
    pub preflight: Option<Preflight>,
    /// What the request needs, and why; empty if it was refused before that was known.
    pub needed: Vec<Needed<'a>>,
    /// Those of the key's rights by which it has what is needed.
    pub exercised: BTreeSet<Right>,
    /// The right that is not held though the request is permitted, since its key or profile is in
    /// shadow mode.
    pub shadowed: Option<Right>,
    /// How the request changes: for the upstream if permitted, for the access log if not.
    pub edits: Edits,
    /// The route that the request is on; absent if no route lists it.
    pub route: Option<&'a Route>,
    /// Whether a token was in the query string, so that the answer must not be kept or referred to.
    pub token_in_query: bool,
    /// Whether the request is forwarded with less than was asked for, so that its answer is this key's
    /// alone.
    pub is_narrowed: bool,
    /// Texts by which copies of the token are known in what comes behind the headers, beside the
    /// form of the API's tokens.
    pub texts: Vec<Vec<u8>>,
}

/// Leave to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Without a key.
    Anonymous,
    /// With a key: that of [`Judgement::holder`].
    Key,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Id of the account.
    pub account: Arc<str>,
    /// Id of the key.
    pub key: Arc<str>,
    /// When the token ends, in milliseconds since the epoch; absent if it does not.
    pub token_ends_at_ms: Option<NonZeroU64>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The key may not be used from the client's address.
    #[error("the key may not be used from this address")]
    AddressNotAllowed,
    /// The body on which the decision depends is not there yet.
    #[error("the body did not come in time")]
    BodyPending,
    /// The body on which the decision depends is larger than what is judged.
    #[error("the body is larger than is allowed here")]
    BodyTooLarge,
    /// The body on which the decision depends cannot be had here.
    #[error("bodies are not read here")]
    BodyUnavailable,
    /// The key's time is over.
    #[error("the key has expired")]
    ExpiredKey,
    /// GraphQL that cannot be judged.
    #[error("{0}")]
    Graphql(String),
    /// A limit is used up.
    #[error("{}", limit_message(limit.as_ref()))]
    LimitReached {
        /// The limit that keeps the call longest.
        limit: Option<Limit>,
        /// Seconds until a call will pass; none if none ever will.
        retry_after_seconds: Option<u64>,
    },
    /// A query parameter has a value that cannot be judged.
    #[error("{0}")]
    Parameter(String),
    /// A header or parameter says another method than the request's.
    #[error("`{0}` says another method than the request's")]
    MethodOverride(String),
    /// The token stands where it can be neither used nor removed.
    #[error("the token stands in the path or the host name")]
    MisplacedToken,
    /// The key does not hold a right.
    #[error(transparent)]
    MissingRight(#[from] MissingRight),
    /// No token was sent.
    #[error("no token was sent")]
    MissingToken,
    /// Too many requests wait already.
    #[error("too many requests wait")]
    NoRoom,
    /// There is no snapshot yet.
    #[error("the gateway has no keys yet")]
    NotReady,
    /// The path can be read in more than one way.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A client has sent more preflights than it may.
    #[error("too many preflights from this address")]
    TooManyPreflights {
        /// Seconds until it may send the next one.
        retry_after_seconds: u64,
    },
    /// The token is of no key, or of one that was revoked or suspended.
    #[error("the token is not valid")]
    UnknownToken,
    /// Whether there is room in the limits cannot be found out.
    #[error("the control plane does not answer")]
    Unreachable,
    /// The body on which the decision depends is of a kind that is not judged.
    #[error("{0}")]
    UnsupportedBody(&'static str),
    /// What was sent is no token.
    #[error(transparent)]
    UnusableToken(#[from] Unusable),
}

/// A right that a request needs and its key does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key does not hold `{needed}`")]
pub struct MissingRight {
    /// What it would have to hold.
    pub needed: Right,
    /// What it holds, each as `resource:action`.
    pub held: Vec<String>,
}

/// Decides a request.
///
/// Without a replica, only what needs no look-up is decided; the rest is [`Rejection::NotReady`].
/// Every request is stripped of all copies of its token and of identity headers, whatever is
/// decided.
#[must_use]
pub fn authorize<'a>(
    profile: &'a Profile,
    replica: Option<&Replica>,
    request: &Request<'_>,
) -> Judgement<'a> {
    // What is not UTF-8 is refused further down, but stripped of its token all the same.
    let target = request.headers.named(":path").next().unwrap_or_default();
    let target = &*String::from_utf8_lossy(target);
    let (raw_path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut query = Query::parse(query);
    let found = token::find(profile, &request.headers, &query);
    let is_token_in_query = edits::remove_tokens(profile, &found.traces, &mut query);
    let path = CanonicalPath::parse(raw_path);
    let is_token_in_path = found.traces.are_in(raw_path.as_bytes());
    let method = request.headers.text(":method").unwrap_or_default();
    let route = path.as_ref().ok().and_then(|path| profile.routes.find(method, &path.segments));
    let target = Target {
        text: target,
        raw_path,
        path,
        is_token_in_path,
        query,
        is_token_in_query,
        method,
        route,
    };

    let edits = Edits::stripping(profile, request.headers, &target, &found.traces);
    let mut judgement = Judgement {
        outcome: Err(Rejection::NotReady),
        holder: None,
        dues: Vec::new(),
        preflight: None,
        needed: Vec::new(),
        exercised: BTreeSet::new(),
        shadowed: None,
        edits,
        route,
        token_in_query: is_token_in_query,
        is_narrowed: false,
        texts: Vec::new(),
    };
    let mut rewrites = Vec::new();
    let case = Case { profile, replica, request, target: &target, found: &found };
    judgement.outcome = decide(&case, &mut judgement, &mut rewrites);
    if let (Ok(Permit::Key), Some(holder)) = (&judgement.outcome, &judgement.holder) {
        judgement.edits.identify(holder);
        if !rewrites.is_empty() {
            judgement.edits.forward(&target, &rewrites);
            judgement.is_narrowed = true;
        }
    }
    judgement.texts = found.traces.into_texts();
    judgement
}

fn limit_message(limit: Option<&Limit>) -> String {
    match limit {
        Some(limit) => {
            let (amount, seconds) = (limit.amount, limit.window().seconds());
            format!("the limit `{}` of {amount} calls in {seconds} seconds is used up", limit.name)
        }
        None => "there is nothing left to use".to_owned(),
    }
}

/// What the request line says.
struct Target<'a, 'r> {
    /// Path and query as they were sent.
    text: &'r str,
    raw_path: &'r str,
    path: Result<CanonicalPath<'r>, PathError>,
    is_token_in_path: bool,
    query: Query<'r>,
    is_token_in_query: bool,
    method: &'r str,
    route: Option<&'a Route>,
}

/// A request with all that decides it.
struct Case<'a, 'r> {
    profile: &'a Profile,
    replica: Option<&'r Replica>,
    request: &'r Request<'r>,
    target: &'r Target<'a, 'r>,
    found: &'r Found<'r>,
}

/// Runs the stages in order; what they learn goes into the judgement, however it ends.
fn decide<'a>(
    case: &Case<'a, '_>,
    judgement: &mut Judgement<'a>,
    rewrites: &mut Vec<Rewrite>,
) -> Result<Permit, Rejection> {
    let Case { profile, replica, request, target, found } = *case;
    let path = target.path.as_ref().map_err(|error| *error)?;
    if target.query.text().contains('#') {
        return Err(PathError::Fragment.into());
    }
    let mut pseudo = request.headers.named(":authority").chain(request.headers.named(":method"));
    if target.is_token_in_path || pseudo.any(|value| found.traces.are_in(value)) {
        return Err(Rejection::MisplacedToken);
    }
    if let Some(ambiguous) = &found.ambiguous {
        return Err(ambiguous.clone());
    }
    refuse_method_override(profile, request.headers, target)?;
    judgement.preflight = preflight::preflight(profile, request, target.method)?;
    if judgement.preflight.is_some() {
        return Ok(Permit::Anonymous);
    }

    let access = target.route.map_or(&profile.unlisted, |route| &route.access);
    let token = match &found.presented {
        Presented::Nothing if access.level == AccessLevel::Public => {
            judgement.dues = charge::dues_of_anonymous(profile, replica, request)?;
            return Ok(Permit::Anonymous);
        }
        Presented::Nothing => return Err(Rejection::MissingToken),
        Presented::Token(token) => token,
        Presented::Unusable(why) => return Err((*why).into()),
    };
    let replica = replica.ok_or(Rejection::NotReady)?;
    let found = replica.find(&KeyHash::of(token)).map_err(|_| Rejection::NotReady)?;
    let key = &*found.ok_or(Rejection::UnknownToken)?;
    let (account, id) = (Arc::clone(&key.account.id), Arc::clone(&key.id));
    let token_ends_at_ms = key.expires_at_ms;
    judgement.holder = Some(Holder { account, key: id, token_ends_at_ms });
    authenticate(key, request)?;
    judgement.dues = charge::dues_of_key(key);

    let is_enforced = profile.enforce && !key.is_shadowed;
    let asked = Asked {
        profile,
        route: target.route,
        access,
        method: target.method,
        segments: &path.segments,
        query: &target.query,
        request,
        key,
        may_change: is_enforced,
    };
    let reach = reach::reach(&asked)?;
    judgement.needed = reach.needed;
    *rewrites = reach.rewrites;
    match rights::check(profile, access, &judgement.needed, key) {
        Ok(exercised) => judgement.exercised = exercised,
        Err(missing) if is_enforced => return Err(missing.into()),
        Err(missing) => {
            judgement.exercised = rights::exercised(profile, &judgement.needed, key);
            judgement.shadowed = Some(missing.needed);
        }
    }
    reach::refuse_unlisted_parameters(&asked)?;
    Ok(Permit::Key)
}

/// Checks what a key says of when and whence it may be used.
fn authenticate(key: &KeyRecord, request: &Request<'_>) -> Result<(), Rejection> {
    if key.expires_at_ms.is_some_and(|expires_at_ms| request.now_ms >= expires_at_ms.get()) {
        return Err(Rejection::ExpiredKey);
    }
    let Some(networks) = &key.networks else {
        return Ok(());
    };
    // An IPv4 client of a listener on an IPv6 socket comes as `::ffff:192.0.2.1`.
    let address = (request.client_address)().map(|address| address.to_canonical());
    match address {
        Some(address) if networks.iter().any(|network| network.contains(&address)) => Ok(()),
        Some(_) | None => Err(Rejection::AddressNotAllowed),
    }
}

/// Refuses a request that tells a framework to treat it as one of another method.
fn refuse_method_override(
    profile: &Profile,
    headers: Headers<'_>,
    target: &Target<'_, '_>,
) -> Result<(), Rejection> {
    for (name, value) in headers.0 {
        let said = profile.method_override.headers.iter().any(|other| is_same_header(name, other));
        if said && !value.eq_ignore_ascii_case(target.method.as_bytes()) {
            return Err(Rejection::MethodOverride((*name).to_owned()));
        }
    }
    for name in &profile.method_override.parameters {
        let mut said = target.query.judged(name)?;
        if said.any(|said| !said.value.eq_ignore_ascii_case(target.method.as_bytes())) {
            return Err(Rejection::MethodOverride(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
