//! Brings a store of an earlier version up to date, and refuses one of a later version.
//!
//! In: the database's file as it lies there. Out: the tables of [`VERSION`]; or an error, with every byte
//! of the folder as it was. The version of the database speaks for the whole data folder: who changes the
//! form of any file in it (the witness, the last good plan, the count of unmatched events) raises it.
//!
//! It must never write before it knows the version, and never leave a file between two versions: all
//! steps are one transaction, and a database of this version is not written to at all.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::StoreError;

/// Marks the file as ours (`Tdgs`).
pub(crate) const APPLICATION_ID: i32 = 0x5464_6773;

/// The version of the tables: 2 added replays, 3 the checksums of heads.
pub(crate) const VERSION: i32 = 3;

/// What each version added. The first two marked a file before they made its tables, each by itself, so
/// what they made may be there in part.
const STEPS: [fn(&Connection) -> rusqlite::Result<()>; 3] = [events_and_lanes, replays, checksums_of_heads];

/// From this version on a file that is marked has its tables.
const FIRST_WHOLE: i32 = 3;

/// Where `SQLite` keeps the two numbers in the file's first bytes (its file format, section 1.3).
const HEADER: usize = 100;
const USER_VERSION_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;

/// Refuses a store of a later version. Nothing in the folder is touched, its locks and caches neither.
pub(crate) fn refuse_newer(path: &Path) -> Result<(), StoreError> {
    let found = if is_empty(&path.with_extension("db-wal")) { in_file(path) } else { with_log(path) };
    // What cannot be read is told by who opens it.
    match found {
        Some((APPLICATION_ID, version)) if version > VERSION => {
            Err(StoreError::Newer { path: path.to_owned(), found: version, known: VERSION })
        }
        _ => Ok(()),
    }
}

/// Brings the tables up to date; makes them in an empty file.
pub(crate) fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let found: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == VERSION {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = if found < FIRST_WHOLE { 0 } else { usize::try_from(found).unwrap_or(0) };
    STEPS.iter().skip(done).try_for_each(|step| step(&transaction))?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    if found > 0 {
        tracing::info!(from = found, to = VERSION, "the store was brought up to date");
    }
    // The version stands in the file's first bytes from now on, and not in its log alone.
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
}

fn is_empty(wal: &Path) -> bool {
    wal.metadata().map_or(true, |metadata| metadata.len() == 0)
}

/// The application's and the version's number, read without the engine: it would make files of its own.
fn in_file(path: &Path) -> Option<(i32, i32)> {
    let mut header = [0; HEADER];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    let number = |at: usize| Some(i32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    Some((number(APPLICATION_ID_AT)?, number(USER_VERSION_AT)?))
}

/// The same where the log may hold newer ones. In exclusive mode the engine keeps its index of the log in
/// memory, and without a checkpoint at the end it writes nothing.
fn with_log(path: &Path) -> Option<(i32, i32)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).ok()?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).ok()?;
    db.pragma_update(None, "locking_mode", "EXCLUSIVE").ok()?;
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get(0)).ok();
    Some((number("application_id")?, number("user_version")?))
}

fn events_and_lanes(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS event (
           seq INTEGER PRIMARY KEY, received INTEGER NOT NULL, name TEXT NOT NULL,
           id BLOB NOT NULL, fingerprint BLOB NOT NULL, size INTEGER NOT NULL, crc INTEGER NOT NULL);
         CREATE TABLE IF NOT EXISTS body (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
         CREATE TABLE IF NOT EXISTS lane (
           lane TEXT PRIMARY KEY, uid TEXT NOT NULL, floor INTEGER NOT NULL, settled TEXT NOT NULL,
           idle INTEGER NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS retry (
           lane TEXT NOT NULL, seq INTEGER NOT NULL, attempts INTEGER NOT NULL,
           first_attempt INTEGER NOT NULL, due INTEGER NOT NULL, key INTEGER NOT NULL,
           PRIMARY KEY (lane, seq)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS dead (
           lane TEXT NOT NULL, seq INTEGER NOT NULL, name TEXT NOT NULL, attempts INTEGER NOT NULL,
           at INTEGER NOT NULL, reason TEXT NOT NULL, status INTEGER, PRIMARY KEY (lane, seq)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;",
    )
}

fn replays(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS replay (
           uid TEXT PRIMARY KEY, position INTEGER NOT NULL, matched INTEGER NOT NULL,
           replayed INTEGER NOT NULL, complete INTEGER NOT NULL, oldest_available INTEGER) WITHOUT ROWID;
         INSERT OR IGNORE INTO meta VALUES ('identity', random());",
    )
}

fn checksums_of_heads(db: &Connection) -> rusqlite::Result<()> {
    // A sidecar of version 2 that was started again on this file marked it as its own.
    let has_them = "SELECT count(*) FROM pragma_table_info('event') WHERE name = 'head_crc'";
    if db.query_row(has_them, [], |row| row.get::<_, i64>(0))? == 0 {
        // Without one in the events that are there already: theirs cannot be checked.
        db.execute_batch("ALTER TABLE event ADD COLUMN head_crc INTEGER")?;
    }
    // By which retention finds the dead letters whose events go.
    db.execute_batch("CREATE INDEX IF NOT EXISTS dead_by_event ON dead (seq)")
}
