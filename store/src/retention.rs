//! Retention: which events the log no longer keeps, and how they leave.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::params;

use crate::clock::{self, now_ms};
use crate::schema::{is_corrupt, to_i64};
use crate::writer::{Writer, is_full, set_meta};
use crate::{Seq, StoreError};

/// How often it is looked for what goes.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// How many events one transaction of retention removes: some milliseconds at a time.
pub(crate) const TRIM_EVENTS: u64 = 1000;

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
    /// Removes what retention no longer keeps, a little at a time.
    pub(crate) fn trim(&mut self) -> Result<(), StoreError> {
        if self.trimmed.is_some_and(|at| at.elapsed() < TRIM_EVERY) {
            return Ok(());
        }
        clock::look();
        match self.trim_some() {
            Ok(true) => {}
            Ok(false) => self.trimmed = Some(Instant::now()),
            Err(error) if is_full(&error) => self.wait_for_space(),
            Err(error) => return Err(self.failed(&error)),
        }
        Ok(())
    }

    /// Removing needs space too. What the write-ahead log takes may be had for it, and fewer events at a time
    /// need less.
    fn wait_for_space(&mut self) {
        if self.trim_events == TRIM_EVENTS {
            tracing::warn!("retention finds the disk full, and waits for space to remove events");
        }
        self.trimmed = Some(Instant::now());
        self.trim_events = (self.trim_events / 2).max(1);
        // Without space it fails, and is tried again with the next commit.
        let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Removes the oldest events that are not kept, up to [`Writer::trim_events`]; whether there were any.
    fn trim_some(&mut self) -> rusqlite::Result<bool> {
        let cut = self.cut()?;
        let oldest = self.shared.oldest.load(Ordering::Acquire);
        if cut <= oldest {
            return Ok(false);
        }
        let cut = cut.min(oldest + self.trim_events);
        let freed = match self.remove_before(cut, true) {
            // Their bodies stay, of no use; the heads go, and the log goes on.
            Err(error) if is_corrupt(&error) => {
                tracing::warn!(%error, before = cut, "events of a damaged page go, the space of their bodies is lost");
                self.remove_before(cut, false)?
            }
            removed => removed?,
        };
        self.bytes = self.bytes.saturating_sub(freed);
        self.shared.oldest.store(cut, Ordering::Release);
        self.trim_events = TRIM_EVENTS;
        Ok(true)
    }

    /// The first place that is kept.
    fn cut(&self) -> rusqlite::Result<u64> {
        let oldest = self.shared.oldest.load(Ordering::Acquire);
        let age_ms = i64::try_from(self.settings.max_age.as_millis()).unwrap_or(i64::MAX);
        let is_held = self.held_until.is_some_and(|until| Instant::now() < until);
        let before = if is_held { i64::MIN } else { now_ms().saturating_sub(age_ms) };
        let mut rows = self
            .db
            .prepare_cached("SELECT seq, received, size FROM event WHERE seq >= ?1 ORDER BY seq LIMIT ?2")?;
        let mut rows = rows.query(params![to_i64(Seq(oldest)), to_i64(Seq(TRIM_EVENTS))])?;
        let mut over = self.bytes.saturating_sub(self.settings.max_bytes);
        let mut cut = oldest;
        while let Some(row) = rows.next()? {
            let (seq, received, size): (i64, i64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if received >= before && over == 0 {
                break;
            }
            over = over.saturating_sub(size);
            cut = u64::try_from(seq).unwrap_or(0) + 1;
        }
        Ok(cut)
    }

    fn remove_before(&mut self, cut: u64, bodies: bool) -> rusqlite::Result<u64> {
        let oldest = to_i64(Seq(self.shared.oldest.load(Ordering::Acquire)));
        let transaction = self.db.transaction()?;
        let cut = to_i64(Seq(cut));
        let freed: i64 = transaction.query_row(
            "SELECT coalesce(sum(size), 0) FROM event WHERE seq < ?1",
            [cut],
            |row| row.get(0),
        )?;
        if bodies {
            transaction.execute("DELETE FROM body WHERE seq >= ?1 AND seq < ?2", [oldest, cut])?;
        }
        transaction.execute("DELETE FROM event WHERE seq < ?1", [cut])?;
        set_meta(&transaction, "oldest", cut)?;
        transaction.commit()?;
        Ok(u64::try_from(freed).unwrap_or(0))
    }
}
