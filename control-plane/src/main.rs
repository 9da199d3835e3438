//! The control plane of Latchkey: one binary, `latchkey`.
//!
//! `latchkey serve` keeps accounts, plans and keys in an embedded store, offers the management API
//! (`router.rs` lists every route) and the panel for people (`panel.rs` lists every page), and tells
//! filters what changed (`edge/updates.rs`).
//! `latchkey envoy-config` prints the Envoy configuration that goes with it, and `latchkey explain`
//! asks a running service what a gateway would make of a request (`ask.rs`).
//!
//! Who connects has a place by `connections/admission.rs`; what anyone writes reaches the disk, or is refused, by
//! `store/disk.rs`.
//!
//! An edit: `panel/key.rs` or `api/keys.rs` → `store/keys.rs` (row, change and audit entry in one transaction) →
//! the store's revision wakes the polls in `edge/updates.rs` → the filters.
//!
//! A call counted: the filter's report → `edge/leases.rs` (many of them in one commit) → `ledger.rs`
//! (pure: what is used, what is leased, what is left) → `store/ledger.rs`.

mod api;
mod app;
mod ask;
mod cli;
mod client_address;
mod connections;
mod credentials;
mod edge;
mod envoy_config;
mod error;
mod explain;
mod key_docs;
mod ledger;
mod metrics;
mod panel;
mod password;
mod profiles;
mod proxies;
mod router;
mod sealing;
mod serve;
mod session;
mod store;
mod throttle;
mod time;
mod token;
mod wrong_tokens;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(options) => serve::run(options),
        Command::EnvoyConfig(options) => envoy_config::run(&options),
        Command::Explain(options) => ask::explain(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
