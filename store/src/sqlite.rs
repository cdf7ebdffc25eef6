//! The store on `SQLite`: a database in write-ahead mode, one writer, a few readers.
//!
//! `tidings.db` holds everything, `tidings.db-wal` what was not brought into it yet, `acked` the
//! witness, `lock` keeps a second process out.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::now_ms;
use crate::commits::{CommitStats, Commits};
use crate::dead::Letters;
use crate::log::Log;
use crate::migrate::{self, APPLICATION_ID};
use crate::quarantine::Quarantine;
use crate::replay;
use crate::retention;
use crate::schema::{EVENT_COLUMNS, event_of, head_at, to_i64, to_seq};
use crate::tail::Tail;
use crate::witness::Witness;
use crate::writer::{self, Command, Seen, Writer};
use crate::{
    AppendError, Appended, Changes, Cursor, DeadLetter, Event, EventHead, Lookup, NewEvent, ReplayProgress,
    RetryRow, SUBSCRIPTION_BOUND, SavedLane, Seq, Settings, Store, StoreError,
};

/// The database's file in the data folder.
pub(crate) const DATABASE: &str = "tidings.db";

const WAY_OUT: &str = "Restore the data folder from a backup, or move it away to start with an empty log";

/// A store on `SQLite`. See the contract at the head of this crate.
#[derive(Debug)]
pub struct SqliteStore {
    settings: Settings,
    identity: String,
    shared: Arc<Shared>,
    commands: Sender<Command>,
    events: Mutex<Option<mpsc::Receiver<Arc<Event>>>>,
    readers: [Mutex<Connection>; 2],
    next_reader: AtomicU64,
    // Held as long as the store is open.
    _lock: File,
}

/// What the writer and the readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) head: AtomicU64,
    pub(crate) oldest: AtomicU64,
    // Before here everything is to be removed.
    pub(crate) due: AtomicU64,
    pub(crate) free_bytes: AtomicU64,
    // What the database file has of its own for new events, as the writer last looked.
    pub(crate) reusable_bytes: AtomicU64,
    pub(crate) tail: Mutex<Tail>,
    pub(crate) quarantine: Quarantine,
    pub(crate) letters_removed: AtomicU64,
    pub(crate) commits: Commits,
    pub(crate) failed: watch::Sender<Option<StoreError>>,
}

// === impl Shared ===

impl Shared {
    /// Looks at the free space. Where the system does not tell, the space counts as free: the write
    /// itself will tell.
    pub(crate) fn look_at_space(&self, settings: &Settings) {
        let Settings { dir, size_limit, .. } = settings;
        let on_disk =
            rustix::fs::statvfs(dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let left = size_limit.map_or(u64::MAX, |limit| {
            let reusable = self.reusable_bytes.load(Ordering::Relaxed);
            limit.saturating_sub(size_of_files(dir)).saturating_add(reusable)
        });
        self.free_bytes.store(on_disk.min(left), Ordering::Relaxed);
    }
}

/// What the files of the folder take on the disk, as the kubelet counts it. A file that goes meanwhile takes nothing.
fn size_of_files(dir: &Path) -> u64 {
    let sizes = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| {
        const BLOCK: u64 = 512;
        entry.metadata().map_or(0, |metadata| metadata.blocks().saturating_mul(BLOCK))
    });
    sizes.sum()
}

// === impl SqliteStore ===

impl SqliteStore {
    /// Opens the store, or makes it; checks what it finds.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        let dir = settings.dir.clone();
        let failed = |error: io::Error| met(&dir, &error);
        make_private(&dir).map_err(failed)?;
        let lock = lock(&dir)?;
        let path = dir.join(DATABASE);
        migrate::refuse_newer(&path)?;
        let db = connect(&path).map_err(|error| opening(&path, &error))?;
        let (witness, acked) = Witness::open(&dir).map_err(failed)?;
        let found = Found::read(&db, &settings, &path)?;
        let identity = format!("{:016x}", found.identity);
        check_witness(&settings, &path, found.head, acked)?;
        // A place that was acknowledged once is never given again.
        let head = found.head.max(acked.unwrap_or_default());
        if head > found.head {
            // The loss was accepted: kept, so that it is not asked for again.
            writer::set_meta(&db, "head", to_i64(head)).map_err(|error| opening(&path, &error))?;
        }
        File::open(&dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let reader = || read_only(&path).map(Mutex::new).map_err(|error| opening(&path, &error));
        let readers = [reader()?, reader()?];
        let shared = Arc::new(Shared {
            head: AtomicU64::new(head.0),
            oldest: AtomicU64::new(found.oldest.0),
            due: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
            reusable_bytes: AtomicU64::new(writer::reusable_bytes(&db)),
            tail: Mutex::default(),
            quarantine: Quarantine::default(),
            letters_removed: AtomicU64::new(0),
            commits: Commits::default(),
            failed: watch::Sender::new(None),
        });
        shared.look_at_space(&settings);
        let (announce, events) = mpsc::channel(SUBSCRIPTION_BOUND);
        let (commands, asked) = std::sync::mpsc::channel();
        let writer = Writer {
            db,
            settings: settings.clone(),
            shared: Arc::clone(&shared),
            witness,
            announce,
            seen: found.seen,
            bytes: found.bytes,
            first: found.first.0,
            letters: Letters::default(),
            looked: None,
            trimmed: None,
            held_until: retention::held_until(found.newest_ms),
            no_space: None,
            trim_events: retention::AT_ONCE,
            unsaved: Vec::new(),
        };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&asked))
            .map_err(failed)?;
        let events = Mutex::new(Some(events));
        let next_reader = AtomicU64::new(0);
        Ok(Self { settings, identity, shared, commands, events, readers, next_reader, _lock: lock })
    }

    /// Why the store takes nothing any more.
    fn ended(&self) -> StoreError {
        self.shared.failed.borrow().clone().unwrap_or(StoreError::Closed)
    }

    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let at = self.next_reader.fetch_add(1, Ordering::Relaxed) % 2;
        let reader = &self.readers[usize::from(at == 1)];
        let db = reader.lock().unwrap_or_else(PoisonError::into_inner);
        read(&db).map_err(|error| opening(&self.settings.dir.join(DATABASE), &error))
    }

    fn with_log<T>(&self, read: impl FnOnce(Log<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let path = self.settings.dir.join(DATABASE);
        self.with_reader(|db| read(Log { db, path: &path, quarantine: &self.shared.quarantine }))
    }

    /// What lies up to here is removed, also where its rows are there yet.
    fn before_oldest(&self) -> Seq {
        Seq(self.oldest().0.saturating_sub(1))
    }

    fn in_tail(&self, seq: Seq) -> Option<Arc<Event>> {
        self.shared.tail.lock().unwrap_or_else(PoisonError::into_inner).get(seq)
    }
}

impl Store for SqliteStore {
    async fn append(&self, event: NewEvent) -> Result<Appended, AppendError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Append(event, answer)).map_err(|_| self.ended())?;
        answered.await.unwrap_or_else(|_| Err(self.ended().into()))
    }

    async fn save(&self, changes: Changes) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Save(Box::new(changes), answer)).map_err(|_| self.ended())?;
        answered.await.unwrap_or_else(|_| Err(self.ended()))
    }

    fn subscribe(&self) -> Option<mpsc::Receiver<Arc<Event>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn read(&self, after: Seq, max_events: usize, max_bytes: usize) -> Result<Vec<Arc<Event>>, StoreError> {
        let after = after.max(self.before_oldest());
        self.with_log(|log| log.read(after, max_events, max_bytes))
    }

    fn get(&self, seq: Seq) -> Result<Lookup, StoreError> {
        if seq < self.oldest() {
            return Ok(Lookup::Removed);
        }
        match self.in_tail(seq) {
            Some(event) => Ok(Lookup::Found(event)),
            None => self.with_log(|log| log.get(seq)),
        }
    }

    fn scan(&self, after: Seq, upto: Seq, each: &mut dyn FnMut(EventHead)) -> Result<(), StoreError> {
        let after = after.max(self.before_oldest());
        self.with_log(|log| log.scan(after, upto, each))
    }

    fn lanes(&self) -> Result<Vec<SavedLane>, StoreError> {
        self.with_reader(|db| {
            let idle_floor = meta(db, "idle_floor")?.map_or(Seq(0), to_seq);
            let mut statement = db.prepare("SELECT lane, uid, floor, settled, idle, state FROM lane")?;
            let mut rows = statement.query([])?;
            let mut lanes = Vec::new();
            while let Some(row) = rows.next()? {
                let lane: String = row.get(0)?;
                let settled: String = row.get(3)?;
                let mut cursor = Cursor {
                    uid: row.get(1)?,
                    floor: to_seq(row.get(2)?),
                    settled: serde_json::from_str(&settled).unwrap_or_default(),
                    idle: row.get(4)?,
                    state: row.get(5)?,
                };
                if cursor.idle && cursor.floor < idle_floor {
                    cursor.floor = idle_floor;
                    cursor.settled.clear();
                }
                let rows = retries(db, &lane)?;
                let dead = "SELECT count(*) FROM dead WHERE lane = ?1 AND seq >= ?2";
                let oldest = to_i64(self.oldest());
                let dead_letters = db.query_row(dead, params![lane, oldest], |row| row.get(0))?;
                lanes.push(SavedLane { lane, cursor, rows, dead_letters });
            }
            Ok(lanes)
        })
    }

    fn dead_letters(&self, lane: &str, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.with_reader(|db| {
            let query =
                "SELECT seq, name, attempts, at, reason, status FROM dead WHERE lane = ?1 AND seq >= ?2 ORDER BY seq DESC LIMIT ?3";
            let mut statement = db.prepare_cached(query)?;
            let letters = statement.query_map(params![lane, to_i64(self.oldest()), limit], |row| {
                Ok(DeadLetter {
                    seq: to_seq(row.get(0)?),
                    name: row.get(1)?,
                    attempts: row.get(2)?,
                    at_ms: row.get(3)?,
                    reason: row.get(4)?,
                    status_code: row.get(5)?,
                })
            })?;
            letters.map(|letter| named(db, letter?)).collect()
        })
    }

    fn dead_between(&self, lane: &str, after: Seq, upto: Seq) -> Result<BTreeSet<Seq>, StoreError> {
        let after = after.max(self.before_oldest());
        self.with_reader(|db| {
            let mut statement =
                db.prepare_cached("SELECT seq FROM dead WHERE lane = ?1 AND seq > ?2 AND seq <= ?3")?;
            let places = statement
                .query_map(params![lane, to_i64(after), to_i64(upto)], |row| row.get(0).map(to_seq))?;
            places.collect()
        })
    }

    fn replays(&self) -> Result<Vec<ReplayProgress>, StoreError> {
        self.with_reader(replay::read)
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn head(&self) -> Seq {
        Seq(self.shared.head.load(Ordering::Acquire))
    }

    fn oldest(&self) -> Seq {
        Seq(self.shared.oldest.load(Ordering::Acquire))
    }

    fn due_for_removal(&self) -> Option<Seq> {
        let due = self.shared.due.load(Ordering::Acquire);
        (due > self.oldest().0).then_some(Seq(due))
    }

    fn free_bytes(&self) -> u64 {
        self.shared.free_bytes.load(Ordering::Relaxed)
    }

    fn dead_letters_removed(&self) -> u64 {
        self.shared.letters_removed.load(Ordering::Relaxed)
    }

    fn commits(&self) -> CommitStats {
        self.shared.commits.stats()
    }

    fn file_bytes(&self) -> (u64, u64) {
        let size = |name: &str| std::fs::metadata(self.settings.dir.join(name)).map_or(0, |file| file.len());
        (size(DATABASE), size(&format!("{DATABASE}-wal")))
    }

    fn damaged_events(&self) -> u64 {
        self.shared.quarantine.count()
    }

    fn writable(&self) -> Result<(), AppendError> {
        if let Some(error) = self.shared.failed.borrow().clone() {
            return Err(error.into());
        }
        self.shared.look_at_space(&self.settings);
        let (free_bytes, min_free_bytes) = (self.free_bytes(), self.settings.min_free_bytes);
        if free_bytes < min_free_bytes {
            return Err(AppendError::NoSpace { path: self.settings.dir.clone(), free_bytes, min_free_bytes });
        }
        Ok(())
    }

    async fn failed(&self) -> StoreError {
        let mut failed = self.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(StoreError::Closed),
            Err(_) => StoreError::Closed,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Close(answer)).map_err(|_| self.ended())?;
        answered.await.unwrap_or_else(|_| Err(self.ended()))
    }
}

/// What an existing database holds.
struct Found {
    identity: i64,
    head: Seq,
    oldest: Seq,
    /// When the newest event was received.
    newest_ms: Option<i64>,
    first: Seq,
    bytes: u64,
    seen: Seen,
}

// === impl Found ===

impl Found {
    fn read(db: &Connection, settings: &Settings, path: &Path) -> Result<Self, StoreError> {
        Self::query(db, settings).map_err(|error| opening(path, &error))
    }

    fn query(db: &Connection, settings: &Settings) -> rusqlite::Result<Self> {
        let last: Option<i64> = db.query_row("SELECT max(seq) FROM event", [], |row| row.get(0))?;
        let first: Option<i64> = db.query_row("SELECT min(seq) FROM event", [], |row| row.get(0))?;
        let head = last.max(meta(db, "head")?).map_or(Seq(0), to_seq);
        let first_row = first.map_or(Seq(head.0 + 1), to_seq);
        let oldest = meta(db, "oldest")?.map_or(first_row, to_seq).max(first_row);
        // Where the next events go. Whether this one is whole is for who reads it.
        let mut end = db.prepare(&format!("SELECT {EVENT_COLUMNS} WHERE event.seq = ?1"))?;
        let mut rows = end.query([last])?;
        rows.next()?.map(event_of).transpose()?;
        let size = "SELECT coalesce(sum(size), 0) FROM event WHERE seq >= ?1";
        let bytes: i64 = db.query_row(size, [to_i64(oldest)], |row| row.get(0))?;
        let window_ms = i64::try_from(settings.dedupe_window.as_millis()).unwrap_or(i64::MAX);
        let since = now_ms().saturating_sub(window_ms);
        let identity = meta(db, "identity")?.unwrap_or_default();
        let bytes = u64::try_from(bytes).unwrap_or(0);
        let newest = "SELECT received FROM event ORDER BY seq DESC LIMIT 1";
        let newest_ms = db.query_row(newest, [], |row| Ok(row.get(0).ok())).optional()?.flatten();
        Ok(Self { identity, head, oldest, first: first_row, newest_ms, bytes, seen: seen_since(db, since)? })
    }
}

/// The fingerprints of the events received since then, read from the log's end.
fn seen_since(db: &Connection, since_ms: i64) -> rusqlite::Result<Seen> {
    let mut statement = db.prepare("SELECT fingerprint, received FROM event ORDER BY seq DESC")?;
    let mut rows = statement.query([])?;
    let mut newest_first = Vec::new();
    while let Some(row) = rows.next()? {
        let received_ms: i64 = row.get(1)?;
        if received_ms < since_ms || newest_first.len() >= writer::MAX_FINGERPRINTS {
            break;
        }
        newest_first.push((row.get::<_, [u8; 16]>(0)?, received_ms));
    }
    let mut seen = Seen::default();
    newest_first.into_iter().rev().for_each(|(fingerprint, received_ms)| seen.add(fingerprint, received_ms));
    Ok(seen)
}

fn retries(db: &Connection, lane: &str) -> rusqlite::Result<Vec<RetryRow>> {
    let mut statement = db.prepare_cached(
        "SELECT seq, attempts, first_attempt, due, key FROM retry WHERE lane = ?1 ORDER BY seq",
    )?;
    let rows = statement.query_map([lane], |row| {
        Ok(RetryRow {
            seq: to_seq(row.get(0)?),
            attempts: row.get(1)?,
            first_attempt_ms: row.get(2)?,
            due_ms: row.get(3)?,
            key: row.get::<_, i64>(4)?.cast_unsigned(),
        })
    })?;
    rows.collect()
}

/// The lane did not know the name where it gave up without the event at hand.
fn named(db: &Connection, letter: DeadLetter) -> rusqlite::Result<DeadLetter> {
    if !letter.name.is_empty() {
        return Ok(letter);
    }
    let name = head_at(db, letter.seq)?.and_then(|head| head.name).map(String::from).unwrap_or_default();
    Ok(DeadLetter { name, ..letter })
}

fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut db = Connection::open(path)?;
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(rusqlite::Error::InvalidPath(PathBuf::from("not a Tidings store")));
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    writer::configure(&db)?;
    migrate::migrate(&mut db)?;
    Ok(db)
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.pragma_update(None, "cache_size", -1024)?;
    Ok(db)
}

fn check_witness(settings: &Settings, path: &Path, head: Seq, acked: Option<Seq>) -> Result<(), StoreError> {
    let Some(acked) = acked.filter(|acked| *acked > head) else { return Ok(()) };
    if settings.accept_data_loss {
        tracing::warn!(
            acknowledged = acked.0,
            found = head.0,
            "the log lost events that were acknowledged; told to go on"
        );
        return Ok(());
    }
    let wal = path.with_extension("db-wal");
    Err(StoreError::Damaged {
        path: wal,
        reason: format!("the log ends at event {} but event {} was acknowledged", head.0, acked.0),
        way_out: format!("{WAY_OUT}; to go on without the lost events, start once with --accept-data-loss"),
    })
}

fn opening(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path_of, reason) = (|| path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, reason),
        _ if writer::is_full(error) => StoreError::Full { path: path_of(), reason },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            StoreError::Forbidden { path: path_of(), reason }
        }
        _ => StoreError::Failed { path: path_of(), reason },
    }
}

/// What an error of the system means at opening.
fn met(path: &Path, error: &io::Error) -> StoreError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path, reason },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Forbidden { path, reason }
        }
        _ => StoreError::Failed { path, reason },
    }
}

fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason, way_out: WAY_OUT.to_owned() }
}

fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let failed = |error: io::Error| met(dir, &error);
    let file =
        File::options().create(true).write(true).truncate(false).open(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}
