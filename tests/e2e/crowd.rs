//! A crowd that waits: whatever ends its wait, each gets the answer that it would get alone, within a
//! second of that, no VM fails, and others are unharmed.

use std::collections::BTreeMap;
use std::time::Duration;

use latchkey_tests::crowd::{self, Ask, Got};
use latchkey_tests::{Envoy, EnvoyOptions, IssuedKey, Stack, wait};
use serde_json::{Value, json};

const POSTS: &str = "/api/v1/content/posts";
const MANIFEST: &str = "/v1/mcp/manifest";

/// How many wait at once, in one VM.
const CROWD: usize = 2_000;

/// Gateways with one worker, so that all of a crowd wait in the same VM.
async fn start(change: impl FnOnce(&mut EnvoyOptions)) -> Stack {
    Stack::start_with(&["flotiq", "fltr"], |options| {
        options.workers = 1;
        change(options);
    })
    .await
    .unwrap()
}

/// Gateways, and a key of an account with one limit.
async fn start_with_limit(amount: u64) -> (Stack, IssuedKey) {
    let stack = start(|_| {}).await;
    let key = limited(&stack, "acme", amount).await;
    stack.wait_until_in_force().await.unwrap();
    (stack, key)
}

async fn limited(stack: &Stack, account: &str, amount: u64) -> IssuedKey {
    let limits =
        json!([{"name": "calls", "amount": amount, "bucket_seconds": 86_400, "buckets": 30}]);
    stack.control_plane.create_limited_account(account, &limits).await.unwrap()
}

fn with_key(stack: &Stack, token: &str) -> Ask {
    Ask {
        method: "GET",
        port: stack.port("flotiq").unwrap(),
        path: POSTS.to_owned(),
        headers: vec![("x-auth-token".to_owned(), token.to_owned())],
        holds_body: false,
    }
}

fn anonymous(stack: &Stack) -> Ask {
    Ask {
        method: "GET",
        port: stack.port("fltr").unwrap(),
        path: MANIFEST.to_owned(),
        headers: Vec::new(),
        holds_body: false,
    }
}

fn by_status(got: &[Got]) -> BTreeMap<u16, usize> {
    got.iter().fold(BTreeMap::new(), |mut counts, got| {
        *counts.entry(got.status).or_default() += 1;
        counts
    })
}

/// Returns the decisions in the access log, once there are so many.
async fn decisions(stack: &Stack, count: usize) -> BTreeMap<String, usize> {
    let access_log = stack.folder.path().join("access.log");
    wait::until("the access log", wait::LONG, async || {
        let log = std::fs::read_to_string(&access_log).ok()?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).ok()?;
            *counts.entry(line["decision"].as_str()?.to_owned()).or_default() += 1;
        }
        (counts.values().sum::<usize>() >= count).then_some(counts)
    })
    .await
    .unwrap()
}

/// Fails if one waited for longer than it may and a second, or if a VM has failed.
async fn check(stack: &Stack, got: &[Got], may_wait: Duration) {
    let longest = got.iter().map(|got| got.after).max().unwrap();
    let shortest = got.iter().map(|got| got.after).min().unwrap();
    let counts = by_status(got);
    assert!(longest <= may_wait + PROMISED, "{shortest:?} to {longest:?}: {counts:?}");
    assert_eq!(stack.envoy.statistic("wasm.latchkey.vm_reload").await.unwrap(), 0);
    let log = stack.envoy.log();
    assert!(!log.contains("Maximum call stack"), "{log}");
}

async fn restart_envoy(stack: &mut Stack, startup_wait_ms: &str) {
    stack.envoy.kill().unwrap();
    stack.envoy.options.config_options =
        vec!["--startup-wait-ms".to_owned(), startup_wait_ms.to_owned()];
    let options = stack.envoy.options.clone();
    let _ = std::fs::remove_file(stack.folder.path().join("access.log"));
    stack.envoy = Envoy::start(options, stack.folder.path()).await.unwrap();
}

/// One address used to end the VM by asking 400 times at once, with the leases of all accounts.
#[tokio::test]
async fn crowd_without_tokens_is_refused_one_by_one() {
    let stack = start(|_| {}).await;
    for round in 0..3 {
        let got = crowd::send(&anonymous(&stack), CROWD).await.unwrap();
        let admitted = if round == 0 { 50 } else { 0 };
        let mut expected = BTreeMap::from([(200, admitted), (429, CROWD - admitted)]);
        expected.retain(|_, count| *count > 0);
        assert_eq!(by_status(&got), expected);
        assert!(got.iter().all(|got| got.says_when == (got.status == 429)));
        check(&stack, &got, LEASE_WAIT).await;
    }
}

#[tokio::test]
async fn crowd_at_a_limit_gets_all_of_it_and_429_for_the_rest() {
    let (stack, key) = start_with_limit(700).await;
    let large = limited(&stack, "large", 700).await;
    stack.wait_until_in_force().await.unwrap();
    for (account, token, header_bytes) in [("acme", key.token, 1), ("large", large.token, 4_000)] {
        let mut ask = with_key(&stack, &token);
        ask.headers.push(("cookie".to_owned(), "c".repeat(header_bytes)));
        let got = crowd::send(&ask, CROWD).await.unwrap();
        assert_eq!(by_status(&got), BTreeMap::from([(200, 700), (403, CROWD - 700)]), "{account}");
        check(&stack, &got, LEASE_WAIT).await;
        stack.control_plane.wait_until_used(account, "calls", 700).await.unwrap();
    }
}

/// While a crowd was answered, nothing else was read: not the control plane's answers either, which was
/// taken for silence. 58 of 300 calls of other accounts were 503.
#[tokio::test]
async fn crowd_that_is_refused_keeps_no_account_waiting() {
    let stack = start(|_| {}).await;
    let mut keys = Vec::new();
    for index in 0..40 {
        keys.push(limited(&stack, &format!("account-{index}"), 1_000_000).await);
    }
    stack.wait_until_in_force().await.unwrap();
    for round in 0..3 {
        // Leases are gone after 3 s, so each round begins without.
        wait::pause(Duration::from_secs(if round == 0 { 0 } else { 4 })).await;
        let ask = anonymous(&stack);
        let crowd = tokio::spawn(async move { crowd::send(&ask, 2 * CROWD).await.unwrap() });
        let mut calls = Vec::new();
        for key in &keys {
            let ask = with_key(&stack, &key.token);
            calls.push(tokio::spawn(async move { crowd::send(&ask, 1).await.unwrap() }));
            wait::pause(Duration::from_millis(10)).await;
        }
        for call in calls {
            assert_eq!(by_status(&call.await.unwrap()), BTreeMap::from([(200, 1)]), "{round}");
        }
        let statuses = by_status(&crowd.await.unwrap());
        assert!(statuses.keys().all(|status| [200, 429].contains(status)), "{statuses:?}");
    }
    assert_eq!(stack.envoy.statistic("wasm.latchkey.vm_reload").await.unwrap(), 0);
}

/// What goes on together is answered together where Envoy's own circuit breaker is full.
#[tokio::test]
async fn crowd_that_goes_on_may_meet_a_full_circuit_breaker() {
    let stack = start(|options| {
        let breaker = "  - name: upstream\n    circuit_breakers: { thresholds: [{ max_connections: 4, \
                       max_pending_requests: 4, max_requests: 4 }] }\n";
        options.edits = vec![("  - name: upstream\n".to_owned(), breaker.to_owned())];
    })
    .await;
    let key = limited(&stack, "acme", 1_000_000).await;
    stack.wait_until_in_force().await.unwrap();
    let got = crowd::send(&with_key(&stack, &key.token), CROWD).await.unwrap();
    let counts = by_status(&got);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [200, 503], "{counts:?}");
    assert!(got.iter().all(|got| !got.says_when), "it was Envoy that refused");
    check(&stack, &got, LEASE_WAIT).await;
    let decided = decisions(&stack, CROWD).await;
    assert_eq!(decided, BTreeMap::from([("permitted".to_owned(), CROWD)]));
}

#[tokio::test]
async fn crowd_that_waits_for_a_frozen_control_plane_is_503() {
    let (stack, key) = start_with_limit(1_000_000).await;
    let other = limited(&stack, "other", 1_000_000).await;
    stack.wait_until_in_force().await.unwrap();
    stack.control_plane.freeze(true).unwrap();
    let asks = [with_key(&stack, &key.token), with_key(&stack, &other.token), anonymous(&stack)];
    for (ask, status) in asks.iter().zip([503, 503, 503]) {
        let got = crowd::send(ask, CROWD).await.unwrap();
        assert_eq!(by_status(&got), BTreeMap::from([(status, CROWD)]));
        assert!(got.iter().all(|got| got.says_when));
        check(&stack, &got, LEASE_WAIT).await;
    }
    let decided = decisions(&stack, 3 * CROWD).await;
    assert_eq!(decided, BTreeMap::from([("control_plane_unreachable".to_owned(), 3 * CROWD)]));

    stack.control_plane.freeze(false).unwrap();
    wait::until("a call that is admitted", wait::LONG, async || {
        let headers = [("x-auth-token", key.token.as_str())];
        let answer = stack.send("flotiq", "GET", POSTS, &headers).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn crowd_that_waits_for_the_first_keys_is_503() {
    let (mut stack, key) = start_with_limit(1_000_000).await;
    stack.control_plane.kill().unwrap();
    restart_envoy(&mut stack, "1500").await;
    let got = crowd::send(&with_key(&stack, &key.token), CROWD).await.unwrap();
    assert_eq!(by_status(&got), BTreeMap::from([(503, CROWD)]));
    assert!(got.iter().all(|got| got.says_when && got.after >= Duration::from_millis(1_500)));
    check(&stack, &got, Duration::from_millis(1_500)).await;
    let decided = decisions(&stack, CROWD).await;
    assert_eq!(decided, BTreeMap::from([("not_ready".to_owned(), CROWD)]));
}

#[tokio::test]
async fn crowd_that_waits_for_the_first_keys_is_served_once_they_are_there() {
    let (mut stack, key) = start_with_limit(900).await;
    stack.control_plane.kill().unwrap();
    restart_envoy(&mut stack, "10000").await;
    let asks = [with_key(&stack, "made-up"), with_key(&stack, &key.token)];
    let crowds: Vec<_> = asks
        .into_iter()
        .map(|ask| tokio::spawn(async move { crowd::send(&ask, CROWD).await.unwrap() }))
        .collect();
    wait::pause(Duration::from_secs(2)).await;
    stack.control_plane.run().await.unwrap();
    let mut counts = Vec::new();
    for crowd in crowds {
        let got = crowd.await.unwrap();
        check(&stack, &got, Duration::from_secs(10)).await;
        counts.push(by_status(&got));
    }
    assert_eq!(counts[0], BTreeMap::from([(401, CROWD)]));
    assert_eq!(counts[1], BTreeMap::from([(200, 900), (403, CROWD - 900)]));
}

#[tokio::test]
async fn crowd_whose_bodies_do_not_come_is_408() {
    let (stack, key) = start_with_limit(1_000_000).await;
    let mut ask = with_key(&stack, &key.token);
    (ask.method, ask.path, ask.holds_body) = ("POST", "/api/graphql".to_owned(), true);
    ask.headers.push(("content-type".to_owned(), "application/json".to_owned()));
    let got = crowd::send(&ask, CROWD).await.unwrap();
    assert_eq!(by_status(&got), BTreeMap::from([(408, CROWD)]));
    check(&stack, &got, Duration::from_secs(10)).await;
    assert_eq!(stack.envoy.statistic("wasm.latchkey_bodies.vm_reload").await.unwrap(), 0);
}

/// Addresses used to fill the room in which accounts wait, and to keep the control plane busy: 88 of 320
/// calls of accounts with room were 503.
#[tokio::test]
async fn crowd_of_addresses_keeps_no_account_waiting() {
    let stack = start(|_| {}).await;
    let mut keys = Vec::new();
    for index in 0..40 {
        keys.push(limited(&stack, &format!("account-{index}"), 1_000_000).await);
    }
    stack.wait_until_in_force().await.unwrap();
    for (round, header_bytes) in [500, 30_000, 58_000].into_iter().enumerate() {
        // Leases are gone after 3 s, so each round begins without.
        wait::pause(Duration::from_secs(if round == 0 { 0 } else { 4 })).await;
        let mut addresses = anonymous(&stack);
        addresses.headers.push(("x-padding".to_owned(), "p".repeat(header_bytes)));
        let crowd =
            tokio::spawn(async move { crowd::send_from_addresses(&addresses, 560).await.unwrap() });
        let calls: Vec<_> = keys
            .iter()
            .map(|key| {
                let ask = with_key(&stack, &key.token);
                tokio::spawn(async move { crowd::send(&ask, 8).await.unwrap() })
            })
            .collect();
        for call in calls {
            let got = call.await.unwrap();
            assert_eq!(by_status(&got), BTreeMap::from([(200, 8)]), "{header_bytes} bytes");
        }
        let crowd = crowd.await.unwrap();
        check(&stack, &crowd, Duration::from_secs(1)).await;
    }
}

/// Longest that a request waits for a lease, the tick that ends it included.
const LEASE_WAIT: Duration = Duration::from_millis(250);

/// Within which time after its wait a request is answered.
const PROMISED: Duration = Duration::from_secs(1);
