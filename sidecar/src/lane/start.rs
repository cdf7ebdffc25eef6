//! What a lane starts next.
//!
//! In: the book, the circuit, the rate, the share of attempts. Out: attempts. It must never start one while
//! the circuit, the rate or the share forbids it.

use std::sync::Arc;

use tidings_store::{DeadLetter, Event, Seq, Store, now_ms};

use super::Lane;
use super::attempt::{Done, attempt};
use super::book::{Feed, Row};
use super::handle::is_gone;
use super::spec::Spec;
use crate::circuit::Gate;
use crate::rate::Bucket;
use crate::schedule::Delivery;

/// How long a lane waits for a slot before it asks again, when nobody told it to.
const ASK_AGAIN_MS: i64 = 1000;

// === impl Lane ===

impl<S: Store> Lane<S> {
    /// Starts what may start now; tells when to look again, where that is not told by an event.
    pub(super) fn start_what_may_start(&mut self) -> Option<i64> {
        let spec = self.handle.spec();
        if spec.plan.delivery.rate_per_second != self.rate {
            self.rate = spec.plan.delivery.rate_per_second;
            self.bucket = Bucket::new(self.rate, now_ms());
        }
        while self.attempts.len() < spec.concurrency() {
            let now = now_ms();
            let probe = match self.gate(&spec, now) {
                Gate::Pass => false,
                Gate::Probe => true,
                Gate::Shut(until) => return (until < i64::MAX).then_some(until),
            };
            let Some(slot) = self.share.try_take() else { return Some(now + ASK_AGAIN_MS) };
            if let Err(at) = self.bucket.take(now) {
                return Some(at);
            }
            self.slot = Some(slot);
            if !self.start_one(&spec, now, probe) {
                self.slot = None;
                self.bucket.put_back();
                break;
            }
        }
        self.read_on(&spec);
        // With the lane full, what ends tells; a row that is due may not spin it.
        let full = self.attempts.len() >= spec.concurrency();
        self.handle.lock().next_due_ms().filter(|_| !full)
    }

    fn gate(&self, spec: &Spec, now: i64) -> Gate {
        let mut book = self.handle.lock();
        if book.feed() == Feed::Absent || spec.plan.suspend || is_gone(&book, spec) {
            book.rewind();
            return Gate::Shut(i64::MAX);
        }
        if now < book.hold_until_ms {
            return Gate::Shut(book.hold_until_ms);
        }
        let gate = book.circuit.gate(now);
        if matches!(gate, Gate::Shut(_)) {
            book.rewind();
        }
        gate
    }

    /// Starts one attempt: a row that is due, else by turns the next event and the next one that a replay
    /// put in line. False when there is none.
    fn start_one(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        if let Some((seq, row)) = self.take_due(spec, now) {
            self.begin(spec, seq, row, None, probe);
            return true;
        }
        if self.replayed_turn && self.start_replayed(spec, now, probe) {
            self.replayed_turn = false;
            return true;
        }
        self.replayed_turn = true;
        self.start_next(spec, now, probe) || self.start_replayed(spec, now, probe)
    }

    fn start_replayed(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        let Some((seq, row)) = self.handle.lock().take_replayed(now) else { return false };
        self.begin(spec, seq, row, None, probe);
        true
    }

    /// Starts the next event that is wanted.
    fn start_next(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        loop {
            let taken = self.handle.lock().take_ready(|event| spec.ordering_key(event));
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
                    if spec.wants(&event) {
                        self.begin(spec, event.seq, row, Some(event), probe);
                        return true;
                    }
                    self.drop_event(event.seq, row.key);
                }
            }
        }
    }

    /// The next row that is due; those beyond their horizon are given up on the way.
    fn take_due(&self, spec: &Spec, now: i64) -> Option<(Seq, Row)> {
        let mut book = self.handle.lock();
        loop {
            let (seq, row) = book.take_due(now)?;
            let Row { attempts, first_attempt_ms, due_ms, key, received_ms: _ } = row;
            let delivery = Delivery::Pending { attempts, first_attempt_ms, due_ms };
            if !delivery.has_expired(now, &spec.plan.delivery.retry) {
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
