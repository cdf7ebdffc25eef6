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
//!   those goes. One that others wait behind has a row too, also while its first attempt is under way: so
//!   of one key either all events that were taken out of the ready queue are rows, or a single one is none.
//!   After a crash the lowest row takes the key, and no event of it is found in the log that goes before
//!   that one and was not settled before.
//! - *Live* means that the dispatcher hands events over. A lane that fell *behind* reads the log itself
//!   and becomes live again under the book's lock when `position` is the log's head: no event above
//!   the head was dispatched yet then, and each one at or below it has been read.
//! - While the plan does not hold the Webhook its lane is *absent*. It joins after the dispatcher knows it,
//!   and leaves before the dispatcher forgets it; in between alone it may become live. So an event is
//!   handed over to each live lane, and one that joins begins behind: what came while it was absent is
//!   above its `position`, and read. An absent book gives out nothing to be tried, so that attempts of
//!   before may end in it, and none begins.

mod endpoint;
mod feed;
mod lost;
mod replay;
mod rows;
mod save;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tidings_plan::EventPattern;
use tidings_store::{DeadLetter, Event, ReplayProgress, RetryRow, SavedLane, Seq};

use crate::circuit::{Circuit, Suspects};
use crate::tally::{Recent, Tally};
pub use lost::LostReason;
pub(crate) use lost::damaged_letter;
use save::Kept;

/// How many events wait in memory for one lane; the rest stay in the log alone.
pub const READY_EVENTS: usize = 256;

/// How many bytes of bodies wait in memory for one lane.
pub const READY_BYTES: usize = 1 << 20;

/// How many rows one lane keeps; for one more the row is given up that has been failing the longest.
/// At about 150 bytes a row a lane then costs some 10 MiB.
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

/// How many rows a book keeps.
#[derive(Debug)]
struct RowLimit(usize);

/// Where a lane's events come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Feed {
    /// From nowhere: the plan does not hold the Webhook, and the dispatcher does not know the lane.
    #[default]
    Absent,
    /// From the log, which the lane reads.
    Behind,
    /// From the dispatcher, which hands them over.
    Live,
}

/// The book of one lane.
#[derive(Debug, Default)]
pub struct Book {
    uid: String,
    feed: Feed,
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
    /// Those of `due` that were tried, by the time of their first attempt.
    failing: BTreeSet<(i64, Seq)>,
    row_limit: RowLimit,
    given_up_for_room: u64,
    /// Rows that a replay of this process put in line.
    replayed: HashSet<Seq>,
    keys: HashMap<u64, Key>,
    /// Events in the log beyond `position` that the Webhook selects; may pass below zero for a moment
    /// while the count of a backlog found at start is still being made.
    backlog: i64,
    backlog_since_ms: Option<i64>,
    /// What waits up to here when the lane joined is counted by whoever had it join, not here.
    counted_to: Seq,
    /// That count has not come in yet.
    counting: bool,
    /// The endpoint's circuit.
    pub circuit: Circuit,
    suspects: Suspects,
    /// Nothing starts before then (`Retry-After`, the rate), in milliseconds since 1970.
    pub hold_until_ms: i64,
    /// The tallies.
    pub tally: Tally,
    /// The recent attempts.
    pub recent: Recent,
    /// What the Webhook selects; `None` where an earlier sidecar saved it.
    selects: Option<Vec<EventPattern>>,
    /// Where it stood when the plan held it last.
    left_at: Option<Seq>,
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
    /// The log's head when it started.
    pub head: Seq,
    /// What was settled above it.
    pub settled: Vec<(Seq, Seq)>,
    /// What has a row.
    pub rows: BTreeSet<Seq>,
}

// === impl Row ===

impl Row {
    /// One that waits for its first attempt.
    const UNTRIED: Self = Self { attempts: 0, first_attempt_ms: 0, due_ms: 0, key: 0, received_ms: 0 };
}

// === impl RowLimit ===

impl Default for RowLimit {
    fn default() -> Self {
        Self(MAX_ROWS)
    }
}

// === impl Start ===

impl Start {
    /// Whether an event waited in the log.
    pub fn waits(&self, seq: Seq) -> bool {
        seq > self.floor
            && seq <= self.head
            && !self.settled.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }
}

// === impl Book ===

impl Book {
    /// The book of a Webhook that starts at `head`; it is absent until it joins.
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

    /// The book as it was saved; it is absent until it joins.
    pub fn restore(saved: SavedLane) -> Self {
        let Kept { tally, selects, left_at } = Kept::read(&saved.cursor.state);
        let mut book = Self {
            uid: saved.cursor.uid,
            position: saved.cursor.floor,
            skip: saved.cursor.settled,
            tally,
            selects,
            left_at,
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

    /// Where its events come from.
    pub fn feed(&self) -> Feed {
        self.feed
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

    fn touch(&mut self) -> bool {
        self.dirty = true;
        true
    }
}

#[cfg(test)]
mod tests;
