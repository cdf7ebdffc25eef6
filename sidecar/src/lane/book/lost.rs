//! What leaves before it is delivered: events that are damaged, those for which there is no room, and those
//! that retention takes.
//!
//! See the correctness argument at the head of the book. Retention takes nothing that is not settled
//! without counting it here, under the same lock; what is under way then keeps a row, by which it is
//! counted after a crash.

use std::collections::BTreeSet;

use tidings_plan::EventPattern;
use tidings_store::{DeadLetter, Seq};

use super::{Book, Feed, Row};
use crate::words::words;

words! {
    /// Why an event is a dead letter before the time is over in which it is tried again.
    LostReason {
        /// The disk damaged the stored event.
        Damaged: "Replace the volume of the auth server's pod, since what damages one event damages others; what the event said stands in the auth server's own log.",
        /// More events of the Webhook failed than are kept for another attempt, and it had been failing the longest.
        RetryQueueFull: "Fix what the receiver refuses, then replay the dead letters with a WebhookReplay; where it never takes these events, narrow spec.events or spec.filter.",
    }
}

/// The dead letter of an event that cannot be read: nothing of it can be delivered, and no other waits for
/// it. Without a name where that cannot be read either.
pub(crate) fn damaged_letter(seq: Seq, name: Option<Box<str>>, attempts: u32, at_ms: i64) -> DeadLetter {
    let name = name.map(String::from).unwrap_or_default();
    let reason = LostReason::Damaged.as_str().to_owned();
    DeadLetter { seq, name, attempts, at_ms, reason, status_code: None }
}

// === impl Book ===

impl Book {
    /// Buries what a reading of the log found damaged. What it found else is taken after this, under the
    /// same lock ([`Book::take_read`]).
    pub fn bury_unread(&mut self, after: Seq, damaged: Vec<DeadLetter>) {
        if self.feed != Feed::Behind || after != self.position {
            return;
        }
        for letter in damaged {
            if !self.is_settled(letter.seq) {
                self.backlog -= 1;
                // The ready queue may be forgotten below it, and it is read again.
                self.skip_when_read(letter.seq);
                self.bury(letter, 0);
            }
        }
    }

    /// What the Webhook selects, kept with the book so that it can be counted while the plan does not hold it.
    pub fn select(&mut self, events: &[EventPattern]) {
        self.selects = Some(events.to_vec());
        self.left_at = None;
    }

    /// No plan of this process holds the Webhook yet: it stands where it was saved.
    pub fn park(&mut self) {
        self.left_at.get_or_insert(self.position);
        self.reselect(self.position);
    }

    /// Where it stood when the plan held it last; `None` while it does.
    pub fn left_at(&self) -> Option<Seq> {
        self.left_at
    }

    /// Whether the Webhook selects events of this name. One that an earlier sidecar saved did not say: then
    /// nothing is passed over in silence.
    pub fn selects(&self, name: &str) -> bool {
        self.selects.as_ref().is_none_or(|selects| selects.iter().any(|pattern| pattern.selects(name)))
    }

    /// Whether something waits, or may, among the events before this place.
    pub fn waits_before(&self, before: Seq) -> bool {
        let first_row = self.rows.keys().next();
        let first_attempt = self.first_attempts.keys().next();
        let first_ready = self.ready.front().map(|event| &event.seq);
        let unread = self.feed != Feed::Live && self.position.0 + 1 < before.0;
        unread || [first_row, first_attempt, first_ready].into_iter().flatten().any(|seq| *seq < before)
    }

    /// Retention takes the events before this place: counts what waits among them. `selected`: those of them
    /// that the Webhook selects, as far as the log has them; `received_ms`: when the last one was received.
    pub fn expire(&mut self, before: Seq, selected: &BTreeSet<Seq>, received_ms: i64) -> u64 {
        if self.retired {
            return 0;
        }
        // Before the rows, which tell what of the log waits no more.
        let unread = self.expire_unread(before, selected, received_ms);
        self.keep_under_way(before);
        let expired = unread + self.expire_ready(before) + self.expire_rows(before);
        self.tally.expired += expired;
        self.touch();
        expired
    }

    fn expire_unread(&mut self, before: Seq, selected: &BTreeSet<Seq>, received_ms: i64) -> u64 {
        let last = Seq(before.0 - 1);
        if self.feed == Feed::Live || last <= self.position {
            return 0;
        }
        let unread = selected.range(Seq(self.position.0 + 1)..before);
        let expired = unread.filter(|seq| !self.is_settled(**seq)).count();
        self.position = last;
        self.skip.retain(|(_, settled)| *settled > last);
        self.backlog -= i64::try_from(expired).unwrap_or(i64::MAX);
        self.backlog_since_ms = self.backlog_since_ms.map(|since| since.max(received_ms));
        expired as u64
    }

    /// What is under way may be delivered yet. Its row is there after a crash, and not the event.
    fn keep_under_way(&mut self, before: Seq) {
        let above = self.first_attempts.split_off(&before);
        for (seq, received_ms) in std::mem::replace(&mut self.first_attempts, above) {
            let key = self.keys.iter().find(|(_, key)| key.going == seq).map_or(0, |(key, _)| *key);
            self.put_row(seq, Row { key, received_ms, ..Row::UNTRIED });
        }
    }

    fn expire_ready(&mut self, before: Seq) -> u64 {
        let mut expired = 0;
        while let Some(event) = self.ready.pop_front_if(|event| event.seq < before) {
            self.ready_bytes -= event.body.len();
            expired += 1;
        }
        expired
    }

    /// Rows that wait: due, or behind another of their key. Those under way stay until they end.
    fn expire_rows(&mut self, before: Seq) -> u64 {
        let due = self.due.iter().chain(&self.due_replayed).map(|(_, seq)| *seq);
        let behind = self.keys.values().flat_map(|key| key.behind.iter().copied());
        let waiting: BTreeSet<Seq> = due.chain(behind).filter(|seq| *seq < before).collect();
        for seq in &waiting {
            let Some(row) = self.rows.get(seq).copied() else { continue };
            self.settle(*seq, row.key);
            self.due.remove(&(row.due_ms, *seq));
            self.due_replayed.remove(&(row.due_ms, *seq));
            self.failing.remove(&(row.first_attempt_ms, *seq));
        }
        waiting.len() as u64
    }
}
