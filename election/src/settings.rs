//! Which Lease, under what name, and how patiently.
//!
//! It must never let through a timing with which two could lead.

use std::time::Duration;

/// The Lease and the name of who stands for election.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) identity: String,
    pub(crate) timing: Timing,
}

/// How long a Lease holds, how long a leader trusts it, and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// An empty namespace, name or identity.
    #[error("the election's {field} is empty; give it, as with `metadata.name` of the pod for the identity")]
    Empty {
        /// Which of the three.
        field: &'static str,
    },
    /// The API has whole seconds, from 1 to 2147483647.
    #[error("a lease duration of {0:?} cannot be written into a Lease; take whole seconds, at least one")]
    NotWholeSeconds(Duration),
    /// A leader would still believe in a Lease that another may take.
    #[error(
        "the renew deadline {renew_deadline:?} must be shorter than the lease duration {lease_duration:?}"
    )]
    DeadlineTooLong {
        /// As given.
        renew_deadline: Duration,
        /// As given.
        lease_duration: Duration,
    },
    /// One lost request would cost the leadership.
    #[error(
        "the renew deadline {renew_deadline:?} must be longer than two retry periods of {retry_period:?}, neither zero"
    )]
    TooFewRetries {
        /// As given.
        renew_deadline: Duration,
        /// As given.
        retry_period: Duration,
    },
}

// === impl Settings ===

impl Settings {
    /// The Lease `name` in `namespace`, for a candidate whom people know as `identity` (the pod's name).
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
        timing: Timing,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            namespace: given("namespace", namespace.into())?,
            name: given("name", name.into())?,
            identity: given("identity", identity.into())?,
            timing,
        })
    }
}

fn given(field: &'static str, value: String) -> Result<String, SettingsError> {
    if value.trim().is_empty() { Err(SettingsError::Empty { field }) } else { Ok(value) }
}

// === impl Timing ===

impl Default for Timing {
    /// 15 s, 10 s and 2 s: what Kubernetes' own components use.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// Checks that `lease_duration > renew_deadline > 2 * retry_period > 0`, the first in whole seconds.
    ///
    /// The span between the first two is what a write has left that was permitted in the last moment,
    /// and what clocks of different speed may differ by. The default leaves 5 s.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, SettingsError> {
        if whole_seconds(lease_duration).is_none() {
            return Err(SettingsError::NotWholeSeconds(lease_duration));
        }
        if renew_deadline >= lease_duration {
            return Err(SettingsError::DeadlineTooLong { renew_deadline, lease_duration });
        }
        if retry_period.is_zero() || renew_deadline <= retry_period.saturating_mul(2) {
            return Err(SettingsError::TooFewRetries { renew_deadline, retry_period });
        }
        Ok(Self { lease_duration, renew_deadline, retry_period })
    }

    /// How long others wait before they take a Lease that does not change.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long after the start of its last good renewal a leader may act.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// From the start of one round to the start of the next.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// After which a request is given up: before the next round is due.
    pub fn request_timeout(&self) -> Duration {
        self.retry_period * 3 / 4
    }

    /// As the API has it.
    pub(crate) fn lease_seconds(&self) -> i32 {
        whole_seconds(self.lease_duration).unwrap_or(i32::MAX)
    }
}

fn whole_seconds(duration: Duration) -> Option<i32> {
    let seconds = i32::try_from(duration.as_secs()).ok().filter(|seconds| *seconds > 0);
    seconds.filter(|_| duration.subsec_nanos() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(lease: u64, deadline: u64, retry: u64) -> Result<Timing, SettingsError> {
        Timing::new(
            Duration::from_millis(lease),
            Duration::from_millis(deadline),
            Duration::from_millis(retry),
        )
    }

    #[test]
    fn the_default_passes_its_own_check() {
        assert_eq!(timing(15_000, 10_000, 2000).unwrap(), Timing::default());
    }

    #[test]
    fn a_request_ends_before_the_next_is_due() {
        let timing = Timing::default();
        assert!(timing.request_timeout() < timing.retry_period());
    }

    #[test]
    fn a_leader_that_would_outlive_its_lease_is_refused() {
        for deadline in [15_000, 16_000] {
            let refused = timing(15_000, deadline, 2000).unwrap_err();
            assert!(matches!(refused, SettingsError::DeadlineTooLong { .. }), "{refused}");
        }
    }

    #[test]
    fn a_deadline_without_room_for_a_second_try_is_refused() {
        for retry in [0, 5000, 6000] {
            let refused = timing(15_000, 10_000, retry).unwrap_err();
            assert!(matches!(refused, SettingsError::TooFewRetries { .. }), "{refused}");
        }
    }

    #[test]
    fn a_duration_that_the_api_cannot_hold_is_refused() {
        for lease in [0, 999, 15_500, (i32::MAX as u64 + 1) * 1000] {
            let refused = timing(lease, 10, 2).unwrap_err();
            assert!(matches!(refused, SettingsError::NotWholeSeconds(_)), "{refused}");
        }
    }

    #[test]
    fn an_empty_name_is_refused_with_the_fields_name() {
        let refused = Settings::new("tidings", "lease", " ", Timing::default()).unwrap_err();
        assert!(refused.to_string().contains("identity"), "{refused}");
    }
}
