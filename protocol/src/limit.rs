//! Limits: how much an account may use.

use serde::{Deserialize, Serialize};

/// An amount over a window of `buckets` × `bucket_seconds`, the current bucket included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Name of the limit, unique in its plan; appears in rate-limit headers.
    pub name: String,
    /// Calls admitted in a window.
    pub amount: u64,
    /// Length of a bucket, in seconds; buckets are aligned to the epoch (UTC).
    pub bucket_seconds: u32,
    /// Number of buckets in the window.
    pub buckets: u32,
    /// Whose calls count, where the plan tells callers apart; absent, everyone's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Of what is told to filters: another number where the subject's usage has begun anew, as that of an
    /// account that was removed and made again. Limits that differ in it alone are others, so what was
    /// leased or refused by the one says nothing of the other. 0 and absent in plans and keys.
    #[serde(default, skip_serializing_if = "is_first")]
    #[cfg_attr(feature = "schema", schema(ignore))]
    pub generation: u64,
}

const fn is_first(generation: &u64) -> bool {
    *generation == 0
}

/// As whom a call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// With no token; counted per client address.
    Anonymous,
    /// With an API key.
    Key,
    /// With an OAuth access token.
    Oauth,
}
