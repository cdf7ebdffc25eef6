//! Dead letters: how many one lane keeps.
//!
//! An endpoint that refuses everything makes one for each event, and they lie on the disk that all lanes
//! share. The oldest go; that each of them was given up stays counted in the lane's own tally.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, params};

use crate::MAX_DEAD_LETTERS;

/// How many more there may be before they are brought down to that: so that it costs little.
const SLACK: u64 = MAX_DEAD_LETTERS / 10;

/// How many dead letters the lanes have at the most, as far as that was asked.
#[derive(Debug, Default)]
pub(crate) struct Letters(HashMap<String, u64>);

// === impl Letters ===

impl Letters {
    /// Removes a lane's oldest ones beyond the bound, after so many were added. In their transaction.
    pub(crate) fn bound(
        &mut self,
        db: &Connection,
        lane: &str,
        added: usize,
        removed: &AtomicU64,
    ) -> rusqlite::Result<()> {
        let known = match self.0.get(lane) {
            Some(known) => known + added as u64,
            None => count(db, lane)?,
        };
        let kept = if known > MAX_DEAD_LETTERS + SLACK { bring_down(db, lane, removed)? } else { known };
        self.0.insert(lane.to_owned(), kept);
        Ok(())
    }

    /// Asks anew from now on: what was done was taken back.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

fn bring_down(db: &Connection, lane: &str, removed: &AtomicU64) -> rusqlite::Result<u64> {
    let query = "DELETE FROM dead WHERE lane = ?1 AND seq < \
                 (SELECT seq FROM dead WHERE lane = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)";
    let gone = db.prepare_cached(query)?.execute(params![lane, MAX_DEAD_LETTERS - 1])?;
    if gone > 0 {
        tracing::warn!(
            lane,
            dead_letters = gone,
            kept = MAX_DEAD_LETTERS,
            "the oldest dead letters are removed"
        );
        removed.fetch_add(gone as u64, Ordering::Relaxed);
    }
    count(db, lane)
}

fn count(db: &Connection, lane: &str) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT count(*) FROM dead WHERE lane = ?1")?.query_row([lane], |row| row.get(0))
}
