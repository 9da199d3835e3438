//! How long an edit takes until every worker acts on it, at ten edits a second.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use latchkey_tests::{ControlPlane, Envoy, ports, wait};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::configs::Filters;
use crate::gateways::{START, Site, options};
use crate::keys::{Dataset, key_id, token_of};
use crate::load::Client;
use crate::memory::until_in_force;
use crate::report::{Report, number};
use crate::{requests, workers};

/// Suspends and resumes keys for some seconds, and asks both workers of an Envoy until they know.
///
/// # Errors
///
/// If an edit never comes into force.
pub(crate) async fn measure(
    site: &Site<'_>,
    dataset: &Dataset,
    seconds: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let folder = site.folder("propagation")?;
    let control_plane =
        ControlPlane::start(ports::free()?, &dataset.data, &folder, None, &[]).await?;
    let options = options(WORKERS, Some(&control_plane))?;
    let text = Filters::Ours.config(&options, &folder)?;
    site.cores.use_proxy_core()?;
    let envoy = Envoy::start_as(options, &text, &folder, START).await;
    site.cores.use_load_core()?;
    let envoy = envoy?;
    until_in_force(&control_plane, WORKERS).await?;
    let by_worker = workers::connections(&envoy, WATCHERS).await?;
    let mut by_worker: Vec<_> = by_worker.into_iter().map(Vec::into_iter).collect();
    let watchers = (0..WATCHERS).map(|_| by_worker.iter_mut().filter_map(Iterator::next).collect());
    let bench = Rc::new(Bench {
        control_plane,
        dataset: dataset.clone(),
        watchers: RefCell::new(watchers.collect()),
    });
    let mut edits = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    for index in 0..seconds * EDITS_PER_SECOND {
        ticks.tick().await;
        edits.spawn_local(edit(Rc::clone(&bench), index));
    }
    let mut times_ms = Vec::new();
    while let Some(ended) = edits.join_next().await {
        times_ms.push(ended??.as_secs_f64() * 1e3);
    }
    times_ms.sort_by(f64::total_cmp);
    let at = |per_mille: usize| {
        let index = (times_ms.len() * per_mille / 1000).min(times_ms.len().saturating_sub(1));
        times_ms.get(index).copied().unwrap_or_default()
    };
    report.note(
        format!(
            "from an edit to its effect in both workers, {EDITS_PER_SECOND} edits a second, {} keys",
            number(Some(dataset.scale.keys))
        ),
        format!(
            "p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms, of {} edits",
            at(500),
            at(990),
            at(1000),
            times_ms.len()
        ),
    );
    report.keep("propagation_ms", json!(times_ms));
    Ok(())
}

/// What all edits share.
struct Bench {
    control_plane: ControlPlane,
    dataset: Dataset,
    /// Connections that no edit uses at present, each with one to every worker.
    watchers: RefCell<Vec<Vec<Client>>>,
}

/// Edits a key, and returns how long it took until every worker acts on that. All keys in turn are
/// suspended, and then resumed.
async fn edit(bench: Rc<Bench>, index: u32) -> anyhow::Result<Duration> {
    let (round, key) = (index / KEYS, index % KEYS);
    let (action, status) = if round % 2 == 0 { ("suspend", 401) } else { ("resume", 200) };
    let path =
        format!("/accounts/{}/keys/{}/{action}", bench.dataset.scale.account(key), key_id(key));
    let request = requests::read_articles(&token_of(key));
    let watchers = bench.watchers.borrow_mut().pop();
    let mut watchers = watchers.context("edits take so long that too many are under way")?;
    let start = Instant::now();
    let edit = bench.control_plane.call("POST", &path, &Value::Null);
    let watch = async {
        for client in &mut watchers {
            while client.exchange(&request).await?.status != status {
                if start.elapsed() > START {
                    bail!("an edit of `{path}` has no effect");
                }
                wait::pause(ASK_EVERY).await;
            }
        }
        Ok(start.elapsed())
    };
    let (edited, watched) = tokio::join!(edit, watch);
    edited?;
    bench.watchers.borrow_mut().push(watchers);
    watched
}

const WORKERS: u32 = 2;

const EDITS_PER_SECOND: u32 = 10;

const EVERY: Duration = Duration::from_millis(100);

/// Keys that are edited: suspended in five seconds, resumed in the next five.
const KEYS: u32 = 50;

/// Edits that can be under way at the same time: those of two seconds.
const WATCHERS: usize = 20;

/// How long is waited between two requests that ask whether an edit is in force.
const ASK_EVERY: Duration = Duration::from_millis(2);
