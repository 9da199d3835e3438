//! The data plane: an Envoy filter that decides each request by itself.
//!
//! # The three paths
//!
//! A request: `envoy/http_context.rs` reads its headers once → [`authorize::authorize`] runs the
//! stages ([`authorize::token`], [`authorize::path`], [`profile::routes`], [`authorize::reach`],
//! [`authorize::rights`], [`authorize::charge`]) → [`authorize::edits`] changes it → it goes on with
//! [`answer::rate_limit`] headers, or [`answer::refusal`] is the reply.
//!
//! An update: one VM of the proxy, which the [`roster`] names, makes the calls for which
//! [`poller::Poller`] asks → [`publisher::Publisher`] brings what comes into the [`pages`] that all VMs
//! share → each looks keys up there through its [`replica::Replica`].
//!
//! A call counted: [`authorize::charge`] → [`leases::Leases`] → a report and a request for the next
//! lease, which the root context sends.
//!
//! Only `envoy/` talks to the host, and only it is compiled for wasm32 alone. All else is pure: the
//! time is an argument, there is no I/O, so the same code decides in Envoy, in tests and in the
//! control plane.

pub mod answer;
pub mod authorize;
pub mod backoff;
pub mod config;
pub mod crowd;
#[cfg(target_arch = "wasm32")]
mod envoy;
pub mod leases;
pub mod networks;
pub mod pages;
pub mod poller;
pub mod profile;
pub mod publisher;
pub mod replica;
pub mod resources;
pub mod roster;
pub mod shared;
