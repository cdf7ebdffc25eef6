//! What a book knows of its endpoint: the circuit, and which events speak against it.
//!
//! In: how attempts ended. Out: what may be tried. Few events that fail speak against themselves, and must
//! not keep the others waiting; many speak against the endpoint.

use tidings_plan::Retry;
use tidings_store::Seq;

use super::{Book, Feed};
use crate::circuit::{Circuit, Suspects};

// === impl Book ===

impl Book {
    /// The endpoint failed at this event; `probe` tells whether that was the probe.
    pub fn endpoint_failed(&mut self, seq: Seq, probe: bool, now_ms: i64, retry: &Retry, chance: f64) {
        self.suspects.add(seq);
        self.circuit = self.circuit.failed(probe, now_ms, retry, chance);
    }

    /// The endpoint answered, whatever it thought of the event.
    pub fn endpoint_answered(&mut self) {
        self.suspects = Suspects::default();
        self.circuit = self.circuit.succeeded();
    }

    /// A probe ended without an attempt, and says nothing of the endpoint: the next one may go at once.
    pub fn probe_said_nothing(&mut self) {
        if let Circuit::Probing { probes } = self.circuit {
            self.circuit = Circuit::Open { until_ms: 0, probes };
        }
    }

    /// The endpoint is another one, or was changed: nothing is known of it.
    pub fn forget_endpoint(&mut self) {
        self.endpoint_answered();
        self.hold_until_ms = 0;
    }

    /// Whether so few events failed since the endpoint answered that another one may fare better.
    pub fn suspects_are_few(&self) -> bool {
        self.suspects.are_few()
    }

    /// Whether an event that was never tried may go as a probe before the circuit's own time has come.
    pub fn may_probe_untried(&self, now_ms: i64, head: Seq) -> bool {
        matches!(self.circuit, Circuit::Open { .. })
            && self.suspects_are_few()
            && (!self.ready.is_empty() || self.is_to_read(head) || self.has_replayed(now_ms))
    }

    /// Whether the log must be looked at before it is known what waits.
    pub fn is_to_read(&self, head: Seq) -> bool {
        self.feed == Feed::Behind && self.ready.is_empty() && self.position < head
    }

    fn has_replayed(&self, now_ms: i64) -> bool {
        self.due_replayed.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms)
    }

    /// When what waits goes on, in milliseconds since 1970; `None` where an attempt is under way, or may be.
    pub fn goes_on_at_ms(&self) -> Option<i64> {
        let held = Some(self.hold_until_ms).filter(|held| *held > 0);
        let untried = self.backlog > 0 || !self.ready.is_empty();
        match self.circuit {
            Circuit::Probing { .. } => None,
            Circuit::Open { .. } if untried && self.suspects_are_few() => held,
            Circuit::Open { until_ms, .. } => Some(until_ms.max(self.hold_until_ms)),
            Circuit::Closed { .. } if self.is_under_way() => None,
            Circuit::Closed { .. } if untried => held,
            Circuit::Closed { .. } => self.next_due_ms().map(|due| due.max(self.hold_until_ms)),
        }
    }
}
