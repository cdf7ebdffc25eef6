//! What becomes a dead letter before its time is over: events that are damaged, and those for which there is
//! no room.
//!
//! See the correctness argument at the head of the book.

use tidings_store::{DeadLetter, Seq};

use super::{Book, Feed};
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
}
