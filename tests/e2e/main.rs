//! Black-box tests against a real Envoy: one module per promise.

mod authentication;
