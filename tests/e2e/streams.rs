//! Answers that take long: what is bounded is the wait for them and their silence.

use std::time::{Duration, Instant};

use latchkey_tests::{Stack, http};
use serde_json::Value;

async fn start(options: &[&str]) -> Stack {
    let options = options.iter().map(|&option| option.to_owned()).collect();
    Stack::start_with(&["flotiq", "fltr"], |envoy| envoy.config_options = options).await.unwrap()
}

/// Returns the status, how many parts of an answer came, and how long it took.
async fn stream(stack: &Stack, path: &str, how: &str) -> (u16, usize, Duration) {
    let port = stack.port("fltr").unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\nx-respond-slowly: {how}\r\n\r\n"
    );
    let begin = Instant::now();
    let answer = http::read_raw(port, request.as_bytes(), Duration::from_secs(120)).await.unwrap();
    let parts = answer.windows(6).filter(|window| window == b"data: ").count();
    (http::raw_status(&answer).unwrap_or_default(), parts, begin.elapsed())
}

/// An event stream used to end after 15 s, in the middle, with 200 in the access log.
#[tokio::test]
async fn stream_of_90_seconds_comes_whole() {
    let stack = start(&[]).await;
    let (status, parts, took) = stream(&stack, "/v1/mcp/manifest", "0,30000,4").await;
    assert_eq!((status, parts), (200, 4), "{took:?}");
    assert!(took >= Duration::from_secs(90), "{took:?}");
}

#[tokio::test]
async fn silence_ends_a_stream_and_length_does_not() {
    let stack = start(&["--idle-timeout-seconds", "3", "--response-timeout-seconds", "2"]).await;
    let (status, parts, took) = stream(&stack, "/v1/mcp/manifest", "0,1500,6").await;
    assert_eq!((status, parts), (200, 6), "longer than both bounds: {took:?}");
    let (_, parts, took) = stream(&stack, "/v1/mcp/manifest", "0,8000,3").await;
    assert_eq!(parts, 1, "{took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn answer_that_does_not_begin_is_504() {
    let stack = start(&["--response-timeout-seconds", "1"]).await;
    for path in ["/v1/mcp/manifest", "/v1/mcp/manifest/1", "/v1/mcp/datasets"] {
        let (status, parts, took) = stream(&stack, path, "6000,0,1").await;
        assert_eq!((status, parts), (504, 0), "{path}: {took:?}");
        assert!(took < Duration::from_secs(6), "{path}: {took:?}");
    }
    // It is asked for once.
    let seen = stack.upstream.take_seen();
    assert_eq!(seen.len(), 3, "{}", Value::from(seen));
}

/// A request that hangs is ended, too: one whose body stops coming.
#[tokio::test]
async fn body_that_stops_coming_is_ended() {
    let stack = start(&["--idle-timeout-seconds", "2"]).await;
    let request =
        b"POST /v1/datasets/1/query HTTP/1.1\r\nhost: gateway\r\ncontent-length: 100\r\n\r\npart";
    let port = stack.port("fltr").unwrap();
    let begin = Instant::now();
    let answer = http::read_raw(port, request, Duration::from_secs(60)).await.unwrap();
    let took = begin.elapsed();
    assert!(http::raw_status(&answer).is_some_and(|status| status >= 400), "{took:?}");
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
}
