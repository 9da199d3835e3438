//! The data plane: an Envoy filter that decides each request by itself.
//!
//! # The two paths
//!
//! A request: `envoy/http_context.rs` reads its headers once → [`authorize::authorize`] runs the
//! stages ([`authorize::token`], [`authorize::path`], [`profile::routes`], [`authorize::reach`],
//! [`authorize::rights`]) → [`authorize::edits`] changes it → it goes on, or [`answer::refusal`] is
//! the reply.
//!
//! An update: `envoy/root_context.rs` makes the calls for which [`poller::Poller`] asks →
//! [`replica::Replica`] takes in what comes.
//!
//! Only `envoy/` talks to the host, and only it is compiled for wasm32 alone. All else is pure: the
//! time is an argument, there is no I/O, so the same code decides in Envoy, in tests and in the
//! control plane.

pub mod answer;
pub mod authorize;
pub mod backoff;
pub mod config;
#[cfg(target_arch = "wasm32")]
mod envoy;
pub mod leases;
pub mod poller;
pub mod profile;
pub mod replica;
