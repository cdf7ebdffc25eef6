//! Retention, seen from the lanes: what it takes is counted for each Webhook that waits for it.
//!
//! In: the place before which the store would remove. Out: that place in the very change that holds the
//! lanes' counts and cursors. A Webhook that the plan does not hold is counted too, by what it selected
//! when it was held last; it finds the number in its tally when it comes back.
//!
//! It must never have the store remove what was not counted, nor what the dispatcher has yet to hand over.
//! Nothing else removes: while this does not run, the log grows until appends are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidings_store::{EventHead, Seq, Store, StoreError};

use super::{Engine, Lanes, Running};
use crate::lane::book::Book;

/// How long the losses of one Webhook are one burst, told once.
const BURST: Duration = Duration::from_mins(1);

/// How many Webhooks are remembered that left the plan so long ago that retention took all of what was there
/// then. Most are deleted and never come back; one that does finds its numbers.
const REMEMBERED: usize = 128;

/// What the store would remove.
#[derive(Debug)]
pub(super) struct Removal {
    before: Seq,
    /// The places of each name; `None` for those whose name is damaged: any Webhook may have selected them.
    places: BTreeMap<Option<Box<str>>, Vec<Seq>>,
    last_received_ms: i64,
}

/// What was lost, and told of.
#[derive(Debug, Default)]
pub(super) struct Losses {
    bursts: BTreeMap<String, Burst>,
    /// Events that were lost to Webhooks that the plan does not hold.
    pub(super) of_absent: u64,
}

#[derive(Debug)]
struct Burst {
    told: Instant,
    untold: u64,
    in_plan: bool,
}

// === impl Engine ===

impl<S: Store> Engine<S> {
    /// Removes what the store would, as long as it would.
    pub(super) async fn retain(&self) -> Result<(), StoreError> {
        while let Some(due) = self.store.due_for_removal() {
            let dispatched = Seq(self.dispatched.load(Ordering::SeqCst));
            let before = due.min(Seq(dispatched.0 + 1));
            if before <= self.store.oldest() {
                break;
            }
            let store = std::sync::Arc::clone(&self.store);
            let read = tokio::task::spawn_blocking(move || Removal::read(&*store, before)).await;
            if !self.save_with(Some(read.unwrap_or(Err(StoreError::Closed))?)).await? {
                break;
            }
        }
        self.lanes().losses.tell();
        Ok(())
    }

    /// Counts what waits among the events that go, for each Webhook.
    pub(super) fn expire(&self, lanes: &mut Lanes, removal: &Removal) {
        let Lanes { running, absent, parked, losses, .. } = lanes;
        let in_plan = running.values().map(|lane| (lane, true));
        for (Running { handle, .. }, in_plan) in in_plan.chain(absent.values().map(|lane| (lane, false))) {
            if !handle.lock().waits_before(removal.before) {
                continue;
            }
            let expired = handle.change(&self.unsaved, |book| removal.take_from(book));
            losses.add(&handle.webhook.to_string(), expired, in_plan);
        }
        for (label, book) in parked {
            if book.waits_before(removal.before) {
                losses.add(label, removal.take_from(book), false);
            }
            lanes.loose.extend(book.take_changes(label));
        }
    }

    /// Forgets the Webhooks that have been away for the longest, where too many are.
    pub(super) fn forget_long_gone(&self, lanes: &mut Lanes) {
        let oldest = self.store.oldest();
        let passed = |book: &Book| book.left_at().filter(|left| left.0 + 1 < oldest.0);
        let mut gone: Vec<_> =
            lanes.parked.iter().filter_map(|(label, book)| Some((passed(book)?, label.clone()))).collect();
        gone.sort_unstable();
        for (_, label) in gone.iter().take(gone.len().saturating_sub(REMEMBERED)) {
            lanes.parked.remove(label);
            lanes.loose.push(tidings_store::LaneChange { lane: label.clone(), ..Default::default() });
        }
    }
}

// === impl Removal ===

impl Removal {
    /// Reads what there is before this place. Blocks on the file.
    fn read<S: Store>(store: &S, before: Seq) -> Result<Self, StoreError> {
        let mut removal = Self { before, places: BTreeMap::new(), last_received_ms: 0 };
        store.scan(Seq(0), Seq(before.0 - 1), &mut |EventHead { seq, name, received_ms }| {
            removal.places.entry(name).or_default().push(seq);
            removal.last_received_ms = received_ms;
        })?;
        Ok(removal)
    }

    /// The place before which everything goes.
    pub(super) fn before(&self) -> Seq {
        self.before
    }

    fn take_from(&self, book: &mut Book) -> u64 {
        let is_selected = |name: &Option<Box<str>>| name.as_ref().is_none_or(|name| book.selects(name));
        let selected: BTreeSet<Seq> = self
            .places
            .iter()
            .filter(|(name, _)| is_selected(name))
            .flat_map(|(_, places)| places.iter().copied())
            .collect();
        book.expire(self.before, &selected, self.last_received_ms)
    }
}

// === impl Losses ===

impl Losses {
    fn add(&mut self, webhook: &str, events: u64, in_plan: bool) {
        if events == 0 {
            return;
        }
        if !in_plan {
            self.of_absent += events;
        }
        match self.bursts.get_mut(webhook) {
            Some(burst) if burst.in_plan == in_plan => burst.untold += events,
            _ => {
                tell(webhook, events, in_plan);
                let burst = Burst { told: Instant::now(), untold: 0, in_plan };
                self.bursts.insert(webhook.to_owned(), burst);
            }
        }
    }

    /// Tells what came since a burst was told of, once it has lasted for its time. A Webhook that the plan
    /// does not hold is deleted most often, and told of once.
    fn tell(&mut self) {
        self.bursts.retain(|webhook, burst| {
            if !burst.in_plan || burst.told.elapsed() < BURST {
                return true;
            }
            if burst.untold > 0 {
                tell(webhook, burst.untold, burst.in_plan);
            }
            burst.told = Instant::now();
            std::mem::take(&mut burst.untold) > 0
        });
    }
}

fn tell(webhook: &str, events: u64, in_plan: bool) {
    if in_plan {
        tracing::error!(
            webhook,
            events,
            "retention removed events that waited for delivery: they are lost for this Webhook, and counted as expired"
        );
    } else {
        tracing::warn!(
            webhook,
            events,
            "retention removed events of a Webhook that the plan does not hold; if it comes back, its status counts them as expired"
        );
    }
}
