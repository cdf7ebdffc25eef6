//! What the end-to-end tests stand on: real processes, real sockets, real files.
//!
//! ```text
//! capture --raw socket--> process (the sidecar or the command line) --HTTP--> receiver
//! ```
//!
//! Nothing here sleeps to let something happen: [`until`] asks again until a condition holds, and fails
//! with a sentence when it never does.

#![expect(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a harness fails by panicking")]

pub mod capture;
pub mod charts;
pub mod client;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod plan;
pub mod process;
pub mod receiver;
#[cfg(feature = "cluster")]
pub mod rights;
pub mod values;

use std::time::{Duration, Instant};

/// How long a condition may take to hold; generous, since nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks until the answer is `Some`, or panics with what was waited for.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
