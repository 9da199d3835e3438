//! Polls: how a filter asks for the next update.
//!
//! `GET /edge/v1/updates` with the members of [`Poll`] as query parameters and the edge credential
//! as `Authorization: Bearer`. The answer is 200 with an [`crate::Update`], or 204 when nothing
//! changed within `wait_ms`; both carry [`ORIGIN_HEADER`]. All VMs of a proxy have one poll: a later
//! one of the same `instance`, `profile` and `worker` ends the one that is open, with 204.

use serde::{Deserialize, Serialize};

use crate::Revision;

/// Path of the poll on the control plane.
pub const PATH: &str = "/edge/v1/updates";

/// Response header by which a filter tells the control plane's answers from a proxy's own.
pub const ORIGIN_HEADER: &str = "x-latchkey-control-plane";

/// Longest time that the control plane holds a poll open, in milliseconds.
///
/// Below the 30 s and 60 s after which load balancers commonly cut a silent connection.
pub const MAX_WAIT_MS: u64 = 25_000;

/// What a filter says of itself when it asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Name of the API profile whose keys it wants.
    pub profile: String,
    /// Name of the proxy: one Envoy process.
    pub instance: String,
    /// Name of what its VMs share, where one process has several of a profile.
    pub worker: String,
    /// Names of the VMs that use what it holds, with commas between them; absent, it is one, of the
    /// name `worker`. By these they hold leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<String>,
    /// What it holds: asks for a delta from there. Absent, it asks for a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Revision>,
    /// What is in use in all of its VMs, where that is not `after`: the empty text is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// With `cursor`, the revision of the snapshot it is taking in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Revision>,
    /// The page of that snapshot, as the one before says ([`crate::Update::next`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// How long the control plane may wait for a change, in milliseconds.
    #[serde(default)]
    pub wait_ms: u64,
}

impl Poll {
    /// Returns the path and query of the poll.
    ///
    /// The names in it are percent-encoded, so that no name can add a parameter.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        let mut path = format!(
            "{PATH}?profile={}&instance={}&worker={}&wait_ms={}",
            encoded(&self.profile),
            encoded(&self.instance),
            encoded(&self.worker),
            self.wait_ms
        );
        if let Some(workers) = &self.workers {
            path.push_str(&format!("&workers={}", encoded(workers)));
        }
        if let Some(after) = self.after {
            path.push_str(&format!("&after={after}"));
        }
        if let Some(applied) = &self.applied {
            path.push_str(&format!("&applied={}", encoded(applied)));
        }
        if let Some(snapshot) = self.snapshot {
            path.push_str(&format!("&snapshot={snapshot}"));
        }
        if let Some(cursor) = &self.cursor {
            path.push_str(&format!("&cursor={}", encoded(cursor)));
        }
        path
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986, section 2.3.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_has_this_form_on_the_wire() {
        let mut poll = Poll {
            profile: "flotiq".to_owned(),
            instance: "edge 1&x=y".to_owned(),
            worker: "w1".to_owned(),
            workers: Some("a,b".to_owned()),
            after: Some(Revision { number: 3, mark: 5 }),
            applied: Some(String::new()),
            snapshot: None,
            cursor: None,
            wait_ms: 1000,
        };
        assert_eq!(
            poll.path_and_query(),
            "/edge/v1/updates?profile=flotiq&instance=edge%201%26x%3Dy&worker=w1&wait_ms=1000\
             &workers=a%2Cb&after=3-0000000000000005&applied="
        );
        (poll.after, poll.applied) = (None, None);
        poll.snapshot = Some(Revision { number: 3, mark: 5 });
        poll.cursor = Some("t 1".to_owned());
        assert!(poll.path_and_query().ends_with("&snapshot=3-0000000000000005&cursor=t%201"));
    }
}
