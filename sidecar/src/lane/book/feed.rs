//! How events come into a book: handed over by the dispatcher, or read from the log.
//!
//! See the correctness argument at the head of the book.

use std::sync::Arc;

use tidings_store::{Event, Seq};

use super::{Book, Feed, READY_BYTES, READY_EVENTS, Row, Start};

// === impl Book ===

impl Book {
    /// Takes an event from the dispatcher; true when the book changed and must be saved.
    pub fn hand_over(&mut self, event: &Arc<Event>) -> bool {
        if event.seq <= self.position {
            return false;
        }
        let fits = self.ready.len() < READY_EVENTS && self.ready_bytes < READY_BYTES;
        match self.feed {
            Feed::Live if fits => {
                self.push_ready(Arc::clone(event));
                self.touch()
            }
            Feed::Live => {
                self.feed = Feed::Behind;
                self.count_waiting(event);
                self.touch()
            }
            Feed::Behind => {
                if event.seq > self.counted_to {
                    self.count_waiting(event);
                }
                false
            }
            // Whoever joins counts what waits by then.
            Feed::Absent => false,
        }
    }

    fn count_waiting(&mut self, event: &Event) {
        if self.backlog <= 0 {
            self.backlog_since_ms = Some(event.received_ms);
        }
        self.backlog += 1;
    }

    /// The plan holds the Webhook, and the dispatcher knows the lane: it may be at work from now on. `head`
    /// must be read under the book's lock. What waits up to there is to be counted by the answer and added
    /// by [`Book::add_backlog`].
    pub fn join(&mut self, head: Seq) -> Start {
        self.feed = Feed::Behind;
        (self.backlog, self.backlog_since_ms) = (0, None);
        (self.counted_to, self.counting) = (head, true);
        self.touch();
        let rows = self.rows.keys().copied().collect();
        Start { floor: self.position, head, settled: self.skip.clone(), rows }
    }

    /// The plan holds the Webhook no longer: nothing starts until it joins again. Everything up to
    /// `dispatched` was handed over.
    pub fn leave(&mut self, dispatched: Seq) {
        self.reselect(dispatched);
        self.rewind();
        self.feed = Feed::Absent;
    }

    /// Takes what was read from the log: where the reading began, the selected events, and how far it came.
    pub fn take_read(&mut self, after: Seq, selected: Vec<Arc<Event>>, upto: Seq) {
        if self.feed != Feed::Behind || after != self.position {
            // The queue was forgotten in between; what was forgotten must be read first.
            return;
        }
        for event in selected {
            if !self.is_settled(event.seq) {
                self.backlog -= 1;
                self.push_ready(event);
            }
        }
        self.position = self.position.max(upto);
        // What the ready queue holds may be forgotten and read again; what was settled among it must not.
        let taken_out = self.ready.front().map_or(self.position, |first| Seq(first.seq.0 - 1));
        self.skip.retain(|(_, last)| *last > taken_out);
        self.touch();
    }

    /// Becomes live if nothing of the log is left to be read. `head` must be read under the book's lock.
    pub fn go_live(&mut self, head: Seq) {
        if self.feed == Feed::Behind && self.position >= head {
            self.feed = Feed::Live;
            (self.backlog, self.backlog_since_ms) = (0, None);
            self.counting = false;
            self.touch();
        }
    }

    /// Whether the log should be read on.
    pub fn wants_reading(&self, concurrency: usize) -> bool {
        self.feed == Feed::Behind && self.ready.len() < concurrency.min(READY_EVENTS / 2)
    }

    /// Forgets the ready queue: its events stay in the log and are read again.
    pub fn rewind(&mut self) {
        if let Some(first) = self.ready.front() {
            self.position = Seq(first.seq.0 - 1);
            self.backlog += i64::try_from(self.ready.len()).unwrap_or(i64::MAX);
            self.backlog_since_ms = Some(first.received_ms);
            self.fall_behind();
            self.ready.clear();
            self.ready_bytes = 0;
            self.touch();
        }
    }

    /// The selection changed: what was looked at stays looked at, what comes is read by the new one.
    pub fn reselect(&mut self, dispatched: Seq) {
        if self.feed == Feed::Live {
            self.position = self.position.max(dispatched);
            self.fall_behind();
        }
        self.touch();
    }

    fn fall_behind(&mut self) {
        if self.feed == Feed::Live {
            self.feed = Feed::Behind;
        }
    }

    /// Adds what was found waiting in the log when the lane joined.
    pub fn add_backlog(&mut self, events: i64, oldest_ms: Option<i64>) {
        // One that is live since then has read all of it.
        if std::mem::take(&mut self.counting) {
            self.backlog += events;
            self.backlog_since_ms = oldest_ms.or(self.backlog_since_ms);
        }
    }

    /// The next event of the ready queue, taken out. An event whose ordering key is busy is parked as a row,
    /// and `None` comes back; it stays where it is while there is no room for rows.
    pub fn take_ready(
        &mut self,
        now_ms: i64,
        key_of: impl FnOnce(&Event) -> u64,
    ) -> Option<Option<Arc<Event>>> {
        self.may_work()?;
        let key = key_of(self.ready.front()?);
        // A row for it, and one for the event that it waits for.
        if self.is_busy(key) && !self.keep_within(self.row_limit.0.saturating_sub(2), now_ms) {
            return None;
        }
        let event = self.ready.pop_front()?;
        self.ready_bytes -= event.body.len();
        let received_ms = event.received_ms;
        // The key may be free by now: the one that went was given up for this one.
        if self.is_busy(key) {
            self.add_row(event.seq, Row { key, received_ms, ..Row::UNTRIED });
            return Some(None);
        }
        self.may_go(event.seq, key);
        self.first_attempts.insert(event.seq, received_ms);
        Some(Some(event))
    }

    fn is_busy(&self, key: u64) -> bool {
        key != 0 && self.keys.contains_key(&key)
    }

    pub(super) fn push_ready(&mut self, event: Arc<Event>) {
        self.position = self.position.max(event.seq);
        self.ready_bytes += event.body.len();
        self.ready.push_back(event);
    }

    pub(super) fn is_settled(&self, seq: Seq) -> bool {
        self.rows.contains_key(&seq) || self.is_skipped(seq)
    }

    /// Has an event passed over when it is read again.
    pub(super) fn skip_when_read(&mut self, seq: Seq) {
        let at = self.skip.partition_point(|(first, _)| *first < seq);
        self.skip.insert(at, (seq, seq));
    }

    pub(super) fn is_skipped(&self, seq: Seq) -> bool {
        self.skip.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }
}
