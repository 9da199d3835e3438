//! Who is calling: tokens, their carriers, and what travels on.

use std::time::Duration;

use latchkey_tests::{IssuedKey, Stack, http, wait};
use serde_json::{Value, json};

const POSTS: &str = "/api/v1/content/posts";

/// A gateway for each profile, with a key that may do everything.
async fn start() -> (Stack, IssuedKey, IssuedKey) {
    let stack = Stack::start(&["flotiq", "fltr"]).await.unwrap();
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    control_plane.create_account("lib", "fltr").await.unwrap();
    let cms = control_plane.application_key("acme", "application_read_write").await.unwrap();
    let rag = control_plane
        .create_key(
            "lib",
            &json!({"name": "agent", "rules": [{"resource": "*", "actions": ["*"]}]}),
        )
        .await
        .unwrap();
    stack.wait_until_in_force().await.unwrap();
    (stack, cms, rag)
}

#[tokio::test]
async fn good_token_reaches_the_upstream_in_each_carrier() {
    let (stack, cms, rag) = start().await;
    let bearer = format!("Bearer {}", rag.token);
    let lower = format!("bearer {}", rag.token);
    let in_query = format!("{POSTS}?page=2&auth_token={}&limit=5", cms.token);
    let both = format!("{POSTS}?auth_token={}", cms.token);
    let header = ("X-AUTH-TOKEN", cms.token.as_str());
    for (profile, path, headers, account, key, forwarded) in [
        ("flotiq", POSTS, vec![header], "acme", &cms, POSTS),
        ("flotiq", &in_query, vec![], "acme", &cms, "/api/v1/content/posts?page=2&limit=5"),
        ("flotiq", &both, vec![header, header], "acme", &cms, POSTS),
        ("fltr", "/v1/datasets", vec![("Authorization", &bearer)], "lib", &rag, "/v1/datasets"),
        ("fltr", "/v1/datasets", vec![("authorization", &lower)], "lib", &rag, "/v1/datasets"),
        (
            "fltr",
            "/v1/mcp/manifest",
            vec![("authorization", &bearer)],
            "lib",
            &rag,
            "/v1/mcp/manifest",
        ),
    ] {
        let answer = stack.send(profile, "GET", path, &headers).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let echo = answer.json();
        assert_eq!(echo["path"], forwarded);
        assert_eq!(echo["headers"]["x-latchkey-account"], account);
        assert_eq!(echo["headers"]["x-latchkey-key"], key.id.as_str());
        assert!(!answer.text().contains(&key.token), "the upstream saw the token");
        if path.contains("auth_token") {
            assert_eq!(answer.header("cache-control"), "private");
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
        }
    }
}

#[tokio::test]
async fn bad_or_missing_token_is_401_in_the_profiles_words() {
    let (stack, cms, rag) = start().await;
    let in_query = format!("{POSTS}?auth_token={}", cms.token);
    let two = format!("{POSTS}?auth_token={}&auth_token=other", cms.token);
    let good = ("x-auth-token", cms.token.as_str());
    let cut = &cms.token[..cms.token.len() - 1];
    let flotiq = json!({"code": 401, "message": "Unauthorized"});
    let graphql = json!({"errors": [
        {"message": "Unauthorized", "extensions": {"code": "UNAUTHORIZED"}}]});
    for (path, headers, body) in [
        (POSTS, vec![], &flotiq),
        (POSTS, vec![("x-auth-token", "")], &flotiq),
        (POSTS, vec![("x-auth-token", "made-up")], &flotiq),
        (POSTS, vec![("x-auth-token", cut)], &flotiq),
        (POSTS, vec![("x-auth-token", &rag.token)], &flotiq),
        (POSTS, vec![good, ("x-auth-token", "other")], &flotiq),
        (&in_query, vec![("x-auth-token", "other")], &flotiq),
        (&two, vec![], &flotiq),
        ("/no/such/route", vec![], &flotiq),
        ("/image/0x0/a.jpg", vec![("x-auth-token", "made-up")], &flotiq),
        ("/api/graphql", vec![], &graphql),
        ("/api/v2/graphql", vec![("x-auth-token", "made-up")], &graphql),
    ] {
        let answer = stack.send("flotiq", "GET", path, &headers).await.unwrap();
        assert_eq!(answer.status, 401, "{path} {headers:?}");
        assert_eq!(answer.json(), *body);
        let nothing_sent = headers.is_empty() && !path.contains("auth_token");
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("ApiKey realm=\"flotiq\""), "{challenge}");
        assert_eq!(challenge.contains("error=\"invalid_token\""), !nothing_sent, "{challenge}");
    }

    let bearer = format!("Bearer {}", rag.token);
    let doubled = format!("Bearer  {}", rag.token);
    let colon = format!("Bearer: {}", rag.token);
    let of_cms = format!("Bearer {}", cms.token);
    assert!(bearer.len() > 40);
    for (path, header) in [
        ("/v1/datasets", None),
        ("/v1/datasets", Some(rag.token.as_str())),
        ("/v1/datasets", Some("Bearer")),
        ("/v1/datasets", Some("Bearer:")),
        ("/v1/datasets", Some(colon.as_str())),
        ("/v1/datasets", Some(doubled.as_str())),
        ("/v1/datasets", Some("Basic dXNlcjpwYXNzd29yZA==")),
        ("/v1/datasets", Some("")),
        ("/v1/datasets", Some(of_cms.as_str())),
        ("/v1/mcp/manifest", Some("Bearer made-up")),
        ("/v1/mcp/manifest", Some("")),
    ] {
        let headers: Vec<_> = header.iter().map(|&value| ("authorization", value)).collect();
        let answer = stack.send("fltr", "GET", path, &headers).await.unwrap();
        assert_eq!(answer.status, 401, "{path} {header:?}");
        assert_eq!(answer.json(), json!({"error": "Invalid API key", "code": "invalid_api_key"}));
        let expected = match header {
            None => "Bearer realm=\"fltr\", token_in=",
            Some(_) => "Bearer realm=\"fltr\", error=\"invalid_token\", token_in=",
        };
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with(expected), "{header:?}: {challenge}");
        assert!(challenge.contains("the header authorization as Bearer"), "{challenge}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    assert_eq!(stack.upstream.take_seen(), Vec::<Value>::new());
}

#[tokio::test]
async fn public_routes_and_preflights_need_no_key() {
    let (stack, ..) = start().await;
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "PUT")];
    for (profile, method, path, headers, status) in [
        ("flotiq", "GET", "/image/640x480/a.jpg", &[][..], 200),
        ("flotiq", "HEAD", "/image/640x480/a.jpg", &[], 200),
        ("flotiq", "OPTIONS", POSTS, &preflight, 200),
        ("flotiq", "OPTIONS", POSTS, &[], 401),
        ("fltr", "GET", "/v1/mcp/datasets", &[], 200),
        ("fltr", "POST", "/v1/datasets/7/query", &[], 200),
        ("fltr", "OPTIONS", "/v1/datasets", &[], 200),
        ("fltr", "GET", "/v1/datasets", &[], 401),
    ] {
        let answer = stack.send(profile, method, path, headers).await.unwrap();
        assert_eq!(answer.status, status, "{profile} {method} {path}");
        assert!(answer.json()["headers"]["x-latchkey-account"].is_null());
    }
}

#[tokio::test]
async fn identity_that_a_client_claims_is_removed() {
    let (stack, cms, _) = start().await;
    let claims = [
        ("x-latchkey-account", "evil"),
        ("X-Latchkey-Key", "evil"),
        ("x_latchkey_account", "evil"),
        ("x-latchkey_key", "evil"),
        ("x-latchkey-roles", "evil"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x_auth_token", "evil"),
    ];
    for path in [POSTS, "/image/a/b"] {
        let mut headers = claims.to_vec();
        if path == POSTS {
            headers.push(("x-auth-token", &cms.token));
        }
        let answer = stack.send("flotiq", "GET", path, &headers).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text().contains("evil"), "{}", answer.text());
        let account = &answer.json()["headers"]["x-latchkey-account"];
        assert_eq!(*account, if path == POSTS { json!("acme") } else { Value::Null });
    }
}

#[tokio::test]
async fn key_expires_by_the_filters_own_clock() {
    let (mut stack, ..) = start().await;
    let ends = time_in(Duration::from_secs(3));
    let key = json!({"name": "brief", "rules": [{"resource": "*", "actions": ["read"]}],
        "expires_at": ends});
    let key = stack.control_plane.create_key("acme", &key).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    stack.control_plane.kill().unwrap();

    let headers = [("x-auth-token", key.token.as_str())];
    let first = stack.send("flotiq", "GET", POSTS, &headers).await.unwrap();
    assert_eq!(first.status, 200);
    wait::until("the key's end", wait::LONG, async || {
        let answer = stack.send("flotiq", "GET", POSTS, &headers).await.ok()?;
        (answer.status == 401).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn key_bound_to_networks_is_403_from_elsewhere() {
    let (stack, ..) = start().await;
    for (networks, status) in [
        (json!(["127.0.0.0/8"]), 200),
        (json!(["192.0.2.0/24", "127.0.0.1"]), 200),
        (json!(["192.0.2.0/24", "2001:db8::/32"]), 403),
    ] {
        let key = json!({"name": "bound", "rules": [{"resource": "posts", "actions": ["read"]}],
            "allowed_networks": networks});
        let key = stack.control_plane.create_key("acme", &key).await.unwrap();
        stack.wait_until_in_force().await.unwrap();
        let headers = [("x-auth-token", key.token.as_str()), ("x-forwarded-for", "192.0.2.1")];
        let answer = stack.send("flotiq", "GET", POSTS, &headers).await.unwrap();
        assert_eq!(answer.status, status, "{networks}");
    }
}

#[tokio::test]
async fn token_before_works_until_its_grace_ends() {
    let (stack, cms, _) = start().await;
    let status = async |token: &str| {
        let headers = [("x-auth-token", token)];
        stack.send("flotiq", "GET", POSTS, &headers).await.unwrap().status
    };
    let second = stack.control_plane.regenerate("acme", &cms.id, 2).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    assert_eq!(second.id, cms.id);
    assert_eq!((status(&cms.token).await, status(&second.token).await), (200, 200));
    wait::until("the end of the grace", wait::LONG, async || {
        (status(&cms.token).await == 401).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(status(&second.token).await, 200);
    let third = stack.control_plane.regenerate("acme", &cms.id, 0).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    assert_eq!((status(&second.token).await, status(&third.token).await), (401, 200));
}

/// Answers carry problem details for those who ask for them.
#[tokio::test]
async fn problem_details_are_sent_on_accept() {
    let (stack, ..) = start().await;
    let headers = [("accept", "application/problem+json")];
    let answer = stack.send("flotiq", "GET", POSTS, &headers).await.unwrap();
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["title"]), (&json!(401), &json!("Unauthorized")));
}

#[tokio::test]
async fn http2_is_judged_alike() {
    let (stack, cms, _) = start().await;
    let port = stack.port("flotiq").unwrap();
    for (token, status) in [(cms.token.as_str(), 200), ("made-up", 401)] {
        let url = format!("http://127.0.0.1:{port}{POSTS}");
        let answer = http::send_http2("GET", &url, &[("x-auth-token", token)], "").await.unwrap();
        assert_eq!(answer.status, status);
    }
}

/// Returns the time after a while, as RFC 3339.
fn time_in(after: Duration) -> String {
    (jiff::Timestamp::now() + after).to_string()
}
