//! Counters in Envoy's statistics.

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::authorize::{Permit, Rejection};

/// The filter's metrics, defined once per VM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metrics {
    permitted: Option<u32>,
    anonymous: Option<u32>,
    bad_request: Option<u32>,
    unauthenticated: Option<u32>,
    forbidden: Option<u32>,
    over_limit: Option<u32>,
    unavailable: Option<u32>,
    shadowed: Option<u32>,
    waited: Option<u32>,
    on_credit: Option<u32>,
    lease_calls: Option<u32>,
    lease_failures: Option<u32>,
    updates: Option<u32>,
    poll_failures: Option<u32>,
    revision: Option<u32>,
}

impl Metrics {
    pub(super) fn define() -> Self {
        let counter = |name: &str| hostcalls::define_metric(MetricType::Counter, name).ok();
        Self {
            permitted: counter("latchkey_requests_permitted"),
            anonymous: counter("latchkey_requests_anonymous"),
            bad_request: counter("latchkey_requests_bad_request"),
            unauthenticated: counter("latchkey_requests_unauthenticated"),
            forbidden: counter("latchkey_requests_forbidden"),
            over_limit: counter("latchkey_requests_over_limit"),
            unavailable: counter("latchkey_requests_unavailable"),
            shadowed: counter("latchkey_requests_shadowed"),
            waited: counter("latchkey_requests_waited"),
            on_credit: counter("latchkey_requests_on_credit"),
            lease_calls: counter("latchkey_lease_calls"),
            lease_failures: counter("latchkey_lease_failures"),
            updates: counter("latchkey_updates_applied"),
            poll_failures: counter("latchkey_poll_failures"),
            revision: hostcalls::define_metric(MetricType::Gauge, "latchkey_revision").ok(),
        }
    }

    pub(super) fn count_outcome(&self, outcome: &Result<Permit, Rejection>) {
        increment(match outcome {
            Ok(Permit::Anonymous) => self.anonymous,
            Ok(Permit::Key) => self.permitted,
            Err(
                Rejection::BodyPending
                | Rejection::BodyTooLarge
                | Rejection::Graphql(_)
                | Rejection::MethodOverride(_)
                | Rejection::MisplacedToken
                | Rejection::Parameter(_)
                | Rejection::Path(_)
                | Rejection::UnsupportedBody(_),
            ) => self.bad_request,
            Err(
                Rejection::ExpiredKey
                | Rejection::MissingToken
                | Rejection::UnknownToken
                | Rejection::UnusableToken(_),
            ) => self.unauthenticated,
            Err(Rejection::AddressNotAllowed | Rejection::MissingRight(_)) => self.forbidden,
            Err(Rejection::LimitReached { .. } | Rejection::TooManyPreflights { .. }) => {
                self.over_limit
            }
            Err(
                Rejection::BodyUnavailable
                | Rejection::NoRoom
                | Rejection::NotReady
                | Rejection::Unreachable,
            ) => self.unavailable,
        });
    }

    pub(super) fn count_update(&self, revision: u64) {
        increment(self.updates);
        if let Some(id) = self.revision {
            let _ = hostcalls::record_metric(id, revision);
        }
    }

    /// Counts a request that passes for want of enforcement only.
    pub(super) fn count_shadowed(&self) {
        increment(self.shadowed);
    }

    /// Counts a request that waits for a lease.
    pub(super) fn count_wait(&self) {
        increment(self.waited);
    }

    pub(super) fn count_credit(&self) {
        increment(self.on_credit);
    }

    pub(super) fn count_lease_call(&self) {
        increment(self.lease_calls);
    }

    pub(super) fn count_lease_failure(&self) {
        increment(self.lease_failures);
    }

    pub(super) fn count_poll_failure(&self) {
        increment(self.poll_failures);
    }
}

/// Statistics are not worth a request: what the host refuses to count is not counted.
fn increment(id: Option<u32>) {
    if let Some(id) = id {
        let _ = hostcalls::increment_metric(id, 1);
    }
}
