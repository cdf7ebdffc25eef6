//! What others hold of a lane: the dispatcher hands events over, the saver takes what changed, the admin
//! surface looks at the numbers.
//!
//! In: events, a new spec, questions. Out: changes of the book, and a wake-up of the lane. It must never
//! wait for the lane.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tidings_plan::ObjectName;
use tidings_store::{Event, Seq};
use tokio::sync::Notify;

use super::book::{Book, Start};
use super::spec::Spec;
use crate::circuit::Circuit;
use crate::tally::{Snapshot, Standing};

/// What the dispatcher, the saver and the admin surface hold of a lane.
#[derive(Debug)]
pub struct Handle {
    /// The Webhook.
    pub webhook: ObjectName,
    label: String,
    book: Mutex<Book>,
    spec: ArcSwap<Spec>,
    wake: Notify,
    queued_for_save: AtomicBool,
}

/// The lanes whose books changed since they were saved.
#[derive(Debug, Default)]
pub struct Unsaved {
    lanes: Mutex<Vec<Arc<Handle>>>,
    touched: Notify,
}

// === impl Unsaved ===

impl Unsaved {
    /// Takes the lanes whose books changed.
    pub fn take(&self) -> Vec<Arc<Handle>> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        for lane in &lanes {
            lane.queued_for_save.store(false, Ordering::SeqCst);
        }
        lanes
    }

    /// Says that something changed.
    pub fn touch(&self) {
        self.touched.notify_one();
    }

    /// Resolves when something changed since the last time. For one who waits.
    pub async fn touched(&self) {
        self.touched.notified().await;
    }

    fn add(&self, handle: &Arc<Handle>) {
        self.touch();
        if !handle.queued_for_save.swap(true, Ordering::SeqCst) {
            self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(handle));
        }
    }
}

// === impl Handle ===

impl Handle {
    /// A lane's handle.
    pub fn new(spec: Arc<Spec>, mut book: Book) -> Self {
        book.select(&spec.plan.events);
        let webhook = spec.plan.webhook.clone();
        Self {
            label: webhook.to_string(),
            webhook,
            book: Mutex::new(book),
            spec: ArcSwap::new(spec),
            wake: Notify::new(),
            queued_for_save: AtomicBool::new(false),
        }
    }

    /// The book. A panic of another holder leaves it whole: each of its methods ends consistent.
    pub fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the lane.
    pub fn hand_over(self: &Arc<Self>, event: &Arc<Event>, unsaved: &Unsaved) {
        if self.lock().hand_over(event) {
            unsaved.add(self);
        }
        self.wake.notify_one();
    }

    /// Runs the Webhook as it is now.
    pub fn replace_spec(self: &Arc<Self>, spec: &Arc<Spec>, dispatched: Seq, unsaved: &Unsaved) {
        let old = self.spec.swap(Arc::clone(spec));
        {
            let mut book = self.lock();
            book.select(&spec.plan.events);
            if old.plan.events != spec.plan.events {
                book.reselect(dispatched);
            }
            if old.plan.generation != spec.plan.generation || old.plan.endpoint != spec.plan.endpoint {
                book.forget_endpoint();
            }
        }
        self.changed(unsaved);
        self.wake.notify_one();
    }

    /// Has the lane work: the dispatcher knows it. `head` is asked under the book's lock.
    pub(crate) fn join(self: &Arc<Self>, head: impl FnOnce() -> Seq, unsaved: &Unsaved) -> Start {
        self.change(unsaved, |book| book.join(head()))
    }

    /// Has the lane begin nothing more, until it joins again; attempts under way go on to their end.
    pub(crate) fn leave(self: &Arc<Self>, dispatched: Seq, unsaved: &Unsaved) {
        self.change(unsaved, |book| book.leave(dispatched));
    }

    /// What runs.
    pub fn spec(&self) -> Arc<Spec> {
        self.spec.load_full()
    }

    /// Says that the book must be saved.
    pub fn changed(self: &Arc<Self>, unsaved: &Unsaved) {
        unsaved.add(self);
    }

    /// Changes the book from outside of the lane: what changed is saved, and the lane looks at it.
    pub(crate) fn change<T>(self: &Arc<Self>, unsaved: &Unsaved, change: impl FnOnce(&mut Book) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed(unsaved);
        self.wake.notify_one();
        changed
    }

    /// Resolves when there is something to look at. For the lane alone.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What must be saved.
    pub fn take_changes(&self) -> Option<tidings_store::LaneChange> {
        self.lock().take_changes(&self.label)
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let spec = self.spec();
        let book = self.lock();
        let gone = is_gone(&book, &spec);
        let circuit = match book.circuit {
            _ if spec.plan.suspend => "Suspended",
            _ if gone => "Gone",
            Circuit::Closed { .. } => "Closed",
            Circuit::Open { .. } => "Open",
            Circuit::Probing { .. } => "Probing",
        };
        let waits_until = match book.circuit {
            Circuit::Open { until_ms, .. } => Some(until_ms),
            _ => book.next_due_ms(),
        };
        Snapshot {
            webhook: self.label.clone(),
            uid: spec.plan.uid.clone(),
            generation: spec.plan.generation,
            tally: book.tally.clone(),
            pending: book.pending(),
            oldest_pending_ms: book.oldest_pending_ms(),
            next_attempt_ms: waits_until
                .filter(|_| !gone && !spec.plan.suspend)
                .map(|at| at.max(book.hold_until_ms)),
            circuit,
        }
    }

    /// Whether something that waits may be tried before then, in milliseconds since 1970.
    pub(crate) fn goes_on_before(&self, deadline_ms: i64) -> bool {
        let spec = self.spec();
        let book = self.lock();
        let stands = spec.plan.suspend || is_gone(&book, &spec) || book.pending() == 0;
        !stands && book.goes_on_at_ms().is_none_or(|at| at < deadline_ms)
    }

    /// How the Webhook stands, for who must tell a change of it at once.
    pub fn standing(&self) -> Standing {
        let spec = self.spec();
        let book = self.lock();
        Standing {
            delivered: book.tally.delivered > 0,
            failing: book.tally.consecutive_failures > 0,
            dead_letters: book.tally.dead_lettered > 0,
            stopped: book.circuit.is_open() || is_gone(&book, &spec),
            filter_failing: book.tally.filter_failing_of(spec.plan.generation).is_some(),
        }
    }
}

pub(super) fn is_gone(book: &Book, spec: &Spec) -> bool {
    book.tally.gone_generation == Some(spec.plan.generation)
}
