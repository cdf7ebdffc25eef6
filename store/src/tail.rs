//! The last events in memory, so that a lane that keeps up never reads the file.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Event, Seq};

/// How many bytes of bodies are kept.
const MAX_BYTES: usize = 4 << 20;

/// The last events, in order.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
}

// === impl Tail ===

impl Tail {
    /// Adds the newest event.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.body.len();
        self.events.push_back(event);
        while self.bytes > MAX_BYTES && self.events.len() > 1 {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.body.len();
            }
        }
    }

    /// One event, where it is here.
    pub(crate) fn get(&self, seq: Seq) -> Option<Arc<Event>> {
        let first = self.events.front()?.seq;
        let at = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        self.events.get(at).map(Arc::clone)
    }
}
