//! Connections of which it is known by which of Envoy's workers they are served.

use anyhow::{Context, bail};
use latchkey_tests::Envoy;

use crate::gateways::port;
use crate::load::Client;

/// Returns so many connections to each worker of an Envoy: by worker, then by number.
///
/// The kernel chooses the worker of a connection, so more are opened until each has enough; Envoy's
/// statistics tell which worker took the last one.
///
/// # Errors
///
/// If a worker gets none, or Envoy's statistics are others than expected.
pub(crate) async fn connections(envoy: &Envoy, count: usize) -> anyhow::Result<Vec<Vec<Client>>> {
    let port = port(&envoy.options)?;
    let workers = usize::try_from(envoy.options.workers)?;
    let mut connections: Vec<Vec<Client>> = (0..workers).map(|_| Vec::new()).collect();
    let mut before = accepted(envoy, port).await?;
    for _ in 0..MOST_PER_WORKER * workers * count {
        let mut client = Client::connect(port).await?;
        client.exchange(ANYTHING).await?;
        let after = accepted(envoy, port).await?;
        let taken_by = after.iter().zip(&before).position(|(after, before)| after > before);
        let own = taken_by.and_then(|worker| connections.get_mut(worker));
        let own = own.context("no worker took the connection")?;
        if own.len() < count {
            own.push(client);
        }
        if connections.iter().all(|own| own.len() == count) {
            return Ok(connections);
        }
        before = after;
    }
    bail!("a worker of Envoy gets no connections")
}

/// Returns how many connections each worker has accepted.
async fn accepted(envoy: &Envoy, port: u16) -> anyhow::Result<Vec<u64>> {
    let filter = format!("listener.127.0.0.1_{port}.worker_");
    let stats = envoy.admin(&format!("/stats?filter={filter}.*downstream_cx_total")).await?;
    let mut accepted = Vec::new();
    for worker in 0..envoy.options.workers {
        let name = format!("{filter}{worker}.downstream_cx_total: ");
        let count = stats.lines().find_map(|line| line.strip_prefix(name.as_str()));
        accepted.push(count.with_context(|| format!("no `{name}` in {stats}"))?.parse()?);
    }
    Ok(accepted)
}

/// A request without a token.
const ANYTHING: &[u8] = b"GET /api/v1/content/articles HTTP/1.1\r\nhost: api.example.com\r\n\r\n";

/// Connections per wanted one after which it is given up.
const MOST_PER_WORKER: usize = 20;
