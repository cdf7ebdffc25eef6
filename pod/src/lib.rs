//! The sidecar in its pod: the binary `tidings-sidecar`, and all that it needs of a cluster.
//!
//! ```text
//! plan Secrets --watch, get--> plan_secret --Plan--> tidings_sidecar --numbers--> reporter
//!                                                                                    |
//!                           DeliveryReport <--apply-- writer <--newest parts-- report (pure)
//! ```
//!
//! The library `tidings_sidecar` receives, stores and delivers, and knows nothing of Kubernetes. Here is
//! the rest: it may get and watch the plan's Secrets by name, and write its own report; nothing that it
//! asks of the API server is waited for by a delivery.

pub mod arguments;

pub mod cluster;

pub mod plan_secret;

pub mod report;
pub mod reporter;
pub mod unmatched;
pub mod writer;

mod backoff;
mod signs;

pub use signs::Signs;
