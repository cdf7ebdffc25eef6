//! The tables, and how a row is read and checked.
//!
//! Heads and bodies stand apart: a scan over a million heads touches some 80 MB, not the bodies.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use crate::{Event, Seq};

/// Marks the file as ours (`Tdgs`).
pub(crate) const APPLICATION_ID: i32 = 0x5464_6773;

/// The version of the tables. Until now each version added tables and changed none, so that
/// `CREATE TABLE IF NOT EXISTS` brings an older file up to date: 1 had no replays.
pub(crate) const USER_VERSION: i32 = 2;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY, received INTEGER NOT NULL, name TEXT NOT NULL,
  id BLOB NOT NULL, fingerprint BLOB NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS body (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS lane (
  lane TEXT PRIMARY KEY, uid TEXT NOT NULL, floor INTEGER NOT NULL, settled TEXT NOT NULL,
  idle INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retry (
  lane TEXT NOT NULL, seq INTEGER NOT NULL, attempts INTEGER NOT NULL, first_attempt INTEGER NOT NULL,
  due INTEGER NOT NULL, key INTEGER NOT NULL, PRIMARY KEY (lane, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead (
  lane TEXT NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL, attempts INTEGER NOT NULL,
  at INTEGER NOT NULL, reason TEXT NOT NULL, status INTEGER, PRIMARY KEY (lane, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replay (
  uid TEXT PRIMARY KEY, position INTEGER NOT NULL, matched INTEGER NOT NULL, replayed INTEGER NOT NULL,
  complete INTEGER NOT NULL, oldest_available INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
";

/// Why a row is not an event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("the checksum of event {0} does not match")]
    Checksum(u64),
}

/// Drawn once, when the file is made; later openings find it there.
const IDENTITY: &str = "INSERT OR IGNORE INTO meta VALUES ('identity', random())";

/// Makes the tables where they are not there, and marks the file.
pub(crate) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    db.pragma_update(None, "user_version", USER_VERSION)?;
    db.execute_batch(TABLES)?;
    db.execute(IDENTITY, []).map(|_| ())
}

/// The columns of [`event_of`], in order.
pub(crate) const EVENT_COLUMNS: &str =
    "event.seq, event.received, event.name, event.id, event.crc, body.bytes FROM event JOIN body USING (seq)";

/// Writes one event.
pub(crate) fn insert(db: &Connection, event: &Event, fingerprint: &[u8; 16]) -> rusqlite::Result<()> {
    let seq = to_i64(event.seq);
    db.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
        seq,
        event.received_ms,
        event.name,
        event.id.as_bytes(),
        fingerprint,
        event.body.len(),
        checksum(event.seq, &event.name, &event.body),
    ])?;
    db.prepare_cached("INSERT INTO body VALUES (?1, ?2)")?.execute(params![seq, &event.body[..]])?;
    Ok(())
}

/// Reads one event, and checks it.
pub(crate) fn event_of(row: &Row<'_>) -> Result<Event, RowError> {
    let seq = to_seq(row.get(0)?);
    let name: String = row.get(2)?;
    let body = Bytes::from(row.get::<_, Vec<u8>>(5)?);
    if row.get::<_, u32>(4)? != checksum(seq, &name, &body) {
        return Err(RowError::Checksum(seq.0));
    }
    let id = Uuid::from_bytes(row.get(3)?);
    Ok(Event { seq, id, name: name.into(), received_ms: row.get(1)?, body })
}

/// `SQLite`'s integers have a sign; places stay far below 2^63.
pub(crate) fn to_i64(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

pub(crate) fn to_seq(value: i64) -> Seq {
    Seq(u64::try_from(value).unwrap_or(0))
}

fn checksum(seq: Seq, name: &str, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.0.to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(body);
    hasher.finalize()
}
