//! An API that echoes what reached it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::http::Parts;
use crate::wait;

/// A server that answers every request with what it saw, as JSON: `method`, `path` (with the
/// query), `headers` and `trailers` (name → value) and `body`; and that remembers it.
///
/// A request can ask for another answer: by `x-respond-with` for headers (`name: value`), by
/// `x-respond-slowly` for a stream of so many parts: milliseconds before the first, between two, and
/// their number, with commas between.
#[derive(Debug)]
pub struct Upstream {
    /// Port on 127.0.0.1.
    pub port: u16,
    seen: Arc<Seen>,
    server: JoinHandle<()>,
}

impl Upstream {
    /// Starts the server.
    ///
    /// # Errors
    ///
    /// If the port is taken.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let seen = Arc::<Seen>::default();
        let router = axum::Router::new().fallback(echo).with_state(Arc::clone(&seen));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    // Takes whatever the gateway forwards; what is too much is the gateway's to say.
                    let mut server = Builder::new(TokioExecutor::new());
                    server.http1().max_headers(MAX_HEADERS).max_buf_size(MAX_HEADER_BYTES);
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { port, seen, server })
    }

    /// Returns how many requests have reached the server.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.whole.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Returns of how many requests at least the headers have reached the server.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.seen.begun.load(Ordering::SeqCst)
    }

    /// Returns what has reached the server so far, and forgets it.
    #[must_use]
    pub fn take_seen(&self) -> Vec<Value> {
        std::mem::take(&mut self.seen.whole.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What has reached a server.
#[derive(Debug, Default)]
struct Seen {
    begun: AtomicUsize,
    whole: Mutex<Vec<Value>>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn echo(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    seen.begun.fetch_add(1, Ordering::SeqCst);
    let (parts, body) = request.into_parts();
    let collected = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let (body, trailers) = match collected {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            (collected.to_bytes(), trailers)
        }
        Err(_) => Default::default(),
    };
    let mut answer = describe(&parts.method, &parts.uri, &parts.headers, &body);
    answer["trailers"] = texts(&trailers);
    {
        let mut seen = seen.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < MAX_SEEN {
            seen.push(answer.clone());
        }
    }
    let mut response = match parts.headers.get("x-respond-slowly") {
        Some(how) => slow_response(how),
        None => Json(answer).into_response(),
    };
    for header in parts.headers.get_all("x-respond-with") {
        let header = header.to_str().unwrap_or_default().split_once(": ");
        if let Some((Ok(name), Ok(value))) =
            header.map(|(name, value)| (name.parse::<HeaderName>(), value.parse::<HeaderValue>()))
        {
            response.headers_mut().append(name, value);
        }
    }
    // The headers of a slow answer are as late as its first part.
    if let Some(first) = parts.headers.get("x-respond-slowly").and_then(|how| numbers(how).next()) {
        wait::pause(Duration::from_millis(first)).await;
    }
    response
}

/// Returns an answer whose parts come one by one.
fn slow_response(how: &HeaderValue) -> Response {
    let mut numbers = numbers(how).skip(1);
    let (pause_ms, count) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(1));
    let (send, receive) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for index in 0..count {
            if index > 0 {
                wait::pause(Duration::from_millis(pause_ms)).await;
            }
            if send.send(Bytes::from(format!("data: {index}\n\n"))).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(axum::body::Body::new(Parts::new(receive)));
    let stream = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert("content-type", stream);
    response
}

fn numbers(text: &HeaderValue) -> impl Iterator<Item = u64> {
    let text = text.to_str().unwrap_or_default();
    text.split(',').filter_map(|number| number.trim().parse().ok())
}

fn describe(
    method: &axum::http::Method,
    uri: &Uri,
    headers: &axum::http::HeaderMap,
    body: &Bytes,
) -> Value {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    json!({
        "method": method.as_str(),
        "path": path,
        "headers": texts(headers),
        "body": String::from_utf8_lossy(body),
    })
}

/// Returns headers as an object: name → values, with commas between.
fn texts(headers: &axum::http::HeaderMap) -> Value {
    let mut names = Map::new();
    for name in headers.keys() {
        let values: Vec<String> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        names.insert(name.to_string(), Value::from(values.join(", ")));
    }
    Value::from(names)
}

/// Requests that are remembered; a load test does not fill the memory.
const MAX_SEEN: usize = 100_000;

/// Largest body that is echoed, in bytes.
const MAX_BODY_BYTES: usize = 16 << 20;

/// Most headers of a request: more than Envoy can be told to allow.
const MAX_HEADERS: usize = 16_384;

/// Most bytes of all headers of a request: as above.
const MAX_HEADER_BYTES: usize = 16 << 20;
