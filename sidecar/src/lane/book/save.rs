//! What of a book is saved.
//!
//! In: the book. Out: one change, applied whole: the cursor, and the rows and dead letters that go with it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidings_plan::EventPattern;
use tidings_store::{Cursor, LaneChange, RetryRow, Seq};

use super::{Book, Feed, Row};
use crate::tally::Tally;

/// What is kept with the cursor: the tallies, and what is needed of the Webhook while no plan holds it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Kept {
    #[serde(flatten)]
    pub(super) tally: Tally,
    #[serde(default)]
    pub(super) selects: Option<Vec<EventPattern>>,
    #[serde(default)]
    pub(super) left_at: Option<Seq>,
}

// === impl Kept ===

impl Kept {
    pub(super) fn read(state: &str) -> Self {
        serde_json::from_str(state).unwrap_or_default()
    }

    fn write(tally: &Tally, selects: Option<&[EventPattern]>, left_at: Option<Seq>) -> String {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(flatten)]
            tally: &'a Tally,
            selects: Option<&'a [EventPattern]>,
            left_at: Option<Seq>,
        }
        serde_json::to_string(&Written { tally, selects, left_at }).unwrap_or_default()
    }
}

// === impl Book ===

impl Book {
    /// What changed since the last call, to be saved; `None` when nothing did.
    pub fn take_changes(&mut self, lane: &str) -> Option<LaneChange> {
        if !std::mem::take(&mut self.dirty) || self.retired {
            return None;
        }
        let (put, remove) = self.drain_rows();
        let revived = self.revived.drain().collect();
        let (dead, replays) = (std::mem::take(&mut self.dead), std::mem::take(&mut self.replays));
        let cursor = Some(self.cursor());
        Some(LaneChange { lane: lane.to_owned(), cursor, put, remove, revived, dead, replays })
    }

    pub(super) fn cursor(&self) -> Cursor {
        let outstanding: BTreeSet<Seq> =
            self.first_attempts.keys().copied().chain(self.ready.iter().map(|event| event.seq)).collect();
        let floor = outstanding.first().map_or(self.position, |lowest| Seq(lowest.0 - 1));
        let mut settled = gaps(&outstanding, floor, self.position);
        let unread = Seq(self.position.0 + 1);
        settled.extend(
            self.skip.iter().map(|(first, last)| ((*first).max(unread), *last)).filter(|(a, b)| a <= b),
        );
        Cursor {
            uid: self.uid.clone(),
            floor,
            settled,
            idle: self.feed == Feed::Live && outstanding.is_empty(),
            state: Kept::write(&self.tally, self.selects.as_deref(), self.left_at),
        }
    }

    pub(super) fn drain_rows(&mut self) -> (Vec<RetryRow>, Vec<Seq>) {
        let (mut put, mut remove) = (Vec::new(), Vec::new());
        for seq in self.changed_rows.drain() {
            match self.rows.get(&seq) {
                Some(&Row { attempts, first_attempt_ms, due_ms, key, received_ms: _ }) => {
                    put.push(RetryRow { seq, attempts, first_attempt_ms, due_ms, key });
                }
                None => remove.push(seq),
            }
        }
        (put, remove)
    }
}

/// The inclusive ranges of `(floor, upto]` that `outstanding` leaves free.
fn gaps(outstanding: &BTreeSet<Seq>, floor: Seq, upto: Seq) -> Vec<(Seq, Seq)> {
    let mut free = Vec::new();
    let mut from = floor.0 + 1;
    for seq in outstanding {
        if seq.0 > from {
            free.push((Seq(from), Seq(seq.0 - 1)));
        }
        from = seq.0 + 1;
    }
    if from <= upto.0 {
        free.push((Seq(from), upto));
    }
    free
}
