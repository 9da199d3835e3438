//! What was measured, as Markdown and as JSON.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::table::{Line, Table};

/// All results of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Machine, cores, Envoy and date.
    pub(crate) setting: String,
    /// Costs per request.
    pub(crate) table: Option<Table>,
    facts: Vec<Fact>,
    raw: serde_json::Map<String, Value>,
}

/// One more thing that was measured.
#[derive(Debug)]
struct Fact {
    what: String,
    value: String,
}

impl Report {
    /// Returns a report of nothing yet.
    pub(crate) fn new(setting: String) -> Self {
        Self { setting, ..Self::default() }
    }

    /// Notes a result, and prints it.
    pub(crate) fn note(&mut self, what: impl Into<String>, value: impl Into<String>) {
        let fact = Fact { what: what.into(), value: value.into() };
        say(format_args!("{}: {}", fact.what, fact.value));
        self.facts.push(fact);
    }

    /// Keeps raw values under a name.
    pub(crate) fn keep(&mut self, name: &str, value: Value) {
        self.raw.insert(name.to_owned(), value);
    }

    /// Returns all results for the README.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n", self.setting);
        if let Some(table) = &self.table {
            text.push_str(&format!("\n{}", markdown_table(table)));
        }
        if !self.facts.is_empty() {
            text.push_str("\n| measured | result |\n|---|---|\n");
        }
        for Fact { what, value } in &self.facts {
            text.push_str(&format!("| {what} | {value} |\n"));
        }
        text
    }

    /// Writes `results.md` and `results.json` to a folder.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::write(folder.join("results.md"), self.markdown())?;
        let facts: Vec<Value> = self
            .facts
            .iter()
            .map(|Fact { what, value }| json!({"what": what, "value": value}))
            .collect();
        let table = self.table.as_ref().map(Table::to_json);
        let all = json!({
            "setting": self.setting,
            "table": table,
            "facts": facts,
            "raw": self.raw,
        });
        std::fs::write(folder.join("results.json"), serde_json::to_vec_pretty(&all)?)?;
        Ok(())
    }
}

fn markdown_table(table: &Table) -> String {
    let mut text = "| | keys | accounts | Envoy CPU, µs per request | added, µs | × bare \
                    | requests/s | p50 / p99, µs | CPU of what Envoy asks, µs |\n\
                    |---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for Line { name, keys, accounts, is_base, medians } in &table.lines {
        let (keys, accounts) = (number(*keys), number(*accounts));
        let costs = match medians {
            Ok(medians) => format!(
                "{:.1} | {} | {:.2} | {:.0} | {:.0} / {:.0} | {}",
                medians.cpu_us,
                if *is_base { "–".to_owned() } else { format!("{:+.1}", medians.added_us) },
                medians.ratio,
                medians.rate,
                medians.p50_us,
                medians.p99_us,
                medians.asked_us.map_or_else(|| "–".to_owned(), |asked| format!("{asked:.1}"))
            ),
            Err(reason) => format!("did not start: {reason} | | | | |"),
        };
        text.push_str(&format!("| {name} | {keys} | {accounts} | {costs} |\n"));
    }
    text
}

/// Returns a number with its digits in groups, or a dash.
pub(crate) fn number(number: Option<u32>) -> String {
    let Some(number) = number else {
        return "–".to_owned();
    };
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns bytes in megabytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// Prints a line for the one who started the program.
pub(crate) fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}
