//! What the log has no longer: events that are damaged.
//!
//! See the correctness argument at the head of the book.

use tidings_store::{DeadLetter, Seq};

use super::{Book, Feed};

/// The dead letter of an event that cannot be read: nothing of it can be delivered, and no other waits for
/// it. Without a name where that cannot be read either.
pub(crate) fn damaged_letter(seq: Seq, name: Option<Box<str>>, attempts: u32, at_ms: i64) -> DeadLetter {
    let name = name.map(String::from).unwrap_or_default();
    DeadLetter { seq, name, attempts, at_ms, reason: "Damaged".to_owned(), status_code: None }
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
            self.backlog -= 1;
            if !self.is_settled(letter.seq) {
                self.bury(letter, 0);
            }
        }
    }
}
