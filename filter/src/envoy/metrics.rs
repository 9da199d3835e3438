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
    unavailable: Option<u32>,
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
            unavailable: counter("latchkey_requests_unavailable"),
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
                Rejection::MethodOverride(_)
                | Rejection::MisplacedToken
                | Rejection::Parameter(_)
                | Rejection::Path(_),
            ) => self.bad_request,
            Err(
                Rejection::ExpiredKey
                | Rejection::MissingToken
                | Rejection::UnknownToken
                | Rejection::UnusableToken(_),
            ) => self.unauthenticated,
            Err(Rejection::AddressNotAllowed | Rejection::MissingRight { .. }) => self.forbidden,
            Err(Rejection::NotReady) => self.unavailable,
        });
    }

    pub(super) fn count_update(&self, revision: u64) {
        increment(self.updates);
        if let Some(id) = self.revision {
            let _ = hostcalls::record_metric(id, revision);
        }
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
