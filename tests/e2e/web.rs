//! What pages may read of the gateway's answers, and what caches may keep.

use latchkey_tests::{Response, Stack, http};
use serde_json::json;

const POSTS: &str = "/api/v1/content/posts";

async fn send(
    stack: &Stack,
    profile: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Response {
    stack.send(profile, method, path, headers).await.unwrap()
}

/// Returns all values of a header, each with a comma and a blank behind the one before, in lower case.
fn all(answer: &Response, name: &str) -> String {
    let lines = answer.headers.get_all(name).iter().map(|line| line.to_str().unwrap());
    let values = lines.flat_map(|line| line.split(',')).map(str::trim);
    values.collect::<Vec<_>>().join(", ").to_lowercase()
}

/// Gateways, a key of each profile, and one whose limit is used up.
async fn start() -> (Stack, String, String, String) {
    let stack = Stack::start(&["flotiq", "fltr"]).await.unwrap();
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    let rules = json!([{"resource": "posts", "actions": ["read"]}]);
    let cms =
        control_plane.create_key("acme", &json!({"name": "k", "rules": rules})).await.unwrap();
    let account = json!({"id": "lib", "name": "lib", "profile": "fltr"});
    control_plane.call("POST", "/accounts", &account).await.unwrap();
    let rules = json!([{"resource": "*", "actions": ["*"]}]);
    let rag = control_plane.create_key("lib", &json!({"name": "k", "rules": rules})).await.unwrap();
    let limits = json!([{"name": "calls", "amount": 0, "bucket_seconds": 86_400, "buckets": 30}]);
    let spent = control_plane.create_limited_account("spent", &limits).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    (stack, cms.token, format!("Bearer {}", rag.token), spent.token)
}

/// Pages could not see why Flotiq had refused them, nor when to try again.
#[tokio::test]
async fn page_can_read_every_refusal() {
    let (stack, cms, rag, spent) = start().await;
    let origin = ("origin", "https://shop.example");
    for (profile, method, path, credential, status) in [
        ("flotiq", "GET", POSTS, None, 401),
        ("flotiq", "GET", POSTS, Some(("x-auth-token", "made-up")), 401),
        ("flotiq", "GET", "/api/v1/content/tags", Some(("x-auth-token", cms.as_str())), 403),
        ("flotiq", "GET", POSTS, Some(("x-auth-token", spent.as_str())), 403),
        ("flotiq", "GET", "//", None, 400),
        ("flotiq", "POST", "/api/graphql", Some(("x-auth-token", cms.as_str())), 415),
        ("fltr", "GET", "/v1/datasets", None, 401),
        ("fltr", "GET", "/v1/datasets", Some(("authorization", "Bearer made-up")), 401),
        ("fltr", "GET", "//", Some(("authorization", rag.as_str())), 400),
    ] {
        let headers: Vec<(&str, &str)> = credential.into_iter().chain([origin]).collect();
        let answer = send(&stack, profile, method, path, &headers).await;
        assert_eq!(answer.status, status, "{profile} {method} {path}");
        assert_eq!(all(&answer, "access-control-allow-origin"), "*", "{profile} {path}");
        let exposed = all(&answer, "access-control-expose-headers");
        for name in ["www-authenticate", "retry-after", "ratelimit", "ratelimit-policy"] {
            assert!(exposed.split(", ").any(|other| other == name), "{profile} {path}: {exposed}");
        }
        assert_eq!(all(&answer, "cache-control"), "no-store");
    }
}

#[tokio::test]
async fn page_can_read_the_rate_limit_headers_of_an_answer() {
    let (stack, _, rag, _) = start().await;
    let origin = ("origin", "https://shop.example");
    let upstreams = ("x-respond-with", "access-control-expose-headers: X-Total");
    for (path, headers) in [
        ("/v1/mcp/manifest", vec![origin]),
        ("/v1/datasets", vec![("authorization", rag.as_str()), origin]),
        ("/v1/datasets", vec![("authorization", rag.as_str()), origin, upstreams]),
    ] {
        let answer = send(&stack, "fltr", "GET", path, &headers).await;
        assert_eq!(answer.status, 200, "{path}");
        let exposed = all(&answer, "access-control-expose-headers");
        let mut names = vec!["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
        names.extend(["ratelimit", "ratelimit-policy"]);
        if headers.contains(&upstreams) {
            names.push("x-total");
        }
        for name in names {
            let is_there = name == "x-total" || !all(&answer, name).is_empty();
            assert!(is_there, "{name}");
            assert!(exposed.split(", ").any(|other| other == name), "{name}: {exposed}");
        }
    }
    let answer = send(&stack, "fltr", "GET", "/v1/mcp/manifest", &[]).await;
    assert_eq!(all(&answer, "access-control-expose-headers"), "", "no page asked");
}

/// What the upstream let caches keep used to be handed to whoever came next, with whatever key.
#[tokio::test]
async fn cache_tells_keys_apart() {
    let (stack, cms, rag, _) = start().await;
    let public = ("x-respond-with", "cache-control: public, max-age=60");
    let vary = ("x-respond-with", "vary: Accept-Encoding");
    let no_store = ("x-respond-with", "cache-control: no-store, max-age=0");
    let token = ("x-auth-token", cms.as_str());
    let in_query = format!("{POSTS}?auth_token={cms}");
    for (profile, path, headers, cache_control, varies) in [
        ("flotiq", POSTS, vec![token, public], "public, max-age=60", "x-auth-token"),
        (
            "flotiq",
            POSTS,
            vec![token, public, vary],
            "public, max-age=60",
            "accept-encoding, x-auth-token",
        ),
        ("flotiq", POSTS, vec![token], "", "x-auth-token"),
        ("flotiq", "/image/a/b", vec![token, public], "public, max-age=60", "x-auth-token"),
        ("flotiq", "/image/a/b", vec![public], "public, max-age=60", ""),
        ("flotiq", "/api/v1/search?q=x", vec![token, public], "private", "x-auth-token"),
        ("flotiq", "/api/v1/search?q=x", vec![token], "private", "x-auth-token"),
        (
            "flotiq",
            "/api/v1/search?q=x",
            vec![token, no_store],
            "no-store, max-age=0",
            "x-auth-token",
        ),
        (
            "flotiq",
            "/api/v1/search?content_type[]=posts",
            vec![token, public],
            "public, max-age=60",
            "x-auth-token",
        ),
        ("flotiq", in_query.as_str(), vec![public], "private", "x-auth-token"),
        (
            "fltr",
            "/v1/datasets",
            vec![("authorization", rag.as_str()), public],
            "public, max-age=60",
            "authorization",
        ),
        ("fltr", "/v1/mcp/manifest", vec![public], "public, max-age=60", ""),
    ] {
        let answer = send(&stack, profile, "GET", path, &headers).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(all(&answer, "cache-control"), cache_control, "{path} {headers:?}");
        assert_eq!(all(&answer, "vary"), varies, "{path} {headers:?}");
        let referrer = if path == in_query { "no-referrer" } else { "" };
        assert_eq!(all(&answer, "referrer-policy"), referrer, "{path}");
    }
}

/// A preflight used to take a query to the API, as often as a client liked.
#[tokio::test]
async fn preflight_has_no_body_and_is_counted() {
    let (stack, ..) = start().await;
    let asks = [
        ("origin", b"https://shop.example".as_slice()),
        ("access-control-request-method", b"POST"),
        ("content-type", b"application/json"),
    ];
    for (profile, path) in [
        ("flotiq", "/api/graphql"),
        ("flotiq", POSTS),
        ("fltr", "/v1/datasets"),
        ("fltr", "/v1/mcp/query"),
    ] {
        let url = format!("http://127.0.0.1:{}{path}", stack.port(profile).unwrap());
        for (body, status) in [("", 200), (r#"{"query":"{posts{id}}"}"#, 413), ("x", 413)] {
            let answer = http::send("OPTIONS", &url, &asks, body.as_bytes()).await.unwrap();
            assert_eq!(answer.status, status, "{profile} {path} {body}");
        }
    }
    for seen in stack.upstream.take_seen() {
        assert_eq!(seen["body"], "");
    }

    // Two workers count 600 a minute each; a minute may end on the way.
    let client = http::pooled_client();
    let url = format!("http://127.0.0.1:{}/v1/datasets", stack.port("fltr").unwrap());
    let mut passed = 0;
    let refused = loop {
        let answer = http::send_pooled(&client, "OPTIONS", &url, &[], "").await.unwrap();
        match answer.status {
            200 if passed < 4 * 600 => passed += 1,
            _ => break answer,
        }
    };
    assert_eq!(refused.status, 429, "after {passed}");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(refused.json()["code"], "rate_limit_exceeded");
    // It takes nothing from what clients without a token may call.
    let answer = send(&stack, "fltr", "GET", "/v1/mcp/manifest", &[]).await;
    assert_eq!(answer.header("x-ratelimit-remaining"), "49");
}
