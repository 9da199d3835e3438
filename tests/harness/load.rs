//! Clients that keep trying.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use crate::{http, wait};

/// Clients on connections of their own, each with one request at a time.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Call>>>,
}

/// One request and what became of it. Times are in milliseconds since the epoch.
#[derive(Clone, Debug)]
pub struct Call {
    /// When it was sent.
    pub sent_ms: u64,
    /// When the answer was there.
    pub answered_ms: u64,
    /// HTTP status; 0 if no answer came.
    pub status: u16,
    /// Value of `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

impl Load {
    /// Starts so many clients, spread over the URLs, each with a pause between its requests.
    #[must_use]
    pub fn start(urls: &[String], token: &str, clients: usize, pause: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let clients = urls.iter().cycle().take(clients).map(|url| {
            let (url, token) = (url.clone(), token.to_owned());
            tokio::spawn(keep_trying(url, token, pause, Arc::clone(&is_over)))
        });
        let clients = clients.collect();
        Self { is_over, clients }
    }

    /// Ends it, and returns all calls in the order in which they were answered.
    ///
    /// # Errors
    ///
    /// If a client failed.
    pub async fn stop(self) -> anyhow::Result<Vec<Call>> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut calls = Vec::new();
        for client in self.clients {
            calls.extend(client.await?);
        }
        calls.sort_by_key(|call| call.answered_ms);
        Ok(calls)
    }

    /// Lets it go on for some time, and ends it.
    ///
    /// # Errors
    ///
    /// If a client failed.
    pub async fn stop_after(self, duration: Duration) -> anyhow::Result<Vec<Call>> {
        wait::pause(duration).await;
        self.stop().await
    }
}

/// Returns the number of calls that were admitted.
#[must_use]
pub fn admitted(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.status == 200).count()
}

/// Returns how many calls were admitted of those that were sent before the first refusal was there.
#[must_use]
pub fn admitted_before_first_refusal(calls: &[Call], refusal: u16) -> usize {
    let first = calls.iter().find(|call| call.status == refusal);
    let first_ms = first.map_or(u64::MAX, |call| call.answered_ms);
    calls.iter().filter(|call| call.status == 200 && call.sent_ms <= first_ms).count()
}

/// Returns the present, in milliseconds since the epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

async fn keep_trying(
    url: String,
    token: String,
    pause: Duration,
    is_over: Arc<AtomicBool>,
) -> Vec<Call> {
    let client = http::pooled_client();
    let mut calls = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let sent_ms = now_ms();
        let answer = http::send_pooled(&client, "GET", &url, &[("x-auth-token", &token)], "").await;
        let (status, retry_after) = match &answer {
            Ok(answer) => (answer.status, answer.header("retry-after").parse().ok()),
            Err(_) => (0, None),
        };
        calls.push(Call { sent_ms, answered_ms: now_ms(), status, retry_after });
        // A gateway that is gone answers at once.
        let pause = if status == 0 { pause.max(Duration::from_millis(20)) } else { pause };
        if !pause.is_zero() {
            wait::pause(pause).await;
        }
    }
    calls
}
