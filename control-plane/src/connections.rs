//! Connections: who may have how many, and how long one may be silent.
//!
//! A connection costs a descriptor, and whoever can reach the service can open some. So each client has a
//! number of them, all clients together have a part of what the system allows, and a new one takes the
//! place of the one that has been silent for longest. Filters, known by their token, have a part of their
//! own. Connections that begin a request and do not go on, or go silent, are closed.

mod admission;
mod watched;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::Version;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tower::ServiceExt;

pub(crate) use admission::{Admission, Bounds, Place};
use watched::Watched;

/// Serves connections until told to stop, and then waits until those that are busy are done.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Router,
    admission: Admission,
    mut stopping: watch::Receiver<bool>,
) {
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|&stopping| stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = admission.admit(peer.ip()) else {
                    continue;
                };
                let (service, stopping) = (service.clone(), stopping.clone());
                let open = open.clone();
                tokio::spawn(async move {
                    hold(stream, peer, service, place, stopping).await;
                    drop(open);
                });
            }
            Err(error) => {
                // Descriptors that are used up elsewhere come back; nothing is gained by asking at once.
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(open);
    // Nothing is sent: it ends when the last sender is gone.
    let _ = all_closed.recv().await;
}

/// Serves a connection for as long as it has its place.
async fn hold(
    stream: TcpStream,
    peer: SocketAddr,
    service: Router,
    place: Place,
    mut stopping: watch::Receiver<bool>,
) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "a connection has not the options that it should have");
    }
    let mut builder = Builder::new(TokioExecutor::new());
    // Silence is measured for all connections alike, by their places: not all may be silent for so long.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .max_send_buf_size(MAX_BUFFER_BYTES);
    let answering = place.clone();
    let answer = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        answer(service.clone(), peer, answering.clone(), request.map(Body::new))
    });
    let stream = TokioIo::new(Watched { stream, place: place.clone() });
    let mut connection = pin!(builder.serve_connection(stream, answer));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // How it ended is told where it matters: by the request that failed.
            _ = connection.as_mut() => return,
            () = place.is_taken() => return,
            () = tokio::time::sleep_until(place.closes_at().min(Instant::now() + LOOK_EVERY)) => {
                if place.is_over() {
                    return;
                }
            }
            _ = stopping.wait_for(|&stopping| stopping), if !is_stopping => {
                is_stopping = true;
                if place.is_quiet() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn answer(
    service: Router,
    peer: SocketAddr,
    place: Place,
    mut request: Request,
) -> impl Future<Output = Result<Response, Infallible>> {
    if request.version() == Version::HTTP_2 {
        place.has_streams();
    }
    request.extensions_mut().insert(ConnectInfo(peer));
    request.extensions_mut().insert(place.clone());
    async move {
        let _busy = place.work();
        service.oneshot(request).await
    }
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    // Small answers leave at once; else one that follows another on its connection waits for the other
    // side's acknowledgement, 40 ms on Linux.
    stream.set_nodelay(true)?;
    // Proxies keep connections for long; one that was cut off is noticed.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// How exactly silence is measured: what comes meanwhile can bring its end nearer.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Most requests at once on one HTTP/2 connection: a page of the panel with all that belongs to it.
const MAX_STREAMS: u32 = 20;

/// What one connection holds of what is on its way, in bytes: there may be thousands.
const MAX_BUFFER_BYTES: usize = 64 << 10;
const WINDOW_BYTES: u32 = 64 << 10;

/// Silence after which the system asks whether the other side is still there, and how often it does then.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Wait after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
