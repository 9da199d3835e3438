//! Waiting, with a deadline: the only file that sleeps.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Asks again and again until the answer is there.
///
/// # Errors
///
/// If it is not within the deadline.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if start.elapsed() > deadline {
            bail!("{what} did not come true within {deadline:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets time pass, for facts that hold for a while.
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// How long a program may take to start on a slow machine.
pub const START: Duration = Duration::from_secs(30);

/// How long anything else may take that is not a promise.
pub const LONG: Duration = Duration::from_secs(10);
