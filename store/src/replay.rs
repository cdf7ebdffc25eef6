//! How far replays came: one row for each, written with the rows that it put in line.
//!
//! It must never be written in another transaction than the rows and dead letters that it speaks of: a
//! crash between the two would lose events, or put them in line twice.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::Seq;
use crate::schema::{to_i64, to_seq};

/// How far a replay came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayProgress {
    /// The replay's UID.
    pub uid: String,
    /// Everything up to here was looked at.
    pub position: Seq,
    /// Events that it selects, as far as it came.
    pub matched: u64,
    /// Events that it put in line again; fewer than matched where some waited already.
    pub replayed: u64,
    /// The whole window was gone through.
    pub complete: bool,
    /// When the oldest event that was still there was received, in milliseconds since 1970, where the
    /// window begins before it; the time of the look where the log was empty.
    pub oldest_available_ms: Option<i64>,
}

/// Writes how far a replay came.
pub(crate) fn save(db: &Connection, progress: &ReplayProgress) -> rusqlite::Result<()> {
    let ReplayProgress { uid, position, matched, replayed, complete, oldest_available_ms } = progress;
    db.prepare_cached("INSERT OR REPLACE INTO replay VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
        uid,
        to_i64(*position),
        matched.cast_signed(),
        replayed.cast_signed(),
        complete,
        oldest_available_ms
    ])?;
    Ok(())
}

/// Forgets a replay.
pub(crate) fn forget(db: &Connection, uid: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM replay WHERE uid = ?1")?.execute([uid]).map(|_| ())
}

/// All of them, by UID.
pub(crate) fn read(db: &Connection) -> rusqlite::Result<Vec<ReplayProgress>> {
    let query =
        "SELECT uid, position, matched, replayed, complete, oldest_available FROM replay ORDER BY uid";
    let mut statement = db.prepare(query)?;
    let rows = statement.query_map([], |row| {
        Ok(ReplayProgress {
            uid: row.get(0)?,
            position: to_seq(row.get(1)?),
            matched: row.get::<_, i64>(2)?.cast_unsigned(),
            replayed: row.get::<_, i64>(3)?.cast_unsigned(),
            complete: row.get(4)?,
            oldest_available_ms: row.get(5)?,
        })
    })?;
    rows.collect()
}
