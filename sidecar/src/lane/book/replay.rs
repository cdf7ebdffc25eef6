//! What replays do to a book: they put events in line that were settled before, or never selected.
//!
//! See the correctness argument at the head of the book.

use tidings_store::{ReplayProgress, Seq};

use super::rows::take_first_due;
use super::{Book, Row};

/// How many events that replays put in line wait in one lane at once.
///
/// It bounds what a replay of a million events costs an endpoint that is down: nothing but these rows.
/// It does not keep new events from waiting behind them, for what settles makes room for the next: that
/// is done by turns ([`Book::take_replayed`]). 256 rows are what a lane of some thousand deliveries a second
/// settles between two looks of the replay. Rows of an earlier process are not told apart: each restart
/// may add as many, up to half of the rows that a book keeps; the other half stays free for new events.
pub(super) const REPLAYED_IN_LINE: usize = 256;

// === impl Book ===

impl Book {
    /// The next of those that a replay put in line. To be asked in turns with [`Book::take_ready`], so
    /// that new events wait for one of them at the most.
    pub fn take_replayed(&mut self, now_ms: i64) -> Option<(Seq, Row)> {
        self.may_work()?;
        let seq = take_first_due(&mut self.due_replayed, now_ms)?;
        self.rows.get(&seq).map(|row| (seq, *row))
    }

    /// How many events a replay may put in line now.
    pub fn replay_room(&self) -> usize {
        let for_rows = (self.row_limit.0 / 2).saturating_sub(self.rows.len());
        REPLAYED_IN_LINE.saturating_sub(self.replayed.len()).min(for_rows)
    }

    /// Puts an event in line once more; it leaves the dead letters. False when it waits already: then it
    /// is delivered without this.
    pub fn put_in_line(&mut self, seq: Seq, row: Row) -> bool {
        if self.waits(seq) {
            return false;
        }
        self.dead.retain(|letter| letter.seq != seq);
        self.revived.insert(seq);
        self.replayed.insert(seq);
        self.add_row(seq, row);
        true
    }

    /// Whether a replay of this process put the event in line.
    pub fn is_replayed(&self, seq: Seq) -> bool {
        self.replayed.contains(&seq)
    }

    /// Says how far a replay came; saved with the rows that it put in line until now.
    pub fn note_replay(&mut self, progress: ReplayProgress) {
        self.forget_replay(&progress.uid);
        self.replays.push(progress);
        self.touch();
    }

    /// Does not save what was said of a replay, where that was not done yet.
    pub fn forget_replay(&mut self, uid: &str) {
        self.replays.retain(|replay| replay.uid != uid);
    }

    /// Whether the event will be delivered without anything being done.
    fn waits(&self, seq: Seq) -> bool {
        self.rows.contains_key(&seq)
            || self.first_attempts.contains_key(&seq)
            || (seq > self.position && !self.is_skipped(seq))
            || self.ready.binary_search_by_key(&seq, |event| event.seq).is_ok()
    }
}
