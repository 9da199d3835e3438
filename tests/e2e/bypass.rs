//! Attempts to get past the filter, each with its reason: `tests/fixtures/bypass/`.

use std::collections::BTreeMap;
use std::fmt;

use latchkey_tests::http::{raw_status, send_http2, send_raw};
use latchkey_tests::{Stack, project};
use serde_json::{Value, json};

/// An account with content types, and tokens of its keys by the names that attempts use.
pub(crate) async fn prepare(stack: &Stack) -> BTreeMap<&'static str, String> {
    let control_plane = &stack.control_plane;
    let account = project::bypass("account").unwrap();
    control_plane.create_account("acme", "flotiq").await.unwrap();
    for (name, relations) in account["resources"].as_object().unwrap() {
        let path = format!("/accounts/acme/resources/{name}");
        control_plane.call("PUT", &path, &json!({"relations": relations})).await.unwrap();
    }
    let scoped = json!({"name": "scoped", "rules": account["scoped"]});
    let scoped = control_plane.create_key("acme", &scoped).await.unwrap();
    let mut tokens = BTreeMap::from([("scoped", scoped.token), ("none", String::new())]);
    for (name, kind) in
        [("read_only", "application_read_only"), ("read_write", "application_read_write")]
    {
        tokens.insert(name, control_plane.application_key("acme", kind).await.unwrap().token);
    }
    stack.wait_until_in_force().await.unwrap();
    tokens
}

/// How a request is sent.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Chunked,
    Http2,
    WithLength,
}

/// One attempt, ready to be sent.
struct Attempt {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    transport: Transport,
}

impl Attempt {
    fn new(case: &Value, token: &str, transport: Transport) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut headers: Vec<(String, String)> = case["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        if !token.is_empty() {
            headers.push(("x-auth-token".to_owned(), token.to_owned()));
        }
        let body = match (case.get("json"), case.get("text")) {
            (Some(json), _) => Some(expanded(&json.to_string())),
            (None, Some(body)) => Some(expanded(&text(body))),
            (None, None) => None,
        };
        let is_typed = headers.iter().any(|(name, _)| name == "content-type");
        if case.get("json").is_some() && case.get("headers").is_none() && !is_typed {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        let method = case["method"].as_str().unwrap_or("GET").to_owned();
        let path = expanded(&text(&case["path"])).replace("{token}", token);
        Self { method, path, headers, body, transport }
    }

    async fn send(&self, port: u16) -> Option<u16> {
        if matches!(self.transport, Transport::Http2) {
            let url = format!("http://127.0.0.1:{port}{}", self.path);
            let headers: Vec<(&str, &str)> =
                self.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let body = self.body.as_deref().unwrap_or_default();
            return Some(send_http2(&self.method, &url, &headers, body).await.unwrap().status);
        }
        let mut request = format!("{} {} HTTP/1.1\r\nhost: gateway\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "connection") {
            request.push_str("connection: close\r\n");
        }
        for (name, value) in &self.headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        match (&self.body, self.transport) {
            (None, _) => request.push_str("\r\n"),
            (Some(body), Transport::Chunked) => {
                request.push_str("transfer-encoding: chunked\r\n\r\n");
                for chunk in body.as_bytes().chunks(chunk_bytes(body)) {
                    // A chunk may end within a character; the bytes are put together again below.
                    request.push_str(&format!("{:x}\r\n", chunk.len()));
                    request.extend(chunk.iter().copied().map(char::from));
                    request.push_str("\r\n");
                }
                request.push_str("0\r\n\r\n");
                return raw_status(&send_raw(port, &latin1(&request)).await.unwrap());
            }
            (Some(body), _) => {
                request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
            }
        }
        raw_status(&send_raw(port, request.as_bytes()).await.unwrap())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = self.body.iter().flat_map(|body| body.chars().take(300)).collect();
        write!(f, "{} {} {body} ({:?})", self.method, self.path, self.transport)
    }
}

/// Small chunks of small bodies, so that nothing of meaning comes in one piece.
fn chunk_bytes(body: &str) -> usize {
    if body.len() < 1000 { 7 } else { 4096 }
}

/// Returns the bytes of a text of which each character stands for one.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
}

/// Replaces `<<x*300>>` by 300 times `x`.
fn expanded(text: &str) -> String {
    let mut parts = text.split("<<");
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (fill, rest) = part.split_once(">>").unwrap();
        let (unit, count) = fill.rsplit_once('*').unwrap();
        expanded.push_str(&unit.repeat(count.parse().unwrap()));
        expanded.push_str(rest);
    }
    expanded
}

/// Sends every attempt of a file; returns how many requests that were.
async fn check(file: &str) -> usize {
    let stack = Stack::start(&["flotiq"]).await.unwrap();
    let tokens = prepare(&stack).await;
    let port = stack.port("flotiq").unwrap();
    let cases = project::bypass(file).unwrap();
    let (mut sent, mut passed, mut failures) = (0, 0, Vec::new());
    for case in cases.as_array().unwrap() {
        let token = &tokens[case["key"].as_str().unwrap_or("scoped")];
        let has_body = case.get("json").is_some() || case.get("text").is_some();
        let transports = [Transport::WithLength, Transport::Chunked, Transport::Http2];
        for transport in transports.into_iter().take(if has_body { 3 } else { 1 }) {
            let attempt = Attempt::new(case, token, transport);
            let begun = stack.upstream.begun();
            let status = attempt.send(port).await;
            sent += 1;
            let seen = stack.upstream.take_seen();
            let mut fail = |what: String| {
                failures.push(format!("{attempt}: {what} ({})", case["why"]));
            };
            if status.map(u64::from) != case["status"].as_u64() {
                fail(format!("{status:?}, expected {}", case["status"]));
            }
            if case["status"] != 200 {
                if stack.upstream.begun() != begun {
                    fail(format!("it reached the API: {seen:?}"));
                }
                continue;
            }
            passed += 1;
            let [reached] = seen.as_slice() else {
                fail(format!("{} requests reached the API", seen.len()));
                continue;
            };
            let expected = case["forwarded"].as_str().unwrap_or(&attempt.path);
            if reached["path"] != expected {
                fail(format!("{} reached the API, expected {expected}", reached["path"]));
            }
            if reached["body"].as_str() != Some(attempt.body.as_deref().unwrap_or_default()) {
                fail(format!("another body reached the API: {}", reached["body"]));
            }
            if !token.is_empty() && reached.to_string().contains(token.as_str()) {
                fail("the token reached the API".to_owned());
            }
        }
    }
    assert!(failures.is_empty(), "{file}: {} of {sent}:\n{}", failures.len(), failures.join("\n"));
    assert!(passed > 0, "{file}: some requests have to pass, or the rest proves nothing");
    for sign in ["panicked", "Function: proxy_on", "wasm trap"] {
        assert!(!stack.envoy.log().contains(sign), "{file}: {}", stack.envoy.log());
    }
    for name in ["wasm.latchkey.vm_reload", "wasm.latchkey_bodies.vm_reload"] {
        assert_eq!(stack.envoy.statistic(name).await.unwrap(), 0, "{file}: {name}");
    }
    sent
}

#[tokio::test]
async fn no_path_leads_past_the_filter() {
    assert!(check("paths").await > 80);
}

#[tokio::test]
async fn no_method_or_parameter_leads_past_the_filter() {
    assert!(check("methods").await > 80);
}

#[tokio::test]
async fn no_hydration_leads_past_the_filter() {
    assert!(check("hydration").await > 60);
}

#[tokio::test]
async fn no_search_leads_past_the_filter() {
    assert!(check("search").await > 45);
}

#[tokio::test]
async fn no_graphql_query_leads_past_the_filter() {
    assert!(check("graphql").await > 300);
}

#[tokio::test]
async fn no_body_leads_past_the_filter() {
    assert!(check("bodies").await > 280);
}

#[tokio::test]
async fn no_filter_or_sort_order_leads_past_the_filter() {
    assert!(check("properties").await > 40);
}
