//! What counts, what a client is told, and when a change of limits holds.

use std::time::{Duration, Instant};

use latchkey_tests::{IssuedKey, Response, Stack, wait};
use serde_json::{Value, json};

const POSTS: &str = "/api/v1/content/posts";
const DATASETS: &str = "/v1/datasets";

async fn start(limits: &Value) -> (Stack, IssuedKey) {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let key = stack.control_plane.create_limited_account("acme", limits).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    (stack, key)
}

fn limit(name: &str, amount: u64, bucket_seconds: u32, buckets: u32) -> Value {
    json!({"name": name, "amount": amount, "bucket_seconds": bucket_seconds, "buckets": buckets})
}

async fn get(stack: &Stack, token: &str) -> Response {
    stack.send("flotiq", "GET", POSTS, &[("x-auth-token", token)]).await.unwrap()
}

async fn fltr(stack: &Stack, path: &str, token: Option<&str>) -> Response {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> =
        authorization.iter().map(|value| ("authorization", value.as_str())).collect();
    stack.send("fltr", "GET", path, &headers).await.unwrap()
}

/// Waits for the next hour where this one ends soon: counts of an hour begin anew with it.
async fn avoid_the_end_of_an_hour() {
    let second = jiff::Timestamp::now().as_second() % 3600;
    if second > 3600 - 20 {
        wait::pause(Duration::from_secs(21)).await;
    }
}

#[tokio::test]
async fn nothing_is_charged_for_a_refused_request() {
    let (stack, key) = start(&json!([limit("calls", 5, 86_400, 30)])).await;
    let control_plane = &stack.control_plane;
    let reader = control_plane.application_key("acme", "application_read_only").await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    let with = |token: &str| vec![("x-auth-token".to_owned(), token.to_owned())];
    for (method, path, headers, status) in [
        ("GET", POSTS, with("made-up"), 401),
        ("GET", POSTS, vec![], 401),
        ("POST", POSTS, with(&reader.token), 403),
        ("GET", "/api/v1//content", with(&key.token), 400),
    ] {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        for _ in 0..5 {
            let answer = stack.send("flotiq", method, path, &headers).await.unwrap();
            assert_eq!(answer.status, status, "{method} {path}");
        }
    }
    for _ in 0..5 {
        assert_eq!(get(&stack, &key.token).await.status, 200);
    }
    for _ in 0..20 {
        assert_eq!(get(&stack, &key.token).await.status, 403);
    }
    stack.control_plane.wait_until_used("acme", "calls", 5).await.unwrap();
    assert_eq!(stack.upstream.count(), 5);
}

/// A call that one limit refuses is charged to none.
#[tokio::test]
async fn several_limits_admit_all_or_none() {
    avoid_the_end_of_an_hour().await;
    let limits = json!([limit("calls", 1000, 86_400, 30), limit("hourly", 40, 3600, 1)]);
    let (stack, key) = start(&limits).await;
    let own = json!({"name": "k", "rules": [{"resource": "posts", "actions": ["read"]}],
        "limits": [limit("own", 7, 86_400, 1)]});
    let limited = stack.control_plane.create_key("acme", &own).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    for call in 0..15 {
        let expected = if call < 7 { 200 } else { 403 };
        assert_eq!(get(&stack, &limited.token).await.status, expected, "call {call}");
    }
    for call in 7..60 {
        let expected = if call < 40 { 200 } else { 403 };
        assert_eq!(get(&stack, &key.token).await.status, expected, "call {call}");
    }
    for name in ["calls", "hourly"] {
        stack.control_plane.wait_until_used("acme", name, 40).await.unwrap();
    }
    let usage =
        stack.control_plane.call("GET", "/accounts/acme/usage", &Value::Null).await.unwrap();
    let keys = usage["keys"].as_array().unwrap();
    let used = |id: &str| keys.iter().find(|key| key["id"] == id).unwrap()["used"].clone();
    assert_eq!((used(&limited.id), used(&key.id)), (json!(7), json!(33)));
    let own = keys.iter().find(|entry| entry["id"] == limited.id.as_str()).unwrap();
    assert_eq!(own["limits"][0]["used"], 7);
    assert_eq!(own["limits"][0]["remaining"], 0);
}

#[tokio::test]
async fn throttle_is_429_and_passes_a_second_later() {
    let limits = json!([limit("calls", 1000, 86_400, 30), limit("per_second", 3, 1, 1)]);
    let (stack, key) = start(&limits).await;
    let mut throttled = None;
    for _ in 0..40 {
        let answer = get(&stack, &key.token).await;
        if answer.status == 429 {
            throttled = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200);
    }
    let answer = throttled.unwrap();
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.json(), json!({"code": 429, "message": "Too many requests"}));
    assert!(answer.header("ratelimit").contains(r#""per_second";r=0;t=1"#), "{answer:?}");
    assert_eq!(
        answer.header("ratelimit-policy"),
        r#""calls";q=1000;w=2592000, "per_second";q=3;w=1"#
    );
    wait::pause(Duration::from_secs(1)).await;
    assert_eq!(get(&stack, &key.token).await.status, 200);
    stack
        .control_plane
        .wait_until_used("acme", "calls", stack.upstream.count() as u64)
        .await
        .unwrap();
}

/// Raised limits hold without waiting for a window, lowered ones without waiting for leases to end.
#[tokio::test]
async fn edited_limits_hold_at_once() {
    let (stack, key) = start(&json!([limit("calls", 5, 86_400, 30)])).await;
    let control_plane = &stack.control_plane;
    let edit = async |amount: u64| {
        let plan = json!({"name": "p", "limits": [limit("calls", amount, 86_400, 30)]});
        control_plane.call("PUT", "/plans/acme", &plan).await.unwrap();
        stack.wait_until_in_force().await.unwrap();
    };
    let admitted = async || {
        let mut count = 0;
        while get(&stack, &key.token).await.status == 200 {
            count += 1;
        }
        count
    };
    assert_eq!(admitted().await, 5);
    edit(12).await;
    assert_eq!(admitted().await, 7);
    edit(500).await;
    for _ in 0..60 {
        assert_eq!(get(&stack, &key.token).await.status, 200);
    }
    edit(70).await;
    assert_eq!(admitted().await, 0, "72 calls are made");
    edit(75).await;
    assert_eq!(admitted().await, 3);

    // Another plan, and one without limits.
    let plan = json!({"name": "q", "limits": [limit("calls", 80, 86_400, 30)]});
    control_plane.call("PUT", "/plans/other", &plan).await.unwrap();
    control_plane.call("PATCH", "/accounts/acme", &json!({"plan": "other"})).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    assert_eq!(admitted().await, 5);
    let free = json!({"name": "r", "limits": []});
    control_plane.call("PUT", "/plans/other", &free).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    for _ in 0..50 {
        let answer = get(&stack, &key.token).await;
        assert_eq!((answer.status, answer.header("ratelimit")), (200, ""));
    }
}

#[tokio::test]
async fn fltr_tells_every_client_what_is_left() {
    avoid_the_end_of_an_hour().await;
    let stack = Stack::start(&["fltr"]).await.unwrap();
    let control_plane = &stack.control_plane;
    let limits = json!([
        {"name": "hourly", "amount": 8, "bucket_seconds": 3600, "buckets": 1, "identity": "key"},
        {"name": "hourly_anonymous", "amount": 4, "bucket_seconds": 3600, "buckets": 1,
         "identity": "anonymous"},
    ]);
    // The plan that counts clients without a token is the profile's default.
    let plan = json!({"name": "Standard", "limits": limits});
    control_plane.call("PUT", "/plans/standard", &plan).await.unwrap();
    let account = json!({"id": "rag", "name": "rag", "profile": "fltr"});
    control_plane.call("POST", "/accounts", &account).await.unwrap();
    let all = control_plane
        .create_key("rag", &json!({"name": "all", "rules": [{"resource": "*", "actions": ["*"]}]}))
        .await
        .unwrap();
    let rules = json!([{"resource": "documents", "actions": ["read"]}]);
    let scoped = json!({"name": "scoped", "rules": rules});
    let scoped = control_plane.create_key("rag", &scoped).await.unwrap();
    stack.wait_until_in_force().await.unwrap();

    let hour = 3600;
    let now = jiff::Timestamp::now().as_second();
    let reset = (now / hour + 1) * hour;
    let mut lowest = 8;
    for call in 0..8 {
        let answer = fltr(&stack, DATASETS, Some(&all.token)).await;
        assert_eq!(answer.status, 200, "call {call}");
        assert_eq!(answer.header("x-ratelimit-limit"), "8");
        let remaining: u64 = answer.header("x-ratelimit-remaining").parse().unwrap();
        assert!(remaining <= 7 - call, "{remaining} after call {call}");
        lowest = lowest.min(remaining);
        let told: i64 = answer.header("x-ratelimit-reset").parse().unwrap();
        assert!(told == reset || told == reset + hour, "{told}");
        let expected = format!("\"hourly\";r={remaining};t=");
        assert!(answer.header("ratelimit").starts_with(&expected), "{answer:?}");
        assert_eq!(answer.header("ratelimit-policy"), r#""hourly";q=8;w=3600"#);
    }
    assert_eq!(lowest, 0);
    let answer = fltr(&stack, DATASETS, Some(&all.token)).await;
    assert_eq!(answer.status, 429);
    let seconds: i64 = answer.header("retry-after").parse().unwrap();
    let left = reset - jiff::Timestamp::now().as_second();
    assert!((left..=left + 2).contains(&seconds), "{seconds}, {left} left");
    assert_eq!(
        answer.json(),
        json!({"error": "Rate limit exceeded", "retry_after": seconds, "code": "rate_limit_exceeded"})
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-ratelimit-remaining"), "0");

    // What is refused for want of a right tells it too, by a worker that has heard of the account:
    // no call to the control plane is made for it. Connections are spread over two workers.
    let mut told = 0;
    for _ in 0..40 {
        let answer = fltr(&stack, DATASETS, Some(&scoped.token)).await;
        let limit = answer.header("x-ratelimit-limit");
        assert!(answer.status == 403 && matches!(limit, "8" | ""), "{answer:?}");
        told += usize::from(limit == "8");
    }
    assert!(told > 0);

    // Clients without a token are counted by themselves, by address.
    for call in 0..6 {
        let answer = fltr(&stack, "/v1/mcp/manifest", None).await;
        assert_eq!(answer.status, if call < 4 { 200 } else { 429 }, "call {call}");
        assert_eq!(answer.header("x-ratelimit-limit"), "4");
    }
    let answer = fltr(&stack, "/v1/mcp/manifest", Some("fltr_sk_made_up")).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-limit")), (401, ""));
    stack.control_plane.wait_until_used("rag", "hourly", 8).await.unwrap();
}

#[tokio::test]
async fn problem_details_say_when_to_come_back() {
    let (stack, key) = start(&json!([limit("calls", 1, 86_400, 30)])).await;
    assert_eq!(get(&stack, &key.token).await.status, 200);
    let headers = [("x-auth-token", key.token.as_str()), ("accept", "application/problem+json")];
    let answer = stack.send("flotiq", "GET", POSTS, &headers).await.unwrap();
    let problem = answer.json();
    assert_eq!((answer.status, &problem["status"]), (403, &json!(403)));
    assert_eq!(problem["retry_after"].to_string(), answer.header("retry-after"));
    let detail = "the limit `calls` of 1 calls in 2592000 seconds is used up";
    assert_eq!(problem["detail"], detail);
}

#[tokio::test]
async fn exhausted_account_costs_the_control_plane_nothing() {
    let (stack, key) = start(&json!([limit("calls", 10, 86_400, 30)])).await;
    while get(&stack, &key.token).await.status == 200 {}
    // Both workers have to hear of it.
    for _ in 0..50 {
        assert_eq!(get(&stack, &key.token).await.status, 403);
    }
    wait::pause(Duration::from_millis(2_500)).await;
    let calls = stack.envoy.statistic("wasmcustom.latchkey_lease_calls").await.unwrap();
    let begin = Instant::now();
    for _ in 0..300 {
        assert_eq!(get(&stack, &key.token).await.status, 403);
    }
    let more = stack.envoy.statistic("wasmcustom.latchkey_lease_calls").await.unwrap() - calls;
    assert!(more <= 2, "{more} calls for 300 refusals in {:?}", begin.elapsed());
}
