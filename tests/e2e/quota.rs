//! Limits hold over all proxies and workers, to the call, whatever crashes.

use std::time::Duration;

use latchkey_tests::load::{Call, admitted, admitted_before_first_refusal};
use latchkey_tests::{Envoy, IssuedKey, Load, Stack, wait};
use serde_json::{Value, json};

use crate::report;

const POSTS: &str = "/api/v1/content/posts";

/// What a used up quota is answered with by the Flotiq profile.
const REFUSED: u16 = 403;

/// Connections of the clients that keep trying.
const CLIENTS: usize = 64;

/// Two Envoys with two workers each, and an account with a limit.
struct Proxies {
    stack: Stack,
    other: Envoy,
    key: IssuedKey,
}

impl Proxies {
    async fn start(limits: &Value) -> Self {
        let stack = Stack::start(&["flotiq"]).await.unwrap();
        let other = stack.start_another_envoy().await.unwrap();
        let key = stack.control_plane.create_limited_account("acme", limits).await.unwrap();
        stack.control_plane.wait_until_in_force(6).await.unwrap();
        Self { stack, other, key }
    }

    fn load(&self, pause: Duration) -> Load {
        let gateways = [&self.stack.envoy, &self.other];
        let url =
            |envoy: &&Envoy| format!("http://127.0.0.1:{}{POSTS}", envoy.options.gateways[0].1);
        let urls: Vec<String> = gateways.iter().map(url).collect();
        Load::start(&urls, &self.key.token, CLIENTS, pause)
    }

    async fn used(&self) -> u64 {
        self.stack.control_plane.used("acme").await.unwrap()["calls"]
    }

    /// Waits until what was reported is what reached the upstream.
    async fn wait_until_all_is_counted(&self) {
        let count = self.stack.upstream.count() as u64;
        self.stack.control_plane.wait_until_used("acme", "calls", count).await.unwrap();
    }
}

fn daily(amount: u64) -> Value {
    json!([{"name": "calls", "amount": amount, "bucket_seconds": 86_400, "buckets": 30}])
}

fn statuses(calls: &[Call]) -> Vec<u16> {
    let mut statuses: Vec<u16> = calls.iter().map(|call| call.status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

/// Of a limit of 1,000 calls, at least 990 are admitted before the first refusal, and exactly 1,000
/// after five seconds of trying.
#[tokio::test(flavor = "multi_thread")]
async fn limit_holds_to_the_call_over_proxies_and_workers() {
    let proxies = Proxies::start(&daily(1000)).await;
    let calls = proxies.load(Duration::ZERO).stop_after(Duration::from_secs(5)).await.unwrap();
    let before = admitted_before_first_refusal(&calls, REFUSED);
    report(&format!("admitted before the first refusal: {before}"));
    assert!(before >= 990, "{before}");
    assert_eq!((admitted(&calls), proxies.stack.upstream.count()), (1000, 1000));
    assert_eq!(statuses(&calls), [200, REFUSED]);
    proxies.wait_until_all_is_counted().await;
}

/// The same where the control plane crashes ten times at any moment: some requests get 503 while it
/// is away, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn limit_holds_while_the_control_plane_crashes() {
    let mut proxies = Proxies::start(&daily(1000)).await;
    // So that the calls last for as long as the crashes.
    let load = proxies.load(Duration::from_millis(300));
    for crash in 0..10_u64 {
        wait::pause(Duration::from_millis(crash * 7919 % 400)).await;
        proxies.stack.control_plane.kill().unwrap();
        wait::pause(Duration::from_millis(crash * 4057 % 150)).await;
        proxies.stack.control_plane.run().await.unwrap();
    }
    let before = proxies.stack.upstream.count();
    let calls = load.stop_after(Duration::from_secs(8)).await.unwrap();
    let first = admitted_before_first_refusal(&calls, REFUSED);
    report(&format!("admitted during the crashes: {before}, before the first refusal: {first}"));
    assert!(before < 1000, "all was over before the last crash");
    assert!(first >= 990, "{first}");
    assert_eq!((admitted(&calls), proxies.stack.upstream.count()), (1000, 1000));
    proxies.wait_until_all_is_counted().await;
}

/// What a crashed Envoy had leased counts as used: never more than the limit is admitted.
#[tokio::test(flavor = "multi_thread")]
async fn limit_holds_while_an_envoy_crashes() {
    let mut proxies = Proxies::start(&daily(1000)).await;
    let load = proxies.load(Duration::from_millis(60));
    wait::until("some calls", wait::LONG, async || {
        (proxies.stack.upstream.count() >= 400).then_some(())
    })
    .await
    .unwrap();
    proxies.other.kill().unwrap();
    let calls = load.stop_after(Duration::from_secs(6)).await.unwrap();
    let reached = proxies.stack.upstream.count();
    report(&format!("admitted: {reached}, lost with the crashed Envoy: {}", 1000 - reached));
    assert!((900..=1000).contains(&reached), "{reached}");
    assert!(calls.iter().any(|call| call.status == REFUSED));
    assert_eq!(proxies.used().await, 1000, "never less than was admitted");
}

/// A window of ten seconds against the model: a call counts in its second and the nine after it.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_window_admits_what_the_model_admits() {
    const AMOUNT: u64 = 200;
    let limits = json!([{"name": "calls", "amount": AMOUNT, "bucket_seconds": 1, "buckets": 10}]);
    let proxies = Proxies::start(&limits).await;
    let load = proxies.load(Duration::from_millis(200));
    let calls = load.stop_after(Duration::from_secs(25)).await.unwrap();

    let admitted: Vec<&Call> = calls.iter().filter(|call| call.status == 200).collect();
    let first = admitted.first().unwrap().sent_ms / 1000;
    let last = calls.last().unwrap().answered_ms / 1000;
    for end in first..=last {
        // Of a call at an edge it is not known on which side it was counted.
        let within = |call: &&&Call| {
            call.sent_ms >= (end.saturating_sub(9)) * 1000 && call.answered_ms < (end + 1) * 1000
        };
        let count = admitted.iter().filter(within).count() as u64;
        assert!(count <= AMOUNT, "{count} calls in the ten seconds until {end}");
    }
    // What leaves the window comes free: three windows begin within 25 seconds.
    assert!(admitted.len() as u64 >= 2 * AMOUNT, "{}", admitted.len());
    for refused in calls.iter().filter(|call| call.status == REFUSED) {
        let retry_after_ms = refused.retry_after.unwrap() * 1000;
        // The oldest call that counts leaves at the end of a second; it is never announced too early.
        let model = |at_ms: u64| {
            let oldest = (at_ms / 1000).saturating_sub(9) * 1000;
            admitted
                .iter()
                .filter(|c| c.answered_ms >= oldest && c.sent_ms <= refused.sent_ms)
                .count()
        };
        let again = model(refused.answered_ms + retry_after_ms) as u64;
        assert!(again < AMOUNT, "told to come back when {again} calls still count");
    }
}
