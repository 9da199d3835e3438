//! HTTP as the tests speak it: nothing normalized, nothing retried.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait;

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// Returns a header's first value, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Sends a request on a connection of its own and returns the answer.
///
/// # Errors
///
/// If no answer comes.
pub async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &[u8])],
    body: &[u8],
) -> anyhow::Result<Response> {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes())?)
        .uri(url.parse::<Uri>().with_context(|| format!("`{url}` is no URL"))?);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body)))?;
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    answer(&client, request).await
}

/// Sends a request on whatever connection is there.
///
/// # Errors
///
/// If no answer comes.
pub async fn send_pooled(
    client: &Client<HttpConnector, Full<Bytes>>,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Response> {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes())?).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(client, request.body(Full::from(body.to_owned()))?).await
}

/// Sends a request over HTTP/2, without TLS.
///
/// # Errors
///
/// If no answer comes.
pub async fn send_http2(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Response> {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    send_pooled(&client, method, url, headers, body).await
}

/// Sends a request with a body and trailers over HTTP/2, without TLS.
///
/// # Errors
///
/// If no answer comes.
pub async fn send_http2_with_trailers(
    url: &str,
    headers: &[(&str, &str)],
    trailers: HeaderMap,
) -> anyhow::Result<Response> {
    let body = Full::new(Bytes::from_static(b"body"))
        .with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut request = Request::builder().method("POST").uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let response = client.request(request.body(Box::pin(body))?).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// Sends a request over HTTP/2 with a body in two parts, and does something between them.
///
/// # Errors
///
/// If no answer comes.
pub async fn send_http2_in_parts(
    url: &str,
    headers: &[(&str, &str)],
    (first, second): (&str, &str),
    between: impl AsyncFnOnce(),
) -> anyhow::Result<Response> {
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut request = Request::builder().method("POST").uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let parts = async {
        send.send(Bytes::copy_from_slice(first.as_bytes())).await?;
        between().await;
        send.send(Bytes::copy_from_slice(second.as_bytes())).await?;
        drop(send);
        anyhow::Ok(())
    };
    let answer = client.request(request.body(Parts(receive))?);
    let (sent, answer) = tokio::join!(parts, answer);
    sent?;
    let (parts, body) = answer?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
}

/// A body whose parts come one by one.
#[derive(Debug)]
pub(crate) struct Parts(tokio::sync::mpsc::Receiver<Bytes>);

impl Parts {
    pub(crate) fn new(parts: tokio::sync::mpsc::Receiver<Bytes>) -> Self {
        Self(parts)
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

/// Returns a client that keeps its connections.
#[must_use]
pub fn pooled_client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn answer(
    client: &Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Response> {
    let what = format!("{} {}", request.method(), request.uri());
    let read = async {
        let response = client.request(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        anyhow::Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    let answer = tokio::time::timeout(wait::START, read).await;
    answer.with_context(|| format!("no answer in time to {what}"))?.with_context(|| what)
}

/// Sends bytes and returns what comes back, until the answer is complete or the connection ends.
///
/// # Errors
///
/// If the connection cannot be made, or nothing ends it in time.
pub async fn send_raw(port: u16, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let exchange = async {
        // The other side may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {
            // Envoy leaves a connection open for a second after some refusals.
            if is_complete(&answer, bytes.starts_with(b"HEAD ")) {
                break;
            }
        }
        answer
    };
    tokio::time::timeout(wait::LONG, exchange).await.context("the connection stayed open")
}

/// Sends bytes and returns all that comes back until the connection ends.
///
/// # Errors
///
/// If the connection cannot be made, or nothing ends it in time.
pub async fn read_raw(port: u16, bytes: &[u8], deadline: Duration) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let exchange = async {
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {}
        answer
    };
    tokio::time::timeout(deadline, exchange).await.context("the connection stayed open")
}

fn is_complete(answer: &[u8], is_head: bool) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    is_head || length.is_some_and(|length: usize| body.len() >= length)
}

/// Returns the status of an answer that was read raw.
#[must_use]
pub fn raw_status(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()
}
