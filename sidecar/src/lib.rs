//! The sidecar: receives an auth server's events, stores them, and delivers them.
//!
//! ```text
//! auth server --POST--> receive -> store -> dispatch -> lane -> dial --POST--> endpoint
//!                         |                   |           |
//!                       extract             plan's      schedule, cursor, rate, envelope
//!                                           index         |
//!                                                       tally -> admin, metrics, report
//! ```
//!
//! Data flows one way; nothing downstream calls back up. [`engine`] puts the parts together. This
//! library knows nothing of Kubernetes: a plan comes in from whoever has one, tallies go out.

mod extract;
pub mod serve;
pub mod receive;
