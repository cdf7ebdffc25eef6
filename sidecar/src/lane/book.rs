//! The book of one lane: which events wait, which are under way, which must be tried again, and from
//! where to read on. It holds no I/O and no time of its own.
//!
//! # Correctness
//! - *Outstanding* is what was handed to the lane and is neither settled nor has a row: the ready
//!   queue and first attempts under way. Everything up to `position` that the Webhook selects is
//!   outstanding, has a row, or is settled; so the cursor's floor is just below the lowest
//!   outstanding event, and `position` where there is none.
//! - The ready queue is taken from the front alone, in order: each event taken out is below each one
//!   left, and so the queue may be forgotten at any time by setting `position` just below its front.
//! - An event is in one place at the most: the ready queue, the first attempts under way, or the rows. A
//!   replay puts an event in line as a row once more, also one below the floor, but none that waits:
//!   not one of those three, and none beyond `position` that was not settled before (`skip`), since it
//!   will be read. So a row comes only to what the cursor calls settled, is in no one's way there, and
//!   the floor says the same with it and without it. What was not put in line waited, and is delivered.
//! - How far a replay came is handed to the saver in the very change that holds its rows and the dead
//!   letters that left for them: a crash takes back all of it, and the replay goes on from there.
//! - Of one ordering key one event goes: it is due or under way, and all others of the key are rows
//!   behind it, also one of a lower place that a replay brought. When it is settled, the lowest of
//!   those goes.
//! - `live` means that the dispatcher hands events over. A lane that fell behind reads the log itself
//!   and becomes live again under the book's lock when `position` is the log's head: no event above
//!   the head was dispatched yet then, and each one at or below it has been read.

mod replay;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tidings_store::{Cursor, DeadLetter, Event, LaneChange, ReplayProgress, RetryRow, SavedLane, Seq};

use crate::circuit::Circuit;
use crate::tally::{Recent, Tally};

/// How many events wait in memory for one lane; the rest stay in the log alone.
pub const READY_EVENTS: usize = 256;

/// How many bytes of bodies wait in memory for one lane.
pub const READY_BYTES: usize = 1 << 20;

/// How many rows one lane keeps; beyond it the lane takes up no new event until one settles.
/// At about 100 bytes a row a lane then costs some 6 MiB.
pub const MAX_ROWS: usize = 65_536;

/// An event to be tried again, or parked behind another of its ordering key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Attempts made.
    pub attempts: u32,
    /// When the first was made, in milliseconds since 1970; 0 where none was.
    pub first_attempt_ms: i64,
    /// When the next is due, in milliseconds since 1970.
    pub due_ms: i64,
    /// The hash of the ordering key; 0 without one.
    pub key: u64,
    /// When the event was received; 0 where that is not known yet.
    pub received_ms: i64,
}

/// The book of one lane.
#[derive(Debug, Default)]
pub struct Book {
    uid: String,
    /// The dispatcher hands events over.
    pub live: bool,
    /// Everything up to here was looked at.
    pub position: Seq,
    /// What was settled above the floor when the lane was saved: skipped when it is read again.
    skip: Vec<(Seq, Seq)>,
    ready: VecDeque<Arc<Event>>,
    ready_bytes: usize,
    /// First attempts under way, with the time each event was received.
    first_attempts: BTreeMap<Seq, i64>,
    rows: BTreeMap<Seq, Row>,
    /// Rows that may be tried, by the time they are due; those under way are not in it.
    due: BTreeSet<(i64, Seq)>,
    /// The same of rows that a replay put in line and that were not tried since.
    due_replayed: BTreeSet<(i64, Seq)>,
    /// Rows that a replay of this process put in line.
    replayed: HashSet<Seq>,
    keys: HashMap<u64, Key>,
    /// Events in the log beyond `position` that the Webhook selects; may pass below zero for a moment
    /// while the count of a backlog found at start is still being made.
    backlog: i64,
    backlog_since_ms: Option<i64>,
    /// The endpoint's circuit.
    pub circuit: Circuit,
    /// Nothing starts before then (`Retry-After`, the rate), in milliseconds since 1970.
    pub hold_until_ms: i64,
    /// The tallies.
    pub tally: Tally,
    /// The recent attempts.
    pub recent: Recent,
    changed_rows: HashSet<Seq>,
    revived: HashSet<Seq>,
    dead: Vec<DeadLetter>,
    replays: Vec<ReplayProgress>,
    dirty: bool,
    retired: bool,
}

/// The events of one ordering key.
#[derive(Debug)]
struct Key {
    /// The one that goes: due, or under way.
    going: Seq,
    /// Rows that wait for it.
    behind: BTreeSet<Seq>,
}

/// Where a lane starts: what of the log waits for it is counted by this.
#[derive(Debug)]
pub struct Start {
    /// Everything up to here was settled, or has a row.
    pub floor: Seq,
    /// What was settled above it.
    pub settled: Vec<(Seq, Seq)>,
    /// What has a row.
    pub rows: BTreeSet<Seq>,
}

// === impl Start ===

impl Start {
    /// Whether an event waits in the log.
    pub fn waits(&self, seq: Seq) -> bool {
        seq > self.floor && !self.settled.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }
}

// === impl Book ===

impl Book {
    /// The book of a Webhook that starts at `head`.
    pub fn new(uid: &str, head: Seq) -> Self {
        Self { uid: uid.to_owned(), position: head, dirty: true, ..Self::default() }
    }

    /// The book of a Webhook that starts at `head` under the name of another one: that one's rows are
    /// removed. Its dead letters stay, and may be replayed to this one.
    pub fn in_place_of(rows: HashSet<Seq>, uid: &str, head: Seq) -> Self {
        Self { changed_rows: rows, ..Self::new(uid, head) }
    }

    /// Ends the book for good, and gives its rows to be removed: another Webhook has its name, and what
    /// this one still says must not be saved over it.
    pub fn retire(&mut self) -> HashSet<Seq> {
        self.retired = true;
        self.rows.keys().copied().chain(self.changed_rows.drain()).collect()
    }

    /// The book as it was saved.
    pub fn restore(saved: SavedLane) -> Self {
        let mut book = Self {
            uid: saved.cursor.uid,
            position: saved.cursor.floor,
            skip: saved.cursor.settled,
            tally: serde_json::from_str(&saved.cursor.state).unwrap_or_default(),
            ..Self::default()
        };
        for RetryRow { seq, attempts, first_attempt_ms, due_ms, key } in saved.rows {
            book.add_row(seq, Row { attempts, first_attempt_ms, due_ms, key, received_ms: 0 });
        }
        book.changed_rows.clear();
        // It was idle perhaps when it was saved. It is not any more, and must say so in the very first save:
        // that one raises the idle floor to the log's head, beyond what this lane has yet to read.
        book.dirty = true;
        book
    }

    /// The UID of the Webhook that it belongs to.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Where the lane starts.
    pub fn starts(&self) -> Start {
        Start { floor: self.position, settled: self.skip.clone(), rows: self.rows.keys().copied().collect() }
    }

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

    /// Tells when a row's event was received.
    pub fn note_received(&mut self, seq: Seq, received_ms: i64) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.received_ms = received_ms;
        }
    }

    /// The next row that is due, but for those that a replay put in line and that were not tried yet.
    pub fn take_due(&mut self, now_ms: i64) -> Option<(Seq, Row)> {
        let seq = take_first_due(&mut self.due, now_ms)?;
        self.rows.get(&seq).map(|row| (seq, *row))
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

    /// Whether something waits that could be tried at once or later, in memory or in the log.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() && self.rows.len() < MAX_ROWS
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

    /// When what waits goes on, in milliseconds since 1970; `None` where an attempt is under way, or may be.
    pub fn goes_on_at_ms(&self) -> Option<i64> {
        let held = Some(self.hold_until_ms).filter(|held| *held > 0);
        match self.circuit {
            Circuit::Probing { .. } => None,
            Circuit::Open { until_ms, .. } => Some(until_ms.max(self.hold_until_ms)),
            Circuit::Closed { .. } if self.is_under_way() => None,
            Circuit::Closed { .. } if self.backlog > 0 || !self.ready.is_empty() => held,
            Circuit::Closed { .. } => self.next_due_ms().map(|due| due.max(self.hold_until_ms)),
        }
    }

    fn is_under_way(&self) -> bool {
        let behind: usize = self.keys.values().map(|key| key.behind.len()).sum();
        let waiting = self.due.len() + self.due_replayed.len() + behind;
        !self.first_attempts.is_empty() || self.rows.len() > waiting
    }

    /// Events that wait or are under way.
    pub fn pending(&self) -> u64 {
        let held = self.ready.len() + self.first_attempts.len() + self.rows.len();
        u64::try_from(self.backlog).unwrap_or(0) + held as u64
    }

    /// When the oldest of them was received, in milliseconds since 1970.
    pub fn oldest_pending_ms(&self) -> Option<i64> {
        let row = self.rows.values().next().map(|row| row.received_ms).filter(|ms| *ms > 0);
        let first = self.first_attempts.values().next().copied();
        let ready = self.ready.front().map(|event| event.received_ms);
        let log = self.backlog_since_ms.filter(|_| self.backlog > 0);
        [row, first, ready, log].into_iter().flatten().min()
    }

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

    fn cursor(&self) -> Cursor {
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
            idle: self.live && outstanding.is_empty(),
            state: serde_json::to_string(&self.tally).unwrap_or_default(),
        }
    }

    fn drain_rows(&mut self) -> (Vec<RetryRow>, Vec<Seq>) {
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

    fn push_ready(&mut self, event: Arc<Event>) {
        self.position = self.position.max(event.seq);
        self.ready_bytes += event.body.len();
        self.ready.push_back(event);
    }

    fn is_settled(&self, seq: Seq) -> bool {
        self.rows.contains_key(&seq) || self.is_skipped(seq)
    }

    fn is_skipped(&self, seq: Seq) -> bool {
        self.skip.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }

    fn add_row(&mut self, seq: Seq, row: Row) {
        self.rows.insert(seq, row);
        if self.may_go(seq, row.key) {
            self.let_go(seq);
        }
        self.changed_rows.insert(seq);
        self.touch();
    }

    /// Whether the event may go at once; else it waits behind the one of its key that goes.
    fn may_go(&mut self, seq: Seq, key: u64) -> bool {
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
    fn let_go(&mut self, seq: Seq) {
        let Some(row) = self.rows.get(&seq) else { return };
        let untried = row.attempts == 0 && self.replayed.contains(&seq);
        let due = if untried { &mut self.due_replayed } else { &mut self.due };
        due.insert((row.due_ms, seq));
    }

    /// Lets the next event of the key go.
    fn release(&mut self, seq: Seq, key: u64) {
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

    fn touch(&mut self) -> bool {
        self.dirty = true;
        true
    }
}

fn take_first_due(due: &mut BTreeSet<(i64, Seq)>, now_ms: i64) -> Option<Seq> {
    due.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
    due.pop_first().map(|(_, seq)| seq)
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

#[cfg(test)]
mod tests;
