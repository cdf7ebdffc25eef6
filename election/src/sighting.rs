//! The decision upon a Lease: what was seen, since when on our own clock, and so what to do.
//!
//! In: each read of the Lease and when its answer arrived. Out: [`Decision`]. Pure.
//!
//! It must never take a held Lease that this process has not itself watched for the whole duration.

use std::time::Duration;

use tokio::time::Instant;

use crate::record::Record;

/// What to do about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Another holds it; not to be taken before then.
    Wait {
        /// On our clock, if nothing changes.
        until: Instant,
    },
    /// It is free, or was left to lapse.
    Take,
    /// It is ours.
    Renew,
}

/// The Lease as this process sees it.
#[derive(Debug)]
pub(crate) struct Sighting {
    /// None when there is no such object.
    record: Option<Record>,
    /// How long whoever holds it is to be waited for; None when nobody does.
    held_for: Option<Duration>,
    /// When the answer arrived that brought this record first.
    since: Instant,
}

// === impl Sighting ===

impl Sighting {
    /// What is seen now, after what was seen before. `own` stands in for a duration that is absent.
    pub(crate) fn after(before: Option<Self>, record: Option<Record>, own: Duration, now: Instant) -> Self {
        match before {
            Some(same) if same.record == record => same,
            before => {
                let held_for = match &record {
                    Some(record) => record.holder().map(|_| record.duration().unwrap_or(own)),
                    // Deleted by someone: its holder does not know yet, nor who else saw it gone.
                    None => before.and_then(|before| before.held_for),
                };
                Self { record, held_for, since: now }
            }
        }
    }

    /// What `me` is to do at this time.
    pub(crate) fn decide(&self, me: &str, now: Instant) -> Decision {
        if self.is_held_by(me) {
            return Decision::Renew;
        }
        let Some(held_for) = self.held_for else { return Decision::Take };
        let until = self.since + held_for;
        if now >= until { Decision::Take } else { Decision::Wait { until } }
    }

    pub(crate) fn is_held_by(&self, me: &str) -> bool {
        self.record.as_ref().is_some_and(|record| record.holder() == Some(me))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use proptest::prelude::*;

    use super::*;

    const OWN: Duration = Duration::from_secs(15);

    fn record(version: u32, holder: Option<&str>, seconds: Option<i32>) -> Option<Record> {
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        let resource_version = Some(version.to_string());
        let metadata = ObjectMeta { resource_version, ..ObjectMeta::default() };
        Record::new(Lease { metadata, spec: Some(spec) })
    }

    /// What is decided at `at` milliseconds after these records were read at those times.
    fn decide(seen: &[(u64, Option<Record>)], at: u64) -> Decision {
        let start = Instant::now();
        let time = |ms| start + Duration::from_millis(ms);
        let mut sighting = None;
        for (ms, record) in seen {
            sighting = Some(Sighting::after(sighting, record.clone(), OWN, time(*ms)));
        }
        sighting.unwrap().decide("me", time(at))
    }

    fn waits(decision: Decision) -> bool {
        matches!(decision, Decision::Wait { .. })
    }

    #[test]
    fn a_newcomer_waits_out_what_stands_in_the_record() {
        let seen = [(0, record(1, Some("other"), Some(3)))];
        assert!(waits(decide(&seen, 2999)));
        assert_eq!(decide(&seen, 3000), Decision::Take);
    }

    #[test]
    fn each_change_starts_the_wait_again() {
        let seen = [(0, record(1, Some("other"), Some(3))), (2900, record(2, Some("other"), Some(3)))];
        assert!(waits(decide(&seen, 5899)));
        assert_eq!(decide(&seen, 5900), Decision::Take);
    }

    #[test]
    fn seeing_the_same_again_does_not() {
        let seen = [(0, record(1, Some("other"), Some(3))), (2900, record(1, Some("other"), Some(3)))];
        assert_eq!(decide(&seen, 3000), Decision::Take);
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        for holder in [None, Some("")] {
            let seen = [(0, record(1, Some("other"), Some(3))), (10, record(2, holder, Some(3)))];
            assert_eq!(decide(&seen, 10), Decision::Take);
        }
    }

    #[test]
    fn a_lease_that_never_was_is_created_at_once() {
        assert_eq!(decide(&[(0, None)], 0), Decision::Take);
    }

    #[test]
    fn a_lease_deleted_under_its_holder_is_waited_for_as_if_it_were_there() {
        for holder in ["other", "me"] {
            let seen = [(0, record(1, Some(holder), Some(3))), (1000, None)];
            assert!(waits(decide(&seen, 3999)));
            assert_eq!(decide(&seen, 4000), Decision::Take);
        }
    }

    #[test]
    fn a_holder_without_a_duration_is_waited_for_as_long_as_our_own() {
        for seconds in [None, Some(0), Some(-1)] {
            let seen = [(0, record(1, Some("other"), seconds))];
            assert!(waits(decide(&seen, 14_999)));
            assert_eq!(decide(&seen, 15_000), Decision::Take);
        }
    }

    #[test]
    fn our_own_record_is_renewed_however_old() {
        assert_eq!(decide(&[(0, record(1, Some("me"), Some(3)))], 1_000_000), Decision::Renew);
    }

    proptest! {
        #[test]
        fn a_held_lease_is_never_taken_before_its_duration_without_a_change_has_passed(
            reads in prop::collection::vec((0_u64..4000, 1_u32..4), 1..20),
            seconds in 1_i32..5,
            later in 0_u64..8000,
        ) {
            let (mut at, mut changed, mut last, mut seen) = (0, 0, 0, Vec::new());
            for (gap, version) in reads {
                at += gap;
                if version != last {
                    (last, changed) = (version, at);
                }
                seen.push((at, record(version, Some("other"), Some(seconds))));
            }
            let free = at + later >= changed + u64::from(seconds.unsigned_abs()) * 1000;
            prop_assert_eq!(decide(&seen, at + later) == Decision::Take, free);
        }
    }
}
