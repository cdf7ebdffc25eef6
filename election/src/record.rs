//! The Lease as it was read, and the Leases that are written over it.
//!
//! In: what the API server sent, with any field absent. Out: holder and duration, and the whole object with our
//! changes, so that nobody's labels are lost.
//!
//! It must never judge by `renewTime` or `acquireTime`: they are written for people.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

/// A Lease that has a `resourceVersion`. Two are equal when nothing at all has been written in between.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record(Arc<Lease>);

/// What a candidate writes into a Lease.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Our identity, with the part that is only this candidate's.
    pub(crate) holder: String,
    /// As `leaseDurationSeconds`.
    pub(crate) seconds: i32,
}

// === impl Record ===

impl Record {
    /// None without a `resourceVersion`: a write over it could not be guarded.
    pub(crate) fn new(lease: Lease) -> Option<Self> {
        let versioned = lease.metadata.resource_version.as_deref().is_some_and(|version| !version.is_empty());
        versioned.then(|| Self(Arc::new(lease)))
    }

    /// Who holds it: nobody when the field is absent or empty.
    pub(crate) fn holder(&self) -> Option<&str> {
        let holder = self.spec()?.holder_identity.as_deref();
        holder.filter(|holder| !holder.is_empty())
    }

    /// How long its holder asked others to wait. None when that is absent or makes no sense.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.spec()?.lease_duration_seconds?).ok()?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// The same object, held by us. Its `resourceVersion` stays, and so guards the write.
    pub(crate) fn claimed(&self, claim: &Claim, wall: Timestamp) -> Lease {
        let mut lease = Lease::clone(&self.0);
        let renews = self.holder() == Some(&claim.holder);
        let spec = lease.spec.get_or_insert_default();
        let now = other_than(spec.renew_time.as_ref(), wall);
        if !renews {
            let transitions = spec.lease_transitions.unwrap_or(0).max(0);
            spec.lease_transitions = Some(transitions.saturating_add(1));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(claim.holder.clone());
        spec.lease_duration_seconds = Some(claim.seconds);
        spec.renew_time = Some(now);
        lease
    }

    /// The same object, held by nobody.
    pub(crate) fn released(&self, wall: Timestamp) -> Lease {
        let mut lease = Lease::clone(&self.0);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(other_than(spec.renew_time.as_ref(), wall));
        lease
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.0.spec.as_ref()
    }
}

// === impl Claim ===

impl Claim {
    /// A Lease where there was none.
    pub(crate) fn created(&self, namespace: &str, name: &str, wall: Timestamp) -> Lease {
        let now = other_than(None, wall);
        let spec = LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(self.seconds),
            lease_transitions: Some(0),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        Lease { metadata, spec: Some(spec) }
    }
}

/// Now, in the API's microseconds, but never what stood there: the API server drops a write that changes
/// nothing, and under a wall clock that stands still others would not see our renewal.
fn other_than(written: Option<&MicroTime>, wall: Timestamp) -> MicroTime {
    let now = wall.as_microsecond();
    let same = written.is_some_and(|written| written.0.as_microsecond() == now);
    MicroTime(Timestamp::from_microsecond(now + i64::from(same)).unwrap_or(wall))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn claim(holder: &str) -> Claim {
        Claim { holder: holder.to_owned(), seconds: 15 }
    }

    fn wall(microsecond: i64) -> Timestamp {
        Timestamp::from_microsecond(microsecond).unwrap()
    }

    fn record(spec: Option<LeaseSpec>) -> Record {
        let labels = Some(BTreeMap::from([("team".to_owned(), "identity".to_owned())]));
        let resource_version = Some("7".to_owned());
        Record::new(Lease {
            metadata: ObjectMeta { labels, resource_version, ..ObjectMeta::default() },
            spec,
        })
        .unwrap()
    }

    fn spec(lease: Lease) -> LeaseSpec {
        lease.spec.unwrap()
    }

    #[test]
    fn a_lease_without_a_version_is_no_record() {
        assert_eq!(Record::new(Lease::default()), None);
    }

    #[test]
    fn absent_fields_and_nonsense_mean_nobody_and_no_duration() {
        let nonsense = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(-3),
            ..LeaseSpec::default()
        };
        for spec in [None, Some(LeaseSpec::default()), Some(nonsense)] {
            let record = record(spec);
            assert_eq!((record.holder(), record.duration()), (None, None));
        }
    }

    #[test]
    fn a_claim_keeps_the_version_and_everyones_labels() {
        let lease = record(None).claimed(&claim("a"), wall(1));
        assert_eq!(lease.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(lease.metadata.labels.unwrap()["team"], "identity");
    }

    #[test]
    fn transitions_count_changes_of_the_holder_and_renewals_do_not() {
        let mut taken = record(None).claimed(&claim("a"), wall(1));
        assert_eq!(taken.spec.as_ref().unwrap().lease_transitions, Some(1));
        taken = Record::new(taken).unwrap().claimed(&claim("a"), wall(2));
        assert_eq!(taken.spec.as_ref().unwrap().lease_transitions, Some(1));
        let spec = spec(Record::new(taken).unwrap().claimed(&claim("b"), wall(3)));
        assert_eq!(spec.lease_transitions, Some(2));
        assert_eq!(spec.acquire_time, Some(MicroTime(wall(3))));
    }

    #[test]
    fn a_renewal_keeps_the_time_of_acquisition() {
        let taken = record(None).claimed(&claim("a"), wall(1));
        let renewed = spec(Record::new(taken).unwrap().claimed(&claim("a"), wall(9)));
        assert_eq!(renewed.acquire_time, Some(MicroTime(wall(1))));
        assert_eq!(renewed.renew_time, Some(MicroTime(wall(9))));
    }

    #[test]
    fn a_renewal_under_a_clock_that_stands_still_is_a_change_nevertheless() {
        let taken = record(None).claimed(&claim("a"), wall(5));
        let renewed = Record::new(taken.clone()).unwrap().claimed(&claim("a"), wall(5));
        assert_ne!(taken, renewed);
    }

    #[test]
    fn absurd_transitions_neither_overflow_nor_go_below_zero() {
        for (before, after) in [(i32::MAX, i32::MAX), (-5, 1)] {
            let odd = LeaseSpec { lease_transitions: Some(before), ..LeaseSpec::default() };
            let taken = spec(record(Some(odd)).claimed(&claim("a"), wall(1)));
            assert_eq!(taken.lease_transitions, Some(after));
        }
    }

    #[test]
    fn a_released_lease_is_held_by_nobody() {
        let taken = Record::new(record(None).claimed(&claim("a"), wall(1))).unwrap();
        assert_eq!(Record::new(taken.released(wall(2))).unwrap().holder(), None);
    }
}
