//! `make bench`: what Latchkey costs, beside what Envoy itself has for the purpose.
//!
//! A run makes the data ([`keys`]), starts all Envoys that are compared ([`scenarios`]) and measures
//! each row of the table in interleaved rounds ([`table`]). Results are in `target/bench`, and as a
//! picture in `tests/bench/results.svg`.

mod chart;
mod configs;
mod cores;
mod ext_authz;
mod gateways;
mod keys;
mod leases;
mod load;
mod memory;
mod polls;
mod proc;
mod propagation;
mod report;
mod requests;
mod scenarios;
mod settings;
mod table;
mod workers;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use latchkey_tests::project;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use cores::Cores;
use gateways::Site;
use keys::{Dataset, Scale};
use report::{Report, number, say};
use scenarios::Scenarios;
use settings::{Part, Settings};
use table::Table;

// One thread, so that what it starts runs on the core that it chose before.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = LocalSet::new()
        .run_until(async {
            match arguments.as_slice() {
                [] => run().await,
                [mode, port, keys] if mode == "--ext-authz-server" => {
                    ext_authz::serve(port.parse()?, keys.parse()?).await
                }
                _ => anyhow::bail!("expected no arguments; `make bench` runs everything"),
            }
        })
        .await;
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let settings = Settings::from_environment()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // What was started ends with what owns it.
    tokio::select! {
        measured = measure(&settings) => measured,
        _ = interrupt.recv() => anyhow::bail!("stopped"),
        _ = terminate.recv() => anyhow::bail!("stopped"),
    }
}

async fn measure(settings: &Settings) -> anyhow::Result<()> {
    let folder = project::folder().join("target/bench");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("cannot remove what was measured before")?;
    }
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let cores = Cores::find()?;
    cores.use_load_core()?;
    let mut report = Report::new(setting(cores)?);
    say(&report.setting);
    let datasets = make_datasets(settings, &folder).await?;
    let site = Site { cores, folder: &folder };
    if settings.includes(Part::Table) {
        measure_table(settings, &site, &datasets, &mut report).await?;
        report.write(&folder)?;
    }
    measure_rest(settings, &site, &datasets, &mut report).await?;
    report.write(&folder)?;
    say(format_args!("\n{}", report.markdown()));
    Ok(())
}

/// Makes the data of all that is measured, the largest last.
async fn make_datasets(settings: &Settings, folder: &Path) -> anyhow::Result<Vec<Dataset>> {
    let mut datasets = Vec::new();
    let scales = settings.keys.iter().flat_map(|&keys| [(keys, 1), (keys, 1000)]);
    let mut scales: Vec<Scale> = scales.map(|(keys, accounts)| Scale { keys, accounts }).collect();
    if !settings.includes(Part::Table) {
        // All the rest is measured with the largest.
        scales.drain(..scales.len().saturating_sub(1));
    }
    for scale in scales {
        let Scale { keys, accounts } = scale;
        let folder = folder.join(format!("data {keys} {accounts}"));
        std::fs::create_dir_all(&folder)?;
        datasets.push(scale.make(&folder).await?);
        say(format_args!("made {keys} keys in {accounts} accounts"));
    }
    Ok(datasets)
}

async fn measure_table(
    settings: &Settings,
    site: &Site<'_>,
    datasets: &[Dataset],
    report: &mut Report,
) -> anyhow::Result<()> {
    let scenarios = Scenarios::start(site, datasets).await?;
    scenarios.until_ready().await?;
    let table = Table::measure(&scenarios, settings.rounds).await?;
    let picture = chart::draw(&table, &report.setting);
    // The picture that is kept is that of a whole run.
    let folder = if settings.is_narrowed { site.folder } else { Path::new(KEPT_IN) };
    std::fs::write(project::folder().join(folder).join("results.svg"), picture)?;
    for line in &table.lines {
        if let Some(calls) = line.lease_calls() {
            let (keys, accounts) = (number(line.keys), number(line.accounts));
            report.note(
                format!("lease calls per 1,000 requests; accounts: {accounts}, keys: {keys}"),
                format!("{calls:.1}"),
            );
        }
    }
    let others = format!("{:.2} cores", table.others_share);
    report.note("kept busy meanwhile by programs that have no part in this", others);
    report.table = Some(table);
    scenarios.note_starts(report)?;
    Ok(())
}

/// Measures what is not per request, with the most keys.
async fn measure_rest(
    settings: &Settings,
    site: &Site<'_>,
    datasets: &[Dataset],
    report: &mut Report,
) -> anyhow::Result<()> {
    let largest = datasets.last().context("no data")?;
    if settings.includes(Part::Memory) {
        memory::measure(site, largest, report).await?;
    }
    if settings.includes(Part::Propagation) {
        propagation::measure(site, largest, settings.seconds, report).await?;
    }
    if settings.includes(Part::Leases) {
        leases::measure(site, largest, report).await?;
    }
    if settings.includes(Part::Polls) {
        polls::measure(site, largest, report).await?;
    }
    Ok(())
}

/// Returns on what and when this is measured.
fn setting(cores: Cores) -> anyhow::Result<String> {
    let output = std::process::Command::new(project::envoy()?).arg("--version").output()?;
    let version = String::from_utf8(output.stdout)?;
    let version = version.split("version: ").nth(1).and_then(|version| version.split('/').nth(1));
    let version = version.context("Envoy does not tell its version")?;
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    let (machine, cores) = (proc::machine()?, cores.description());
    Ok(format!("{machine}; Envoy {version}; {cores}; {date}"))
}

/// Folder of the project for the picture that the README shows.
const KEPT_IN: &str = "tests/bench";
