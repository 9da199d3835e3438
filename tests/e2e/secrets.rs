//! No token in the store, a log, a statistic, Envoy's configuration, or upstream.

use std::path::Path;

use latchkey_tests::{Stack, wait};
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
    let rag = control_plane.create_key("lib", &json!({"name": "k"})).await.unwrap();
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

    let edge_token = stack.control_plane.edge_token().unwrap();
    let operator_token = stack.control_plane.operator_token.clone();
    let tokens = [&cms.token, &rotated.token, &rag.token, &gone.token, unknown];
    let seen = json!(stack.upstream.take_seen()).to_string();
    assert!(seen.contains("x-latchkey-key"), "something was forwarded");
    let mut places = vec![("the upstream".to_owned(), seen)];
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
