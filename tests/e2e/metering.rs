//! Counting where something is away or changes, and what it costs in calls to the control plane.

use std::time::{Duration, Instant};

use latchkey_tests::http::{pooled_client, send_pooled};
use latchkey_tests::load::admitted;
use latchkey_tests::stack::Folder;
use latchkey_tests::{IssuedKey, Load, Stack, wait};
use serde_json::{Value, json};

use crate::report;

const POSTS: &str = "/api/v1/content/posts";

/// The promise: no request waits longer for the control plane, with room for a busy machine.
const LONGEST_WAIT: Duration = Duration::from_millis(250 + 250);

fn daily(amount: u64) -> Value {
    json!([{"name": "calls", "amount": amount, "bucket_seconds": 86_400, "buckets": 30}])
}

async fn start(when_unreachable: &str) -> (Stack, IssuedKey) {
    let options = ["--when-unreachable", when_unreachable].map(str::to_owned).to_vec();
    let stack = Stack::start_with(&["flotiq"], |envoy| envoy.config_options = options).await;
    let stack = stack.unwrap();
    let limits = daily(1_000_000);
    let key = stack.control_plane.create_limited_account("acme", &limits).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    (stack, key)
}

fn url(stack: &Stack) -> String {
    format!("http://127.0.0.1:{}{POSTS}", stack.port("flotiq").unwrap())
}

/// Waits until what was counted is what reached the upstream.
async fn wait_until_all_is_counted(stack: &Stack) {
    let count = stack.upstream.count() as u64;
    stack.control_plane.wait_until_used("acme", "calls", count).await.unwrap();
}

/// Leases that are held are spent; then it is 503 with `Retry-After`, and soon.
#[tokio::test(flavor = "multi_thread")]
async fn outage_denies_calls_once_leases_are_spent() {
    let (mut stack, key) = start("deny").await;
    let client = pooled_client();
    let url = url(&stack);
    let headers = [("x-auth-token", key.token.as_str())];
    let get = async || {
        let begin = Instant::now();
        let answer = send_pooled(&client, "GET", &url, &headers, "").await.unwrap();
        (answer, begin.elapsed())
    };
    for _ in 0..20 {
        assert_eq!(get().await.0.status, 200);
    }
    let spent = stack.upstream.count();
    stack.control_plane.kill().unwrap();
    let mut on_leases = 0;
    let mut longest = Duration::ZERO;
    let mut denied = 0;
    while denied < 100 {
        let (answer, waited) = get().await;
        longest = longest.max(waited);
        match answer.status {
            200 => on_leases += 1,
            503 => {
                assert_eq!(answer.header("retry-after"), "1");
                assert_eq!(answer.json()["message"], "Service unavailable");
                denied += 1;
            }
            status => panic!("{status}"),
        }
    }
    report(&format!("{on_leases} calls on leases, longest wait {longest:?}"));
    assert!(on_leases > 0, "a lease was held");
    assert!(longest < LONGEST_WAIT, "{longest:?}");
    assert_eq!(stack.upstream.count(), spent + on_leases);

    stack.control_plane.run().await.unwrap();
    wait::until("calls that are admitted again", wait::LONG, async || {
        (get().await.0.status == 200).then_some(())
    })
    .await
    .unwrap();
    wait_until_all_is_counted(&stack).await;
}

/// Calls are admitted on credit, and reported when the control plane is back.
#[tokio::test(flavor = "multi_thread")]
async fn outage_allows_calls_on_credit_if_so_configured() {
    let (mut stack, key) = start("allow").await;
    let load = Load::start(&[url(&stack)], &key.token, 8, Duration::from_millis(5));
    wait::pause(Duration::from_millis(300)).await;
    stack.control_plane.kill().unwrap();
    wait::pause(Duration::from_secs(5)).await;
    let during = stack.upstream.count();
    stack.control_plane.run().await.unwrap();
    let calls = load.stop_after(Duration::from_secs(1)).await.unwrap();
    assert_eq!(admitted(&calls), calls.len(), "all are admitted");
    assert!(during > 500, "{during}");
    let on_credit = stack.envoy.statistic("wasmcustom.latchkey_requests_on_credit").await.unwrap();
    assert!(on_credit > 100, "{on_credit}");
    wait_until_all_is_counted(&stack).await;
    let usage =
        stack.control_plane.call("GET", "/accounts/acme/usage", &Value::Null).await.unwrap();
    assert_eq!(usage["keys"][0]["used"].as_u64().unwrap(), stack.upstream.count() as u64);
}

/// A change of the filter's configuration under load loses no call and no report.
#[tokio::test(flavor = "multi_thread")]
async fn configuration_update_loses_no_report() {
    let watched = Folder::new().unwrap();
    let file = watched.path().join("listeners.yaml");
    let stack = Stack::start_with(&["flotiq"], |envoy| envoy.listeners_file = Some(file)).await;
    let stack = stack.unwrap();
    let limits = daily(1_000_000);
    let key = stack.control_plane.create_limited_account("acme", &limits).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    let load = Load::start(&[url(&stack)], &key.token, 8, Duration::from_millis(2));
    for wait_ms in [1500, 1600, 1700] {
        wait::pause(Duration::from_millis(700)).await;
        let updates = stack.envoy.statistic("listener_manager.lds.update_success").await.unwrap();
        let mut options = stack.envoy.options.clone();
        let edit = format!(r#""startup_wait_ms": {wait_ms}"#);
        options.edits.push((r#""startup_wait_ms": 2000"#.to_owned(), edit));
        options.config(stack.folder.path()).unwrap();
        wait::until("the update", wait::LONG, async || {
            let name = "listener_manager.lds.update_success";
            (stack.envoy.statistic(name).await.ok()? > updates).then_some(())
        })
        .await
        .unwrap();
    }
    let calls = load.stop_after(Duration::from_secs(2)).await.unwrap();
    let refused = calls.iter().filter(|call| call.status != 200 && call.status != 0).count();
    assert_eq!(refused, 0);
    // A listener that is replaced closes its connections, some with a request on them that was
    // admitted and did not get to the upstream.
    let reached = stack.upstream.count() as u64;
    let broken = calls.iter().filter(|call| call.status == 0).count() as u64;
    wait::until("the end of all leases", wait::LONG, async || {
        let proxies = stack.control_plane.call("GET", "/proxies", &Value::Null).await.ok()?;
        (proxies["items"][0]["leases_outstanding"] == 0).then_some(())
    })
    .await
    .unwrap();
    let used = stack.control_plane.used("acme").await.unwrap()["calls"];
    assert!((reached..=reached + broken).contains(&used), "{used}: {reached} and {broken} broken");
}

/// What is not used comes back by itself, and usage is behind by seconds at most.
#[tokio::test]
async fn unspent_leases_come_back_and_usage_is_recent() {
    let (stack, key) = start("deny").await;
    let began = jiff::Timestamp::now();
    for _ in 0..25 {
        let headers = [("x-auth-token", key.token.as_str())];
        stack.send("flotiq", "GET", POSTS, &headers).await.unwrap();
    }
    let outstanding = async || {
        let proxies = stack.control_plane.call("GET", "/proxies", &Value::Null).await.unwrap();
        proxies["items"][0]["leases_outstanding"].as_u64().unwrap()
    };
    assert!(outstanding().await > 0);
    wait::until("the return of the leases", Duration::from_secs(5), async || {
        (outstanding().await == 0).then_some(())
    })
    .await
    .unwrap();
    wait_until_all_is_counted(&stack).await;
    let path = format!("/accounts/acme/keys/{}", key.id);
    let shown = stack.control_plane.call("GET", &path, &Value::Null).await.unwrap();
    let last_used: jiff::Timestamp = shown["last_used_at"].as_str().unwrap().parse().unwrap();
    assert!(last_used >= began && last_used <= jiff::Timestamp::now());
}

/// What a busy account and many quiet ones cost in calls to the control plane.
#[tokio::test(flavor = "multi_thread")]
async fn busy_account_costs_few_calls_and_quiet_ones_share_them() {
    let (stack, key) = start("deny").await;
    let lease_calls =
        async || stack.envoy.statistic("wasmcustom.latchkey_lease_calls").await.unwrap();
    let waited =
        async || stack.envoy.statistic("wasmcustom.latchkey_requests_waited").await.unwrap();
    let load = Load::start(&[url(&stack)], &key.token, 16, Duration::ZERO);
    let busy = load.stop_after(Duration::from_secs(4)).await.unwrap().len() as u64;
    let (busy_calls, busy_waited) = (lease_calls().await, waited().await);
    report(&format!(
        "busy: {} calls to the control plane and {} waits per 1,000 requests, of {busy} in 4 s",
        per_thousand(busy_calls, busy),
        per_thousand(busy_waited, busy)
    ));
    assert!(busy_calls * 1000 / busy < 50, "{busy_calls} for {busy}");

    let mut tokens = Vec::new();
    for index in 0..1_000 {
        let id = format!("quiet-{index}");
        let account = json!({"id": id, "name": id, "plan": "acme", "profile": "flotiq"});
        stack.control_plane.call("POST", "/accounts", &account).await.unwrap();
        let key = json!({"name": "k", "rules": [{"resource": "posts", "actions": ["read"]}]});
        tokens.push(stack.control_plane.create_key(&id, &key).await.unwrap().token);
    }
    stack.wait_until_in_force().await.unwrap();
    let (calls_before, waited_before) = (lease_calls().await, waited().await);
    let clients = tokens.chunks(tokens.len() / 40).map(|tokens| {
        let (tokens, url, client) = (tokens.to_vec(), url(&stack), pooled_client());
        tokio::spawn(async move {
            for token in tokens {
                let headers = [("x-auth-token", token.as_str())];
                let answer = send_pooled(&client, "GET", &url, &headers, "").await.unwrap();
                assert_eq!(answer.status, 200);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let quiet_calls = lease_calls().await - calls_before;
    report(&format!(
        "quiet: {quiet_calls} calls to the control plane and {} waits for 1,000 requests of as many \
         accounts",
        waited().await - waited_before
    ));
    assert!(quiet_calls < 1_000, "{quiet_calls}");
}

/// A limit of one second is exact under load, in every second, and costs calls ahead of time.
#[tokio::test(flavor = "multi_thread")]
async fn one_second_limit_is_exact_under_load() {
    const AMOUNT: usize = 50;
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let limits = json!([
        {"name": "calls", "amount": 1_000_000, "bucket_seconds": 86_400, "buckets": 30},
        {"name": "per_second", "amount": AMOUNT, "bucket_seconds": 1, "buckets": 1}]);
    let key = stack.control_plane.create_limited_account("acme", &limits).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    let load = Load::start(&[url(&stack)], &key.token, 16, Duration::from_millis(20));
    let calls = load.stop_after(Duration::from_secs(6)).await.unwrap();
    let admitted: Vec<_> = calls.iter().filter(|call| call.status == 200).collect();
    let first = admitted.first().unwrap().sent_ms / 1000;
    let last = calls.last().unwrap().answered_ms / 1000;
    for second in first..=last {
        let within = admitted
            .iter()
            .filter(|call| call.sent_ms / 1000 == second && call.answered_ms / 1000 == second);
        assert!(within.count() <= AMOUNT, "second {second}");
    }
    for second in first + 1..last {
        let about = admitted.iter().filter(|call| call.answered_ms / 1000 == second).count();
        assert!(about >= AMOUNT * 9 / 10, "{about} in second {second}");
    }
    assert!(calls.iter().all(|call| matches!(call.status, 200 | 429)), "neither 503 nor an error");
    let lease_calls = stack.envoy.statistic("wasmcustom.latchkey_lease_calls").await.unwrap();
    report(&format!(
        "{AMOUNT} a second: {lease_calls} calls to the control plane in {} s, {} admitted, of {}",
        last - first + 1,
        admitted.len(),
        calls.len()
    ));
    wait_until_all_is_counted(&stack).await;
}

fn per_thousand(part: u64, whole: u64) -> String {
    let tenths = part * 10_000 / whole.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}
