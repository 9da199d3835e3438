//! Names that servers fold, and tokens in every place: inputs are generated, and sent to a real Envoy.

use latchkey_tests::http::{raw_status, send_http2_with_trailers, send_raw};
use latchkey_tests::{IssuedKey, Stack};
use serde_json::{Value, json};

const POSTS: &str = "/api/v1/content/posts";

async fn start(edits: &[(&str, &str)]) -> (Stack, IssuedKey) {
    let edits = edits.iter().map(|&(from, to)| (from.to_owned(), to.to_owned())).collect();
    let stack = Stack::start_with(&["flotiq"], |options| options.edits = edits).await.unwrap();
    stack.control_plane.create_account("acme", "flotiq").await.unwrap();
    let rules = json!([{"resource": "posts", "actions": ["read", "create", "update"]}]);
    let key = json!({"name": "k", "rules": rules});
    let key = stack.control_plane.create_key("acme", &key).await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    (stack, key)
}

async fn send(stack: &Stack, method: &str, target: &str, headers: &str) -> Option<u16> {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{headers}\r\n"
    );
    raw_status(&send_raw(stack.port("flotiq").unwrap(), request.as_bytes()).await.unwrap())
}

#[tokio::test]
async fn parameter_that_decides_reaches_the_api_in_its_plain_spelling_only() {
    let (stack, key) = start(&[]).await;
    let token = format!("x-auth-token: {}\r\n", key.token);
    let mut sent = 0;
    for (method, path, name, value) in [
        ("GET", POSTS, "hydrate", "0"),
        ("POST", "/api/v1/content/posts/batch", "updateExisting", "false"),
        ("GET", "/api/v1/search", "content_type", "posts"),
        ("GET", POSTS, "auth_token", key.token.as_str()),
        ("GET", POSTS, "_method", "GET"),
        ("GET", POSTS, "order_by", "title"),
    ] {
        let plain = format!("{path}?{name}={value}");
        assert_eq!(send(&stack, method, &plain, &token).await, Some(200), "{plain}");
        let _ = stack.upstream.take_seen();
        let (first, rest) = name.split_at(1);
        let code = first.as_bytes()[0];
        let mut spellings = vec![
            name.to_uppercase(),
            format!("?{name}"),
            format!("a=b?{name}"),
            format!("a;{name}"),
            format!("a=b%26{name}"),
            format!("%25{code:02x}{rest}"),
            format!("%u00{code:02x}{rest}"),
            format!("{name}%00"),
            format!("{name}[x]"),
            format!("{name}.x"),
        ];
        for sign in (0x21..0x7f_u8).filter(|sign| !sign.is_ascii_alphanumeric()) {
            spellings.push(format!("{first}%{sign:02X}{rest}"));
            spellings.push(format!("{name}%{sign:02X}"));
            // `#` ends the target, the others end the name or begin an encoding.
            if !matches!(sign, b'#' | b'%' | b'&' | b'+' | b'=') {
                spellings.push(format!("{}{name}", char::from(sign)));
            }
        }
        for spelled in spellings {
            let target = format!("{path}?{spelled}={value}");
            let got = send(&stack, method, &target, &token).await;
            assert_eq!(got, Some(400), "{method} {target}");
            sent += 1;
        }
    }
    assert_eq!(stack.upstream.take_seen(), Vec::<Value>::new());
    assert!(sent > 500, "{sent}");
}

#[tokio::test]
async fn header_that_servers_fold_reaches_nobody() {
    let (stack, key) = start(&[]).await;
    let token = format!("x-auth-token: {}\r\n", key.token);
    // All signs that the name of a header may have (RFC 9110, section 5.6.2).
    for sign in "!#$%&'*+-.^_`|~".chars() {
        let folded = |name: &str| name.replace('-', &sign.to_string());
        for name in ["X-Latchkey-Account", "x-latchkey-key", "X-Original-URL", "X-Rewrite-Url"] {
            let line = format!("{token}{}: victim\r\n", folded(name));
            assert_eq!(send(&stack, "GET", POSTS, &line).await, Some(200), "{line}");
        }
        for name in ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override"] {
            let line = format!("{token}{}: PATCH\r\n", folded(name));
            assert_eq!(send(&stack, "GET", POSTS, &line).await, Some(400), "{line}");
        }
        let line = format!("{}: {}\r\n", folded("X-Auth-Token"), key.token);
        assert_eq!(send(&stack, "GET", "/image/a/b", &line).await, Some(200), "{line}");
        for name in ["Content-Encoding", "Content-Type"].into_iter().filter(|_| sign != '-') {
            let line = format!(
                "{token}content-type: application/json\r\n{}: gzip\r\ncontent-length: 2\r\n\r\n{{}}",
                folded(name)
            );
            assert_eq!(send(&stack, "POST", "/api/graphql", &line).await, Some(415), "{line}");
        }
    }
    for seen in stack.upstream.take_seen() {
        let text = seen.to_string();
        assert!(!text.contains("victim") && !text.contains(&key.token), "{text}");
    }
}

/// A token that is sent in a wrong place is removed: by its form, whoever's it is.
#[tokio::test]
async fn token_out_of_its_place_reaches_neither_the_api_nor_the_log() {
    let (stack, key) = start(&[]).await;
    let of_nobody = "ftq_thisTokenIsOfNobodyAtAll000000".to_owned();
    let mut sent = 0;
    for token in [&key.token, &of_nobody] {
        let code = token.as_bytes()[1];
        let (first, rest) = token.split_at(1);
        let rest = rest.get(1..).unwrap();
        for encoded in [
            token.clone(),
            format!("{first}%{code:02x}{rest}"),
            format!("{first}%25{code:02X}{rest}"),
            format!("{first}%u00{code:02x}{rest}"),
            token.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        ] {
            for target in [
                format!("/image/a/b?a={encoded}"),
                format!("/image/a/b?{encoded}"),
                format!("/image/a/b?x[{encoded}]=1&b"),
                format!("/image/a/b?a=1;b={encoded}"),
                format!("/image/a/b?AUTH_TOKEN={encoded}"),
                format!("/api/v1/content/posts?Auth-Token={encoded}"),
                format!("/image/{encoded}"),
                format!("/api/v1/content/posts/{encoded}"),
            ] {
                let got = send(&stack, "GET", &target, "").await;
                let may_pass = target.starts_with("/image/a/b") && !target.contains("AUTH");
                assert_eq!(got, Some(if may_pass { 200 } else { 400 }), "{target}");
                sent += 1;
            }
            for name in ["Referer", "Cookie", "Authorization", "X-Anything", "X.Auth.Token"] {
                let line = format!("{name}: before {encoded}, behind\r\n");
                assert_eq!(send(&stack, "GET", "/image/a/b", &line).await, Some(200), "{line}");
                sent += 1;
            }
        }
    }
    let seen = json!(stack.upstream.take_seen()).to_string();
    let access_log = stack.folder.path().join("access.log");
    let log =
        latchkey_tests::wait::until("the access log", latchkey_tests::wait::LONG, async || {
            let log = std::fs::read_to_string(&access_log).ok()?;
            (log.lines().count() >= sent).then_some(log)
        })
        .await
        .unwrap();
    for text in [seen, log] {
        // Also in the forms in which it was sent: what is left of one would be its last characters.
        for token in [&key.token, &of_nobody] {
            assert!(!text.contains(&token[8..]), "{text}");
        }
        assert!(!text.contains("%66%74%71%5f") && !text.contains("%74%71"), "{text}");
    }
}

/// Trailers used to travel on with whatever was in them.
#[tokio::test]
async fn token_in_a_trailer_reaches_nobody() {
    // Only to an upstream of HTTP/2 does Envoy forward trailers.
    let http2 = "  - name: upstream\n    typed_extension_protocol_options:\n      \
                 envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
                 \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
                 explicit_http_config: { http2_protocol_options: {} }\n";
    let (stack, key) = start(&[("  - name: upstream\n", http2)]).await;
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", stack.port("flotiq").unwrap());
    let foreign = "an-older-token-of-no-known-form";
    let encoded: String = key.token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let lowered = format!("x-{}", key.token.to_lowercase());
    let trailers = [
        ("x-kept", "kept"),
        ("x-anything", key.token.as_str()),
        ("x-within", &format!("a={}; b", key.token)),
        ("x-encoded", &encoded),
        (&lowered, "a"),
        ("x-foreign", foreign),
        ("x-latchkey.account", "victim"),
        ("x~auth~token", "victim"),
        ("x-http-method-override", "victim"),
    ];
    let trailers = || {
        trailers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    };
    for path in [POSTS, "/api/v1/content/posts/batch"] {
        let headers = [("x-auth-token", key.token.as_str())];
        let answer = send_http2_with_trailers(&url(path), &headers, trailers()).await.unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.json()["trailers"], json!({"x-foreign": foreign, "x-kept": "kept"}));
    }
    let headers = [("x-auth-token", foreign)];
    let answer = send_http2_with_trailers(&url(POSTS), &headers, trailers()).await.unwrap();
    assert_eq!(answer.status, 401);
    assert_eq!(stack.envoy.statistic("wasm.latchkey.vm_reload").await.unwrap(), 0);
}
