//! How a request changes before it is forwarded, logged or refused.

use std::sync::Arc;

use super::query::Parameter;
use super::token::Found;
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
    /// headers from which some frameworks take another path than the request's. Names count with
    /// `_` for `-` too, since CGI-like upstreams cannot tell them apart.
    pub(super) fn stripping(
        profile: &Profile,
        headers: Headers<'_>,
        target: &Target<'_, '_>,
        found: &Found<'_>,
    ) -> Self {
        let mut remove: Vec<String> = Vec::new();
        for (name, value) in headers.0 {
            let goes =
                !name.starts_with(':') && (is_never_forwarded(profile, name) || found.is_in(value));
            if goes && !remove.iter().any(|known| known == name) {
                remove.push((*name).to_owned());
            }
        }
        let mut edits = Self { remove, path: None, set: Vec::new() };
        edits.forward(profile, target, found, &[]);
        edits
    }

    /// Sets the path that is forwarded, with changes to its query.
    pub(super) fn forward(
        &mut self,
        profile: &Profile,
        target: &Target<'_, '_>,
        found: &Found<'_>,
        rewrites: &[Rewrite],
    ) {
        let forwarded = forwarded_target(profile, target, found, rewrites);
        self.path = forwarded.filter(|forwarded| forwarded != target.text);
    }

    /// Adds the identity headers.
    pub(super) fn identify(&mut self, holder: &Holder) {
        let Holder { account, key } = holder;
        self.set = vec![(ACCOUNT_HEADER, Arc::clone(account)), (KEY_HEADER, Arc::clone(key))];
    }
}

/// Reports whether two header names are the same to an upstream that reads `_` as `-`.
pub(super) fn same_name(name: &str, other: &str) -> bool {
    name.len() == other.len()
        && name.bytes().zip(other.bytes()).all(|(a, b)| a == b || (a == b'_' && b == b'-'))
}

/// Reports whether a header of this name never reaches the upstream, whatever its value.
pub(crate) fn is_never_forwarded(profile: &Profile, name: &str) -> bool {
    let is_carrier = profile.carriers.iter().any(|carrier| match carrier {
        Carrier::Bearer(header) | Carrier::Header(header) => same_name(name, header),
        Carrier::Query(_) => false,
    });
    let is_identity = name
        .split_at_checked(IDENTITY_PREFIX.len())
        .is_some_and(|(prefix, _)| same_name(prefix, IDENTITY_PREFIX));
    is_carrier
        || is_identity
        || PATH_OVERRIDES.iter().any(|header| same_name(name, header))
        || profile.method_override.headers.iter().any(|header| same_name(name, header))
}

/// Returns the path and query that are forwarded; none if they are surely as they were sent.
fn forwarded_target(
    profile: &Profile,
    target: &Target<'_, '_>,
    found: &Found<'_>,
    rewrites: &[Rewrite],
) -> Option<String> {
    let path = match &target.path {
        _ if target.is_token_in_path => "/",
        Ok(path) => &*path.text,
        Err(_) => target.raw_path,
    };
    if target.text.len() == target.raw_path.len() && rewrites.is_empty() {
        return (path != target.raw_path).then(|| path.to_owned());
    }
    let carriers = || {
        profile.carriers.iter().filter_map(|carrier| match carrier {
            Carrier::Bearer(_) | Carrier::Header(_) => None,
            Carrier::Query(name) => Some(name),
        })
    };
    let is_removed = |parameter: &Parameter<'_>| {
        carriers().any(|name| parameter.is(name))
            || found.is_in(&parameter.value)
            || found.is_in(parameter.raw.as_bytes())
    };
    let stays = !target.query.parameters().iter().any(is_removed);
    if stays && rewrites.is_empty() && path == target.raw_path {
        return None;
    }
    let mut forwarded = path.to_owned();
    let kept = target.query.rewritten(is_removed, rewrites);
    if !kept.is_empty() || target.query.text().is_empty() {
        forwarded.push('?');
        forwarded.push_str(&kept);
    }
    Some(forwarded)
}

/// What the names of all identity headers start with.
const IDENTITY_PREFIX: &str = "x-latchkey-";

/// Headers from which IIS and some PHP frameworks take the path.
const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];
