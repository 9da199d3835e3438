//! Many requests at once, on few connections.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::Request;
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::wait;

/// A request that all of a crowd send.
#[derive(Clone, Debug)]
pub struct Ask {
    /// HTTP method.
    pub method: &'static str,
    /// Port of the gateway on 127.0.0.1.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Headers: name and value.
    pub headers: Vec<(String, String)>,
    /// Whether a body is announced that never comes.
    pub holds_body: bool,
}

/// What one of a crowd got.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// HTTP status; 0 if no answer came.
    pub status: u16,
    /// Time from sending it to its answer.
    pub after: Duration,
    /// Whether the answer says when to try again.
    pub says_when: bool,
}

/// Sends so many requests at the same time, a hundred on each connection; returns what each got.
///
/// # Errors
///
/// If a connection cannot be made.
pub async fn send(ask: &Ask, count: usize) -> anyhow::Result<Vec<Got>> {
    let connections = count.div_ceil(STREAMS);
    let together = Arc::new(Barrier::new(connections));
    let mut clients = JoinSet::new();
    for index in 0..connections {
        let (ask, together) = (ask.clone(), Arc::clone(&together));
        let streams = STREAMS.min(count - index * STREAMS);
        clients.spawn(async move {
            let stream = TcpStream::connect(("127.0.0.1", ask.port)).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            together.wait().await;
            let mut requests = JoinSet::new();
            for _ in 0..streams {
                requests.spawn(send_one(sender.clone(), ask.clone()));
            }
            let got = requests.join_all().await;
            connection.abort();
            anyhow::Ok(got)
        });
    }
    let mut all = Vec::with_capacity(count);
    while let Some(got) = clients.join_next().await {
        all.extend(got??);
    }
    Ok(all)
}

/// Sends a request from each of so many addresses (127.1.0.0 and on) at the same time, each on a
/// connection of its own; returns what each got.
///
/// # Errors
///
/// If a connection cannot be made.
pub async fn send_from_addresses(ask: &Ask, count: u16) -> anyhow::Result<Vec<Got>> {
    let together = Arc::new(Barrier::new(usize::from(count)));
    let mut clients = JoinSet::new();
    for index in 0..count {
        let (ask, together) = (ask.clone(), Arc::clone(&together));
        clients.spawn(async move {
            let [high, low] = index.to_be_bytes();
            let socket = TcpSocket::new_v4()?;
            socket.bind(([127, 1, high, low], 0).into())?;
            let stream = socket.connect(([127, 0, 0, 1], ask.port).into()).await?;
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            together.wait().await;
            let got = send_one(sender, ask).await;
            connection.abort();
            anyhow::Ok(got)
        });
    }
    let mut all = Vec::with_capacity(usize::from(count));
    while let Some(got) = clients.join_next().await {
        all.push(got??);
    }
    Ok(all)
}

async fn send_one(mut sender: http2::SendRequest<Awaited>, ask: Ask) -> Got {
    let sent = Instant::now();
    let uri = format!("http://127.0.0.1:{}{}", ask.port, ask.path);
    let mut request = Request::builder().method(ask.method).uri(uri);
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    let answer = async {
        let request = request.body(Awaited { holds: ask.holds_body }).ok()?;
        sender.send_request(request).await.ok()
    };
    let answer = tokio::time::timeout(wait::START, answer).await.ok().flatten();
    Got {
        status: answer.as_ref().map_or(0, |answer| answer.status().as_u16()),
        after: sent.elapsed(),
        says_when: answer.is_some_and(|answer| answer.headers().contains_key("retry-after")),
    }
}

/// No body, or one that never comes.
#[derive(Debug)]
struct Awaited {
    holds: bool,
}

impl Body for Awaited {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.holds { Poll::Pending } else { Poll::Ready(None) }
    }

    fn is_end_stream(&self) -> bool {
        !self.holds
    }
}

/// Requests at a time on a connection: as many as the shipped configuration allows.
const STREAMS: usize = 100;
