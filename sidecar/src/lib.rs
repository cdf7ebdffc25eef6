//! The sidecar: receives an auth server's events, stores them, and delivers them.
//!
//! ```text
//! auth server --POST--> receive -> store -> engine -> lane -> dial --POST--> endpoint
//!                         |                   |         |
//!                      extract           the plan's   book, schedule, circuit, rate, envelope
//!                                      index, replays    |
//!                                                     tally -> admin, metrics
//! ```
//!
//! Data flows one way; nothing downstream calls back up. [`sidecar`] puts the parts together. This
//! library knows nothing of Kubernetes: plans come in from whoever has them, tallies go out.

mod words;

mod budget;
mod descriptors;

pub mod sidecar;

pub mod front;
mod opening;

pub mod serve;

pub mod receive;

pub mod extract;

pub mod engine;

pub mod fatal;

mod replay;

pub mod lane;

pub mod circuit;
pub mod rate;
pub mod schedule;

pub mod dial;
pub mod envelope;

pub mod tally;

mod test_event;

mod admin;
mod admit;
pub mod metrics;

pub mod plans;

pub mod drain;
