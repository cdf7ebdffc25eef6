//! The sidecar on a real API server, as its own `ServiceAccount`, with the rights of config/sidecar/rbac.yaml.
//!
//! ```text
//! tests/controlplane/run -- cargo test -p tidings-pod --features controlplane
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod outage;
mod plans;
mod publisher;
mod reports;
mod rights;
