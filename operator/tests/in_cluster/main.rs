//! The operator on a real API server: operator and sidecar as processes, each with the rights of config/ and
//! no other, the rest as users do it.
//!
//! ```text
//! tests/controlplane/run -- cargo test -p tidings-operator --features controlplane --test in_cluster
//! ```
//!
//! `TIDINGS_KILLS` tells how often the operator is killed in the longest test, 20 times where it is not set.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod bounds;
mod broken;
mod definitions;
mod deliveries;
mod killed;
mod leaders;
mod lifecycle;
mod objects;
mod outages;
mod replays;
mod rights;
mod rotation;
mod secrets;
mod sequences;
mod services;
mod stage;
