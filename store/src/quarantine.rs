//! Damaged events: what is said of them, and how often.
//!
//! One event that cannot be read must never keep the others from being delivered: it is told apart from
//! a failure, once in the log and once in the count, and whoever met it goes on.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::Seq;

/// How many are told apart. Beyond it one that is met twice counts twice.
const MAX_KNOWN: usize = 65_536;

/// The damaged events that were met since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    places: HashSet<Seq>,
    count: u64,
}

// === impl Quarantine ===

impl Quarantine {
    /// Notes a damaged event. The first, second, fourth and so on are logged: a broken disk must not fill
    /// another one with log lines.
    pub(crate) fn note(&self, path: &Path, seq: Seq, reason: &str) {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if met.places.contains(&seq) {
            return;
        }
        if met.places.len() < MAX_KNOWN {
            met.places.insert(seq);
        }
        met.count += 1;
        if met.count.is_power_of_two() {
            tracing::error!(
                file = %path.display(), event = seq.0, reason, damaged_events = met.count,
                "an event of the log is damaged: Webhooks that have yet to get it get a dead letter instead; check the disk"
            );
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}
