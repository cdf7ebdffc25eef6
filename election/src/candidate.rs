//! A candidate: which request is due, and what its answer means. Pure; time comes in, requests go out.
//!
//! ```text
//!           +-- Wait: again after the retry period, or when the record is old enough
//!           v                      |
//!   start: Read --Found/Absent--> decide --Take, Renew--> Claim --Written--> the right, from the request's start
//!           ^                                               |
//!           +------ Outpaced, Failed, after the retry period+---- Written: Claim again, after the retry period
//! ```
//!
//! A request that failed may have been applied, or may yet be: so after it the record is read, and only a write that
//! was answered gives a right. It must never give one for a record that was merely read.

use tokio::time::Instant;

use crate::counters::Counters;
use crate::record::Record;
use crate::settings::Timing;
use crate::sighting::{Decision, Sighting};
use crate::tenure::{Lead, Loss};

/// How often it is tried to give a Lease back.
const RELEASE_TRIES: u32 = 3;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Nothing before then.
    Sleep { until: Instant },
    /// To be sent now. Its answer goes to [`Candidate::hear`], and no answer by `give_up` is one that failed.
    Send { request: Request, give_up: Instant },
    /// Nothing any more.
    Leave(Resignation),
}

/// What is asked of the API server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    Read,
    /// To hold the Lease: over this record and no other, or where there is none.
    Claim(Option<Record>),
    /// To hold it no more.
    Release(Record),
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The Lease as it is.
    Found(Record),
    /// There is none.
    Absent,
    /// Our write, with its new version.
    Written(Record),
    /// Someone else wrote, created or deleted it first.
    Outpaced,
    /// Anything else: it may have been applied or not.
    Failed,
}

/// How an election was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resignation {
    /// The Lease is released: another takes it at once.
    Released,
    /// It was not ours.
    NotHeld,
    /// It could not be released, or a permit was still out: another takes it after the lease duration.
    LeftToLapse,
}

/// One who stands for election.
#[derive(Debug)]
pub(crate) struct Candidate {
    me: String,
    timing: Timing,
    counters: Counters,
    lead: Option<Lead>,
    sighting: Option<Sighting>,
    next: Request,
    /// When it goes out.
    due: Instant,
    /// When the one that is under way went out.
    sent: Instant,
    /// A claim that failed may have been applied.
    in_doubt: bool,
    leaving: Leaving,
}

#[derive(Debug, Clone, Copy)]
enum Leaving {
    No,
    Tries(u32),
    Done(Resignation),
}

// === impl Candidate ===

impl Candidate {
    /// `me` must be a name that nobody else ever stands under.
    pub(crate) fn new(me: String, timing: Timing, counters: Counters, now: Instant) -> Self {
        Self {
            me,
            timing,
            counters,
            lead: None,
            sighting: None,
            next: Request::Read,
            due: now,
            sent: now,
            in_doubt: false,
            leaving: Leaving::No,
        }
    }

    /// The term under way.
    pub(crate) fn lead(&self) -> Option<&Lead> {
        self.lead.as_ref()
    }

    /// What to do. Called again after each sleep and each answer.
    pub(crate) fn next(&mut self, now: Instant) -> Step {
        if let Leaving::Done(resignation) = self.leaving {
            return Step::Leave(resignation);
        }
        if self.lead.as_ref().is_some_and(|lead| lead.loss_at(now).is_some()) {
            self.lead = None;
        }
        if now < self.due {
            return Step::Sleep { until: self.not_after_the_lead(self.due) };
        }
        self.sent = now;
        // No later than the lead's end, so that this end is noticed in time.
        let give_up = self.not_after_the_lead(now + self.timing.request_timeout());
        Step::Send { request: self.next.clone(), give_up }
    }

    /// Takes the answer to what [`Candidate::next`] sent last.
    pub(crate) fn hear(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Found(record) => self.found(Some(record), now),
            Answer::Absent => self.found(None, now),
            Answer::Written(record) => self.written(record, now),
            Answer::Outpaced => self.thwarted(),
            Answer::Failed => {
                self.in_doubt |= matches!(self.next, Request::Claim(_));
                self.thwarted();
            }
        }
    }

    /// Ends the term at once, and starts to give the Lease back.
    pub(crate) fn resign(&mut self, now: Instant) {
        let led = self.end(Loss::Resigned, now);
        self.due = now;
        self.leaving = Leaving::Tries(RELEASE_TRIES);
        match std::mem::replace(&mut self.next, Request::Read) {
            Request::Claim(Some(record)) if record.holder() == Some(&self.me) => {
                self.next = Request::Release(record);
            }
            _ if led || self.in_doubt => {}
            _ => self.leaving = Leaving::Done(Resignation::NotHeld),
        }
    }

    /// Ends the term, and leaves the Lease as it is.
    pub(crate) fn abandon(&mut self, loss: Loss, now: Instant) {
        self.end(loss, now);
        self.leaving = Leaving::Done(Resignation::LeftToLapse);
    }

    fn found(&mut self, record: Option<Record>, now: Instant) {
        self.in_doubt = false;
        let decision = self.sight(record.clone(), now);
        if decision != Decision::Renew {
            self.end(Loss::Taken, now);
        }
        self.due = now;
        self.next = match (decision, self.leaving, record) {
            (Decision::Renew, Leaving::Tries(_), Some(record)) => Request::Release(record),
            (_, Leaving::Tries(_), _) => {
                self.leaving = Leaving::Done(Resignation::NotHeld);
                Request::Read
            }
            (Decision::Wait { until }, ..) => {
                self.due = until.min(self.next_round());
                Request::Read
            }
            (Decision::Take | Decision::Renew, _, record) => Request::Claim(record),
        };
    }

    fn written(&mut self, record: Record, now: Instant) {
        self.in_doubt = false;
        self.sight(Some(record.clone()), now);
        self.due = self.next_round();
        if let Request::Release(_) = self.next {
            self.leaving = Leaving::Done(Resignation::Released);
        } else {
            self.renewed(now);
            self.next = Request::Claim(Some(record));
        }
    }

    /// The right counts from when the request was sent: nobody can have seen the renewal earlier than that.
    fn renewed(&mut self, now: Instant) {
        let until = self.sent + self.timing.renew_deadline();
        let goes_on = self.lead.as_ref().is_some_and(|lead| lead.renew(until, now).is_ok());
        if !goes_on {
            self.lead = (now < until).then(|| Lead::new(self.counters.clone(), until));
        }
    }

    fn thwarted(&mut self) {
        if self.lead.is_some() {
            self.counters.count_failed_renewal();
        }
        if let Leaving::Tries(left) = self.leaving {
            self.leaving = match left.saturating_sub(1) {
                0 => Leaving::Done(Resignation::LeftToLapse),
                left => Leaving::Tries(left),
            };
        }
        self.next = Request::Read;
        self.due = self.next_round();
    }

    fn sight(&mut self, record: Option<Record>, now: Instant) -> Decision {
        let before = self.sighting.take();
        let sighting = Sighting::after(before, record, self.timing.lease_duration(), now);
        self.sighting.insert(sighting).decide(&self.me, now)
    }

    /// Whether there was a term to end.
    fn end(&mut self, loss: Loss, now: Instant) -> bool {
        self.lead.take().inspect(|lead| lead.end(loss, now)).is_some()
    }

    fn next_round(&self) -> Instant {
        self.sent + self.timing.retry_period()
    }

    fn not_after_the_lead(&self, time: Instant) -> Instant {
        self.lead.as_ref().map_or(time, |lead| time.min(lead.until()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn held_by(holder: &str, version: u32) -> Record {
        let resource_version = Some(version.to_string());
        let metadata = ObjectMeta { resource_version, ..ObjectMeta::default() };
        let spec = LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() };
        Record::new(Lease { metadata, spec: Some(spec) }).unwrap()
    }

    fn candidate(now: Instant) -> Candidate {
        Candidate::new("me".to_owned(), Timing::default(), Counters::default(), now)
    }

    /// One that leads since `now`.
    fn leader(now: Instant) -> (Candidate, Lead) {
        let mut candidate = candidate(now);
        for answer in [Answer::Absent, Answer::Written(held_by("me", 1))] {
            assert!(matches!(candidate.next(now), Step::Send { .. }));
            candidate.hear(answer, now);
        }
        let lead = candidate.lead().expect("it was written").clone();
        (candidate, lead)
    }

    /// What it sends once it is due.
    fn sends(candidate: &mut Candidate, now: &mut Instant) -> Request {
        loop {
            match candidate.next(*now) {
                Step::Sleep { until } => *now = until,
                Step::Send { request, .. } => return request,
                Step::Leave(resignation) => panic!("left: {resignation:?}"),
            }
        }
    }

    #[test]
    fn a_leader_renews_without_reading_what_it_wrote_itself() {
        let mut now = Instant::now();
        let (mut leader, _) = leader(now);
        assert_eq!(sends(&mut leader, &mut now), Request::Claim(Some(held_by("me", 1))));
    }

    #[test]
    fn a_leader_that_sees_the_lease_with_another_ends_its_term_at_once() {
        let mut now = Instant::now();
        let (mut leader, lead) = leader(now);
        sends(&mut leader, &mut now);
        leader.hear(Answer::Outpaced, now);
        assert!(lead.permit_at(now).is_ok(), "it may have been anyone's edit");
        assert_eq!(sends(&mut leader, &mut now), Request::Read);
        leader.hear(Answer::Found(held_by("other", 2)), now);
        assert_eq!(lead.permit_at(now).unwrap_err().loss, Loss::Taken);
    }

    #[test]
    fn no_request_of_a_leader_outlasts_its_right() {
        let start = Instant::now();
        let (mut leader, lead) = leader(start);
        let end = lead.until();
        let mut now = end - Duration::from_millis(1);
        sends(&mut leader, &mut now);
        assert!(matches!(leader.next(now), Step::Send { give_up, .. } if give_up == end));
    }

    #[test]
    fn a_term_that_lapsed_is_followed_by_one_with_another_number() {
        let mut now = Instant::now();
        let (mut leader, first) = leader(now);
        now = first.until();
        sends(&mut leader, &mut now);
        assert!(leader.lead().is_none());
        leader.hear(Answer::Written(held_by("me", 2)), now);
        assert_eq!(leader.lead().map(Lead::term), Some(2));
        assert!(first.permit_at(now).is_err());
    }

    #[test]
    fn who_resigns_with_a_claim_in_doubt_looks_whether_it_was_applied() {
        let mut now = Instant::now();
        let mut candidate = candidate(now);
        for answer in [Answer::Absent, Answer::Failed] {
            sends(&mut candidate, &mut now);
            candidate.hear(answer, now);
        }
        candidate.resign(now);
        assert_eq!(sends(&mut candidate, &mut now), Request::Read);
        candidate.hear(Answer::Found(held_by("me", 1)), now);
        assert_eq!(sends(&mut candidate, &mut now), Request::Release(held_by("me", 1)));
    }

    #[test]
    fn who_never_asked_for_the_lease_leaves_without_a_word() {
        let now = Instant::now();
        let mut candidate = candidate(now);
        candidate.resign(now);
        assert_eq!(candidate.next(now), Step::Leave(Resignation::NotHeld));
    }

    #[test]
    fn who_cannot_give_the_lease_back_leaves_after_three_tries() {
        let mut now = Instant::now();
        let (mut leader, _) = leader(now);
        leader.resign(now);
        for _ in 0..RELEASE_TRIES {
            sends(&mut leader, &mut now);
            leader.hear(Answer::Failed, now);
        }
        assert_eq!(leader.next(now), Step::Leave(Resignation::LeftToLapse));
    }
}
