//! Who is calling: tokens, their carriers, and what travels on.

use latchkey_tests::Stack;
use serde_json::json;

#[tokio::test]
async fn good_token_reaches_the_upstream_in_each_carrier() {
    let stack = Stack::start(&["flotiq", "fltr"]).await.unwrap();
    let control_plane = &stack.control_plane;
    control_plane.create_account("acme", "flotiq").await.unwrap();
    control_plane.create_account("lib", "fltr").await.unwrap();
    let cms = control_plane.application_key("acme", "application_read_write").await.unwrap();
    let rag = control_plane.create_key("lib", &json!({"name": "agent"})).await.unwrap();
    stack.wait_until_in_force().await.unwrap();

    let bearer = format!("Bearer {}", rag.token);
    let in_query = format!("/api/v1/content/posts?page=2&auth_token={}&limit=5", cms.token);
    for (profile, path, headers, account, key, forwarded) in [
        (
            "flotiq",
            "/api/v1/content/posts",
            vec![("X-AUTH-TOKEN", cms.token.as_str())],
            "acme",
            &cms,
            "/api/v1/content/posts",
        ),
        ("flotiq", in_query.as_str(), vec![], "acme", &cms, "/api/v1/content/posts?page=2&limit=5"),
        (
            "fltr",
            "/v1/datasets",
            vec![("Authorization", bearer.as_str())],
            "lib",
            &rag,
            "/v1/datasets",
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
