//! Memory of Envoy and of the control plane, and how long they take to start.

use std::time::Instant;

use latchkey_tests::{ControlPlane, Envoy, ports, wait};
use serde_json::{Value, json};

use crate::configs::Filters;
use crate::gateways::{START, Site, options, port, until_answered};
use crate::keys::{Dataset, token_of};
use crate::report::{Report, megabytes, number};
use crate::workers;
use crate::{proc, requests};

/// Measures both with a dataset, and Envoy with no keys beside.
///
/// # Errors
///
/// If something does not start.
pub(crate) async fn measure(
    site: &Site<'_>,
    dataset: &Dataset,
    report: &mut Report,
) -> anyhow::Result<()> {
    let keys = number(Some(dataset.scale.keys));
    let logs = site.folder("memory")?;
    let empty =
        ControlPlane::start(ports::free()?, &site.folder("data 0")?, &logs, None, &[]).await?;
    let start = Instant::now();
    let control_plane =
        ControlPlane::start(ports::free()?, &dataset.data, &logs, None, &[]).await?;
    let ready_ms = start.elapsed().as_millis();
    let process = control_plane.process_id()?;
    let fresh_bytes = proc::resident_bytes(process)?;
    report.note(
        format!("control plane with {keys} keys, started"),
        format!("ready after {ready_ms} ms, {} of memory", megabytes(fresh_bytes)),
    );
    // The first Envoy waits until the control plane has made a snapshot, which others then share.
    let start = Instant::now();
    let envoy = start_envoy(site, &control_plane, 1, "memory first").await?;
    let request = requests::read_articles(&token_of(0));
    until_answered(port(&envoy.options)?, &request, 200).await?;
    let cold_seconds = start.elapsed().as_secs_f64();
    drop(envoy);
    report.note(
        format!("the first Envoy of a control plane that has just started, {keys} keys"),
        format!("first 200 after {cold_seconds:.1} s"),
    );
    let mut raw = Vec::new();
    for count in WORKERS {
        let without = start_envoy(site, &empty, count, "memory 0 keys").await?;
        let without_bytes = ask_with_many(&without, u32::MAX, 401).await?;
        drop(without);
        until_alone(&control_plane).await?;
        let start = Instant::now();
        let envoy = start_envoy(site, &control_plane, count, "memory all keys").await?;
        until_answered(port(&envoy.options)?, &request, 200).await?;
        let first_seconds = start.elapsed().as_secs_f64();
        until_in_force(&control_plane, count).await?;
        let all_seconds = start.elapsed().as_secs_f64();
        let bytes = ask_with_many(&envoy, dataset.scale.keys, 200).await?;
        let added = bytes.saturating_sub(without_bytes);
        report.note(
            format!("Envoy with {keys} keys, workers: {count}"),
            format!(
                "first 200 after {first_seconds:.1} s, in force in all workers after \
                 {all_seconds:.1} s, {} of memory, {} of it for the keys",
                megabytes(bytes),
                megabytes(added)
            ),
        );
        raw.push(json!({"workers": count, "bytes": bytes, "without_keys_bytes": without_bytes,
                        "first_200_seconds": first_seconds, "in_force_seconds": all_seconds}));
    }
    let served_bytes = proc::resident_bytes(process)?;
    report.note(
        format!("control plane with {keys} keys, after it has served them to these"),
        format!("{} of memory", megabytes(served_bytes)),
    );
    report.keep(
        "memory",
        json!({"keys": dataset.scale.keys, "envoy": raw, "control_plane": {
            "ready_ms": u64::try_from(ready_ms)?, "fresh_bytes": fresh_bytes,
            "first_200_of_first_envoy_seconds": cold_seconds, "served_bytes": served_bytes}}),
    );
    Ok(())
}

/// Starts an Envoy with the filter on all cores, and waits until it is ready.
async fn start_envoy(
    site: &Site<'_>,
    control_plane: &ControlPlane,
    count: u32,
    name: &str,
) -> anyhow::Result<Envoy> {
    let folder = site.folder(&format!("{name} {count}"))?;
    let options = options(count, Some(control_plane))?;
    let text = Filters::Ours.config(&options, &folder)?;
    site.cores.use_all()?;
    let envoy = Envoy::start_as(options, &text, &folder, START).await;
    site.cores.use_load_core()?;
    envoy
}

/// Waits until every worker has all keys; and the main thread's VM, which counts as one.
///
/// # Errors
///
/// If that does not come true.
pub(crate) async fn until_in_force(control_plane: &ControlPlane, count: u32) -> anyhow::Result<()> {
    let polling = u64::from(count) + 1;
    wait::until("all keys in every worker", START, async || {
        control_plane.wait_until_in_force(polling).await.ok()
    })
    .await
}

/// Waits until the Envoy before is forgotten, so that it does not count as one that is up to date.
async fn until_alone(control_plane: &ControlPlane) -> anyhow::Result<()> {
    wait::until("the end of the last Envoy's polls", wait::START, async || {
        let proxies = control_plane.call("GET", "/proxies", &Value::Null).await.ok()?;
        proxies["items"].as_array()?.is_empty().then_some(())
    })
    .await
}

/// Sends requests of many keys to each worker, and returns the memory of Envoy after them.
async fn ask_with_many(envoy: &Envoy, most: u32, status: u16) -> anyhow::Result<u64> {
    let connections = workers::connections(envoy, 1).await?;
    for (worker, mut client) in (0..).zip(connections.into_iter().flatten()) {
        for key in 0..DIFFERENT {
            let request = requests::read_articles(&token_of((worker * DIFFERENT + key) % most));
            let answer = client.exchange(&request).await?;
            if answer.status != status {
                let text = client.last_answer(&answer);
                anyhow::bail!("expected {status}, found {}: {text}", answer.status);
            }
        }
    }
    proc::resident_bytes(envoy.process_id())
}

/// Numbers of workers.
const WORKERS: [u32; 3] = [1, 2, 4];

/// Keys that each worker is asked with.
const DIFFERENT: u32 = 2000;
