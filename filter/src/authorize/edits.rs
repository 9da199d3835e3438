//! How a request changes before it is forwarded, logged or refused.

use std::sync::Arc;

use super::query::Query;
use super::spelling::is_same_header;
use super::token::Traces;
use super::{Headers, Holder, Target};
use crate::profile::Profile;
use crate::profile::carriers::Carrier;

/// Changes to the headers of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names of headers to remove, all of their values.
    pub remove: Vec<String>,
    /// The `:path` to set, where it changes.
    pub path: Option<String>,
    /// Headers to set: name and value.
    pub set: Vec<(&'static str, Arc<str>)>,
}

/// A change to the query string, so that what is forwarded reaches no more than was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Adds a parameter at the end.
    Add {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Gives the parameter of a name another value.
    Replace {
        /// Its name.
        name: String,
        /// The value.
        value: String,
    },
}

/// Header that tells the upstream the id of the account.
pub const ACCOUNT_HEADER: &str = "x-latchkey-account";
/// Header that tells the upstream the id of the key.
pub const KEY_HEADER: &str = "x-latchkey-key";

impl Edits {
    /// Returns the changes that every request undergoes, whatever is decided.
    ///
    /// Every copy of the token goes, wherever it stands; so do inbound identity headers, and
    /// headers from which some frameworks take another path than the request's.
    pub(super) fn stripping(
        profile: &Profile,
        headers: Headers<'_>,
        target: &Target<'_, '_>,
        traces: &Traces<'_>,
    ) -> Self {
        let mut remove: Vec<String> = Vec::new();
        for (name, value) in headers.0 {
            let goes = !name.starts_with(':') && is_removed(profile, traces, name, value);
            if goes && !remove.iter().any(|known| known == name) {
                remove.push((*name).to_owned());
            }
        }
        let mut edits = Self { remove, path: None, set: Vec::new() };
        edits.forward(target, &[]);
        // The access log has the method as it is.
        if traces.are_in(target.method.as_bytes()) {
            edits.set.push((":method", "REMOVED".into()));
        }
        edits
    }

    /// Sets the path that is forwarded, with changes to its query.
    pub(super) fn forward(&mut self, target: &Target<'_, '_>, rewrites: &[Rewrite]) {
        let forwarded = forwarded_target(target, rewrites);
        self.path = forwarded.filter(|forwarded| forwarded != target.text);
    }

    /// Adds the identity headers.
    pub(super) fn identify(&mut self, holder: &Holder) {
        let Holder { account, key, .. } = holder;
        self.set = vec![(ACCOUNT_HEADER, Arc::clone(account)), (KEY_HEADER, Arc::clone(key))];
    }
}

/// Reports whether a header or trailer never reaches the upstream.
#[must_use]
pub fn is_removed(profile: &Profile, traces: &Traces<'_>, name: &str, value: &[u8]) -> bool {
    is_never_forwarded(profile, name) || traces.are_in(value) || traces.are_in_name(name)
}

/// The same for a trailer, which does not say what the body is, either (RFC 9110, section 6.5.1).
#[must_use]
pub fn is_removed_from_trailers(
    profile: &Profile,
    traces: &Traces<'_>,
    name: &str,
    value: &[u8],
) -> bool {
    is_removed(profile, traces, name, value)
        || OF_BODIES.iter().any(|header| is_same_header(name, header))
}

/// Reports whether a header of this name never reaches the upstream, whatever its value.
fn is_never_forwarded(profile: &Profile, name: &str) -> bool {
    let is_identity = matches!(name.as_bytes(), [b'x' | b'X', ..])
        && name
            .split_at_checked(IDENTITY_PREFIX.len())
            .is_some_and(|(prefix, _)| is_same_header(prefix, IDENTITY_PREFIX));
    is_identity || profile.removed_headers.has(name)
}

/// Reports whether a header of this name can change what is decided or answered, once all that is
/// removed has been: a request that waits keeps no other.
#[must_use]
pub fn is_decisive(profile: &Profile, name: &str) -> bool {
    name.starts_with(':')
        || DECISIVE.iter().chain(&OF_BODIES).any(|header| is_same_header(name, header))
        || profile.removed_headers.has(name)
}

/// Names of headers, found in whatever spelling.
#[derive(Clone, Debug, Default)]
pub struct HeaderNames {
    /// One bit for each length that a name has; few headers have one of these.
    lengths: u64,
    names: Vec<String>,
}

impl HeaderNames {
    /// Returns the names of headers that are for this proxy alone.
    #[must_use]
    pub fn removed(carriers: &[Carrier], method_overrides: &[String]) -> Self {
        let carriers = carriers.iter().filter_map(Carrier::header);
        let overrides =
            PATH_OVERRIDES.into_iter().chain(method_overrides.iter().map(String::as_str));
        let names: Vec<String> = carriers.chain(overrides).map(str::to_owned).collect();
        let lengths = names.iter().fold(0, |lengths, name| lengths | Self::bit(name));
        Self { lengths, names }
    }

    fn has(&self, name: &str) -> bool {
        self.lengths & Self::bit(name) != 0
            && self.names.iter().any(|other| is_same_header(name, other))
    }

    /// Returns the bit for the length of a name; very long ones share it with shorter ones.
    fn bit(name: &str) -> u64 {
        1 << (name.len() % 64)
    }
}

/// Returns the path and query that are forwarded; none if they are surely as they were sent.
fn forwarded_target(target: &Target<'_, '_>, rewrites: &[Rewrite]) -> Option<String> {
    let path = match &target.path {
        _ if target.is_token_in_path => "/",
        Ok(path) => &*path.text,
        Err(_) => target.raw_path,
    };
    if target.text.len() == target.raw_path.len() && rewrites.is_empty() {
        return (path != target.raw_path).then(|| path.to_owned());
    }
    if !target.is_token_in_query && rewrites.is_empty() && path == target.raw_path {
        return None;
    }
    let mut forwarded = path.to_owned();
    let kept = target.query.rewritten(rewrites);
    if !kept.is_empty() || target.query.text().is_empty() {
        forwarded.push('?');
        forwarded.push_str(&kept);
    }
    Some(forwarded)
}

/// Takes the parameters out of a query in which a token is, or could be to some reader. Returns whether
/// there is one.
pub(super) fn remove_tokens(profile: &Profile, traces: &Traces<'_>, query: &mut Query<'_>) -> bool {
    let carriers = || profile.carriers.iter().filter_map(Carrier::parameter);
    let hides_carrier = carriers().any(|name| query.hides(name));
    query.remove(|parameter| {
        carriers().any(|name| parameter.could_be(name))
            || (hides_carrier && carriers().any(|name| parameter.hides(name)))
            || traces.are_in(parameter.raw.as_bytes())
            || (parameter.raw.contains('+') && traces.are_in(&parameter.value))
    })
}

/// What the names of all identity headers start with.
const IDENTITY_PREFIX: &str = "x-latchkey-";

/// Headers by which a preflight is known, and the form of an answer.
const DECISIVE: [&str; 3] = ["accept", "access-control-request-method", "origin"];

/// Headers by which a body is read.
const OF_BODIES: [&str; 3] = ["content-encoding", "content-type", "content-length"];

/// Headers from which IIS and some PHP frameworks take the path.
const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];
