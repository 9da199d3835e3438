//! The service's own metrics, in Prometheus's text form.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Requests to the management API, by status.
    pub(crate) requests: Family<StatusLabel, Counter>,
    /// Deltas handed out.
    pub(crate) deltas: Counter,
    /// Pages of snapshots handed out.
    pub(crate) snapshot_pages: Counter,
    /// Calls of filters that report and ask for leases.
    pub(crate) lease_calls: Counter,
    /// Commits that kept them; several calls share one.
    pub(crate) lease_commits: Counter,
    /// Requests for a lease that were granted.
    pub(crate) leases_granted: Counter,
    /// Requests for a lease that were refused.
    pub(crate) leases_refused: Counter,
    /// Calls that filters reported and that cannot have been.
    pub(crate) calls_not_believed: Counter,
    /// Holders that were asked for what they had not spent.
    pub(crate) leases_recalled: Counter,
    open_polls: Gauge,
    revision: Gauge,
    writable: Gauge,
}

/// The status of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StatusLabel {
    pub(crate) status: u16,
}

/// A poll that is held open; counted until it is dropped.
pub(crate) struct OpenPoll(Gauge);

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("latchkey"),
            requests: Family::default(),
            deltas: Counter::default(),
            snapshot_pages: Counter::default(),
            lease_calls: Counter::default(),
            lease_commits: Counter::default(),
            leases_granted: Counter::default(),
            leases_refused: Counter::default(),
            calls_not_believed: Counter::default(),
            leases_recalled: Counter::default(),
            open_polls: Gauge::default(),
            revision: Gauge::default(),
            writable: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        let requests = metrics.requests.clone();
        registry.register("api_requests", "Requests to the management API", requests);
        let deltas = metrics.deltas.clone();
        registry.register("deltas", "Deltas handed out to filters", deltas);
        let pages = metrics.snapshot_pages.clone();
        registry.register("snapshot_pages", "Pages of snapshots handed out to filters", pages);
        for (name, help, counter) in [
            ("lease_calls", "Calls of filters for leases", &metrics.lease_calls),
            ("lease_commits", "Commits that kept them", &metrics.lease_commits),
            ("leases_granted", "Leases granted", &metrics.leases_granted),
            ("leases_refused", "Leases refused", &metrics.leases_refused),
            ("leases_recalled", "Leases asked back", &metrics.leases_recalled),
            (
                "calls_not_believed",
                "Calls that were reported and cannot have been",
                &metrics.calls_not_believed,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let polls = metrics.open_polls.clone();
        registry.register("open_polls", "Polls of filters that wait for a change", polls);
        let revision = metrics.revision.clone();
        registry.register("revision", "Number of the last change", revision);
        let writable = metrics.writable.clone();
        registry.register("store_writable", "1 if writes reach the disk, else 0", writable);
        metrics
    }

    pub(crate) fn open_poll(&self) -> OpenPoll {
        self.open_polls.inc();
        OpenPoll(self.open_polls.clone())
    }

    /// Returns all metrics as text.
    pub(crate) fn text(&self, revision: u64, is_writable: bool) -> String {
        self.writable.set(i64::from(is_writable));
        self.revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing to a text does not fail; were it to, what is there so far is better than nothing.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Drop for OpenPoll {
    fn drop(&mut self) {
        self.0.dec();
    }
}
