//! The rows of a book: what must be tried again, and what waits behind another of its ordering key.
//!
//! See the correctness argument at the head of the book.
//!
//! There are only so many rows. When one more is needed, the row that has been failing the longest is given up
//! for it; one that was never tried never is, so that of one ordering key none is passed over untried.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;

use tidings_store::{DeadLetter, Seq};

use super::{Book, Feed, Key, LostReason, Row};
use crate::circuit::Circuit;

// === impl Book ===

impl Book {
    /// The next row that is due, but for those that a replay put in line and that were not tried yet.
    pub fn take_due(&mut self, now_ms: i64) -> Option<(Seq, Row)> {
        self.may_work()?;
        let seq = take_first_due(&mut self.due, now_ms)?;
        let row = *self.rows.get(&seq)?;
        self.failing.remove(&(row.first_attempt_ms, seq));
        Some((seq, row))
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
    pub fn retry(&mut self, seq: Seq, row: Row, now_ms: i64) {
        self.first_attempts.remove(&seq);
        self.put_row(seq, row);
        self.let_go(seq);
        self.keep_within(self.row_limit.0, now_ms);
    }

    /// Gives up rows that fail until there are at most so many; false where too many others are left.
    pub(super) fn keep_within(&mut self, rows: usize, now_ms: i64) -> bool {
        while self.rows.len() > rows {
            let Some((_, seq)) = self.failing.pop_first() else { return false };
            self.give_up_for_room(seq, now_ms);
        }
        true
    }

    fn give_up_for_room(&mut self, seq: Seq, now_ms: i64) {
        let Some(&Row { attempts, due_ms, key, .. }) = self.rows.get(&seq) else { return };
        self.due.remove(&(due_ms, seq));
        let (name, reason) = (String::new(), LostReason::RetryQueueFull.as_str().to_owned());
        self.bury(DeadLetter { seq, name, attempts, at_ms: now_ms, reason, status_code: None }, key);
        self.given_up_for_room += 1;
    }

    /// Whether more than half of the rows are taken.
    pub fn is_rather_full(&self) -> bool {
        self.rows.len() > self.row_limit.0 / 2
    }

    /// How many rows were given up for others since the last call.
    pub fn take_given_up_for_room(&mut self) -> u64 {
        std::mem::take(&mut self.given_up_for_room)
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
        self.put_row(seq, row);
        if self.may_go(seq, row.key) {
            self.let_go(seq);
        }
    }

    pub(super) fn put_row(&mut self, seq: Seq, row: Row) {
        self.rows.insert(seq, row);
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
                let going = busy.get().going;
                self.write_down(going, key);
                false
            }
        }
    }

    /// Makes a first attempt that is under way a row: one waits behind it, and after a crash must find it again.
    fn write_down(&mut self, seq: Seq, key: u64) {
        if let Some(received_ms) = self.first_attempts.remove(&seq) {
            self.put_row(seq, Row { key, received_ms, ..Row::UNTRIED });
        }
    }

    /// Has a row tried when it is due.
    pub(super) fn let_go(&mut self, seq: Seq) {
        let Some(row) = self.rows.get(&seq) else { return };
        let untried = row.attempts == 0 && self.replayed.contains(&seq);
        let due = if untried { &mut self.due_replayed } else { &mut self.due };
        due.insert((row.due_ms, seq));
        if row.attempts > 0 {
            self.failing.insert((row.first_attempt_ms, seq));
        }
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
