//! Leases: shares of what limits leave, which a holder spends by itself.
//!
//! `POST /edge/v1/leases` with a [`LeaseCall`] and the edge credential as `Authorization: Bearer`.
//! The answer is 200 with a [`LeaseAnswer`]. A holder is one Wasm VM; it makes one call at a time and
//! numbers them. A call whose answer was lost is made again with the same number and the same
//! content: nothing is counted and nothing granted twice. Where others wait for what a holder has not
//! spent, it is asked to give it back by the answer to its proxy's poll ([`crate::Update::recalls`]).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Identity, Limit, Right};

/// Path of the call on the control plane.
pub const PATH: &str = "/edge/v1/leases";

/// Most entries of each list of a call; what is more waits for the next one.
pub const MAX_ENTRIES: usize = 1_000;

/// How far ahead of its clock the control plane grants leases, in milliseconds: a holder asks for the
/// next bucket's before the current one ends.
pub const MAX_AHEAD_MS: u64 = 1_500;

/// Whose calls are counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// All calls of an account, or those made with one kind of credential.
    Account {
        /// Id of the account.
        account: Arc<str>,
        /// As whom the calls are made, where the limits tell callers apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<Identity>,
    },
    /// The calls made with one key, which has limits of its own.
    Key {
        /// Id of the account.
        account: Arc<str>,
        /// Id of the key.
        key: Arc<str>,
    },
    /// Calls without a token from one address; of IPv6, from one network of 64 bits.
    Address {
        /// Name of the API profile.
        profile: Arc<str>,
        /// The address, or the first one of the network.
        address: IpAddr,
    },
}

impl Subject {
    /// Reports whether a limit of the subject's plan or key counts the subject's calls.
    #[must_use]
    pub fn is_counted_by(&self, limit: &Limit) -> bool {
        match self {
            Self::Account { identity, .. } => limit.identity == *identity,
            Self::Key { .. } => true,
            Self::Address { .. } => limit.identity == Some(Identity::Anonymous),
        }
    }
}

/// What a holder reports and asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCall {
    /// Name of the proxy: one Envoy process.
    pub instance: String,
    /// Name of the Wasm VM within it; with the instance, the holder.
    pub worker: String,
    /// Number of the call, from 1; higher than that of every call before.
    pub sequence: u64,
    /// What was spent of leases.
    #[serde(default)]
    pub reports: Vec<LeaseReport>,
    /// What was spent without a lease while the control plane was away.
    #[serde(default)]
    pub credits: Vec<Credit>,
    /// What each key was used.
    #[serde(default)]
    pub usage: Vec<KeyUsage>,
    /// Leases that are wanted; one per subject.
    #[serde(default)]
    pub requests: Vec<LeaseRequest>,
}

/// What was spent of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReport {
    /// Number of the lease.
    pub lease: u64,
    /// Calls charged to it since it was granted.
    pub spent: u64,
    /// Whether no more will be: the rest goes back.
    pub is_closed: bool,
}

/// Calls admitted without a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// Whose calls.
    pub subject: Subject,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// How many.
    pub count: u64,
}

/// Calls made with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsage {
    /// Id of the account.
    pub account: Arc<str>,
    /// Id of the key.
    pub key: Arc<str>,
    /// The last of them, in milliseconds since the epoch; all are of the same hour.
    pub last_used_at_ms: u64,
    /// How many.
    pub count: u64,
    /// Those of the key's rights without which some of them would have been refused; absent where the
    /// holder does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<BTreeSet<Right>>,
    /// When the token ends with which they were made, in milliseconds since the epoch: that tells a token
    /// in its grace from the one that came after it. Absent if it does not end, or the holder does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_ends_at_ms: Option<u64>,
}

/// A wish for a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// Whose calls.
    pub subject: Subject,
    /// How many would be of use, those that wait included.
    pub amount: u64,
    /// How many calls wait for it and will be made at once.
    #[serde(default)]
    pub waiting: u64,
    /// From when on, in milliseconds since the epoch; at once if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
}

/// What the control plane makes of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// Number of the holder's last call. Where it is higher than this call's, this one was not
    /// looked at.
    pub sequence: u64,
    /// The control plane's time, in milliseconds since the epoch.
    pub now_ms: u64,
    /// One per request, in their order.
    pub outcomes: Vec<LeaseOutcome>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseOutcome {
    /// There is a lease.
    Granted(Grant),
    /// There is nothing to lease.
    Refused(Refusal),
}

/// A lease: so many calls may be admitted, from one moment until another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its number; 0 where the subject has no limits and nothing is to be reported.
    pub lease: u64,
    /// Calls that may be admitted.
    pub amount: u64,
    /// First moment at which it may be spent, in milliseconds since the epoch.
    pub starts_at_ms: u64,
    /// First moment at which it may be spent no longer.
    pub expires_at_ms: u64,
    /// What the limits leave, this lease taken.
    pub limits: Vec<LimitState>,
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When to ask again, in milliseconds since the epoch; before that, the answer is the same.
    pub ask_again_at_ms: u64,
    /// First moment at which a call will pass, in milliseconds since the epoch; absent if none will.
    pub available_at_ms: Option<u64>,
    /// Whether others hold leases that may come back unspent before that.
    pub is_contested: bool,
    /// What the limits leave.
    pub limits: Vec<LimitState>,
}

/// A limit and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// The limit.
    pub limit: Limit,
    /// Calls that are neither made nor leased.
    pub remaining: u64,
    /// When something that counts leaves the window, in milliseconds since the epoch.
    pub resets_at_ms: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn call_has_this_form_on_the_wire() {
        let acme = Subject::Account { account: "acme".into(), identity: None };
        let call = LeaseCall {
            instance: "edge-1".to_owned(),
            worker: "w1".to_owned(),
            sequence: 7,
            reports: vec![LeaseReport { lease: 5, spent: 3, is_closed: true }],
            credits: vec![Credit { subject: acme.clone(), at_ms: 1000, count: 2 }],
            usage: vec![KeyUsage {
                account: "acme".into(),
                key: "key_1".into(),
                last_used_at_ms: 1500,
                count: 5,
                rights: Some([Right::new("posts", "read")].into()),
                token_ends_at_ms: Some(9000),
            }],
            requests: vec![
                LeaseRequest { subject: acme, amount: 10, waiting: 2, at_ms: None },
                LeaseRequest {
                    subject: Subject::Address {
                        profile: "fltr".into(),
                        address: IpAddr::from([192, 0, 2, 1]),
                    },
                    amount: 1,
                    waiting: 0,
                    at_ms: Some(2000),
                },
            ],
        };
        let wire = json!({
            "instance": "edge-1", "worker": "w1", "sequence": 7,
            "reports": [{"lease": 5, "spent": 3, "is_closed": true}],
            "credits": [{"subject": {"account": {"account": "acme"}}, "at_ms": 1000, "count": 2}],
            "usage": [{"account": "acme", "key": "key_1", "last_used_at_ms": 1500, "count": 5,
                       "rights": ["posts:read"], "token_ends_at_ms": 9000}],
            "requests": [
                {"subject": {"account": {"account": "acme"}}, "amount": 10, "waiting": 2},
                {"subject": {"address": {"profile": "fltr", "address": "192.0.2.1"}}, "amount": 1,
                 "waiting": 0, "at_ms": 2000},
            ],
        });
        assert_eq!(serde_json::to_value(&call).unwrap(), wire);
        assert_eq!(serde_json::from_value::<LeaseCall>(wire).unwrap(), call);
    }

    #[test]
    fn answer_has_this_form_on_the_wire() {
        let limit = Limit {
            name: "hourly".to_owned(),
            amount: 100,
            bucket_seconds: 3600,
            buckets: 1,
            identity: Some(Identity::Key),
            generation: 0,
        };
        let limits = vec![LimitState { limit, remaining: 0, resets_at_ms: 9 }];
        let answer = LeaseAnswer {
            sequence: 7,
            now_ms: 1,
            outcomes: vec![
                LeaseOutcome::Granted(Grant {
                    lease: 6,
                    amount: 4,
                    starts_at_ms: 1,
                    expires_at_ms: 8,
                    limits: vec![],
                }),
                LeaseOutcome::Refused(Refusal {
                    ask_again_at_ms: 9,
                    available_at_ms: Some(9),
                    is_contested: false,
                    limits,
                }),
            ],
        };
        let wire = json!({"sequence": 7, "now_ms": 1, "outcomes": [
            {"granted": {"lease": 6, "amount": 4, "starts_at_ms": 1, "expires_at_ms": 8, "limits": []}},
            {"refused": {"ask_again_at_ms": 9, "available_at_ms": 9, "is_contested": false, "limits": [
                {"limit": {"name": "hourly", "amount": 100, "bucket_seconds": 3600, "buckets": 1,
                           "identity": "key"},
                 "remaining": 0, "resets_at_ms": 9}]}},
        ]});
        assert_eq!(serde_json::to_value(&answer).unwrap(), wire);
        assert_eq!(serde_json::from_value::<LeaseAnswer>(wire).unwrap(), answer);
    }
}
