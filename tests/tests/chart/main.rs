//! The charts and what they render, without a cluster: helm's own check, schemas, pods' security, alerts, and
//! that everything that is rendered and checked in is fresh.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fresh;
mod monitoring;
mod network;
mod openshift;
mod platform;
mod pods;
mod rendered;
mod schemas;
mod values;
