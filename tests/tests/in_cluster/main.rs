//! The charts on a real API server: every example is taken, every right is as wide as it must be and no wider,
//! and what users applied outlives a release.
//!
//!     tests/controlplane/run -- cargo test -p tidings-tests --features controlplane --test in_cluster

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dry_run;
mod helm_test;
mod install;
mod rights;
mod stage;
mod teams;
