//! What a request can reach is judged before the API sees a byte, and can be told beforehand.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use latchkey_tests::http::{raw_status, send, send_http2_in_parts, send_http2_with_trailers};
use latchkey_tests::{Stack, project, wait};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bypass;

const GRAPHQL: &str = "/api/graphql";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Registers posts, which point at authors, and orders; returns a key that may read posts.
async fn prepare(stack: &Stack) -> (String, String) {
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    for (name, relations) in
        [("posts", json!({"author": ["authors"]})), ("authors", json!({})), ("orders", json!({}))]
    {
        relate(stack, name, &relations).await;
    }
    let rules = json!([{"resource": "posts", "actions": ["read", "update"]}]);
    let key = json!({"name": "scoped", "rules": rules});
    let key = control_plane.create_key("acme", &key).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    (key.id, key.token)
}

async fn relate(stack: &Stack, name: &str, relations: &Value) {
    let path = format!("/accounts/acme/resources/{name}");
    let body = json!({"relations": relations});
    stack.control_plane.call("PUT", &path, &body).await.unwrap();
}

async fn query(stack: &Stack, token: &str, query: &str) -> u16 {
    let url = format!("http://127.0.0.1:{}{GRAPHQL}", stack.port("flotiq").unwrap());
    let headers = [("x-auth-token", token.as_bytes()), (JSON.0, JSON.1.as_bytes())];
    let body = json!({"query": query}).to_string();
    send("POST", &url, &headers, body.as_bytes()).await.unwrap().status
}

/// Sends the head of a GraphQL request and part of its body; the rest is up to the caller.
async fn begin(stack: &Stack, token: &str, framing: &str, part: &str) -> TcpStream {
    let port = stack.port("flotiq").unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "POST {GRAPHQL} HTTP/1.1\r\nhost: g\r\nconnection: close\r\nx-auth-token: {token}\r\n\
         content-type: application/json\r\n{framing}\r\n\r\n{part}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn finish(mut stream: TcpStream, rest: &str) -> Option<u16> {
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async { while stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(wait::START, read).await.unwrap();
    raw_status(&answer)
}

#[tokio::test]
async fn nothing_reaches_the_api_before_the_verdict() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let (_, token) = prepare(&stack).await;
    let good = r#"{"query":"{ postsList { id } }"}"#;
    let bad = r#"{"query":"{ ordersList { i } }"}"#;
    assert_eq!(good.len(), bad.len());
    let length = format!("content-length: {}", good.len());
    let chunked = "transfer-encoding: chunked".to_owned();
    for (body, status) in [(good, 200), (bad, 403)] {
        let (first, rest) = body.split_at(20);
        let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
        for (framing, first, rest) in [
            (&length, first.to_owned(), rest.to_owned()),
            (&chunked, chunk(first), chunk(rest) + "0\r\n\r\n"),
            (&chunked, chunk(first), chunk(rest) + "0\r\nx-latchkey-account: other\r\n\r\n"),
        ] {
            let begun = stack.upstream.begun();
            let stream = begin(&stack, &token, framing, &first).await;
            wait::pause(Duration::from_millis(300)).await;
            assert_eq!(stack.upstream.begun(), begun, "{framing}: the body has not come yet");
            assert_eq!(finish(stream, &rest).await, Some(status), "{framing} {body}");
            let reached = stack.upstream.begun() - begun;
            assert_eq!(reached, usize::from(status == 200), "{framing} {body}");
            for seen in stack.upstream.take_seen() {
                assert_eq!(seen["body"], body);
                assert_eq!(seen["headers"]["x-latchkey-account"], "acme");
            }
        }
    }
    let url = format!("http://127.0.0.1:{}{GRAPHQL}", stack.port("flotiq").unwrap());
    let headers = [("x-auth-token", token.as_str()), JSON];
    for (body, status) in [(good, 200), (bad, 403)] {
        let begun = stack.upstream.begun();
        let parts = body.split_at(20);
        let answer = send_http2_in_parts(&url, &headers, parts, async || {
            wait::pause(Duration::from_millis(300)).await;
            assert_eq!(stack.upstream.begun(), begun, "the body has not come yet");
        });
        assert_eq!(answer.await.unwrap().status, status, "{body}");
        assert_eq!(stack.upstream.begun() - begun, usize::from(status == 200), "{body}");
    }
    // Trailers end a body without its last part being marked as such.
    let trailers = [("x-trailer".parse().unwrap(), "t".parse().unwrap())].into_iter().collect();
    let answer = send_http2_with_trailers(&url, &headers, trailers).await.unwrap();
    assert_eq!(answer.status, 400, "the body is no JSON: {}", answer.text());
}

#[tokio::test]
async fn body_that_does_not_come_is_408() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let (_, token) = prepare(&stack).await;
    let mut stream = begin(&stack, &token, "content-length: 100", r#"{"query":""#).await;
    let start = Instant::now();
    // A byte now and then is no reason to wait for ever.
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while start.elapsed() < wait::START {
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut buffer)).await;
        match read {
            Ok(Ok(count)) if count > 0 => answer.extend_from_slice(&buffer[..count]),
            Ok(_) => break,
            Err(_) => {
                let _ = stream.write_all(b" ").await;
            }
        }
        if raw_status(&answer).is_some() {
            break;
        }
    }
    assert_eq!(raw_status(&answer), Some(408));
    assert!(start.elapsed() > Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(stack.upstream.begun(), 0);
    // Neither does a client that leaves do any harm.
    drop(begin(&stack, &token, "content-length: 100", r#"{"query":""#).await);
    assert_eq!(query(&stack, &token, "{ postsList { id } }").await, 200);
    assert_eq!(stack.envoy.statistic("wasm.latchkey_bodies.vm_reload").await.unwrap(), 0);
}

/// Where the filter reads bodies, Envoy refuses what does not fit into its buffer: 1 MiB.
#[tokio::test]
async fn large_upload_waits_for_its_lease_whole() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let limits = json!([{"name": "calls", "amount": 100, "bucket_seconds": 86_400, "buckets": 30}]);
    let key = stack.control_plane.create_limited_account("acme", &limits).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    let url = format!("http://127.0.0.1:{}/api/media", stack.port("flotiq").unwrap());
    let headers = [("x-auth-token", key.token.as_bytes())];
    let file = vec![b'x'; 8 << 20];
    for _ in 0..6 {
        let answer = send("POST", &url, &headers, &file).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(stack.upstream.take_seen()[0]["body"].as_str().map(str::len), Some(file.len()));
    }
    let waited = stack.envoy.statistic("wasmcustom.latchkey_requests_waited").await.unwrap();
    assert!(waited > 0, "none of them had to wait for a lease");
}

#[tokio::test]
async fn query_is_charged_once_it_is_judged() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let limits = json!([{"name": "calls", "amount": 7, "bucket_seconds": 86_400, "buckets": 30}]);
    stack.control_plane.create_limited_account("acme", &limits).await.unwrap();
    relate(&stack, "posts", &json!({})).await;
    relate(&stack, "orders", &json!({})).await;
    let rules = json!([{"resource": "posts", "actions": ["read"]}]);
    let plan = json!({"name": "acme", "limits": limits, "max_user_keys": 5});
    stack.control_plane.call("PUT", "/plans/acme", &plan).await.unwrap();
    let key = json!({"name": "scoped", "rules": rules});
    let key = stack.control_plane.create_key("acme", &key).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    for _ in 0..20 {
        assert_eq!(query(&stack, &key.token, "{ ordersList { id } }").await, 403);
        assert_eq!(query(&stack, &key.token, "{ postsList").await, 400);
    }
    assert_eq!(stack.control_plane.used("acme").await.unwrap()["calls"], 0);
    for call in 0..7 {
        assert_eq!(query(&stack, &key.token, "{ postsList { id } }").await, 200, "{call}");
    }
    assert_eq!(query(&stack, &key.token, "{ postsList { id } }").await, 403, "nothing is left");
    assert_eq!(stack.upstream.count(), 7);
    stack.control_plane.wait_until_used("acme", "calls", 7).await.unwrap();
}

#[tokio::test]
async fn changed_relation_is_in_force_in_every_worker() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let (_, token) = prepare(&stack).await;
    let inline = "{ postsList { author { name } } }";
    for round in 0..3 {
        for (relations, status) in
            [(json!({}), 200), (json!({"author": ["authors"]}), 403), (json!({"author": "*"}), 403)]
        {
            relate(&stack, "posts", &relations).await;
            stack.wait_until_in_force().await.unwrap();
            for _ in 0..4 {
                let got = query(&stack, &token, inline).await;
                assert_eq!(got, status, "round {round}: {relations}");
                let path = "/api/v1/content/posts?hydrate=1";
                let headers = [("x-auth-token", token.as_str())];
                let got = stack.send("flotiq", "GET", path, &headers).await.unwrap().status;
                assert_eq!(got, status, "round {round}: {relations}");
            }
        }
    }
}

#[tokio::test]
async fn shadow_mode_notes_what_it_would_refuse() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let (id, token) = prepare(&stack).await;
    let headers = [("x-auth-token", token.as_str())];
    let read = async |path: &str| stack.send("flotiq", "GET", path, &headers).await.unwrap().status;
    let shadowed = async || {
        let name = "wasmcustom.latchkey_requests_shadowed";
        stack.envoy.statistic(name).await.unwrap()
    };
    let orders = "/api/v1/content/orders";
    let path = format!("/accounts/acme/keys/{id}");
    assert_eq!(read(orders).await, 403);
    assert_eq!(shadowed().await, 0);

    let key = stack.control_plane.call("PATCH", &path, &json!({"enforce": false})).await.unwrap();
    assert_eq!(key["enforce"], false);
    stack.wait_until_in_force().await.unwrap();
    assert_eq!(read(orders).await, 200);
    assert_eq!(query(&stack, &token, "{ ordersList { id } }").await, 200);
    assert_eq!(read("/api/v1/content/posts").await, 200);
    assert_eq!(shadowed().await, 2);
    // With its rules enforced it would be narrowed, and pass.
    assert_eq!(read("/api/v1/search?q=x").await, 200);
    assert_eq!(shadowed().await, 2);
    let seen = stack.upstream.take_seen();
    assert_eq!(seen.last().unwrap()["path"], "/api/v1/search?q=x", "it is not narrowed either");
    assert_eq!(read("//content").await, 400, "what cannot be judged is refused all the same");

    stack.control_plane.call("PATCH", &path, &json!({"enforce": true})).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    assert_eq!(read(orders).await, 403);
    let access_log = stack.folder.path().join("access.log");
    wait::until("the access log", wait::LONG, async || {
        let log = std::fs::read_to_string(&access_log).ok()?;
        let lines: Vec<Value> =
            log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let count = |decision: &str, right: &Value| {
            let same =
                |line: &&Value| line["decision"] == decision && line["missing_right"] == *right;
            lines.iter().filter(same).count()
        };
        let orders = json!("orders:read");
        let is_complete = count("missing_right", &orders) == 2
            && count("shadowed", &orders) == 2
            && count("permitted", &Value::Null) == 2;
        is_complete.then_some(())
    })
    .await
    .unwrap();

    let kind = "application_read_only";
    let keys = stack.control_plane.call("GET", "/accounts/acme/keys", &Value::Null).await.unwrap();
    let keys = keys["items"].as_array().unwrap().clone();
    let fixed = keys.iter().find(|key| key["kind"] == kind).unwrap()["id"].as_str().unwrap();
    let path = format!("/accounts/acme/keys/{fixed}");
    let refused =
        stack.control_plane.api("PATCH", &path, &json!({"enforce": false})).await.unwrap();
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["errors"][0]["field"], "enforce");
}

#[tokio::test]
async fn profile_in_shadow_mode_refuses_nobody_for_a_right() {
    let stack = Stack::start_with(&["flotiq"], |options| {
        let edit = |to: &str| format!(r#""enforce": {to}"#);
        options.edits = vec![(edit("true"), edit("false"))];
    })
    .await
    .unwrap();
    let (_, token) = prepare(&stack).await;
    let headers = [("x-auth-token", token.as_str())];
    for (method, path, status) in [
        ("GET", "/api/v1/content/orders", 200),
        ("DELETE", "/api/v1/content/orders/1", 200),
        ("GET", "/unlisted", 200),
        ("GET", "/api/v1/content/posts?hydrate=7", 400),
    ] {
        let answer = stack.send("flotiq", method, path, &headers).await.unwrap();
        assert_eq!(answer.status, status, "{method} {path}");
    }
    let answer = stack.send("flotiq", "GET", "/api/v1/content/orders", &[]).await.unwrap();
    assert_eq!(answer.status, 401);
    let name = "wasmcustom.latchkey_requests_shadowed";
    assert_eq!(stack.envoy.statistic(name).await.unwrap(), 3);
}

#[tokio::test]
async fn settings_close_or_soften_what_they_say() {
    let stack = Stack::start_with(&["flotiq"], |options| {
        let edit = |from: &str, to: &str| (from.to_owned(), to.to_owned());
        options.edits = vec![
            edit(r#""hydration": "deny""#, r#""hydration": "lower""#),
            edit(r#""introspection": "allow""#, r#""introspection": "deny""#),
            edit(
                r#""startup_wait_ms": 2000,"#,
                r#""startup_wait_ms": 2000, "max_body_bytes": 100,"#,
            ),
        ];
    })
    .await
    .unwrap();
    let (_, token) = prepare(&stack).await;
    let headers = [("x-auth-token", token.as_str())];
    let path = "/api/v1/content/posts?a=%7e&hydrate=2";
    assert_eq!(stack.send("flotiq", "GET", path, &headers).await.unwrap().status, 200);
    let seen = stack.upstream.take_seen();
    assert_eq!(
        seen[0]["path"], "/api/v1/content/posts?a=%7e&hydrate=0",
        "authors are out of reach"
    );
    assert_eq!(query(&stack, &token, "{ __schema { types { name } } }").await, 403);
    assert_eq!(query(&stack, &token, "{ postsList { __typename } }").await, 200);
    assert_eq!(
        query(&stack, &token, &format!("{{ postsList {{ {} }} }}", "id ".repeat(30))).await,
        413
    );
}

#[tokio::test]
async fn graphql_can_be_closed_to_scoped_keys() {
    let stack = Stack::start_with(&["flotiq"], |options| {
        let edit = |to: &str| format!(r#""graphql_scoped_keys": "{to}""#);
        options.edits = vec![(edit("allow"), edit("deny"))];
    })
    .await
    .unwrap();
    let (_, token) = prepare(&stack).await;
    let kind = "application_read_only";
    let all = stack.control_plane.application_key("acme", kind).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    assert_eq!(query(&stack, &token, "{ postsList { id } }").await, 403);
    assert_eq!(query(&stack, &all.token, "{ postsList { id } }").await, 200);
}

#[tokio::test]
async fn unused_rights_of_a_key_are_known() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let (id, token) = prepare(&stack).await;
    let rights = async || {
        let path = "/accounts/acme/usage";
        let usage = stack.control_plane.call("GET", path, &Value::Null).await.unwrap();
        let keys = usage["keys"].as_array().unwrap().clone();
        let fixed = keys.iter().filter(|key| key["id"] != id.as_str());
        fixed.for_each(|key| assert!(key["rights"].is_null(), "{key}"));
        keys.into_iter().find(|key| key["id"] == id.as_str()).unwrap()["rights"].clone()
    };
    assert_eq!(rights().await["unused"], json!(["posts:read", "posts:update"]));
    assert_eq!(rights().await["used"], json!([]));
    let headers = [("x-auth-token", token.as_str())];
    // What is refused takes no right.
    let refused = stack.send("flotiq", "PUT", "/api/v1/content/orders/1", &headers).await.unwrap();
    assert_eq!(refused.status, 403);
    assert_eq!(query(&stack, &token, "{ postsList { id } }").await, 200);
    let reported = async |expected: Value| {
        wait::until("the report", wait::LONG, async || {
            let rights = rights().await;
            (rights["unused"] == expected).then_some(rights)
        })
        .await
        .unwrap()
    };
    let known = reported(json!(["posts:update"])).await;
    assert_eq!(known["used"][0]["right"], "posts:read");
    assert!(known["used"][0]["last_used_at"].is_string(), "{known}");
    let answer = stack.send("flotiq", "PUT", "/api/v1/content/posts/1", &headers).await.unwrap();
    assert_eq!(answer.status, 200);
    reported(json!([])).await;
    // What counts is how the rules that there are now are used.
    let rules = json!([{"resource": "*", "actions": ["read"]}]);
    let path = format!("/accounts/acme/keys/{id}");
    stack.control_plane.call("PATCH", &path, &json!({"rules": rules})).await.unwrap();
    let changed = rights().await;
    assert_eq!(changed["unused"], json!(["*:read"]));
    assert_eq!(changed["used"], json!([]));
    assert!(changed["since"].as_str() > known["since"].as_str(), "{known} {changed}");
}

/// The simulator and the gateway are the same code: what the one says, the other does.
#[tokio::test]
async fn explanation_is_what_the_gateway_does() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let token = &bypass::prepare(&stack).await["scoped"];
    let control_plane = &stack.control_plane;
    let mut asked = 0;
    for file in ["paths", "methods", "hydration", "search", "graphql", "bodies", "properties"] {
        for case in project::bypass(file).unwrap().as_array().unwrap() {
            let text = case.to_string();
            let is_plain = case
                .get("headers")
                .is_none_or(|headers| *headers == json!({"content-type": "application/json"}));
            let is_envoys = ["<<", "{token}", "http://", "\"get\"", "\"key\""]
                .iter()
                .any(|part| text.contains(part));
            if !is_plain || is_envoys {
                continue;
            }
            let body = case.get("json").or(case.get("text")).cloned();
            let question = json!({"account": "acme", "token": token, "body": body,
                "method": case["method"].as_str().unwrap_or("GET"), "path": case["path"]});
            let answer = control_plane.call("POST", "/explain", &question).await.unwrap();
            assert_eq!(answer["status"], case["status"], "{case}: {answer}");
            let expected = if case["status"] == 200 { "permitted" } else { "refused" };
            assert_eq!(answer["decision"], expected, "{case}");
            if let Some(forwarded) = case["forwarded"].as_str() {
                assert_eq!(answer["forwarded"], forwarded, "{case}");
            }
            asked += 1;
        }
    }
    assert!(asked > 400, "{asked}");
}

#[tokio::test]
async fn explanation_says_what_needs_which_right() {
    let stack = Stack::start(&["flotiq", "fltr"]).await.unwrap();
    let (id, token) = prepare(&stack).await;
    let control_plane = &stack.control_plane;
    let ask =
        async |question: Value| control_plane.call("POST", "/explain", &question).await.unwrap();
    let question = json!({"account": "acme", "key": id, "method": "GET",
        "path": "/api/v1/content/posts?hydrate=1"});
    let answer = ask(question.clone()).await;
    assert_eq!(answer["decision"], "refused");
    assert_eq!(answer["reason"], "missing_right");
    assert_eq!(answer["missing"], "authors:read");
    assert_eq!(answer["route"], "GET /api/v1/content/{type}");
    assert_eq!(answer["held"], json!([{"resource": "posts", "actions": ["read", "update"]}]));
    assert_eq!(answer["answer"]["body"]["code"], 403);
    let needed = answer["needed"].as_array().unwrap();
    assert_eq!(needed[0]["right"], "posts:read");
    assert_eq!(needed[0]["is_held"], true);
    assert_eq!(needed[0]["needed_by"], "`{type}` in the path");
    assert_eq!(needed[0]["rule"], answer["held"][0]);
    assert_eq!(needed[1]["right"], "authors:read");
    assert_eq!(needed[1]["is_held"], false);
    assert_eq!(needed[1]["needed_by"], "`hydrate`: step 1, by the field `author` of `posts`");
    assert!(answer["decided_by"].as_str().unwrap().contains("no rule of the key grants"));

    let graphql = json!({"account": "acme", "token": token, "method": "POST", "path": GRAPHQL,
        "body": {"query": "{\n  postsList { author { name } }\n}"}});
    let answer = ask(graphql).await;
    assert_eq!(answer["needed"][1]["needed_by"], "the query at line 2, column 15");
    assert_eq!(answer["missing"], "authors:read");

    for (patch, method, path, reason, decided_by) in [
        (json!({}), "GET", "/api/v1/content/posts", "permitted", "the rules of the key grant all"),
        (json!({}), "POST", "/v9", "missing_right", "for keys of the kind application_read_write"),
        (json!({}), "GET", "/api/auth-context", "permitted", "no more than a valid key"),
        (json!({}), "GET", "//x", "ambiguous_path", "empty segment"),
        (json!({"enforce": false}), "GET", "/api/v1/content/orders", "shadowed", "shadow mode"),
        (
            json!({"allowed_networks": ["192.0.2.0/24"]}),
            "GET",
            "/api/v1/content/posts",
            "permitted",
            "grant all",
        ),
    ] {
        control_plane.call("PATCH", &format!("/accounts/acme/keys/{id}"), &patch).await.unwrap();
        let question = json!({"account": "acme", "key": id, "method": method, "path": path});
        let answer = ask(question).await;
        assert_eq!(answer["reason"], reason, "{answer}");
        assert!(answer["decided_by"].as_str().unwrap().contains(decided_by), "{answer}");
    }
    let in_path = format!("/api/v1/content/posts?auth_token={token}");
    let in_path = json!({"account": "acme", "method": "GET", "path": in_path});
    let answer = ask(in_path).await;
    assert_eq!(
        (&answer["decision"], &answer["forwarded"]),
        (&json!("permitted"), &json!("/api/v1/content/posts"))
    );
    let large = json!({"query": format!("{{ postsList {{ id }} }} # {}", "x".repeat(300_000))});
    let large =
        json!({"account": "acme", "key": id, "method": "POST", "path": GRAPHQL, "body": large});
    assert_eq!(ask(large).await["status"], 413);
    let elsewhere = json!({"account": "acme", "key": id, "method": "GET",
        "path": "/api/v1/content/posts", "client_address": "198.51.100.1"});
    assert_eq!(ask(elsewhere).await["reason"], "address_not_allowed");
    control_plane
        .call("POST", &format!("/accounts/acme/keys/{id}/suspend"), &Value::Null)
        .await
        .unwrap();
    let answer = ask(question).await;
    assert_eq!(
        (&answer["status"], &answer["decided_by"]),
        (&json!(401), &json!("the key is suspended"))
    );

    control_plane.create_account("lib", "fltr").await.unwrap();
    let anonymous = json!({"account": "lib", "method": "GET", "path": "/v1/mcp/manifest"});
    assert_eq!(ask(anonymous).await["reason"], "anonymous");
    let preflight = json!({"account": "lib", "method": "OPTIONS", "path": "/v1/account"});
    assert_eq!(ask(preflight).await["decided_by"], "it is a preflight, which needs no key");
    let anonymous = json!({"account": "lib", "method": "GET", "path": "/v1/datasets"});
    assert_eq!(ask(anonymous).await["reason"], "missing_token");
    let made_up = json!({"account": "lib", "token": "x", "method": "GET", "path": "/v1/datasets"});
    assert_eq!(ask(made_up).await["decided_by"], "the token is of no key");
    for (question, status, field) in [
        (json!({"account": "lib", "method": "get", "path": "/"}), 400, "method"),
        (json!({"account": "lib", "method": "GET"}), 400, "path"),
        (
            json!({"account": "lib", "method": "GET", "path": "/", "key": "a", "token": "b"}),
            400,
            "token",
        ),
        (json!({"account": "lib", "method": "GET", "path": "/", "token": token}), 400, "token"),
        (json!({"account": "lib", "method": "GET", "path": "/", "key": id}), 404, ""),
        (json!({"account": "nobody", "method": "GET", "path": "/"}), 404, ""),
    ] {
        let answer = control_plane.api("POST", "/explain", &question).await.unwrap();
        assert_eq!(answer.status, status, "{question}: {}", answer.text());
        assert!(answer.text().contains(field), "{question}: {}", answer.text());
        assert!(!answer.text().contains(&token), "{question}");
    }
}

// The API that echoes has to answer while the command runs.
#[tokio::test(flavor = "multi_thread")]
async fn explanation_can_be_had_from_a_shell() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let (id, token) = prepare(&stack).await;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(project::latchkey().unwrap());
        command.arg("explain").args(arguments);
        command.env("LATCHKEY_OPERATOR_TOKEN", &stack.control_plane.operator_token);
        command.env("LATCHKEY_URL", format!("http://127.0.0.1:{}", stack.control_plane.port));
        command.output().unwrap()
    };
    let path = "/api/v1/content/posts?hydrate=1";
    let output = run(&["--account", "acme", "--key", &id, "GET", path]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "refused, 403 (missing_right): no rule of the key grants `authors:read`, which is needed by \
         `hydrate`: step 1, by the field `author` of `posts`\n  \
         route    GET /api/v1/content/{type}\n  \
         held     posts:read                `{type}` in the path\n  \
         MISSING  authors:read              `hydrate`: step 1, by the field `author` of `posts`\n  \
         rule     posts: read, update\n  \
         answers  403 {\"code\":403,\"message\":\"Access denied or quota limit exceeded\"}\n"
    );
    let body = r#"{"query":"{ postsList { id } }"}"#;
    let output =
        run(&["--account", "acme", "--token", &token, "--json", "--body", body, "POST", GRAPHQL]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["decision"], "permitted", "{answer}");
    let echo = format!("http://127.0.0.1:{}", stack.upstream.port);
    for (arguments, message) in [
        (&["--account", "acme", "--control-plane", &echo, "GET", "/"][..], "is no control plane"),
        (&["--account", "nobody", "GET", "/"], "account `nobody` does not exist"),
        (&["--account", "acme", "--body", "@nowhere", "GET", "/"], "cannot read `nowhere`"),
        (&["--account", "acme", "--control-plane", "http://127.0.0.1:1", "GET", "/"], "cannot ask"),
        (&["--account", "acme", "--key", "a", "--token", "b", "GET", "/"], "cannot be used with"),
    ] {
        let output = run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
    let mut child = Command::new(project::latchkey().unwrap())
        .args(["explain", "--account", "acme", "--token", "-", "GET", "/api/v1/content/posts"])
        .env("LATCHKEY_OPERATOR_TOKEN", &stack.control_plane.operator_token)
        .env("LATCHKEY_URL", format!("http://127.0.0.1:{}", stack.control_plane.port))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("permitted, 200 (permitted)"), "{said}");
}
