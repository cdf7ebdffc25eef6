//! Reads the log for a lane that is behind.
//!
//! In: the place after which to read. Out: the events that the Webhook selects, and how far the reading
//! came. It must never block an async thread on the file.

use std::sync::Arc;

use tidings_store::{DeadLetter, Event, Lookup, Seq, Store, StoreError, now_ms};
use tokio::task::JoinHandle;

use super::Lane;
use super::book::damaged_letter;
use super::spec::Spec;
use super::start::Turn;

/// How many heads of the log one reading looks at, and how many events it brings.
const READ_HEADS: u64 = 4096;
const READ_EVENTS: usize = 128;
const READ_BYTES: usize = 512 << 10;

/// What one reading of the log brought.
pub(super) struct Reading {
    spec: Arc<Spec>,
    after: Seq,
    selected: Vec<Arc<Event>>,
    damaged: Vec<DeadLetter>,
    upto: Seq,
}

// === impl Lane ===

impl<S: Store> Lane<S> {
    /// Reads the log on when the lane is behind.
    pub(super) fn read_on(&mut self, spec: &Arc<Spec>) {
        if self.reading.is_some() {
            return;
        }
        let after = {
            let mut book = self.handle.lock();
            book.go_live(self.store.head());
            if !book.wants_reading(spec.concurrency()) {
                return;
            }
            book.position
        };
        let (spec, store) = (Arc::clone(spec), Arc::clone(&self.store));
        self.reading = Some(tokio::task::spawn_blocking(move || read_log(&*store, spec, after)));
    }

    pub(super) fn take_reading(&mut self, reading: Result<Reading, StoreError>) {
        match reading {
            Ok(Reading { spec, after, selected, damaged, upto }) => {
                if selected.is_empty() && self.turn == Turn::New {
                    // A log that holds little for the Webhook keeps what else waits no longer than one reading.
                    self.turn = self.turn.next();
                }
                // Another selection since then reads for itself.
                if Arc::ptr_eq(&spec, &self.handle.spec()) {
                    let mut book = self.handle.lock();
                    book.bury_unread(after, damaged);
                    book.take_read(after, selected, upto);
                }
                self.handle.changed(&self.unsaved);
            }
            Err(error) => self.fatal.tell(error),
        }
    }
}

pub(super) async fn next_reading(
    reading: &mut Option<JoinHandle<Result<Reading, StoreError>>>,
) -> Result<Reading, StoreError> {
    let Some(handle) = reading.as_mut() else { return std::future::pending().await };
    let result = handle.await;
    *reading = None;
    result.unwrap_or(Err(StoreError::Closed))
}

/// The events that the Webhook selects among the next ones of the log.
fn read_log<S: Store>(store: &S, spec: Arc<Spec>, after: Seq) -> Result<Reading, StoreError> {
    let upto = Seq(store.head().0.min(after.0 + READ_HEADS));
    let mut wanted = Vec::new();
    let mut seen = upto;
    store.scan(after, upto, &mut |head| {
        if wanted.len() < READ_EVENTS {
            // One whose name is damaged may be meant for any.
            if head.name.is_none_or(|name| spec.selects(&name)) {
                wanted.push(head.seq);
            }
            seen = head.seq;
        }
    })?;
    let (mut selected, mut damaged, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut reached = if wanted.len() < READ_EVENTS { upto } else { seen };
    for seq in wanted {
        if bytes >= READ_BYTES {
            reached = Seq(seq.0 - 1);
            break;
        }
        match store.get(seq)? {
            Lookup::Found(event) => {
                bytes += event.body.len();
                selected.push(event);
            }
            Lookup::Damaged { name } => damaged.push(damaged_letter(seq, name, 0, now_ms())),
            // Retention was faster.
            Lookup::Removed => {}
        }
    }
    Ok(Reading { spec, after, selected, damaged, upto: reached })
}
