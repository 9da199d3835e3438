//! Starts everything that a black-box test needs, on free ports, and ends it again.
//!
//! A [`Stack`] is a control plane, an upstream that echoes what reached it, and an Envoy with the
//! filter. Each is a real process (the upstream a real server) that is talked to over HTTP only. On
//! failure the folder with their logs is kept and named.

pub mod browser;
pub mod control_plane;
pub mod crowd;
pub mod envoy;
pub mod http;
pub mod load;
pub mod ports;
pub mod process;
pub mod project;
pub mod stack;
pub mod upstream;
pub mod wait;

pub use browser::Browser;
pub use control_plane::{ControlPlane, IssuedKey};
pub use envoy::{Envoy, EnvoyOptions};
pub use http::Response;
pub use load::Load;
pub use stack::Stack;
pub use upstream::Upstream;
