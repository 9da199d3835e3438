//! What changes in the answers of the API: which caches may keep them, and what pages may read of them.

use crate::authorize::{Headers, Judgement};
use crate::profile::Profile;

/// Changes to the headers of an answer that comes from upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseEdits {
    /// Headers to add, beside others of the name.
    pub add: Vec<(&'static str, String)>,
    /// Headers to set.
    pub set: Vec<(&'static str, String)>,
    /// Whether no shared cache may keep it, whatever the upstream says.
    pub is_private: bool,
}

/// Returns the changes to the answer of a request that was permitted, with its rate-limit headers.
///
/// What a key gets is not what another one gets, so a cache must tell them apart (RFC 9111, section
/// 4.1). With a URL that had a token in it, or of a request that was narrowed to what its key may
/// read, it is not kept in shared ones at all (section 5.2.2.7).
#[must_use]
pub fn edits(
    profile: &Profile,
    judgement: &Judgement<'_>,
    headers: Headers<'_>,
    rates: Vec<(&'static str, String)>,
) -> ResponseEdits {
    let mut edits = ResponseEdits {
        add: Vec::new(),
        set: rates,
        is_private: judgement.token_in_query || judgement.is_narrowed,
    };
    if judgement.holder.is_some() {
        edits.add.push(("vary", profile.vary.clone()));
    }
    // A page may read other headers than a few only where it is told so (Fetch standard, section 3.3.3).
    if !edits.set.is_empty() && headers.named("origin").next().is_some() {
        let names: Vec<&str> = edits.set.iter().map(|(name, _)| *name).collect();
        edits.add.push(("access-control-expose-headers", names.join(", ")));
    }
    if judgement.token_in_query {
        edits.set.push(("referrer-policy", "no-referrer".to_owned()));
    }
    edits
}

/// Returns what `Cache-Control` has to say of an answer that is private; none if what the upstream's
/// headers say already is stricter.
#[must_use]
pub fn private_cache_control(headers: Headers<'_>) -> Option<&'static str> {
    let says = |directive: &[u8]| {
        let mut parts =
            headers.named("cache-control").flat_map(|value| value.split(|&b| b == b','));
        parts.any(|part| part.trim_ascii().eq_ignore_ascii_case(directive))
    };
    if says(b"no-store") {
        None
    } else if says(b"no-cache") || says(b"must-revalidate") || says(b"max-age=0") {
        Some("private, no-cache")
    } else {
        Some("private")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stricter_rule_of_the_upstream_stays() {
        for (said, becomes) in [
            (&[][..], Some("private")),
            (&["public, max-age=60"], Some("private")),
            (&["no-cache"], Some("private, no-cache")),
            (&["max-age=0, must-revalidate"], Some("private, no-cache")),
            (&["no-store"], None),
            (&["max-age=0, No-Store"], None),
            (&["public", "no-store"], None),
        ] {
            let headers: Vec<_> =
                said.iter().map(|value| ("cache-control", value.as_bytes())).collect();
            assert_eq!(private_cache_control(Headers(&headers)), becomes, "{said:?}");
        }
    }
}
