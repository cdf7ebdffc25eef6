//! What the sidecar's admin surface shows of its dealings with the cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tidings_sidecar::sidecar::Surroundings;

/// Counters, and why there is no plan yet.
#[derive(Debug, Default)]
pub struct Signs {
    waiting: Mutex<String>,
    watch_errors: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
    saved: AtomicU64,
}

// === impl Signs ===

impl Signs {
    /// Why there is no plan yet, where there is none.
    pub(crate) fn waits(&self, because: String) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = because;
    }

    /// The watch of the plan broke, or a Secret could not be read.
    pub(crate) fn watch_failed(&self) {
        self.watch_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A part of the report was written.
    pub(crate) fn report_written(&self) {
        self.written.fetch_add(1, Ordering::Relaxed);
    }

    /// A part of the report could not be written.
    pub(crate) fn report_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A part of the report says what it said before, and was not written.
    pub(crate) fn report_saved(&self) {
        self.saved.fetch_add(1, Ordering::Relaxed);
    }
}

impl Surroundings for Signs {
    fn no_plan_because(&self) -> String {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            (
                "plan_watch_errors",
                "Times that the plan could not be read from the cluster",
                read(&self.watch_errors),
            ),
            ("report_writes", "Parts of the report that were written", read(&self.written)),
            ("report_writes_failed", "Parts of the report that could not be written", read(&self.failed)),
            ("report_writes_saved", "Parts of the report that had not changed", read(&self.saved)),
        ]
    }
}
