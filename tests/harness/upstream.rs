//! An API that echoes what reached it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server that answers every request with what it saw, as JSON: `method`, `path` (with the
/// query), `headers` (name → value) and `body`; and that remembers it.
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
                    let mut server = http1::Builder::new();
                    server.max_headers(MAX_HEADERS).max_buf_size(MAX_HEADER_BYTES);
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
    let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    let answer = describe(&parts.method, &parts.uri, &parts.headers, &body);
    let mut seen = seen.whole.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() < MAX_SEEN {
        seen.push(answer.clone());
    }
    Json(answer).into_response()
}

fn describe(
    method: &axum::http::Method,
    uri: &Uri,
    headers: &axum::http::HeaderMap,
    body: &Bytes,
) -> Value {
    let mut names = Map::new();
    for name in headers.keys() {
        let values: Vec<String> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        names.insert(name.to_string(), Value::from(values.join(", ")));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    json!({
        "method": method.as_str(),
        "path": path,
        "headers": names,
        "body": String::from_utf8_lossy(body),
    })
}

/// Requests that are remembered; a load test does not fill the memory.
const MAX_SEEN: usize = 100_000;

/// Largest body that is echoed, in bytes.
const MAX_BODY_BYTES: usize = 16 << 20;

/// Most headers of a request: more than Envoy can be told to allow.
const MAX_HEADERS: usize = 16_384;

/// Most bytes of all headers of a request: as above.
const MAX_HEADER_BYTES: usize = 16 << 20;
