//! Usage that is another's, that cannot have been, or that is put right.

use std::time::Duration;

use latchkey_tests::load::{admitted, now_ms};
use latchkey_tests::stack::Folder;
use latchkey_tests::{ControlPlane, IssuedKey, Load, Response, Stack, http, ports, wait};
use serde_json::{Value, json};

use crate::report;

const POSTS: &str = "/api/v1/content/posts";

async fn start() -> (ControlPlane, Folder) {
    let folder = Folder::new().unwrap();
    let data = folder.path().join("data");
    let port = ports::free().unwrap();
    let control_plane = ControlPlane::start(port, &data, folder.path(), None, &[]).await.unwrap();
    (control_plane, folder)
}

fn hourly(amount: u64) -> Value {
    json!([{"name": "calls", "amount": amount, "bucket_seconds": 3_600, "buckets": 1}])
}

/// Makes a call as a filter's worker does.
async fn lease_call(control_plane: &ControlPlane, worker: &str, call: Value) -> Response {
    let mut body = json!({"instance": "i", "worker": worker, "sequence": 1});
    body.as_object_mut().unwrap().extend(call.as_object().unwrap().clone());
    let url = format!("http://127.0.0.1:{}/edge/v1/leases", control_plane.port);
    let authorization = format!("Bearer {}", control_plane.edge_token().unwrap());
    let headers = [
        ("authorization", authorization.as_bytes()),
        ("content-type", b"application/json".as_slice()),
    ];
    http::send("POST", &url, &headers, &serde_json::to_vec(&body).unwrap()).await.unwrap()
}

async fn remake(control_plane: &ControlPlane) -> IssuedKey {
    control_plane.call("DELETE", "/accounts/acme", &Value::Null).await.unwrap();
    let account = json!({"id": "acme", "name": "acme", "plan": "acme", "profile": "flotiq"});
    control_plane.call("POST", "/accounts", &account).await.unwrap();
    control_plane.application_key("acme", "application_read_write").await.unwrap()
}

/// Of an account that was removed and made again under its id, each has exactly its own limit, whatever the
/// proxies hold of the one before: it used to get 2 to 3.5 % more.
#[tokio::test(flavor = "multi_thread")]
async fn account_that_is_made_again_has_a_limit_of_its_own() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let other = stack.start_another_envoy().await.unwrap();
    let control_plane = &stack.control_plane;
    let mut key = control_plane.create_limited_account("acme", &hourly(600)).await.unwrap();
    control_plane.wait_until_in_force(6).await.unwrap();
    let urls = [&stack.envoy, &other]
        .map(|envoy| format!("http://127.0.0.1:{}{POSTS}", envoy.options.gateways[0].1));
    for round in 0..3 {
        let load = Load::start(&urls, &key.token, 32, Duration::ZERO);
        let before = stack.upstream.count();
        // Not all is used up when it goes, and the proxies hold leases.
        wait::until("some calls", wait::LONG, async || {
            (stack.upstream.count() >= before + 200).then_some(())
        })
        .await
        .unwrap();
        key = remake(control_plane).await;
        let again = Load::start(&urls, &key.token, 32, Duration::ZERO);
        let of_former = admitted(&load.stop_after(Duration::from_millis(200)).await.unwrap());
        let of_new = admitted(&again.stop_after(Duration::from_secs(5)).await.unwrap());
        report(&format!("round {round}: {of_former} of the former, {of_new} of the new"));
        assert!(of_former <= 600, "{of_former}");
        assert_eq!(of_new, 600, "round {round}");
        key = remake(control_plane).await;
        control_plane.wait_until_in_force(6).await.unwrap();
    }
}

/// An account that is made again is one that nobody knows: its people do not see what the former one's did.
#[tokio::test]
async fn account_that_is_made_again_begins_with_nothing() {
    let (control_plane, _folder) = start().await;
    control_plane.create_limited_account("acme", &hourly(100)).await.unwrap();
    let subject = json!({"account": {"account": "acme"}});
    let credit = json!({"credits": [{"subject": subject, "at_ms": now_ms(), "count": 100}]});
    assert_eq!(lease_call(&control_plane, "w", credit).await.status, 200);
    assert_eq!(control_plane.used("acme").await.unwrap()["calls"], 100);
    remake(&control_plane).await;
    assert_eq!(control_plane.used("acme").await.unwrap()["calls"], 0);
    let wish = json!({"requests": [{"subject": subject, "amount": 100, "waiting": 100}]});
    let answer = lease_call(&control_plane, "v", wish).await.json();
    assert_eq!(answer["outcomes"][0]["granted"]["amount"], 100, "{answer}");
}

/// What cannot have been served is not counted: one report used to lock an account for good.
#[tokio::test]
async fn reports_are_bounded_by_what_a_proxy_can_serve() {
    let (control_plane, _folder) = start().await;
    for (account, count, used) in [
        ("first", 10_000_u64, 10_000),
        ("much", 1 << 40, 10_000),
        ("some", 10_001, 10_000),
        ("little", 3, 3),
    ] {
        control_plane.create_limited_account(account, &hourly(1_000_000)).await.unwrap();
        let subject = json!({"account": {"account": account}});
        let credit = json!({"subject": subject, "at_ms": now_ms(), "count": count});
        let answer = lease_call(&control_plane, account, json!({"credits": [credit]})).await;
        assert_eq!(answer.status, 200, "the proxy is not to send it again");
        assert_eq!(control_plane.used(account).await.unwrap()["calls"], used, "{account}");
    }
    // Nor can more be spent of a lease than it has.
    let subject = json!({"account": {"account": "little"}});
    let wish = json!({"requests": [{"subject": subject, "amount": 5, "waiting": 5}]});
    let answer = lease_call(&control_plane, "spender", wish).await.json();
    let lease = &answer["outcomes"][0]["granted"];
    let report = json!({"sequence": 2, "reports": [
        {"lease": lease["lease"], "spent": 1_u64 << 39, "is_closed": true}]});
    assert_eq!(lease_call(&control_plane, "spender", report).await.status, 200);
    let spent = lease["amount"].as_u64().unwrap();
    assert_eq!(control_plane.used("little").await.unwrap()["calls"], 3 + spent);
}

/// Operators put usage right, and proxies hear of it at once, also those that were told that all is used.
#[tokio::test(flavor = "multi_thread")]
async fn usage_is_corrected_in_every_proxy() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let control_plane = &stack.control_plane;
    let key = control_plane.create_limited_account("acme", &hourly(20)).await.unwrap();
    let own = json!({"name": "k", "rules": [{"resource": "*", "actions": ["*"]}],
        "limits": [{"name": "own", "amount": 5, "bucket_seconds": 86_400, "buckets": 2}]});
    let limited = control_plane.create_key("acme", &own).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    let get = async |key: &IssuedKey| {
        let headers = [("x-auth-token", key.token.as_str())];
        stack.send("flotiq", "GET", POSTS, &headers).await.unwrap().status
    };
    let use_up = async |key: &IssuedKey, calls: usize| {
        for _ in 0..calls {
            assert_eq!(get(key).await, 200);
        }
        assert_eq!(get(key).await, 403);
    };
    use_up(&limited, 5).await;
    use_up(&key, 15).await;
    control_plane.wait_until_used("acme", "calls", 20).await.unwrap();

    let correct = async |correction: Value| {
        control_plane.api("POST", "/accounts/acme/usage/correct", &correction).await.unwrap()
    };
    let answer = correct(json!({"limit": "calls", "used": 12, "reason": "counted twice"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["limits"][0]["used"], 12);
    stack.wait_until_in_force().await.unwrap();
    assert_eq!(get(&limited).await, 403, "its own limit is another");
    let id = &limited.id;
    let answer = correct(json!({"limit": "own", "key": id, "used": 3, "reason": "x"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    stack.wait_until_in_force().await.unwrap();
    use_up(&limited, 2).await;
    use_up(&key, 6).await;

    let answer = correct(json!({"limit": "calls", "used": 20, "reason": "too little"})).await;
    assert_eq!(answer.json()["limits"][0]["used"], 20, "it can be raised, too");
    for (correction, field) in [
        (json!({"limit": "none", "used": 1, "reason": "x"}), "limit"),
        (json!({"limit": "calls", "used": 1, "reason": ""}), "reason"),
        (json!({"limit": "calls", "used": -1, "reason": "x"}), "used"),
        (json!({"limit": "calls", "used": 1_u64 << 53, "reason": "x"}), "used"),
        (json!({"limit": "own", "key": "key_no", "used": 1, "reason": "x"}), "key"),
        (json!({"limit": "calls", "used": 1}), "reason"),
    ] {
        let answer = correct(correction.clone()).await;
        assert_eq!(answer.status, 400, "{correction}");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{correction}");
    }
    let audit = control_plane.call("GET", "/audit?account=acme", &Value::Null).await.unwrap();
    let entries = audit["items"].as_array().unwrap();
    let corrections = entries.iter().filter(|entry| entry["action"] == "usage.correct");
    let details: Vec<&Value> = corrections.map(|entry| &entry["details"]).collect();
    assert_eq!(details.len(), 3);
    assert_eq!((&details[0]["before"], &details[0]["after"]), (&json!(20), &json!(12)));
    assert_eq!(details[0]["reason"], "counted twice");
}

/// Tokens of a suspended account are refused within a second, and work again when it is resumed.
#[tokio::test(flavor = "multi_thread")]
async fn suspended_account_is_refused_until_it_is_resumed() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let control_plane = &stack.control_plane;
    let keys = [
        control_plane.create_account_with_key("acme").await.unwrap(),
        control_plane.create_account_with_key("other").await.unwrap(),
    ];
    let rules = json!({"name": "k", "rules": [{"resource": "posts", "actions": ["read"]}]});
    let own = control_plane.create_key("acme", &rules).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    let statuses = async || {
        let mut statuses = Vec::new();
        for key in keys.iter().chain([&own]) {
            let headers = [("x-auth-token", key.token.as_str())];
            statuses.push(stack.send("flotiq", "GET", POSTS, &headers).await.unwrap().status);
        }
        statuses
    };
    assert_eq!(statuses().await, [200, 200, 200]);
    for (verb, state, expected) in
        [("suspend", "suspended", [401, 200, 401]), ("resume", "active", [200, 200, 200])]
    {
        for _ in 0..2 {
            let path = format!("/accounts/acme/{verb}");
            let account = control_plane.call("POST", &path, &Value::Null).await.unwrap();
            assert_eq!(account["state"], state);
        }
        stack.wait_until_in_force().await.unwrap();
        assert_eq!(statuses().await, expected, "{verb}");
        let audit = control_plane.call("GET", "/audit?account=acme", &Value::Null).await.unwrap();
        let action = format!("account.{verb}");
        assert!(audit["items"].as_array().unwrap().iter().any(|entry| entry["action"] == action));
    }
}
