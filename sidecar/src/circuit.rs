//! The circuit breaker of one endpoint: after some failures in a row it opens, and then lets one probe
//! through at a time, ever more rarely, until one succeeds. While it is open only the event that is probed
//! with has an attempt counted. Which events failed ([`Suspects`]) tells whether the endpoint is at fault.
//!
//! Pure: time and chance come in from outside.

use tidings_plan::Retry;
use tidings_store::Seq;

use crate::schedule::backoff_ms;

/// Failures in a row that open the circuit.
pub const FAILURES_TO_OPEN: u32 = 5;

/// A probe is never further away than this, in milliseconds, so that a receiver that is back is soon seen.
const MAX_PROBE_WAIT_MS: i64 = 60_000;

/// The state of one endpoint's circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Everything passes.
    Closed {
        /// Failures in a row.
        failures: u32,
    },
    /// Nothing passes until then.
    Open {
        /// When the next probe may go, in milliseconds since 1970.
        until_ms: i64,
        /// Probes that failed.
        probes: u32,
    },
    /// One probe is under way.
    Probing {
        /// Probes that failed before it.
        probes: u32,
    },
}

/// The events that failed since the endpoint last answered, up to as many as open the circuit.
#[derive(Debug, Clone, Default)]
pub struct Suspects(Vec<Seq>);

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Anything.
    Pass,
    /// One probe.
    Probe,
    /// Nothing before then, in milliseconds since 1970; `i64::MAX` while a probe is under way.
    Shut(i64),
}

// === impl Circuit ===

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Circuit {
    /// What may start now.
    pub fn gate(self, now_ms: i64) -> Gate {
        match self {
            Self::Closed { .. } => Gate::Pass,
            Self::Open { until_ms, .. } if now_ms >= until_ms => Gate::Probe,
            Self::Open { until_ms, .. } => Gate::Shut(until_ms),
            Self::Probing { .. } => Gate::Shut(i64::MAX),
        }
    }

    /// A probe starts.
    #[must_use]
    pub fn probe_started(self) -> Self {
        match self {
            Self::Open { probes, .. } => Self::Probing { probes },
            other => other,
        }
    }

    /// The endpoint answered, whatever it thought of the event.
    #[must_use]
    pub fn succeeded(self) -> Self {
        Self::default()
    }

    /// The endpoint failed; `probe` tells whether this was the probe. Attempts that were under way
    /// when the circuit opened change nothing.
    #[must_use]
    pub fn failed(self, probe: bool, now_ms: i64, retry: &Retry, chance: f64) -> Self {
        match self {
            Self::Closed { failures } if failures + 1 >= FAILURES_TO_OPEN => {
                Self::opened(0, now_ms, retry, chance)
            }
            Self::Closed { failures } => Self::Closed { failures: failures + 1 },
            Self::Probing { probes } if probe => {
                Self::opened(probes.saturating_add(1), now_ms, retry, chance)
            }
            other => other,
        }
    }

    /// Whether deliveries are stopped.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    fn opened(probes: u32, now_ms: i64, retry: &Retry, chance: f64) -> Self {
        // Between a half and the whole of the wait: a probe at once would tell nothing new.
        let wait = backoff_ms(probes + 1, 1, retry, 0.5 + chance / 2.0).min(MAX_PROBE_WAIT_MS);
        Self::Open { until_ms: now_ms.saturating_add(wait), probes }
    }
}

// === impl Suspects ===

impl Suspects {
    /// The endpoint failed at this event.
    pub fn add(&mut self, seq: Seq) {
        if self.are_few() && !self.0.contains(&seq) {
            self.0.push(seq);
        }
    }

    /// Whether the events may be at fault. When as many different ones failed as open the circuit, the
    /// endpoint is.
    pub fn are_few(&self) -> bool {
        self.0.len() < FAILURES_TO_OPEN as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Retry =
        Retry { initial_backoff_seconds: 1, max_backoff_seconds: 3600, give_up_after_seconds: 1000 };

    #[test]
    fn five_failures_open_it_and_one_probe_that_succeeds_closes_it() {
        let mut circuit = Circuit::default();
        for _ in 0..FAILURES_TO_OPEN {
            assert_eq!(circuit.gate(0), Gate::Pass);
            circuit = circuit.failed(false, 0, &RETRY, 1.0);
        }
        assert_eq!(circuit.gate(0), Gate::Shut(1000));
        assert_eq!(circuit.gate(1000), Gate::Probe);
        circuit = circuit.probe_started();
        assert_eq!(circuit.gate(1000), Gate::Shut(i64::MAX));
        assert_eq!(circuit.failed(false, 1000, &RETRY, 1.0), circuit, "a straggler is no probe");
        circuit = circuit.failed(true, 1000, &RETRY, 1.0);
        assert_eq!(circuit, Circuit::Open { until_ms: 3000, probes: 1 });
        assert_eq!(circuit.probe_started().succeeded().gate(0), Gate::Pass);
    }

    #[test]
    fn one_event_that_fails_again_and_again_is_one_suspect() {
        let mut suspects = Suspects::default();
        for seq in [1, 1, 1, 1, 1, 2, 3, 4] {
            suspects.add(Seq(seq));
            assert!(suspects.are_few());
        }
        suspects.add(Seq(5));
        assert!(!suspects.are_few());
    }

    #[test]
    fn a_probe_is_never_further_away_than_a_minute() {
        let mut circuit = Circuit::Probing { probes: 30 };
        circuit = circuit.failed(true, 0, &RETRY, 1.0);
        assert_eq!(circuit.gate(0), Gate::Shut(MAX_PROBE_WAIT_MS));
    }
}
