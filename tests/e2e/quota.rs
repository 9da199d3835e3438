//! Limits hold over all proxies and workers, to the call.

use std::time::{Duration, Instant};

use latchkey_tests::{IssuedKey, Stack, wait};
use serde_json::{Value, json};

const POSTS: &str = "/api/v1/content/posts";

/// Makes an account with a plan of its own, and returns its key to everything.
async fn account(stack: &Stack, id: &str, limits: &Value) -> IssuedKey {
    let control_plane = &stack.control_plane;
    let plan = json!({"name": id, "limits": limits});
    control_plane.call("PUT", &format!("/plans/{id}"), &plan).await.unwrap();
    let account = json!({"id": id, "name": id, "plan": id, "profile": "flotiq"});
    control_plane.call("POST", "/accounts", &account).await.unwrap();
    let key = control_plane.application_key(id, "application_read_write").await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    key
}

#[tokio::test]
async fn calls_are_counted_until_the_limit() {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let limits = json!([{"name": "calls", "amount": 20, "bucket_seconds": 86400, "buckets": 30}]);
    let key = account(&stack, "acme", &limits).await;
    for call in 0..30 {
        let begin = Instant::now();
        let answer =
            stack.send("flotiq", "GET", POSTS, &[("x-auth-token", &key.token)]).await.unwrap();
        println!(
            "{call} {} {} {} {:?}",
            answer.status,
            answer.header("ratelimit"),
            answer.header("retry-after"),
            begin.elapsed()
        );
    }
    wait::pause(Duration::from_millis(1500)).await;
    let usage =
        stack.control_plane.call("GET", "/accounts/acme/usage", &Value::Null).await.unwrap();
    println!("{usage:#}");
    let proxies = stack.control_plane.call("GET", "/proxies", &Value::Null).await.unwrap();
    println!("{proxies:#}");
}
