//! Hostile input is an error answer, and never a trap.

use latchkey_tests::http::{raw_status, send_raw};
use latchkey_tests::{IssuedKey, Stack, http};
use serde_json::json;

const POSTS: &str = "/api/v1/content/posts";

/// Gateways with a key, in an Envoy that lets large headers through to the filter.
async fn start() -> (Stack, IssuedKey) {
    let stack = Stack::start_with(&["flotiq", "fltr"], |options| {
        let limits = "common_http_protocol_options:\n            max_headers_count: 3000";
        options.edits = vec![
            ("common_http_protocol_options:".to_owned(), limits.to_owned()),
            (
                "request_headers_timeout: 10s".to_owned(),
                "request_headers_timeout: 10s\n          max_request_headers_kb: 8192".to_owned(),
            ),
        ];
    })
    .await
    .unwrap();
    let key = stack.control_plane.create_account_with_key("acme").await.unwrap();
    stack.wait_until_in_force().await.unwrap();
    (stack, key)
}

/// Fails if a VM has trapped, or if the key does not work any more.
async fn check_unharmed(stack: &Stack, key: &IssuedKey) {
    let log = stack.envoy.log();
    for sign in ["panicked", "Function: proxy_on", "wasm trap", "Uncaught"] {
        assert!(!log.contains(sign), "{log}");
    }
    for name in ["wasm.latchkey.vm_reload", "wasm.latchkey.vm_reload_success"] {
        assert_eq!(stack.envoy.statistic(name).await.unwrap(), 0, "{name}");
    }
    // One per worker, one on the main thread, and the base that they were cloned from.
    let active = stack.envoy.statistic("wasm.envoy.wasm.runtime.v8.active").await.unwrap();
    assert_eq!(active, 4);
    for _ in 0..8 {
        let headers = [("x-auth-token", key.token.as_str())];
        let answer = stack.send("flotiq", "GET", POSTS, &headers).await.unwrap();
        assert_eq!(answer.status, 200);
    }
}

/// Sends a request with a good token, of which one line is given as bytes.
async fn send(stack: &Stack, key: &IssuedKey, target: &[u8], headers: &[u8]) -> Option<u16> {
    let request = [
        b"GET ".as_slice(),
        target,
        b" HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nx-auth-token: ",
        key.token.as_bytes(),
        b"\r\n",
        headers,
        b"\r\n",
    ]
    .concat();
    raw_status(&send_raw(stack.port("flotiq").unwrap(), &request).await.unwrap())
}

#[tokio::test]
async fn path_that_two_readers_could_read_differently_is_400() {
    let (stack, key) = start().await;
    for path in [
        "//api/v1/content/posts",
        "/api//v1/content/posts",
        "/api/v1/content/posts//1",
        "/api/v1/content/tags/../posts",
        "/api/v1/content/./posts",
        "/api/v1/content/posts/..",
        "/api/v1/content/tags/%2e%2e/posts",
        "/api/v1/content/tags/.%2E/posts",
        "/api/v1/content%2Fposts",
        "/api/v1/content%2fposts",
        "/api/v1/content%5Cposts",
        "/api/v1/content\\posts",
        "/api/v1/content/posts%00",
        "/api/v1/content/posts%0d%0ax: y",
        "/api/v1/content/posts%7f",
        "/api/v1/content/%252e%252e/posts",
        "/api/v1/content/posts%252F1",
        "/api/v1/content/posts;a=b",
        "/api/v1/content/posts/..;/tags",
        "/api/v1/content/posts%3Ba",
        "/api/v1/content/posts%ff",
        "/api/v1/content/posts%c0%af",
        "/api/v1/content/posts%",
        "/api/v1/content/posts%4",
        "/api/v1/content/posts%zz",
        "/api/v1/content/posts#x",
        "/api/v1/content/posts?a#x",
    ] {
        let target = path.replace(' ', "%20");
        let got = send(&stack, &key, target.as_bytes(), b"").await;
        assert_eq!(got, Some(400), "{path}");
    }
    assert!(stack.upstream.take_seen().is_empty(), "nothing was forwarded");
    check_unharmed(&stack, &key).await;
}

#[tokio::test]
async fn bytes_that_are_not_utf_8_are_answered() {
    let (stack, key) = start().await;
    let bytes: Vec<u8> = (0x80..=0xff).collect();
    let header = |name: &str| [name.as_bytes(), b": ", &bytes, b"\r\n"].concat();
    for (name, status) in [
        ("x-auth-token", 401),
        ("authorization", 200),
        ("accept", 200),
        ("referer", 200),
        ("cookie", 200),
        ("user-agent", 200),
        ("x-latchkey-account", 200),
        ("x-forwarded-for", 200),
        ("x-http-method-override", 400),
        ("access-control-request-method", 200),
    ] {
        let got = send(&stack, &key, POSTS.as_bytes(), &header(name)).await;
        assert_eq!(got, Some(status), "{name}");
    }
    for target in [
        [POSTS.as_bytes(), &[0xff]].concat(),
        [b"/", bytes.as_slice()].concat(),
        [POSTS.as_bytes(), b"?a=", &[0xc3, 0x28]].concat(),
        [POSTS.as_bytes(), b"?auth_token=", &bytes].concat(),
    ] {
        let got = send(&stack, &key, &target, b"").await;
        assert_eq!(got, Some(400), "{target:?}");
    }
    // Encoded, they reach the filter.
    let got = send(&stack, &key, b"/api/v1/content/posts?auth_token=%ff%fe", b"").await;
    assert_eq!(got, Some(401));
    let port = stack.port("fltr").unwrap();
    let request = [
        b"GET /v1/datasets HTTP/1.1\r\nhost: g\r\nconnection: close\r\n".as_slice(),
        b"authorization: Bearer ",
        &bytes,
        b"\r\n\r\n",
    ]
    .concat();
    assert_eq!(raw_status(&send_raw(port, &request).await.unwrap()), Some(401));
    check_unharmed(&stack, &key).await;
}

#[tokio::test]
async fn large_and_many_headers_are_answered() {
    let (stack, key) = start().await;
    let large = |name: &str, size: usize| {
        [name.as_bytes(), b": ", "a".repeat(size).as_bytes(), b"\r\n"].concat()
    };
    let many = |count: usize| {
        (0..count).map(|index| format!("x-header-{index}: v\r\n")).collect::<String>().into_bytes()
    };
    for (what, headers, statuses) in [
        ("60 KiB token", large("x-auth-token", 60 << 10), &[401][..]),
        ("60 KiB header", large("x-other", 60 << 10), &[200]),
        ("1 MiB token", large("x-auth-token", 1 << 20), &[400, 401, 431]),
        ("1 MiB header", large("x-other", 1 << 20), &[200, 400, 401, 431]),
        ("60 KiB accept", large("accept", 60 << 10), &[200]),
        ("300 headers", many(300), &[200]),
        ("1000 headers", many(1000), &[200]),
        ("2000 headers", many(2000), &[200]),
        ("500 tokens", "x-auth-token: other\r\n".repeat(500).into_bytes(), &[401]),
    ] {
        let status = send(&stack, &key, POSTS.as_bytes(), &headers).await;
        assert!(status.is_some_and(|status| statuses.contains(&status)), "{what}: {status:?}");
    }
    let long = format!("{POSTS}?{}", "a=b&".repeat(15_000));
    assert_eq!(send(&stack, &key, long.as_bytes(), b"").await, Some(200));
    let deep = format!("/{}", "a/".repeat(20_000));
    assert_eq!(send(&stack, &key, deep.as_bytes(), b"").await, Some(200));
    check_unharmed(&stack, &key).await;
}

#[tokio::test]
async fn request_that_says_another_method_is_400() {
    let (stack, key) = start().await;
    for (headers, query, status) in [
        ("x-http-method-override: DELETE\r\n", "", 400),
        ("x_http_method_override: DELETE\r\n", "", 400),
        ("X-HTTP-Method: PUT\r\n", "", 400),
        ("x-method-override: PATCH\r\n", "", 400),
        ("x-http-method-override: GET\r\nx-http-method-override: PUT\r\n", "", 400),
        ("", "?_method=DELETE", 400),
        ("", "?%5Fmethod=DELETE", 400),
        ("", "?_method[]=DELETE", 400),
        ("x-http-method-override: GET\r\n", "", 200),
        ("", "?_method=get", 200),
    ] {
        let target = format!("{POSTS}{query}");
        let got = send(&stack, &key, target.as_bytes(), headers.as_bytes()).await;
        assert_eq!(got, Some(status), "{headers} {query}");
    }
    for seen in stack.upstream.take_seen() {
        assert!(seen["headers"]["x-http-method-override"].is_null(), "{seen}");
    }
    check_unharmed(&stack, &key).await;
}

#[tokio::test]
async fn trailers_are_stripped_and_harm_nobody() {
    let (stack, key) = start().await;
    let url = format!("http://127.0.0.1:{}{POSTS}", stack.port("flotiq").unwrap());
    let names = ["x-latchkey-account", "x-auth-token", "x-other"];
    for (token, status) in [(key.token.as_str(), 200), ("made-up", 401)] {
        let trailers = names.iter().map(|name| (name.parse().unwrap(), "t".parse().unwrap()));
        let headers = [("x-auth-token", token)];
        let answer = http::send_http2_with_trailers(&url, &headers, trailers.collect()).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 200 {
            assert_eq!(answer.json()["body"], "body");
            assert_eq!(answer.json()["headers"]["x-latchkey-account"], "acme");
        }
    }
    check_unharmed(&stack, &key).await;
}

/// A few thousand requests of parts that have meaning, put together at random.
#[tokio::test]
async fn random_requests_are_all_answered() {
    let (stack, key) = start().await;
    let parts: [&[u8]; 28] = [
        b"/",
        b"//",
        b"api",
        b"v1",
        b"content",
        b"posts",
        b"..",
        b".",
        b"%2e",
        b"%2F",
        b"%00",
        b"%",
        b"\\",
        b";",
        b"?",
        b"&",
        b"=",
        b"auth_token",
        b"hydrate",
        b"content_type[]",
        b"#",
        b"+",
        b"\xff",
        b"image",
        b"search",
        b"graphql",
        b"_method",
        b"[",
    ];
    let names: [&str; 8] = [
        "x-auth-token",
        "authorization",
        "accept",
        "x-latchkey-key",
        "x_auth_token",
        "referer",
        "x-http-method",
        "cookie",
    ];
    let mut random = Random(0x5eed);
    let ports = [stack.port("flotiq").unwrap(), stack.port("fltr").unwrap()];
    for round in 0..1500 {
        let mut request = Vec::new();
        let method = ["GET", "POST", "OPTIONS", "DELETE", "HEAD", "X"][random.below(6)];
        request.extend_from_slice(method.as_bytes());
        request.extend_from_slice(b" /");
        for _ in 0..random.below(12) {
            request.extend_from_slice(parts[random.below(parts.len())]);
        }
        request.extend_from_slice(b" HTTP/1.1\r\nhost: g\r\nconnection: close\r\n");
        for _ in 0..random.below(5) {
            request.extend_from_slice(names[random.below(names.len())].as_bytes());
            request.extend_from_slice(b": ");
            match random.below(4) {
                0 => request.extend_from_slice(key.token.as_bytes()),
                1 => request.extend_from_slice(format!("Bearer {}", key.token).as_bytes()),
                2 => request.extend((0..random.below(64)).map(|_| random.header_byte())),
                _ => {}
            }
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let answer = send_raw(ports[round % 2], &request).await.unwrap();
        let status = raw_status(&answer);
        assert!(
            status.is_some_and(|status| status < 500),
            "{}: {status:?}",
            String::from_utf8_lossy(&request)
        );
        // Where the token was in its place, no copy of it has travelled on.
        let in_its_place = format!("x-auth-token: {}\r\n", key.token);
        if round % 2 == 0 && String::from_utf8_lossy(&request).contains(&in_its_place) {
            let text = String::from_utf8_lossy(&answer);
            assert!(!text.contains(&key.token), "the upstream saw the token: {text}");
        }
    }
    for seen in stack.upstream.take_seen() {
        let claimed = &seen["headers"]["x-latchkey-key"];
        assert!(claimed.is_null() || *claimed == json!(key.id), "{seen}");
    }
    check_unharmed(&stack, &key).await;
}

/// A small generator with a fixed seed, so that a failure comes again (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(bits).unwrap() % bound
    }

    /// Any byte that does not end the header.
    fn header_byte(&mut self) -> u8 {
        match u8::try_from(self.below(256)).unwrap() {
            0..0x20 | 0x7f => b'x',
            byte => byte,
        }
    }
}
