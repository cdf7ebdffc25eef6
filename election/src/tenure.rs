//! One term of leadership, and the right to write that it gives.
//!
//! In: renewals, and the end, from the candidate. Out: [`Permit`]s, or [`LeadershipLost`].
//!
//! It must never give a permit after it once refused one: a term that ended stays ended, and the next one
//! is another [`Lead`]. It asks nobody: what decides is the clock and the last good renewal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::counters::Counters;

/// One term of this process as the leader. Cheap to clone and to ask; all clones are the same term.
///
/// It is made by an [`Election`](crate::Election) only:
///
/// ```compile_fail
/// let lead = tidings_election::Lead { tenure: todo!() };
/// ```
#[derive(Clone)]
pub struct Lead {
    tenure: Arc<Tenure>,
}

/// Leave to begin one write now. Functions that write take `&Permit<'_>`.
///
/// It is taken just before each write and dropped after it: it judges the moment in which it is given,
/// and [`Election::resign`](crate::Election::resign) waits for those that are out. Nobody can copy one,
///
/// ```compile_fail
/// fn keep<'a>(permit: &tidings_election::Permit<'a>) -> tidings_election::Permit<'a> {
///     permit.clone()
/// }
/// ```
///
/// nor make one:
///
/// ```compile_fail
/// fn forge(lead: &tidings_election::Lead) -> tidings_election::Permit<'_> {
///     tidings_election::Permit { lead }
/// }
/// ```
#[must_use = "a permit counts as out until it is dropped"]
#[derive(Debug)]
pub struct Permit<'a> {
    lead: &'a Lead,
}

/// Why a permit is refused. The way out is to stop: whoever leads now does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the leadership of term {term} is over ({loss}); leave the work to the leader, or wait to lead again"
)]
pub struct LeadershipLost {
    /// The term of the [`Lead`] that was asked.
    pub term: u64,
    /// How it ended.
    pub loss: Loss,
}

/// How a term ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No renewal succeeded within the deadline: the API server was away, or this process was stopped.
    Lapsed,
    /// The Lease was seen to be another's, or nobody's, or gone.
    Taken,
    /// This process gave it back.
    Resigned,
    /// The [`Election`](crate::Election) was dropped.
    Abandoned,
}

struct Tenure {
    term: u64,
    counters: Counters,
    /// Its lock is what makes judging and counting a permit one step.
    standing: watch::Sender<Standing>,
}

/// Where a term stands. It wakes its watchers when the term ends.
#[derive(Debug)]
struct Standing {
    until: Instant,
    loss: Option<Loss>,
}

// === impl Lead ===

impl Lead {
    /// A term with a number that this process never used before.
    pub(crate) fn new(counters: Counters, until: Instant) -> Self {
        let term = counters.count_term();
        let standing = watch::Sender::new(Standing { until, loss: None });
        Self { tenure: Arc::new(Tenure { term, counters, standing }) }
    }

    /// Leave to begin one write now.
    pub fn permit(&self) -> Result<Permit<'_>, LeadershipLost> {
        self.permit_at(Instant::now())
    }

    /// The number of this term in this process, from 1. The Lease's `leaseTransitions` counts otherwise:
    /// a term that lapsed and was won again by the same process is a new term, and no transition.
    pub fn term(&self) -> u64 {
        self.tenure.term
    }

    /// Waits until this term is over.
    pub async fn lost(&self) -> LeadershipLost {
        let mut standing = self.tenure.standing.subscribe();
        loop {
            let until = standing.borrow_and_update().until;
            if let Some(loss) = self.loss_at(Instant::now()) {
                return LeadershipLost { term: self.term(), loss };
            }
            tokio::select! {
                _ = standing.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    pub(crate) fn permit_at(&self, now: Instant) -> Result<Permit<'_>, LeadershipLost> {
        let counters = &self.tenure.counters;
        self.change(now, |standing| {
            if let Some(loss) = standing.loss {
                counters.count_refused_permit();
                return Err(LeadershipLost { term: self.term(), loss });
            }
            counters.count_permit_out();
            Ok(Permit { lead: self })
        })
    }

    /// Prolongs the term, unless it is over.
    pub(crate) fn renew(&self, until: Instant, now: Instant) -> Result<(), Loss> {
        self.change(now, |standing| {
            standing.until = standing.until.max(until);
            standing.loss.map_or(Ok(()), Err)
        })
    }

    /// Ends the term. What ended it first stays its reason.
    pub(crate) fn end(&self, loss: Loss, now: Instant) {
        self.change(now, |standing| {
            standing.loss.get_or_insert(loss);
        });
    }

    /// How the term ended, if it has.
    pub(crate) fn loss_at(&self, now: Instant) -> Option<Loss> {
        self.change(now, |standing| standing.loss)
    }

    /// When it ends if nothing renews it.
    pub(crate) fn until(&self) -> Instant {
        self.tenure.standing.borrow().until
    }

    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Standing) -> T) -> T {
        let mut result = None;
        self.tenure.standing.send_if_modified(|standing| {
            let before = standing.loss;
            standing.lapse(now);
            result = Some(change(standing));
            standing.loss != before
        });
        result.expect("the closure runs exactly once")
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("term", &self.term()).finish_non_exhaustive()
    }
}

// === impl Permit ===

impl Permit<'_> {
    /// The term under which it was given.
    pub fn term(&self) -> u64 {
        self.lead.term()
    }

    /// How long the right lasts that this write was begun under, as of the latest renewal; zero when it is over.
    ///
    /// A write that takes no longer than this is over before another may lead.
    pub fn remaining(&self) -> Duration {
        let now = Instant::now();
        let over = self.lead.loss_at(now).is_some();
        if over { Duration::ZERO } else { self.lead.until().saturating_duration_since(now) }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.lead.tenure.counters.count_permit_back();
    }
}

// === impl Standing ===

impl Standing {
    fn lapse(&mut self, now: Instant) {
        if now >= self.until {
            self.loss.get_or_insert(Loss::Lapsed);
        }
    }
}

// === impl Loss ===

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lapsed => "it was not renewed in time",
            Self::Taken => "the Lease is no longer ours",
            Self::Resigned => "it was given back",
            Self::Abandoned => "its election was dropped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn lead(now: Instant) -> Lead {
        Lead::new(Counters::default(), now + DEADLINE)
    }

    #[test]
    fn a_permit_is_given_up_to_the_deadline_and_not_after() {
        let now = Instant::now();
        let lead = lead(now);
        assert!(lead.permit_at(now + DEADLINE - Duration::from_nanos(1)).is_ok());
        let lost = lead.permit_at(now + DEADLINE).unwrap_err();
        assert_eq!(lost, LeadershipLost { term: 1, loss: Loss::Lapsed });
    }

    #[test]
    fn a_renewal_prolongs_the_right() {
        let now = Instant::now();
        let lead = lead(now);
        lead.renew(now + DEADLINE * 2, now + DEADLINE / 2).unwrap();
        assert!(lead.permit_at(now + DEADLINE).is_ok());
    }

    #[test]
    fn a_renewal_that_comes_late_does_not_bring_a_term_back() {
        let now = Instant::now();
        let lead = lead(now);
        assert_eq!(lead.renew(now + DEADLINE * 2, now + DEADLINE), Err(Loss::Lapsed));
        assert!(lead.permit_at(now).is_err(), "not even by an older reading of the clock");
    }

    #[test]
    fn what_ended_a_term_first_is_what_is_told() {
        let now = Instant::now();
        let lead = lead(now);
        lead.end(Loss::Taken, now);
        lead.end(Loss::Resigned, now);
        assert_eq!(lead.permit_at(now).unwrap_err().loss, Loss::Taken);
    }

    #[test]
    fn refused_permits_are_counted() {
        let (now, counters) = (Instant::now(), Counters::default());
        let lead = Lead::new(counters.clone(), now);
        assert!(lead.permit_at(now).is_err() && lead.clone().permit_at(now).is_err());
        assert_eq!(counters.permits_refused(), 2);
    }

    #[tokio::test]
    async fn the_wait_for_permits_ends_with_the_last_one_of_any_term() {
        let (now, counters) = (Instant::now(), Counters::default());
        let [old, new] = [now, now + DEADLINE].map(|until| Lead::new(counters.clone(), until));
        let first = old.permit_at(now - DEADLINE).unwrap();
        let second = new.permit_at(now).unwrap();
        let mut wait = Box::pin(counters.permits_are_back());
        drop(second);
        tokio::select! {
            biased;
            () = &mut wait => panic!("a permit is still out"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        wait.await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_the_loss_learns_of_a_lapse_without_being_told() {
        let lead = lead(Instant::now());
        assert_eq!(lead.lost().await.loss, Loss::Lapsed);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_loss_learns_of_an_end_at_once() {
        let lead = lead(Instant::now());
        let waiting = tokio::spawn({
            let lead = lead.clone();
            async move { lead.lost().await }
        });
        lead.end(Loss::Taken, Instant::now());
        assert_eq!(waiting.await.unwrap().loss, Loss::Taken);
    }

    #[test]
    fn a_permit_tells_what_remains_of_the_right() {
        let lead = lead(Instant::now());
        let permit = lead.permit().unwrap();
        assert!(permit.remaining() > DEADLINE / 2 && permit.remaining() <= DEADLINE);
        lead.end(Loss::Taken, Instant::now());
        assert_eq!(permit.remaining(), Duration::ZERO);
    }
}
