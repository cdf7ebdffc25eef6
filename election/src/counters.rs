//! What is counted over all terms of an election, read at any time from any thread: what metrics show, and how
//! many permits are out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// A cheap handle on the numbers of one [`Election`](crate::Election); it outlives it.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    permits_refused: AtomicU64,
    renewals_failed: AtomicU64,
    terms: AtomicU64,
    /// It wakes its watchers when it comes to zero.
    permits_out: watch::Sender<usize>,
}

// === impl Counters ===

impl Counters {
    /// How often a write was not made because leadership was lost.
    pub fn permits_refused(&self) -> u64 {
        self.0.permits_refused.load(Ordering::Relaxed)
    }

    /// How many requests of a leader failed, timed out or met a newer record.
    pub fn renewals_failed(&self) -> u64 {
        self.0.renewals_failed.load(Ordering::Relaxed)
    }

    /// How often this process gained leadership.
    pub fn terms(&self) -> u64 {
        self.0.terms.load(Ordering::Relaxed)
    }

    pub(crate) fn count_refused_permit(&self) {
        self.0.permits_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failed_renewal(&self) {
        self.0.renewals_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a term, and gives its number: the first is 1.
    pub(crate) fn count_term(&self) -> u64 {
        self.0.terms.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn count_permit_out(&self) {
        self.0.permits_out.send_if_modified(|out| {
            *out += 1;
            false
        });
    }

    pub(crate) fn count_permit_back(&self) {
        self.0.permits_out.send_if_modified(|out| {
            *out -= 1;
            *out == 0
        });
    }

    /// Waits until no permit is out, of whichever term.
    pub(crate) async fn permits_are_back(&self) {
        // It fails without a sender, and the sender is ours.
        let _ = self.0.permits_out.subscribe().wait_for(|out| *out == 0).await;
    }
}
