//! What goes on when something is down, and what happens when it is back.

use std::time::{Duration, Instant};

use latchkey_tests::{Envoy, IssuedKey, Stack, wait};
use serde_json::{Value, json};

const POSTS: &str = "/api/v1/content/posts";

async fn start() -> (Stack, IssuedKey) {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let key = stack.control_plane.create_account_with_key("acme").await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    (stack, key)
}

async fn status(stack: &Stack, token: &str) -> u16 {
    stack.send("flotiq", "GET", POSTS, &[("x-auth-token", token)]).await.unwrap().status
}

/// Waits until a request with a token reaches the upstream.
async fn wait_until_served(stack: &Stack, token: &str) {
    wait::until("a request that is served", wait::LONG, async || {
        (status(stack, token).await == 200).then_some(())
    })
    .await
    .unwrap();
}

async fn restart_envoy(stack: &mut Stack) {
    stack.envoy.kill().unwrap();
    let options = stack.envoy.options.clone();
    stack.envoy = Envoy::start(options, stack.folder.path()).await.unwrap();
}

#[tokio::test]
async fn keys_go_on_working_while_the_control_plane_is_away() {
    let (mut stack, key) = start().await;
    stack.control_plane.kill().unwrap();
    for _ in 0..50 {
        assert_eq!(status(&stack, &key.token).await, 200);
        assert_eq!(status(&stack, "made-up").await, 401);
    }
    wait::until("the warning", wait::LONG, async || {
        stack.envoy.log().contains("no updates from the control plane").then_some(())
    })
    .await
    .unwrap();

    stack.control_plane.run().await.unwrap();
    let path = format!("/accounts/acme/keys/{}/suspend", key.id);
    stack.control_plane.call("POST", &path, &Value::Null).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    assert_eq!(status(&stack, &key.token).await, 401);
}

/// Nothing that was answered is lost when the control plane crashes right after.
#[tokio::test]
async fn change_survives_a_crash_of_the_control_plane() {
    let (mut stack, _) = start().await;
    for _ in 0..5 {
        let key = json!({"name": "k", "rules": [{"resource": "posts", "actions": ["read"]}]});
        let key = stack.control_plane.create_key("acme", &key).await.unwrap();
        stack.control_plane.kill().unwrap();
        stack.control_plane.run().await.unwrap();
        wait_until_served(&stack, &key.token).await;
    }
}

#[tokio::test]
async fn wiped_control_plane_takes_the_old_keys_away() {
    let (mut stack, old) = start().await;
    stack.control_plane.kill().unwrap();
    let data = stack.control_plane.data.clone();
    for name in ["latchkey.db", "latchkey.db-wal", "latchkey.db-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    assert_eq!(status(&stack, &old.token).await, 200);

    stack.control_plane.run().await.unwrap();
    // As many changes as before, so that the numbers of the revisions are the same again.
    let new = stack.control_plane.create_account_with_key("other").await.unwrap();
    wait_until_served(&stack, &new.token).await;
    stack.wait_until_in_force().await.unwrap();
    for _ in 0..10 {
        assert_eq!(status(&stack, &old.token).await, 401);
    }
}

#[tokio::test]
async fn restarted_envoy_has_the_keys_again() {
    let (mut stack, key) = start().await;
    for _ in 0..3 {
        restart_envoy(&mut stack).await;
        assert_eq!(status(&stack, &key.token).await, 200);
        assert_eq!(status(&stack, "made-up").await, 401);
    }
}

#[tokio::test]
async fn request_waits_for_the_first_snapshot_and_then_is_503() {
    let (mut stack, key) = start().await;
    stack.control_plane.kill().unwrap();
    restart_envoy(&mut stack).await;
    let begin = Instant::now();
    for token in [key.token.as_str(), "made-up"] {
        let headers = [("x-auth-token", token)];
        let answer = stack.send("flotiq", "GET", POSTS, &headers).await.unwrap();
        assert_eq!(answer.status, 503, "never 401");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.json(), json!({"code": 503, "message": "Service unavailable"}));
    }
    assert!(begin.elapsed() >= Duration::from_secs(4), "each waits for two seconds");
    assert_eq!(stack.send("flotiq", "GET", POSTS, &[]).await.unwrap().status, 401);
    assert_eq!(stack.send("flotiq", "GET", "/image/a/b", &[]).await.unwrap().status, 200);

    stack.control_plane.run().await.unwrap();
    wait_until_served(&stack, &key.token).await;
}

#[tokio::test]
async fn request_that_waits_is_served_once_there_is_a_snapshot() {
    let (mut stack, key) = start().await;
    stack.control_plane.kill().unwrap();
    stack.envoy.options.config_options = ["--startup-wait-ms", "10000"].map(str::to_owned).to_vec();
    restart_envoy(&mut stack).await;

    let port = stack.port("flotiq").unwrap();
    let query = r#"{"query": "{ __typename }"}"#;
    let waiting: Vec<_> = (0..40)
        .map(|index| {
            // Half of them wait with a body that decides.
            let (path, body) = if index % 4 < 2 {
                (POSTS, "a body that waits as well")
            } else {
                ("/api/graphql", query)
            };
            let token = if index % 2 == 0 { key.token.clone() } else { "made-up".to_owned() };
            tokio::spawn(async move {
                let url = format!("http://127.0.0.1:{port}{path}");
                let json = ("content-type", b"application/json".as_slice());
                let headers = [("x-auth-token", token.as_bytes()), json];
                latchkey_tests::http::send("POST", &url, &headers, body.as_bytes()).await
            })
        })
        .collect();
    wait::pause(Duration::from_millis(500)).await;
    assert!(stack.upstream.take_seen().is_empty(), "nothing is forwarded before it is judged");
    stack.control_plane.run().await.unwrap();
    for (index, answer) in waiting.into_iter().enumerate() {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, if index % 2 == 0 { 200 } else { 401 });
        if answer.status == 200 {
            let body = if index % 4 < 2 { "a body that waits as well" } else { query };
            assert_eq!(answer.json()["body"], body);
            assert_eq!(answer.json()["headers"]["x-latchkey-account"], "acme");
        }
    }
    let access_log = stack.folder.path().join("access.log");
    wait::until("the decisions in the access log", wait::LONG, async || {
        let log = std::fs::read_to_string(&access_log).ok()?;
        let count = |decision: &str| log.matches(&format!("\"decision\":\"{decision}\"")).count();
        (count("permitted") == 20 && count("unknown_token") == 20).then_some(())
    })
    .await
    .unwrap();
}

/// A client that leaves while it waits leaves nothing behind that could fail.
#[tokio::test]
async fn client_that_leaves_while_it_waits_harms_nobody() {
    let (mut stack, key) = start().await;
    stack.control_plane.kill().unwrap();
    restart_envoy(&mut stack).await;
    let url = format!("http://127.0.0.1:{}{POSTS}", stack.port("flotiq").unwrap());
    for _ in 0..20 {
        let url = url.clone();
        let leaving = tokio::spawn(async move {
            latchkey_tests::http::send("GET", &url, &[("x-auth-token", b"x")], b"").await
        });
        wait::pause(Duration::from_millis(20)).await;
        leaving.abort();
    }
    stack.control_plane.run().await.unwrap();
    wait_until_served(&stack, &key.token).await;
    assert_eq!(stack.envoy.statistic("wasm.latchkey.vm_reload").await.unwrap(), 0);
}

#[tokio::test]
async fn gateway_without_the_right_edge_token_is_503_and_says_why() {
    for edge_token in [None, Some("a-wrong-edge-token".to_owned())] {
        let (mut stack, key) = start().await;
        stack.envoy.options.edge_token = edge_token.clone();
        restart_envoy(&mut stack).await;
        assert_eq!(status(&stack, &key.token).await, 503);
        let expected = match edge_token {
            None => "set the environment variable `LATCHKEY_EDGE_TOKEN`",
            Some(_) => "the control plane answered 401",
        };
        assert!(stack.envoy.log().contains(expected), "{}", stack.envoy.log());
    }
}
