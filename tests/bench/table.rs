//! The table: what a request costs, in rounds that visit every row in turn.
//!
//! A machine that becomes slower for a while so does for all rows. Ratios are taken within a round;
//! then each number is the median over the rounds.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::{Load, Sample};
use crate::proc;
use crate::report::say;
use crate::scenarios::{OURS, Row, Scenarios};

/// The results.
#[derive(Debug)]
pub(crate) struct Table {
    /// One per row.
    pub(crate) lines: Vec<Line>,
    /// Cores that other programs kept busy meanwhile; they make all of it less certain.
    pub(crate) others_share: f64,
    /// Every sample, by row and round.
    raw: Vec<Value>,
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    /// What it is.
    pub(crate) name: &'static str,
    /// Number of keys.
    pub(crate) keys: Option<u32>,
    /// Number of accounts.
    pub(crate) accounts: Option<u32>,
    /// Whether others are compared with it.
    pub(crate) is_base: bool,
    /// The results, or why there are none.
    pub(crate) medians: Result<Medians, String>,
}

/// Medians over all rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Medians {
    /// CPU time of Envoy per request, in microseconds.
    pub(crate) cpu_us: f64,
    /// What of it the filters add.
    pub(crate) added_us: f64,
    /// How much of the time without filters it is.
    pub(crate) ratio: f64,
    /// Answers per second.
    pub(crate) rate: f64,
    /// Half of the answers came within this many microseconds.
    pub(crate) p50_us: f64,
    /// 99 of 100 answers did.
    pub(crate) p99_us: f64,
    /// CPU time of the process that Envoy asks, per request, in microseconds.
    pub(crate) asked_us: Option<f64>,
    /// Calls to the control plane per 1,000 requests.
    pub(crate) lease_calls: Option<f64>,
}

/// CPU time, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Usage {
    own_ns: u64,
    machine_ns: u64,
}

/// One row in one round.
struct Round {
    sample: Sample,
    /// Calls to the control plane per 1,000 requests.
    lease_calls: Option<f64>,
}

impl Table {
    /// Measures every row in so many rounds.
    ///
    /// # Errors
    ///
    /// If an answer is not as expected; with the row.
    pub(crate) async fn measure(scenarios: &Scenarios, rounds: u32) -> anyhow::Result<Self> {
        let mut samples: Vec<Vec<Round>> = scenarios.rows.iter().map(|_| Vec::new()).collect();
        let (start, before_ns) = (Instant::now(), Usage::of(scenarios)?);
        for round in 1..=rounds {
            for (row, samples) in scenarios.rows.iter().zip(&mut samples) {
                if let Some(sample) = measure(scenarios, row).await? {
                    samples.push(sample);
                }
            }
            say(format_args!("round {round} of {rounds}"));
        }
        let after_ns = Usage::of(scenarios)?;
        let others_ns = after_ns.others_since(before_ns);
        let others_share = others_ns as f64 / 1e9 / start.elapsed().as_secs_f64();
        let lines = scenarios.rows.iter().zip(&samples).enumerate().map(|(index, (row, own))| {
            let medians = match (&row.gateway, samples.get(row.base)) {
                (Ok(_), Some(base)) => Ok(Medians::of(own, base)),
                (Ok(_), None) => Err("nothing to compare with".to_owned()),
                (Err(reason), _) => Err(reason.clone()),
            };
            let is_base = row.base == index;
            Line { name: row.name, keys: row.keys, accounts: row.accounts, is_base, medians }
        });
        let raw = samples.iter().map(|rounds| rounds.iter().map(Round::to_json).collect());
        Ok(Self { lines: lines.collect(), others_share, raw: raw.collect() })
    }

    /// Returns all values as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let lines = self.lines.iter().zip(&self.raw).map(|(line, rounds)| {
            json!({
                "name": line.name,
                "keys": line.keys,
                "accounts": line.accounts,
                "failure": line.medians.as_ref().err(),
                "rounds": rounds,
            })
        });
        lines.collect()
    }
}

impl Line {
    /// Returns calls to the control plane per 1,000 requests, where requests are charged.
    pub(crate) fn lease_calls(&self) -> Option<f64> {
        self.medians.as_ref().ok().filter(|_| self.name == OURS)?.lease_calls
    }
}

impl Medians {
    fn of(own: &[Round], base: &[Round]) -> Self {
        let cpu = |round: &Round| round.sample.cpu_us(0).unwrap_or_default();
        let over = |value: &dyn Fn(&Round) -> f64| median(own.iter().map(value).collect());
        let pairs = || own.iter().map(cpu).zip(base.iter().map(cpu));
        let asked: Vec<f64> = own.iter().filter_map(|round| round.sample.cpu_us(1)).collect();
        let calls: Vec<f64> = own.iter().filter_map(|round| round.lease_calls).collect();
        Self {
            cpu_us: over(&cpu),
            added_us: median(pairs().map(|(own, base)| own - base).collect()),
            ratio: median(pairs().map(|(own, base)| own / base).collect()),
            rate: over(&|round| round.sample.rate()),
            p50_us: over(&|round| round.sample.latency_us(500)),
            p99_us: over(&|round| round.sample.latency_us(990)),
            asked_us: (!asked.is_empty()).then(|| median(asked)),
            lease_calls: (!calls.is_empty()).then(|| median(calls)),
        }
    }
}

impl Usage {
    fn of(scenarios: &Scenarios) -> anyhow::Result<Self> {
        let mut own_ns = proc::cpu_ns(std::process::id())?;
        for gateway in &scenarios.gateways {
            own_ns += proc::cpu_ns(gateway.envoy.process_id())?;
            own_ns += gateway.asked.map_or(Ok(0), proc::cpu_ns)?;
        }
        Ok(Self { own_ns, machine_ns: proc::machine_cpu_ns()? })
    }

    /// Returns what programs have used that have no part in this.
    fn others_since(self, before: Self) -> u64 {
        (self.machine_ns - before.machine_ns).saturating_sub(self.own_ns - before.own_ns)
    }
}

impl Round {
    fn to_json(&self) -> Value {
        json!({
            "requests": self.sample.requests,
            "seconds": self.sample.seconds,
            "cpu_ns": self.sample.cpu_ns,
            "p50_us": self.sample.latency_us(500),
            "p90_us": self.sample.latency_us(900),
            "p99_us": self.sample.latency_us(990),
            "p999_us": self.sample.latency_us(999),
            "lease_calls_per_1000": self.lease_calls,
        })
    }
}

async fn measure(scenarios: &Scenarios, row: &Row) -> anyhow::Result<Option<Round>> {
    let Some(gateway) = scenarios.gateway(row) else {
        return Ok(None);
    };
    let mut watched = vec![gateway.envoy.process_id()];
    watched.extend(gateway.asked);
    let load = Load {
        port: gateway.port,
        requests: row.requests.clone(),
        status: row.status,
        warm_up: WARM_UP,
        duration: DURATION,
    };
    let calls_before = gateway.envoy.statistic(LEASE_CALLS).await?;
    let permitted_before = gateway.envoy.statistic(PERMITTED).await?;
    let sample = load.run(&watched).await;
    let sample = sample.map_err(|error| error.context(format!("row `{}`", row.name)))?;
    let calls = gateway.envoy.statistic(LEASE_CALLS).await? - calls_before;
    let permitted = gateway.envoy.statistic(PERMITTED).await? - permitted_before;
    let lease_calls = (permitted > 0).then(|| calls as f64 * 1000.0 / permitted as f64);
    Ok(Some(Round { sample, lease_calls }))
}

/// Returns the middle of some values; 0 if there are none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or_default();
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = values.len().checked_sub(2).and_then(|index| values.get(index / 2));
    f64::midpoint(upper, lower.copied().unwrap_or_default())
}

/// Time that a row is under load before it is measured: until leases have grown to the load.
const WARM_UP: Duration = Duration::from_millis(400);

/// Time that a row is measured in a round.
const DURATION: Duration = Duration::from_millis(800);

const LEASE_CALLS: &str = "wasmcustom.latchkey_lease_calls";

const PERMITTED: &str = "wasmcustom.latchkey_requests_permitted";
