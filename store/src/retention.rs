//! Retention: which events the log no longer keeps, and how they leave.
//!
//! ```text
//! propose (writer) -> due_for_removal -> whoever counts what waited -> Changes::remove_before -> [one
//! transaction: counts, cursors, where the log begins] -> trim (writer), a little at a time
//! ```
//!
//! Where the log begins is a number of its own, written with what the lanes say of the events before it:
//! a crash can neither lose that count nor double it. What lies before it is gone for every reader, and
//! the space is taken back afterwards; that needs space itself, and waits where there is none.
//!
//! It must never move the beginning by itself: an event that nobody counted would vanish.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::clock::{self, now_ms};
use crate::schema::{is_corrupt, to_i64};
use crate::writer::{Writer, is_full, set_meta};
use crate::{Seq, StoreError};

/// How often it is looked for what goes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many events are proposed at once, and removed in one transaction: some milliseconds at a time.
pub(crate) const AT_ONCE: u64 = 1000;

/// A newest event that is further away from the time of a start than this, in milliseconds: it was quiet for
/// long, or the wall clock is wrong.
const FAR_MS: i64 = 3_600_000;

/// How long nothing is removed for its age then: time for a person to set the clock right.
const HOLD: Duration = Duration::from_hours(1);

/// Until when nothing is removed for its age, after a start at which the log's newest event was received then.
pub(crate) fn held_until(newest_ms: Option<i64>) -> Option<Instant> {
    let away_ms = now_ms().saturating_sub(newest_ms?);
    if away_ms.abs() < FAR_MS {
        return None;
    }
    tracing::warn!(
        seconds = away_ms / 1000,
        "the newest event is that old by the wall clock: retention removes nothing for its age for an hour, in case the clock is wrong"
    );
    Some(Instant::now() + HOLD)
}

// === impl Writer ===

impl Writer {
    /// Proposes what retention no longer keeps, and takes back the space of what was removed.
    pub(crate) fn retain(&mut self) -> Result<(), StoreError> {
        let oldest = self.shared.oldest.load(Ordering::Acquire);
        let looked = self.trimmed.is_some_and(|at| at.elapsed() < LOOK_EVERY);
        if self.shared.due.load(Ordering::Acquire) <= oldest && !looked {
            clock::look();
            let due = self.due(oldest).map_err(|error| self.failed(&error))?;
            self.shared.due.store(due, Ordering::Release);
            self.trimmed = (due <= oldest).then(Instant::now);
        }
        if self.first < oldest { self.trim(oldest) } else { Ok(()) }
    }

    /// The place before which everything is to go, as far as one proposal reaches.
    fn due(&self, oldest: u64) -> rusqlite::Result<u64> {
        let age_ms = i64::try_from(self.settings.max_age.as_millis()).unwrap_or(i64::MAX);
        let is_held = self.held_until.is_some_and(|until| Instant::now() < until);
        let before = if is_held { i64::MIN } else { now_ms().saturating_sub(age_ms) };
        let mut rows = self
            .db
            .prepare_cached("SELECT seq, received, size FROM event WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = rows.query(params![to_i64(Seq(oldest)), to_i64(Seq(AT_ONCE))])?;
        let mut over = self.bytes.saturating_sub(self.settings.max_bytes);
        let mut due = oldest;
        while let Some(row) = rows.next()? {
            let (seq, received, size): (i64, i64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if received >= before && over == 0 {
                break;
            }
            over = over.saturating_sub(size);
            due = u64::try_from(seq).unwrap_or(0) + 1;
        }
        Ok(due)
    }

    /// The log begins there from now on.
    pub(crate) fn removed(&mut self, removed: &Removed) {
        self.bytes = self.bytes.saturating_sub(removed.bytes);
        self.shared.oldest.store(removed.before, Ordering::Release);
        self.trimmed = None;
    }

    /// Takes back the space of what lies before the log's beginning, a little at a time.
    fn trim(&mut self, oldest: u64) -> Result<(), StoreError> {
        if self.no_space.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let cut = oldest.min(self.first + self.trim_events);
        let done = match self.delete_before(cut, true) {
            // Their bodies stay, of no use; the heads go, and the log goes on.
            Err(error) if is_corrupt(&error) => {
                tracing::warn!(
                    %error,
                    before = cut,
                    "events of a damaged page go, the space of their bodies is lost"
                );
                self.delete_before(cut, false)
            }
            done => done,
        };
        match done {
            Ok(()) => (self.first, self.trim_events, self.no_space) = (cut, AT_ONCE, None),
            Err(error) if is_full(&error) => self.wait_for_space(),
            Err(error) => return Err(self.failed(&error)),
        }
        Ok(())
    }

    /// Removing needs space too. What the write-ahead log takes may be had for it, and fewer events at a time
    /// need less.
    pub(crate) fn wait_for_space(&mut self) {
        if self.no_space.is_none() {
            tracing::warn!("retention finds the disk full, and waits for space to remove events");
        }
        self.no_space = Some(Instant::now());
        self.trim_events = (self.trim_events / 2).max(1);
        // Without space it fails, and is tried again with the next commit.
        let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    fn delete_before(&mut self, cut: u64, bodies: bool) -> rusqlite::Result<()> {
        let (first, cut) = (to_i64(Seq(self.first)), to_i64(Seq(cut)));
        let transaction = self.db.transaction()?;
        if bodies {
            transaction.execute("DELETE FROM body WHERE seq >= ?1 AND seq < ?2", [first, cut])?;
        }
        transaction.execute("DELETE FROM event WHERE seq < ?1", [cut])?;
        // A dead letter without its event can be neither read nor replayed; its Webhook has counted it.
        transaction.execute("DELETE FROM dead WHERE seq < ?1", [cut])?;
        transaction.commit()
    }
}

/// What a transaction removed.
#[derive(Debug)]
pub(crate) struct Removed {
    before: u64,
    bytes: u64,
}

/// Has the log begin at `before`, which is beyond `oldest`; in the transaction of who counted.
pub(crate) fn begin_at(db: &Connection, oldest: u64, before: Seq) -> rusqlite::Result<Removed> {
    let size = "SELECT coalesce(sum(size), 0) FROM event WHERE seq >= ?1 AND seq < ?2";
    let bytes = db.query_row(size, [to_i64(Seq(oldest)), to_i64(before)], |row| row.get(0))?;
    set_meta(db, "oldest", to_i64(before))?;
    Ok(Removed { before: before.0, bytes })
}
