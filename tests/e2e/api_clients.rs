//! The management API for programs: what they misspell, send twice or have not seen, and keys at a plan's limit.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use latchkey_tests::{ControlPlane, Response, http, wait};
use serde_json::{Value, json};

use crate::management_api::{assert_problem, get, start};

/// Sends a request with headers of its own.
async fn send(
    control_plane: &ControlPlane,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response {
    let url = format!("http://127.0.0.1:{}/api/v1{path}", control_plane.port);
    let authorization = format!("Bearer {}", control_plane.operator_token);
    let mut all: Vec<(&str, &[u8])> =
        vec![("authorization", authorization.as_bytes()), ("content-type", b"application/json")];
    all.extend(headers.iter().map(|&(name, value)| (name, value.as_bytes())));
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    http::send(method, &url, &all, &body).await.unwrap()
}

/// What is misspelled is told of, and never ignored: a list that begins anew is an endless loop.
#[tokio::test]
async fn unknown_parameters_and_cursors_are_400() {
    let (control_plane, _folder) = start().await;
    control_plane.create_account("other", "flotiq").await.unwrap();
    let keys = get(&control_plane, "/accounts/other/keys").await;
    let of_other =
        format!("/accounts/acme/keys?after={}", keys["items"][0]["id"].as_str().unwrap());
    for (path, field) in [
        ("/accounts/acme/keys?state=active&search=x", "state"),
        ("/accounts/acme/keys?after=nonsense", "after"),
        (&of_other, "after"),
        ("/accounts?after=%20", "after"),
        ("/accounts?Limit=5", "Limit"),
        ("/accounts?limit=5&limit=6", "limit"),
        ("/accounts/acme?x", "x"),
        ("/accounts/acme/usage?limit=1", "limit"),
        ("/accounts/acme/resources?after=A!", "after"),
        ("/plans?after=..", "after"),
        ("/proxies?after=x", "after"),
        ("/audit?after=-1x", "after"),
        ("/audit?actor=x", "actor"),
        ("/audit?account=%2F", "account"),
    ] {
        let answer = control_plane.api("GET", path, &Value::Null).await.unwrap();
        assert_problem(&answer, 400, Some(field));
    }
    let answer =
        send(&control_plane, "DELETE", "/accounts/other?dry_run=1", &[], &Value::Null).await;
    assert_problem(&answer, 400, Some("dry_run"));
    for path in ["/accounts?limit=&after=", "/accounts?after=b", "/audit?after=999999&account=acme"]
    {
        assert!(get(&control_plane, path).await["items"].is_array(), "{path}");
    }
}

/// A request that is sent again has one effect and one answer, its token included, which nothing but the
/// request itself opens; also after a crash, and when both are under way at once.
#[tokio::test(flavor = "multi_thread")]
async fn request_with_a_name_is_made_once() {
    let (mut control_plane, folder) = start().await;
    let keys = "/accounts/acme/keys";
    let body = json!({"name": "k", "rules": [{"resource": "posts", "actions": ["read"]}]});
    let named = [("idempotency-key", "order-4711")];
    let first = send(&control_plane, "POST", keys, &named, &body).await;
    assert_eq!(first.status, 201, "{}", first.text());
    let location = first.header("location").to_owned();
    let id = first.json()["key"]["id"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("/api/v1{keys}/{id}"));
    let token = first.json()["token"].as_str().unwrap().to_owned();
    for is_after_crash in [false, true] {
        if is_after_crash {
            control_plane.kill().unwrap();
            control_plane.run().await.unwrap();
        }
        let again = send(&control_plane, "POST", keys, &named, &body).await;
        assert_eq!((again.status, &again.body), (201, &first.body));
        assert_eq!(again.header("location"), location);
        assert_eq!(again.header("etag"), first.header("etag"));
        assert_eq!(again.header("cache-control"), "no-store");
    }
    let other = json!({"name": "other", "rules": []});
    assert_problem(&send(&control_plane, "POST", keys, &named, &other).await, 422, None);
    let links = json!({"purpose": "operator"});
    assert_problem(&send(&control_plane, "POST", "/links", &named, &links).await, 422, None);

    // Twenty at once: one key.
    let control_plane = Arc::new(control_plane);
    let at_once = (0..20).map(|_| {
        let (control_plane, body) = (Arc::clone(&control_plane), body.clone());
        let named = [("idempotency-key", "at-once")];
        tokio::spawn(async move { send(&control_plane, "POST", keys, &named, &body).await })
    });
    let mut made = Vec::new();
    for answer in at_once.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        match answer.status {
            201 => made.push(answer.json()["key"]["id"].clone()),
            status => assert_eq!(status, 409, "{}", answer.text()),
        }
    }
    made.dedup();
    assert_eq!(made.len(), 1);
    let listed = get(&control_plane, keys).await["items"].as_array().unwrap().len();
    assert_eq!(listed, 2 + 1 + 1, "two Application keys, and one of each name");

    // What was refused is not taken.
    let named = [("idempotency-key", "wrong-first")];
    let wrong = json!({"name": "", "rules": []});
    assert_problem(&send(&control_plane, "POST", keys, &named, &wrong).await, 400, Some("name"));
    assert_eq!(send(&control_plane, "POST", keys, &named, &body).await.status, 201);
    for name in ["", "ä", &"x".repeat(256)] {
        let named = [("idempotency-key", name)];
        let answer = send(&control_plane, "POST", keys, &named, &body).await;
        assert_problem(&answer, 400, Some("Idempotency-Key"));
    }
    // Regenerating makes a token, so it is made once, too.
    let named = [("idempotency-key", "again")];
    let path = format!("{keys}/{id}/regenerate");
    let one = send(&control_plane, "POST", &path, &named, &json!({})).await;
    let two = send(&control_plane, "POST", &path, &named, &json!({})).await;
    assert_eq!((one.status, &one.body), (200, &two.body));

    Arc::into_inner(control_plane).unwrap().kill().unwrap();
    for name in ["latchkey.db", "latchkey.db-wal"] {
        let bytes = std::fs::read(folder.path().join("data").join(name)).unwrap();
        for secret in [token.as_bytes(), b"order-4711"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{name}");
        }
    }
}

/// A client that does not wait for the answer gets it when it asks again: it is what names are for.
#[tokio::test(flavor = "multi_thread")]
async fn answer_is_kept_for_a_client_that_has_gone() {
    let (control_plane, _folder) = start().await;
    let body = json!({"name": "k", "rules": []});
    let text = body.to_string();
    for patience_ms in [0, 0, 0, 1, 1, 2, 4, 8, 16] {
        let name = format!("gone-{patience_ms}-{}", Timestamp::now());
        let request = format!(
            "POST /api/v1/accounts/acme/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nIdempotency-Key: {name}\r\nContent-Length: {}\r\n\r\n{text}",
            control_plane.operator_token,
            text.len()
        );
        let patience = Duration::from_millis(patience_ms);
        let _ = http::read_raw(control_plane.port, request.as_bytes(), patience).await;
        let named = [("idempotency-key", name.as_str())];
        let answer = wait::until("the answer", wait::LONG, async || {
            let answer = send(&control_plane, "POST", "/accounts/acme/keys", &named, &body).await;
            // It may be under way.
            (answer.status != 409).then_some(answer)
        });
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 201, "{patience_ms}: {}", answer.text());
        assert!(answer.json()["token"].is_string());
    }
    let keys = get(&control_plane, "/accounts/acme/keys").await;
    assert_eq!(keys["items"].as_array().unwrap().len(), 2 + 9);
}

/// Who changes what another has changed meanwhile is told so, and changes nothing.
#[tokio::test]
async fn change_of_an_outdated_record_is_412() {
    let (control_plane, _folder) = start().await;
    let key = json!({"name": "k", "rules": []});
    let key = control_plane.create_key("acme", &key).await.unwrap();
    control_plane.call("PUT", "/accounts/acme/resources/posts", &json!({})).await.unwrap();
    let key = format!("/accounts/acme/keys/{}", key.id);
    let plan = json!({"name": "other", "limits": []});
    for (path, method, body) in [
        ("/accounts/acme", "PATCH", json!({"name": "other"})),
        (key.as_str(), "PATCH", json!({"name": "other"})),
        ("/plans/for-tests", "PUT", plan.clone()),
        ("/accounts/acme/resources/posts", "PUT", json!({"relations": {"author": "*"}})),
    ] {
        let seen = send(&control_plane, "GET", path, &[], &Value::Null).await;
        let tag = seen.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 10, "{path}: {tag}");
        let changed = send(&control_plane, method, path, &[("if-match", &tag)], &body).await;
        assert_eq!(changed.status, 200, "{path}: {}", changed.text());
        let now = changed.header("etag").to_owned();
        assert_ne!(now, tag, "{path}");
        let before = get(&control_plane, path).await;
        for wrong in [tag.as_str(), "\"x\"", "\"a\", \"b\""] {
            for (method, body) in [(method, &body), ("DELETE", &Value::Null)] {
                let answer = send(&control_plane, method, path, &[("if-match", wrong)], body).await;
                assert_problem(&answer, 412, None);
            }
        }
        assert_eq!(get(&control_plane, path).await, before, "{path}");
        let several = format!("\"x\", {now}");
        for right in [now.as_str(), "*", &several] {
            let answer = send(&control_plane, method, path, &[("if-match", right)], &body).await;
            assert_eq!(answer.status, 200, "{path} {right}: {}", answer.text());
        }
        let answer = send(&control_plane, method, path, &[("if-match", "W/x")], &body).await;
        assert_problem(&answer, 400, Some("If-Match"));
    }
    for verb in ["suspend", "resume", "regenerate"] {
        let path = format!("{key}/{verb}");
        let answer =
            send(&control_plane, "POST", &path, &[("if-match", "\"x\"")], &json!({})).await;
        assert_problem(&answer, 412, None);
    }
    let new = send(&control_plane, "PUT", "/plans/new", &[("if-match", "*")], &plan).await;
    assert_problem(&new, 412, None);
    let made = send(&control_plane, "PUT", "/plans/new", &[], &plan).await;
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/plans/new"));
}

/// A key can be replaced where the plan has no room: for a while there is one more, and no more than one.
#[tokio::test]
async fn replacement_may_exceed_the_plan_by_one() {
    let (control_plane, _folder) = start().await;
    let plan = json!({"limits": [], "max_user_keys": 2});
    control_plane.call("PUT", "/plans/for-tests", &plan).await.unwrap();
    let make = async |body: Value| {
        let mut key = json!({"name": "k", "rules": []});
        key.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let answer = control_plane.api("POST", "/accounts/acme/keys", &key).await.unwrap();
        (answer.status, answer.json()["key"]["id"].as_str().unwrap_or_default().to_owned())
    };
    let soon = (Timestamp::now() + SignedDuration::from_secs(5)).to_string();
    let (_, first) = make(json!({})).await;
    let (_, second) = make(json!({"expires_at": soon})).await;
    assert_eq!(make(json!({})).await.0, 409);
    assert_eq!(make(json!({"replaces": "key_of_nobody"})).await.0, 409);
    let (status, third) = make(json!({"replaces": first})).await;
    assert_eq!(status, 201);
    for replaced in [&first, &second, &third] {
        assert_eq!(make(json!({"replaces": replaced})).await.0, 409, "{replaced}");
    }
    let path = |id: &str| format!("/accounts/acme/keys/{id}");
    control_plane.call("DELETE", &path(&first), &Value::Null).await.unwrap();
    assert_eq!(make(json!({})).await.0, 409, "the plan is full again");
    // Expired ones do not count, and do not come back where there is no room.
    let (_, last) = wait::until("room by an expired key", wait::LONG, async || {
        let made = make(json!({"expires_at": "9999-12-31T23:59:59Z"})).await;
        (made.0 == 201).then_some(made)
    })
    .await
    .unwrap();
    assert_eq!(get(&control_plane, &path(&last)).await["expires_at"], "9999-12-31T23:59:59Z");
    assert_eq!(get(&control_plane, &path(&second)).await["state"], "expired");
    let longer = json!({"expires_at": null});
    let answer = control_plane.api("PATCH", &path(&second), &longer).await.unwrap();
    assert_problem(&answer, 409, None);
    control_plane.call("DELETE", &path(&last), &Value::Null).await.unwrap();
    control_plane.call("PATCH", &path(&second), &longer).await.unwrap();
}
