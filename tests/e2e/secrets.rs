//! No token in the store, a log, a statistic, Envoy's configuration, or upstream.

use std::path::Path;

use latchkey_tests::{Envoy, Stack, http, wait};
use serde_json::{Value, json};

#[tokio::test]
async fn tokens_are_nowhere_but_with_their_holders() {
    let mut stack = Stack::start(&["flotiq", "fltr"]).await.unwrap();
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    control_plane.create_account("lib", "fltr").await.unwrap();
    let rules = json!([{"resource": "posts", "actions": ["read"]}]);
    let key = json!({"name": "k", "rules": rules});
    let cms = control_plane.create_key("acme", &key).await.unwrap();
    let rag = control_plane
        .create_key("lib", &json!({"name": "k", "rules": [{"resource": "*", "actions": ["*"]}]}))
        .await
        .unwrap();
    let gone = control_plane.create_key("acme", &key).await.unwrap();
    let path = format!("/accounts/acme/keys/{}", gone.id);
    control_plane.call("DELETE", &path, &Value::Null).await.unwrap();
    let rotated = control_plane.regenerate("acme", &cms.id, 60).await.unwrap();
    stack.wait_until_in_force().await.unwrap();

    // In every carrier, permitted and refused, in its place and out of it.
    let unknown = "ftq_thisTokenIsOfNobodyAtAll000000";
    for token in [&cms.token, &rotated.token, &rag.token, &gone.token, unknown] {
        let bearer = format!("Bearer {token}");
        let referer = format!("https://a.example/?auth_token={token}");
        for path in [
            "/api/v1/content/posts".to_owned(),
            format!("/api/v1/content/posts?auth_token={token}"),
            format!("/api/v1/content/tags?auth_token={token}&x={token}"),
            format!("/api/v1/content/posts/{token}?auth_token={token}"),
            format!("//api?auth_token={token}"),
            format!("/image/a/b?auth_token={token}"),
            format!("/v1/datasets?a={token}"),
        ] {
            let headers = [
                ("x-auth-token", token),
                ("authorization", bearer.as_str()),
                ("referer", referer.as_str()),
                ("x-debug", token),
                ("cookie", referer.as_str()),
            ];
            for profile in ["flotiq", "fltr"] {
                stack.send(profile, "GET", &path, &headers).await.unwrap();
            }
        }
    }

    answered_by_envoy_itself(&stack, &cms.token).await;

    let mut places = Vec::new();
    for token in [&cms.token, &rotated.token, &gone.token, unknown] {
        let path = format!("/api/v1/content/posts?auth_token={token}");
        for question in [
            json!({"account": "acme", "token": token, "method": "GET", "path": path}),
            json!({"account": "acme", "method": "GET", "path": path}),
            json!({"account": "acme", "method": "GET", "path": format!("/{token}?auth_token={token}")}),
            json!({"account": "lib", "token": token, "method": "GET", "path": "/v1/datasets"}),
        ] {
            let answer = stack.control_plane.api("POST", "/explain", &question).await.unwrap();
            places.push(("an explanation".to_owned(), answer.text()));
        }
    }

    let edge_token = stack.control_plane.edge_token().unwrap();
    let operator_token = stack.control_plane.operator_token.clone();
    let tokens = [&cms.token, &rotated.token, &rag.token, &gone.token, unknown];
    let seen = json!(stack.upstream.take_seen()).to_string();
    assert!(seen.contains("x-latchkey-key"), "something was forwarded");
    places.push(("the upstream".to_owned(), seen));
    for page in ["/config_dump?include_eds", "/stats", "/clusters", "/server_info"] {
        places.push((page.to_owned(), stack.envoy.admin(page).await.unwrap()));
    }
    let audit = stack.control_plane.call("GET", "/audit?limit=1000", &Value::Null).await.unwrap();
    places.push(("the audit log".to_owned(), audit.to_string()));
    for (place, text) in &places {
        for token in tokens.iter().copied().chain([edge_token.as_str(), &operator_token]) {
            assert!(!text.contains(token), "a token is in {place}");
        }
    }

    // Everything on the disk: the store with its log, all logs, the access log.
    let access_log = stack.folder.path().join("access.log");
    wait::until("the access log", wait::LONG, async || {
        std::fs::read_to_string(&access_log).ok().filter(|log| log.lines().count() >= 70)
    })
    .await
    .unwrap();
    stack.envoy.stop().await.unwrap();
    stack.control_plane.stop().await.unwrap();
    let mut files = 0;
    for_each_file(stack.folder.path(), &mut |path, content| {
        files += 1;
        for token in tokens {
            let found = content.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!found, "a token is in {}", path.display());
        }
        if !path.ends_with("edge-token") && !path.ends_with("operator-token") {
            for token in [&edge_token, &operator_token] {
                let found = content.windows(token.len()).any(|window| window == token.as_bytes());
                assert!(!found, "a credential is in {}", path.display());
            }
        }
    });
    assert!(files >= 6, "{files}");
    let log = std::fs::read_to_string(&access_log).unwrap();
    assert!(log.contains("\"decision\":\"permitted\"") && log.contains(&cms.id), "{log}");
}

/// Requests that Envoy answers before the filter has seen them, or whose client leaves while they
/// wait: their tokens are still in the path when the access log is written.
async fn answered_by_envoy_itself(stack: &Stack, token: &str) {
    let port = stack.port("flotiq").unwrap();
    let target = format!("/api/v1/content/posts?auth_token={token}");
    for request in [
        format!("GET {target} HTTP/1.0\r\n\r\n"),
        format!(
            "GET {target} HTTP/1.1\r\nhost: g\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
        ),
        format!("GET {target}#x HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nhost: g\r\nhost: h\r\nconnection: close\r\n\r\n"),
        format!("GET {target} HTTP/1.1\r\nhost: g\r\nx: {}\r\n\r\n", "y".repeat(100 << 10)),
    ] {
        http::send_raw(port, request.as_bytes()).await.unwrap();
    }
}

/// A client that leaves while its request waits for the first snapshot is in the access log too.
#[tokio::test]
async fn token_of_a_client_that_leaves_is_not_logged() {
    let mut stack = Stack::start(&["flotiq"]).await.unwrap();
    stack.control_plane.kill().unwrap();
    stack.envoy.kill().unwrap();
    let options = stack.envoy.options.clone();
    stack.envoy = Envoy::start(options, stack.folder.path()).await.unwrap();
    let url = format!(
        "http://127.0.0.1:{}/api/v1/content/posts?auth_token=ftq_aTokenThatIsInAQueryString00",
        stack.port("flotiq").unwrap()
    );
    let leaving = tokio::spawn(async move { http::send("GET", &url, &[], b"").await });
    wait::pause(std::time::Duration::from_millis(300)).await;
    leaving.abort();
    let access_log = stack.folder.path().join("access.log");
    let log = wait::until("the access log", wait::LONG, async || {
        std::fs::read_to_string(&access_log).ok().filter(|log| log.contains("/content/posts"))
    })
    .await
    .unwrap();
    assert!(!log.contains("ftq_"), "{log}");
}

fn for_each_file(folder: &Path, check: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for_each_file(&path, check);
        } else {
            check(&path, &std::fs::read(&path).unwrap());
        }
    }
}
