//! The rows of a book: what must be tried again, and what waits behind another of its ordering key.
//!
//! See the correctness argument at the head of the book.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

use tidings_store::{DeadLetter, Seq};

use super::{Book, Feed, Key, Row};
use crate::circuit::Circuit;

// === impl Book ===

impl Book {
    /// The next row that is due, but for those that a replay put in line and that were not tried yet.
    pub fn take_due(&mut self, now_ms: i64) -> Option<(Seq, Row)> {
        self.may_work()?;
        let seq = take_first_due(&mut self.due, now_ms)?;
        self.rows.get(&seq).map(|row| (seq, *row))
    }

    /// An event is settled: delivered, dropped, or gone from the log.
    pub fn settle(&mut self, seq: Seq, key: u64) {
        self.first_attempts.remove(&seq);
        self.replayed.remove(&seq);
        if self.rows.remove(&seq).is_some() {
            self.changed_rows.insert(seq);
        }
        self.release(seq, key);
        self.touch();
    }

    /// An event is given up.
    pub fn bury(&mut self, letter: DeadLetter, key: u64) {
        self.settle(letter.seq, key);
        self.tally.dead_lettered += 1;
        self.dead.push(letter);
    }

    /// An event must be tried again.
    pub fn retry(&mut self, seq: Seq, row: Row) {
        self.first_attempts.remove(&seq);
        self.rows.insert(seq, row);
        self.let_go(seq);
        self.changed_rows.insert(seq);
        self.touch();
    }

    /// When the next row is due, in milliseconds since 1970.
    pub fn next_due_ms(&self) -> Option<i64> {
        let first = |due: &BTreeSet<(i64, Seq)>| due.first().map(|(due_ms, _)| *due_ms);
        first(&self.due).into_iter().chain(first(&self.due_replayed)).min()
    }

    /// Has each row tried at once, and the endpoint of an open circuit probed. What the endpoint itself asked
    /// for (`Retry-After`) stays.
    pub fn hurry(&mut self, now_ms: i64) {
        let waiting: Vec<Seq> = self.due.iter().map(|(_, seq)| *seq).collect();
        self.due.clear();
        for seq in waiting {
            if let Some(row) = self.rows.get_mut(&seq) {
                row.due_ms = row.due_ms.min(now_ms);
                self.due.insert((row.due_ms, seq));
            }
        }
        if let Circuit::Open { until_ms, probes } = self.circuit {
            self.circuit = Circuit::Open { until_ms: until_ms.min(now_ms), probes };
        }
    }

    /// Tells when a row's event was received.
    pub fn note_received(&mut self, seq: Seq, received_ms: i64) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.received_ms = received_ms;
        }
    }

    /// `None` while the plan does not hold the Webhook.
    pub(super) fn may_work(&self) -> Option<()> {
        (self.feed != Feed::Absent).then_some(())
    }

    pub(super) fn add_row(&mut self, seq: Seq, row: Row) {
        self.rows.insert(seq, row);
        if self.may_go(seq, row.key) {
            self.let_go(seq);
        }
        self.changed_rows.insert(seq);
        self.touch();
    }

    /// Whether the event may go at once; else it waits behind the one of its key that goes.
    pub(super) fn may_go(&mut self, seq: Seq, key: u64) -> bool {
        if key == 0 {
            return true;
        }
        match self.keys.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Key { going: seq, behind: BTreeSet::new() });
                true
            }
            Entry::Occupied(mut busy) => {
                busy.get_mut().behind.insert(seq);
                false
            }
        }
    }

    /// Has a row tried when it is due.
    pub(super) fn let_go(&mut self, seq: Seq) {
        let Some(row) = self.rows.get(&seq) else { return };
        let untried = row.attempts == 0 && self.replayed.contains(&seq);
        let due = if untried { &mut self.due_replayed } else { &mut self.due };
        due.insert((row.due_ms, seq));
    }

    /// Lets the next event of the key go.
    pub(super) fn release(&mut self, seq: Seq, key: u64) {
        let Entry::Occupied(mut busy) = self.keys.entry(key) else { return };
        if busy.get().going != seq {
            busy.get_mut().behind.remove(&seq);
            return;
        }
        match busy.get_mut().behind.pop_first() {
            Some(next) => {
                busy.get_mut().going = next;
                self.let_go(next);
            }
            None => drop(busy.remove()),
        }
    }
}

pub(super) fn take_first_due(due: &mut BTreeSet<(i64, Seq)>, now_ms: i64) -> Option<Seq> {
    due.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
    due.pop_first().map(|(_, seq)| seq)
}
