//! One look of a replay at the log: which of the next events it selects. Blocks on the file.
//!
//! The whole log from where the replay stands is looked at, in pieces: received times rise with the
//! places but for a clock that was set back, and so the end of the window alone does not end the look.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidings_plan::ReplayPlan;
use tidings_store::{EventHead, Lookup, Seq, Store, StoreError, now_ms};

use crate::lane::book::Row;
use crate::lane::spec::{Spec, Wanted};

/// How many heads one piece has, and how many pieces one look: some milliseconds of work, after which
/// the replay says how far it came.
const PIECE: u64 = 512;
const PIECES: u64 = 32;

/// A piece of the log that was received this long after the window's end, in milliseconds, ends the
/// replay: no clock is set back that far but by hand.
const END_SLACK_MS: i64 = 3_600_000;

/// What a replay selects: by its own words, and by the Webhook as it is now.
pub(super) struct Window {
    pub(super) plan: Arc<ReplayPlan>,
    pub(super) spec: Arc<Spec>,
}

/// What a look found.
#[derive(Debug)]
pub(super) struct Found {
    /// The events that the replay selects, each with the row by which it is put in line.
    pub(super) events: Vec<(Seq, Row)>,
    /// Everything up to here was looked at.
    pub(super) upto: Seq,
    /// Nothing of the window is left.
    pub(super) at_end: bool,
    /// When the oldest event of the log was received, if retention took part of the window before it was
    /// looked at.
    pub(super) oldest_available_ms: Option<i64>,
}

/// Looks on after a place, until so many events were found; the last piece may end the look.
pub(super) fn look<S: Store>(
    store: &S,
    window: &Window,
    after: Seq,
    limit: usize,
) -> Result<Found, StoreError> {
    // What comes later than this is new, and is delivered anyway.
    let (head, oldest) = (store.head(), store.oldest());
    let mut found = Found {
        events: Vec::new(),
        upto: after.max(Seq(oldest.0.saturating_sub(1))),
        at_end: false,
        oldest_available_ms: None,
    };
    for _ in 0..PIECES {
        let upto = Seq(head.0.min(found.upto.0 + PIECE));
        let passed = found.look_at_piece(store, window, upto, limit)?;
        found.at_end = found.upto >= head || (passed && found.upto == upto);
        if found.at_end || found.events.len() >= limit {
            break;
        }
    }
    found.oldest_available_ms = oldest_available_ms(store, window, after)?;
    Ok(found)
}

/// What [`Found::oldest_available_ms`] says, asked after the look: what retention took while it was
/// looked at is not delivered either. At the log's very beginning the replay stands at 0.
fn oldest_available_ms<S: Store>(store: &S, window: &Window, after: Seq) -> Result<Option<i64>, StoreError> {
    if after.0 > 0 && store.oldest().0 <= after.0 + 1 {
        return Ok(None);
    }
    let mut first = None;
    store.scan(Seq(0), store.oldest(), &mut |head| first = Some(head.received_ms))?;
    let empty_ms = || (store.head().0 > 0).then(now_ms);
    Ok(first.or_else(empty_ms).filter(|ms| *ms > window.plan.from_ms))
}

// === impl Found ===

impl Found {
    /// Looks at one piece of the log; tells whether all of it was received well after the window.
    fn look_at_piece<S: Store>(
        &mut self,
        store: &S,
        window: &Window,
        upto: Seq,
        limit: usize,
    ) -> Result<bool, StoreError> {
        let after = self.upto;
        let (mut selected, mut heads, mut well_after) = (Vec::new(), 0_u64, 0_u64);
        store.scan(after, upto, &mut |head| {
            heads += 1;
            well_after += u64::from(head.received_ms >= window.plan.to_ms.saturating_add(END_SLACK_MS));
            if window.selects(&head) {
                selected.push(head);
            }
        })?;
        let dead = window.dead_letters(store, after, upto)?;
        for head in selected {
            if dead.as_ref().is_some_and(|dead| !dead.contains(&head.seq)) {
                continue;
            }
            let Some(row) = window.row(store, &head)? else { continue };
            self.events.push((head.seq, row));
            if self.events.len() >= limit {
                self.upto = head.seq;
                return Ok(false);
            }
        }
        self.upto = self.upto.max(upto);
        Ok(heads > 0 && heads == well_after)
    }
}

// === impl Window ===

impl Window {
    /// Whether an event is selected as far as its head tells.
    fn selects(&self, head: &EventHead) -> bool {
        let ReplayPlan { from_ms, to_ms, events, .. } = &*self.plan;
        (*from_ms..*to_ms).contains(&head.received_ms)
            // One whose name is damaged is a dead letter already, and stays one.
            && head.name.as_ref().is_some_and(|name| {
                (events.is_empty() || events.iter().any(|pattern| pattern.selects(name)))
                    && self.spec.selects(name)
            })
    }

    /// The dead letters of that piece, where the replay is of those alone.
    fn dead_letters<S: Store>(
        &self,
        store: &S,
        after: Seq,
        upto: Seq,
    ) -> Result<Option<BTreeSet<Seq>>, StoreError> {
        let lane = self.plan.webhook.to_string();
        self.plan.only_failed.then(|| store.dead_between(&lane, after, upto)).transpose()
    }

    /// The row by which an event is put in line; `None` when the Webhook does not want it, it is damaged, or
    /// retention took it. Its body is read only where it has a say.
    fn row<S: Store>(&self, store: &S, head: &EventHead) -> Result<Option<Row>, StoreError> {
        let mut key = 0;
        if self.spec.filter.is_some() || !self.spec.plan.delivery.ordering_key.is_empty() {
            match store.get(head.seq)? {
                Lookup::Found(event) if self.spec.wants(&event) != Wanted::No => {
                    key = self.spec.ordering_key(&event);
                }
                Lookup::Found(_) | Lookup::Removed | Lookup::Damaged { .. } => return Ok(None),
            }
        }
        let received_ms = head.received_ms;
        Ok(Some(Row { attempts: 0, first_attempt_ms: 0, due_ms: now_ms(), key, received_ms }))
    }
}
