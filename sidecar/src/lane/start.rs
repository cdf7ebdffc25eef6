//! What a lane starts next.
//!
//! In: the book, the circuit, the rate, the share of attempts. Out: attempts. It must never start one while
//! the circuit, the rate or the share forbids it, and never let one kind of what waits keep another kind
//! waiting: what must be tried again, what is new and what a replay brought take turns.

use std::sync::Arc;

use tidings_store::{DeadLetter, Event, Seq, Store, now_ms};

use super::Lane;
use super::attempt::{Done, attempt};
use super::book::{Feed, Row};
use super::handle::is_gone;
use super::spec::{Spec, Wanted};
use crate::circuit::{Circuit, Gate};
use crate::rate::Bucket;
use crate::schedule::{ANOTHER_CHANCE, Delivery};

/// How long a lane waits for a slot before it asks again, when nobody told it to.
const ASK_AGAIN_MS: i64 = 1000;

/// How many events are dropped before others have their turn on this thread: each may cost a filter's budget.
const MOST_DROPS: usize = 16;

/// Which kind of what waits goes next, if there is one of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Turn {
    /// An event that must be tried again.
    Retry,
    /// One that comes from the dispatcher or the log.
    #[default]
    New,
    /// One that a replay put in line.
    Replayed,
}

/// What may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// Anything.
    Any,
    /// One probe.
    Probe,
    /// One probe of an event that was never tried.
    ProbeUntried,
    /// Nothing before then, in milliseconds since 1970; `None`: not before something happens.
    Wait(Option<i64>),
}

/// What became of a look for something to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Started {
    One,
    Nothing,
    /// The turn is a new event's, and the log must be read before it is known whether there is one.
    AfterReading,
}

// === impl Turn ===

impl Turn {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Retry => Self::New,
            Self::New => Self::Replayed,
            Self::Replayed => Self::Retry,
        }
    }
}

// === impl Lane ===

impl<S: Store> Lane<S> {
    /// Starts what may start now; returns when to look again, where no event says so.
    pub(super) fn start_what_may_start(&mut self) -> Option<i64> {
        let spec = self.handle.spec();
        if spec.plan.delivery.rate_per_second != self.rate {
            self.rate = spec.plan.delivery.rate_per_second;
            self.bucket = Bucket::new(self.rate, now_ms());
        }
        let mut started = Started::One;
        while started == Started::One && self.attempts.len() < spec.concurrency() {
            let now = now_ms();
            let may = self.gate(&spec, now);
            if let May::Wait(until_ms) = may {
                return until_ms;
            }
            let Some(slot) = self.share.try_take() else { return Some(now + ASK_AGAIN_MS) };
            if let Err(at) = self.bucket.take(now) {
                return Some(at);
            }
            self.slot = Some(slot);
            started = self.start_one(&spec, now, may);
            if started != Started::One {
                self.slot = None;
                self.bucket.put_back();
            }
        }
        self.read_on(&spec);
        if started == Started::AfterReading {
            return None;
        }
        self.look_again_ms(&spec, now_ms())
    }

    /// When a row is due, or the next probe. Where the lane is full what ends wakes it: what is due already
    /// must not spin it.
    fn look_again_ms(&self, spec: &Spec, now: i64) -> Option<i64> {
        let book = self.handle.lock();
        match book.circuit {
            Circuit::Closed { .. } => book.next_due_ms().filter(|_| self.attempts.len() < spec.concurrency()),
            Circuit::Open { until_ms, .. } => Some(until_ms).filter(|until| *until > now),
            Circuit::Probing { .. } => None,
        }
    }

    fn gate(&self, spec: &Spec, now: i64) -> May {
        let mut book = self.handle.lock();
        if book.feed() == Feed::Absent || spec.plan.suspend || is_gone(&book, spec) {
            book.rewind();
            return May::Wait(None);
        }
        if now < book.hold_until_ms {
            return May::Wait(Some(book.hold_until_ms));
        }
        match book.circuit.gate(now) {
            Gate::Pass => May::Any,
            Gate::Probe => May::Probe,
            Gate::Shut(_) if book.may_probe_untried(now, self.store.head()) => May::ProbeUntried,
            Gate::Shut(until) => {
                book.rewind();
                May::Wait(Some(until).filter(|until| *until < i64::MAX))
            }
        }
    }

    /// Starts one attempt, if there is something to be tried.
    fn start_one(&mut self, spec: &Arc<Spec>, now: i64, may: May) -> Started {
        match may {
            May::Any => self.start_by_turns(spec, now, &[Turn::Retry, Turn::New, Turn::Replayed], false),
            May::Probe => self.start_probe(spec, now),
            May::ProbeUntried => self.start_untried(spec, now),
            May::Wait(_) => Started::Nothing,
        }
    }

    /// Starts one of these kinds: that whose turn it is, else the next of which there is one.
    fn start_by_turns(&mut self, spec: &Arc<Spec>, now: i64, kinds: &[Turn], probe: bool) -> Started {
        let first = self.turn;
        for kind in [first, first.next(), first.next().next()] {
            if !kinds.contains(&kind) {
                continue;
            }
            if self.start_kind(kind, spec, now, probe) {
                self.turn = kind.next();
                return Started::One;
            }
            if kind == Turn::New && self.is_to_read() {
                self.turn = kind;
                return Started::AfterReading;
            }
        }
        Started::Nothing
    }

    fn start_kind(&mut self, kind: Turn, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        match kind {
            Turn::Retry => self.start_due(spec, now, now, probe),
            Turn::New => self.start_next(spec, now, probe),
            Turn::Replayed => self.start_replayed(spec, now, probe),
        }
    }

    /// Starts a probe. Events that were never tried and rows take turns at it: an endpoint that fails for some
    /// events alone is found out by the former, and for one that fails altogether no more than every second
    /// probe begins an event's way to the dead letters. The row that is due first goes, also before it is due:
    /// it has one more attempt behind it then, and is given up no earlier.
    fn start_probe(&mut self, spec: &Arc<Spec>, now: i64) -> Started {
        if self.probe_untried || self.handle.lock().suspects_are_few() {
            let started = self.start_untried(spec, now);
            if started != Started::Nothing {
                return started;
            }
        }
        self.probe_untried = true;
        if self.start_due(spec, now, i64::MAX, true) {
            return Started::One;
        }
        self.start_untried(spec, now)
    }

    fn start_untried(&mut self, spec: &Arc<Spec>, now: i64) -> Started {
        let started = self.start_by_turns(spec, now, &[Turn::New, Turn::Replayed], true);
        self.probe_untried &= started != Started::One;
        started
    }

    /// Whether the log holds something that the lane has not looked at.
    fn is_to_read(&self) -> bool {
        self.handle.lock().is_to_read(self.store.head())
    }

    fn start_due(&mut self, spec: &Arc<Spec>, now: i64, due_by: i64, probe: bool) -> bool {
        let Some((seq, row)) = self.take_due(spec, now, due_by) else { return false };
        self.begin(spec, seq, row, None, probe);
        true
    }

    fn start_replayed(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        let Some((seq, row)) = self.handle.lock().take_replayed(now) else { return false };
        self.begin(spec, seq, row, None, probe);
        true
    }

    /// Starts the next event that is wanted.
    fn start_next(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        for _ in 0..MOST_DROPS {
            let taken = self.handle.lock().take_ready(now, |event| spec.ordering_key(event));
            match taken {
                None => return false,
                // Parked behind another of its key.
                Some(None) => {}
                Some(Some(event)) => {
                    let row = Row {
                        attempts: 0,
                        first_attempt_ms: 0,
                        due_ms: now,
                        key: spec.ordering_key(&event),
                        received_ms: event.received_ms,
                    };
                    let wanted = spec.wants(&event);
                    if wanted == Wanted::No {
                        self.drop_event(event.seq, row.key);
                        continue;
                    }
                    if let Wanted::Unknown(class) = wanted {
                        self.note_filter_error(spec, class, &event);
                    }
                    self.begin(spec, event.seq, row, Some(event), probe);
                    return true;
                }
            }
        }
        self.pauses = true;
        false
    }

    /// The filter could not be evaluated over an event, which is delivered all the same.
    fn note_filter_error(&self, spec: &Spec, class: &'static str, event: &Event) {
        let mut book = self.handle.lock();
        let webhook = &spec.plan.webhook;
        if book.tally.filter_failed(spec.plan.generation, class, &event.name, now_ms()) {
            tracing::warn!(%webhook, class, "the filter could not be evaluated over an event, which is delivered");
        }
        drop(book);
        self.handle.changed(&self.unsaved);
    }

    /// The next row that is due by then; those beyond their horizon are given up on the way.
    fn take_due(&self, spec: &Spec, now: i64, due_by: i64) -> Option<(Seq, Row)> {
        let mut book = self.handle.lock();
        loop {
            let (seq, row) = book.take_due(due_by)?;
            let Row { attempts, first_attempt_ms, due_ms, key, received_ms: _ } = row;
            let delivery = Delivery::Pending { attempts, first_attempt_ms, due_ms };
            let has_expired = delivery.has_expired(now, &spec.plan.delivery.retry);
            if !has_expired || tidings_store::uptime() < ANOTHER_CHANCE {
                return Some((seq, row));
            }
            let last = book.tally.last_failure.clone();
            let letter = DeadLetter {
                seq,
                name: String::new(),
                attempts,
                at_ms: now,
                reason: last.as_ref().map_or_else(|| "GaveUp".to_owned(), |failure| failure.reason.clone()),
                status_code: last.and_then(|failure| failure.status_code),
            };
            book.bury(letter, key);
            self.handle.changed(&self.unsaved);
        }
    }

    fn begin(&mut self, spec: &Arc<Spec>, seq: Seq, row: Row, event: Option<Arc<Event>>, probe: bool) {
        if probe {
            let mut book = self.handle.lock();
            book.circuit = book.circuit.probe_started();
        }
        let (spec, store, slot) = (Arc::clone(spec), Arc::clone(&self.store), self.slot.take());
        self.attempts.push(Box::pin(async move {
            let end = attempt(&spec, &store, seq, event).await;
            drop(slot);
            Done { seq, row, probe, spec, end }
        }));
    }

    pub(super) fn drop_event(&self, seq: Seq, key: u64) {
        let mut book = self.handle.lock();
        book.tally.dropped += 1;
        book.settle(seq, key);
        drop(book);
        self.handle.changed(&self.unsaved);
    }
}
