//! How an event lies in its rows, and how they are checked when they are read.
//!
//! Heads and bodies stand apart: a scan over a million heads touches some 80 MB, not the bodies. Each has
//! a checksum of its own, so that a damaged body leaves the head's name to go by.

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};
use uuid::Uuid;

use crate::{Event, EventHead, Seq};

/// What the rows of an event hold.
pub(crate) enum Rows {
    /// The event.
    Whole(Event),
    /// Something else: what is wrong, and the head as far as it can be trusted.
    Damaged { head: EventHead, reason: String },
}

/// The columns of [`event_of`], in order.
pub(crate) const EVENT_COLUMNS: &str = "event.seq, event.received, event.name, event.id, event.head_crc, event.crc, body.bytes \
     FROM event LEFT JOIN body USING (seq)";

/// The columns of [`head_of`], in order.
pub(crate) const HEAD_COLUMNS: &str = "seq, received, name, id, head_crc FROM event";

/// Writes one event.
pub(crate) fn insert(db: &Connection, event: &Event, fingerprint: &[u8; 16]) -> rusqlite::Result<()> {
    let seq = to_i64(event.seq);
    db.prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(params![
        seq,
        event.received_ms,
        event.name,
        event.id.as_bytes(),
        fingerprint,
        event.body.len(),
        checksum(event.seq, event.name.as_bytes(), &event.body),
        head_checksum(event.seq, event.received_ms, event.name.as_bytes(), event.id.as_bytes()),
    ])?;
    db.prepare_cached("INSERT INTO body VALUES (?1, ?2)")?.execute(params![seq, &event.body[..]])?;
    Ok(())
}

/// Reads one event, and checks it.
pub(crate) fn event_of(row: &Row<'_>) -> rusqlite::Result<Rows> {
    let head = head_of(row)?;
    let damaged = |head: EventHead, what: &str| {
        let reason = format!("the {what} of event {} does not match its checksum", head.seq.0);
        Ok(Rows::Damaged { head, reason })
    };
    let (Some(name), Ok(id)) = (head.name.clone(), row.get::<_, [u8; 16]>(3)) else {
        return damaged(head, "head");
    };
    let body = blob(row.get_ref(6)?);
    if row.get_ref(5)? != ValueRef::Integer(checksum(head.seq, name.as_bytes(), body).into()) {
        return damaged(head, "body");
    }
    let (seq, received_ms, body) = (head.seq, head.received_ms, Bytes::copy_from_slice(body));
    Ok(Rows::Whole(Event { seq, id: Uuid::from_bytes(id), name, received_ms, body }))
}

/// Reads one head, and checks it. One that was written before version 3 has no checksum, and is believed.
pub(crate) fn head_of(row: &Row<'_>) -> rusqlite::Result<EventHead> {
    let seq = to_seq(row.get(0)?);
    let received_ms = match row.get_ref(1)? {
        ValueRef::Integer(received_ms) => received_ms,
        _ => 0,
    };
    let (name, id) = (blob(row.get_ref(2)?), blob(row.get_ref(3)?));
    let is_whole = match row.get_ref(4)? {
        ValueRef::Null => true,
        found => found == ValueRef::Integer(head_checksum(seq, received_ms, name, id).into()),
    };
    let name = str::from_utf8(name).ok().filter(|_| is_whole).map(Into::into);
    Ok(EventHead { seq, name, received_ms })
}

/// The head of one event.
pub(crate) fn head_at(db: &Connection, seq: Seq) -> rusqlite::Result<Option<EventHead>> {
    let query = format!("SELECT {HEAD_COLUMNS} WHERE seq = ?1");
    db.prepare_cached(&query)?.query_row([to_i64(seq)], head_of).optional()
}

/// `SQLite`'s integers have a sign; places stay far below 2^63.
pub(crate) fn to_i64(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

pub(crate) fn to_seq(value: i64) -> Seq {
    Seq(u64::try_from(value).unwrap_or(0))
}

/// A text or blob's bytes; none of what damage made of it.
fn blob(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    }
}

/// Whether a page of the database cannot be read as one.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

fn checksum(seq: Seq, name: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.0.to_le_bytes());
    hasher.update(name);
    hasher.update(body);
    hasher.finalize()
}

fn head_checksum(seq: Seq, received_ms: i64, name: &[u8], id: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seq.0.to_le_bytes());
    hasher.update(&received_ms.to_le_bytes());
    hasher.update(id);
    hasher.update(name);
    hasher.finalize()
}
