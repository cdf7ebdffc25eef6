//! How events come into a book: handed over by the dispatcher, or read from the log.
//!
//! See the correctness argument at the head of the book.

use std::sync::Arc;

use tidings_store::{Event, Seq};

use super::{Book, MAX_ROWS, READY_BYTES, READY_EVENTS, Row};

// === impl Book ===

impl Book {
    /// Takes an event from the dispatcher; true when the book changed and must be saved.
    pub fn hand_over(&mut self, event: &Arc<Event>) -> bool {
        if event.seq <= self.position {
            return false;
        }
        let fits = self.ready.len() < READY_EVENTS && self.ready_bytes < READY_BYTES;
        if self.live && fits {
            self.push_ready(Arc::clone(event));
            return self.touch();
        }
        if self.backlog <= 0 {
            self.backlog_since_ms = Some(event.received_ms);
        }
        self.backlog += 1;
        std::mem::replace(&mut self.live, false) && self.touch()
    }

    /// Takes what was read from the log: where the reading began, the selected events, and how far it came.
    pub fn take_read(&mut self, after: Seq, selected: Vec<Arc<Event>>, upto: Seq) {
        if after != self.position {
            // The queue was forgotten in between; what was forgotten must be read first.
            return;
        }
        for event in selected {
            self.backlog -= 1;
            if !self.is_settled(event.seq) {
                self.push_ready(event);
            }
        }
        self.position = self.position.max(upto);
        self.skip.retain(|(_, last)| *last > upto);
        self.touch();
    }

    /// Becomes live if nothing of the log is left to be read. `head` must be read under the book's lock.
    pub fn go_live(&mut self, head: Seq) {
        if !self.live && self.position >= head {
            self.live = true;
            self.backlog = 0;
            self.backlog_since_ms = None;
            self.touch();
        }
    }

    /// Whether the log should be read on.
    pub fn wants_reading(&self, concurrency: usize) -> bool {
        !self.live && self.ready.len() < concurrency.min(READY_EVENTS / 2) && self.rows.len() < MAX_ROWS
    }

    /// Forgets the ready queue: its events stay in the log and are read again.
    pub fn rewind(&mut self) {
        if let Some(first) = self.ready.front() {
            self.position = Seq(first.seq.0 - 1);
            self.backlog += i64::try_from(self.ready.len()).unwrap_or(i64::MAX);
            self.backlog_since_ms = Some(first.received_ms);
            self.live = false;
            self.ready.clear();
            self.ready_bytes = 0;
            self.touch();
        }
    }

    /// The selection changed: what was looked at stays looked at, what comes is read by the new one.
    pub fn reselect(&mut self, dispatched: Seq) {
        if self.live {
            self.position = self.position.max(dispatched);
            self.live = false;
        }
        self.touch();
    }

    /// Adds what was found waiting in the log at start.
    pub fn add_backlog(&mut self, events: i64, oldest_ms: Option<i64>) {
        if !self.live {
            self.backlog += events;
            self.backlog_since_ms = oldest_ms.or(self.backlog_since_ms);
        }
    }

    /// The next event of the ready queue, taken out; `park` is its ordering key. An event whose key is
    /// busy is parked as a row, and `None` comes back.
    pub fn take_ready(&mut self, key_of: impl FnOnce(&Event) -> u64) -> Option<Option<Arc<Event>>> {
        if self.rows.len() >= MAX_ROWS {
            return None;
        }
        let event = self.ready.pop_front()?;
        self.ready_bytes -= event.body.len();
        let key = key_of(&event);
        if key != 0 && self.keys.contains_key(&key) {
            let received_ms = event.received_ms;
            self.add_row(event.seq, Row { attempts: 0, first_attempt_ms: 0, due_ms: 0, key, received_ms });
            return Some(None);
        }
        self.may_go(event.seq, key);
        self.first_attempts.insert(event.seq, event.received_ms);
        Some(Some(event))
    }

    /// Whether something waits that could be tried at once or later, in memory or in the log.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() && self.rows.len() < MAX_ROWS
    }

    pub(super) fn push_ready(&mut self, event: Arc<Event>) {
        self.position = self.position.max(event.seq);
        self.ready_bytes += event.body.len();
        self.ready.push_back(event);
    }

    pub(super) fn is_settled(&self, seq: Seq) -> bool {
        self.rows.contains_key(&seq) || self.is_skipped(seq)
    }

    pub(super) fn is_skipped(&self, seq: Seq) -> bool {
        self.skip.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }
}
