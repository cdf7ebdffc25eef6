//! Retention: which events the log no longer keeps, and how they leave.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::params;

use crate::clock::now_ms;
use crate::schema::{is_corrupt, to_i64};
use crate::writer::{Writer, is_full, set_meta};
use crate::{Seq, StoreError};

/// How often it is looked for what goes.
const TRIM_EVERY: Duration = Duration::from_secs(1);

/// How many events one transaction of retention removes: some milliseconds at a time.
pub(crate) const TRIM_EVENTS: u64 = 1000;

// === impl Writer ===

impl Writer {
    /// Removes what retention no longer keeps, a little at a time.
    pub(crate) fn trim(&mut self) -> Result<(), StoreError> {
        if self.trimmed.is_some_and(|at| at.elapsed() < TRIM_EVERY) {
            return Ok(());
        }
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
        let before = now_ms().saturating_sub(age_ms);
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
