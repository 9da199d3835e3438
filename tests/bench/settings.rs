//! What the environment says: how much to measure.

use anyhow::{Context, bail};

/// What is measured.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Rounds of the table, from `BENCH_ROUNDS`.
    pub(crate) rounds: u32,
    /// Numbers of keys, from `BENCH_KEYS`.
    pub(crate) keys: Vec<u32>,
    /// Seconds for which edits are measured, from `BENCH_SECONDS`.
    pub(crate) seconds: u32,
    /// Whether a variable asks for something else than the whole run.
    pub(crate) is_narrowed: bool,
    /// Parts of the run, from `BENCH_ONLY`.
    parts: Vec<Part>,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Lease calls that the control plane sustains.
    Leases,
    /// Memory and start times.
    Memory,
    /// Memory with many waiting polls.
    Polls,
    /// Time from an edit until it is in force.
    Propagation,
    /// Costs per request.
    Table,
}

impl Settings {
    /// Reads the variables.
    ///
    /// # Errors
    ///
    /// If one is not what is expected.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let keys: Vec<u32> = list("BENCH_KEYS", "1000,1000000", |text| text.parse().ok())?;
        if keys.iter().any(|&keys| keys < 1000) {
            bail!("BENCH_KEYS: expected 1000 or more");
        }
        let names = ["BENCH_ROUNDS", "BENCH_KEYS", "BENCH_SECONDS", "BENCH_ONLY"];
        Ok(Self {
            is_narrowed: names.iter().any(|name| std::env::var_os(name).is_some()),
            rounds: number("BENCH_ROUNDS", 9)?,
            keys,
            seconds: number("BENCH_SECONDS", 30)?,
            parts: list("BENCH_ONLY", "table,memory,propagation,leases,polls", Part::named)?,
        })
    }

    /// Reports whether a part is to be measured.
    pub(crate) fn includes(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        match name {
            "leases" => Some(Self::Leases),
            "memory" => Some(Self::Memory),
            "polls" => Some(Self::Polls),
            "propagation" => Some(Self::Propagation),
            "table" => Some(Self::Table),
            _ => None,
        }
    }
}

fn number(name: &str, default: u32) -> anyhow::Result<u32> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_string());
    let number = text.parse().ok().filter(|&number| number > 0);
    number.with_context(|| format!("{name}: expected a number above 0, found `{text}`"))
}

fn list<T>(name: &str, default: &str, parse: impl Fn(&str) -> Option<T>) -> anyhow::Result<Vec<T>> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let items: Option<Vec<T>> = text.split(',').map(|item| parse(item.trim())).collect();
    items.with_context(|| format!("{name}: expected a list such as `{default}`, found `{text}`"))
}
