//! Black-box tests against a real Envoy: one module per promise.
#![expect(clippy::unwrap_used, reason = "what cannot be set up ends the test")]

mod addresses;
mod api_clients;
mod authentication;
mod authorization;
mod bypass;
mod configuration;
mod corrections;
mod crowd;
mod demo;
mod endurance;
mod fetching;
mod hostile;
mod limits;
mod management_api;
mod metering;
mod openapi;
mod outage;
mod panel;
mod propagation;
mod quota;
mod reach;
mod secrets;
mod spelling;
mod streams;
mod web;

/// Tells a measurement to whoever runs a test by hand.
#[expect(clippy::print_stdout, reason = "a measurement")]
fn report(line: &str) {
    println!("{line}");
}
