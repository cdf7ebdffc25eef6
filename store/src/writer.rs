//! The one writer: a thread that takes all that waits, writes it in one transaction, syncs once, and
//! then answers.
//!
//! It must never answer an append before the commit returned, never announce an event before that, and
//! never go on after a write error other than a full disk.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::dead::Letters;
use crate::replay;
use crate::retention::{Removed, begin_at};
use crate::schema::{insert, to_i64};
use crate::sqlite::Shared;
use crate::witness::Witness;
use crate::{
    AppendError, Appended, Changes, Cursor, DeadLetter, Event, LaneChange, NewEvent, RetryRow, Seq, Settings,
    StoreError,
};

/// How many commands one transaction takes, and how many bytes of bodies.
const GROUP_COMMANDS: usize = 512;
const GROUP_BYTES: usize = 4 << 20;

/// How often free space is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The write-ahead log is brought into the database at this size, in pages of 4 KiB: 8 MiB.
const CHECKPOINT_PAGES: u32 = 2048;

/// The most fingerprints that are remembered, about 10 MB; at 500 events/s that is 200 s.
pub(crate) const MAX_FINGERPRINTS: usize = 100_000;

/// How long the writer waits for a command before it looks after retention.
const IDLE: Duration = Duration::from_secs(1);

/// The commands' channel. It is not bounded itself: who asks waits for the answer, and so there are at
/// most as many commands as there are connections to the events port, and one save.
pub(crate) type Commands = std::sync::mpsc::Receiver<Command>;

type Append = (NewEvent, oneshot::Sender<Result<Appended, AppendError>>);
type Save = (Box<Changes>, oneshot::Sender<Result<(), StoreError>>);
type Numbered = (Arc<Event>, [u8; 16]);
type Answer = (oneshot::Sender<Result<Appended, AppendError>>, Appended);

/// What the writer is asked.
#[derive(Debug)]
pub(crate) enum Command {
    Append(NewEvent, oneshot::Sender<Result<Appended, AppendError>>),
    Save(Box<Changes>, oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// The writer's own state.
pub(crate) struct Writer {
    pub(crate) db: Connection,
    pub(crate) settings: Settings,
    pub(crate) shared: Arc<Shared>,
    pub(crate) witness: Witness,
    pub(crate) announce: mpsc::Sender<Arc<Event>>,
    pub(crate) seen: Seen,
    /// The bodies of the log.
    pub(crate) bytes: u64,
    /// How many dead letters lanes have.
    pub(crate) letters: Letters,
    /// The first event whose rows are there; the log may begin beyond it.
    pub(crate) first: u64,
    pub(crate) looked: Option<Instant>,
    /// When nothing was found that is due.
    pub(crate) trimmed: Option<Instant>,
    /// Until when retention removes nothing for its age.
    pub(crate) held_until: Option<Instant>,
    /// When removing found the disk full.
    pub(crate) no_space: Option<Instant>,
    /// How many events are removed at a time: fewer where the disk is full.
    pub(crate) trim_events: u64,
    pub(crate) unsaved: Vec<Save>,
}

/// The fingerprints of the last events.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    known: HashMap<[u8; 16], i64>,
    order: VecDeque<([u8; 16], i64)>,
}

/// What one transaction holds.
#[derive(Default)]
struct Group {
    appends: Vec<Append>,
    saves: Vec<Save>,
    close: Option<oneshot::Sender<Result<(), StoreError>>>,
}

// === impl Seen ===

impl Seen {
    /// Remembers an event.
    pub(crate) fn add(&mut self, fingerprint: [u8; 16], received_ms: i64) {
        self.known.insert(fingerprint, received_ms);
        self.order.push_back((fingerprint, received_ms));
    }

    fn knows(&self, fingerprint: &[u8; 16]) -> bool {
        self.known.contains_key(fingerprint)
    }

    fn remove(&mut self, fingerprint: &[u8; 16]) {
        self.known.remove(fingerprint);
    }

    fn forget(&mut self, before_ms: i64) {
        while let Some(&(fingerprint, received_ms)) = self.order.front() {
            if received_ms >= before_ms && self.order.len() <= MAX_FINGERPRINTS {
                break;
            }
            self.order.pop_front();
            if self.known.get(&fingerprint) == Some(&received_ms) {
                self.known.remove(&fingerprint);
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Works until it is closed, nobody asks any more, or a write fails.
    pub(crate) fn run(mut self, commands: &Commands) {
        loop {
            let mut group = match commands.recv_timeout(IDLE) {
                Ok(first) => Group::gather(first, commands),
                Err(RecvTimeoutError::Timeout) => Group::default(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // What found the disk full is tried again.
            group.saves.splice(0..0, self.unsaved.drain(..));
            match self.work(group) {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    self.shared.failed.send_replace(Some(error));
                    return;
                }
            }
        }
    }

    fn work(&mut self, group: Group) -> Result<bool, StoreError> {
        let Group { appends, saves, close } = group;
        self.write(appends, saves)?;
        Arc::clone(&self.shared).commits.watch(|| self.retain())?;
        let Some(closed) = close else { return Ok(false) };
        let result = match self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            // What is not brought into the database stays in its write-ahead log.
            Err(error) if !is_full(&error) => Err(self.failed(&error)),
            _ => Ok(()),
        };
        let _ = closed.send(result);
        Ok(true)
    }

    fn write(&mut self, appends: Vec<Append>, saves: Vec<Save>) -> Result<(), StoreError> {
        let appends = self.admit(appends);
        if appends.is_empty() && saves.is_empty() {
            return Ok(());
        }
        let (events, answers) = self.number(appends);
        let shared = Arc::clone(&self.shared);
        let commit = || self.transact(&events, saves.iter().map(|(changes, _)| &**changes));
        match shared.commits.commit(events.len(), commit) {
            Ok(removed) => {
                if let Some(removed) = removed {
                    self.removed(&removed);
                }
                self.committed(events, answers, saves)
            }
            Err(error) if is_full(&error) => {
                self.letters.forget();
                for (_, fingerprint) in &events {
                    self.seen.remove(fingerprint);
                }
                let refused = self.no_space(self.shared.free_bytes.load(Ordering::Relaxed));
                for (answer, _) in answers {
                    let _ = answer.send(Err(refused.clone()));
                }
                self.unsaved = saves;
                if self.unsaved.iter().any(|(changes, _)| changes.remove_before.is_some()) {
                    self.wait_for_space();
                }
                Ok(())
            }
            Err(error) => {
                let error = self.failed(&error);
                for (answer, _) in answers {
                    let _ = answer.send(Err(error.clone().into()));
                }
                Err(error)
            }
        }
    }

    /// Refuses what finds no space; the rest is admitted.
    fn admit(&mut self, appends: Vec<Append>) -> Vec<Append> {
        if appends.is_empty() {
            return appends;
        }
        let free_bytes = self.free_bytes();
        if free_bytes >= self.settings.min_free_bytes {
            return appends;
        }
        for (_, answer) in appends {
            let _ = answer.send(Err(self.no_space(free_bytes)));
        }
        Vec::new()
    }

    /// Gives each new event its place and id; an event that is known is answered as such after the commit.
    fn number(&mut self, appends: Vec<Append>) -> (Vec<Numbered>, Vec<Answer>) {
        let window_ms = i64::try_from(self.settings.dedupe_window.as_millis()).unwrap_or(i64::MAX);
        let (mut events, mut answers) =
            (Vec::with_capacity(appends.len()), Vec::with_capacity(appends.len()));
        let mut seq = self.shared.head.load(Ordering::Acquire);
        for (NewEvent { name, fingerprint, received_ms, body }, answer) in appends {
            self.seen.forget(received_ms.saturating_sub(window_ms));
            if self.seen.knows(&fingerprint) {
                answers.push((answer, Appended::Duplicate));
                continue;
            }
            seq += 1;
            self.seen.add(fingerprint, received_ms);
            let event = Event { seq: Seq(seq), id: Uuid::now_v7(), name, received_ms, body };
            events.push((Arc::new(event), fingerprint));
            answers.push((answer, Appended::New(Seq(seq))));
        }
        (events, answers)
    }

    fn transact<'a>(
        &mut self,
        events: &[Numbered],
        saves: impl Iterator<Item = &'a Changes>,
    ) -> rusqlite::Result<Option<Removed>> {
        let oldest = self.shared.oldest.load(Ordering::Acquire);
        let mut removed = None;
        let Self { db, letters, shared, .. } = self;
        let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for (event, fingerprint) in events {
            insert(&transaction, event, fingerprint)?;
        }
        if let Some((last, _)) = events.last() {
            set_meta(&transaction, "head", to_i64(last.seq))?;
        }
        for changes in saves {
            if let Some(floor) = changes.idle_floor {
                set_meta(&transaction, "idle_floor", to_i64(floor))?;
            }
            for uid in &changes.forget_replays {
                replay::forget(&transaction, uid)?;
            }
            for lane in &changes.lanes {
                save_lane(&transaction, lane)?;
                if !lane.dead.is_empty() {
                    letters.bound(&transaction, &lane.lane, lane.dead.len(), &shared.letters_removed)?;
                }
            }
            if let Some(before) = changes.remove_before.filter(|before| before.0 > oldest) {
                removed = Some(begin_at(&transaction, oldest, before)?);
            }
        }
        transaction.commit()?;
        Ok(removed)
    }

    /// What was committed is witnessed, announced, and then answered.
    fn committed(
        &mut self,
        events: Vec<Numbered>,
        answers: Vec<Answer>,
        saves: Vec<Save>,
    ) -> Result<(), StoreError> {
        if let Some((last, _)) = events.last() {
            self.witness.write(last.seq).map_err(|error| self.failed(&error))?;
            let mut tail = self.shared.tail.lock().unwrap_or_else(PoisonError::into_inner);
            for (event, _) in &events {
                self.bytes += event.body.len() as u64;
                tail.push(Arc::clone(event));
            }
            drop(tail);
            self.shared.head.store(last.seq.0, Ordering::Release);
        }
        for (answer, appended) in answers {
            // A caller that is gone does not need the answer; the event is stored all the same.
            let _ = answer.send(Ok(appended));
        }
        for (_, answer) in saves {
            let _ = answer.send(Ok(()));
        }
        for (event, _) in events {
            // Without a subscriber there is nobody to tell: the log keeps the event.
            let _ = self.announce.blocking_send(event);
        }
        Ok(())
    }

    fn free_bytes(&mut self) -> u64 {
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            self.shared.reusable_bytes.store(reusable_bytes(&self.db), Ordering::Relaxed);
            self.shared.look_at_space(&self.settings);
        }
        self.shared.free_bytes.load(Ordering::Relaxed)
    }

    fn no_space(&self, free_bytes: u64) -> AppendError {
        AppendError::NoSpace {
            path: self.settings.dir.clone(),
            free_bytes,
            min_free_bytes: self.settings.min_free_bytes,
        }
    }

    pub(crate) fn failed(&self, error: &dyn std::fmt::Display) -> StoreError {
        let path: PathBuf = self.settings.dir.join(crate::sqlite::DATABASE);
        StoreError::Failed { path, reason: error.to_string() }
    }
}

// === impl Group ===

impl Group {
    /// The first command and all that waits behind it, within bounds.
    fn gather(first: Command, commands: &Commands) -> Self {
        let mut group = Self::default();
        let (mut next, mut bytes, mut count) = (Some(first), 0, 0);
        while let Some(command) = next {
            count += 1;
            match command {
                Command::Append(event, answer) => {
                    bytes += event.body.len();
                    group.appends.push((event, answer));
                }
                Command::Save(changes, answer) => group.saves.push((changes, answer)),
                Command::Close(answer) => {
                    group.close = Some(answer);
                    return group;
                }
            }
            next =
                if count < GROUP_COMMANDS && bytes < GROUP_BYTES { commands.try_recv().ok() } else { None };
        }
        group
    }
}

/// Settings of the writer's connection.
pub(crate) fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "cache_size", -2048)?;
    db.pragma_update(None, "mmap_size", 0)
}

/// The database file does not become smaller: what retention removed is written over.
pub(crate) fn reusable_bytes(db: &Connection) -> u64 {
    let number = |pragma| db.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0)).unwrap_or(0);
    number("freelist_count").saturating_mul(number("page_size"))
}

fn save_lane(db: &Connection, change: &LaneChange) -> rusqlite::Result<()> {
    let LaneChange { lane, cursor, put, remove, revived, dead, replays } = change;
    // Replays belong to no lane.
    replays.iter().try_for_each(|progress| replay::save(db, progress))?;
    let Some(cursor) = cursor else {
        for table in ["lane", "retry", "dead"] {
            db.execute(&format!("DELETE FROM {table} WHERE lane = ?1"), [lane])?;
        }
        return Ok(());
    };
    save_cursor(db, lane, cursor)?;
    for row in put {
        save_row(db, lane, row)?;
    }
    // Before what is given up: an event may have been put in line again and given up once more since.
    for seq in revived {
        db.prepare_cached("DELETE FROM dead WHERE lane = ?1 AND seq = ?2")?
            .execute(params![lane, to_i64(*seq)])?;
    }
    for letter in dead {
        save_dead_letter(db, lane, letter)?;
    }
    for seq in remove.iter().chain(dead.iter().map(|letter| &letter.seq)) {
        db.prepare_cached("DELETE FROM retry WHERE lane = ?1 AND seq = ?2")?
            .execute(params![lane, to_i64(*seq)])?;
    }
    Ok(())
}

fn save_cursor(db: &Connection, lane: &str, cursor: &Cursor) -> rusqlite::Result<()> {
    let Cursor { uid, floor, settled, idle, state } = cursor;
    let settled = serde_json::to_string(settled).unwrap_or_else(|_| "[]".to_owned());
    db.prepare_cached("INSERT OR REPLACE INTO lane VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![lane, uid, to_i64(*floor), settled, idle, state])
        .map(|_| ())
}

fn save_row(db: &Connection, lane: &str, row: &RetryRow) -> rusqlite::Result<()> {
    let RetryRow { seq, attempts, first_attempt_ms, due_ms, key } = row;
    db.prepare_cached("INSERT OR REPLACE INTO retry VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![lane, to_i64(*seq), attempts, first_attempt_ms, due_ms, key.cast_signed()])
        .map(|_| ())
}

fn save_dead_letter(db: &Connection, lane: &str, letter: &DeadLetter) -> rusqlite::Result<()> {
    let DeadLetter { seq, name, attempts, at_ms, reason, status_code } = letter;
    db.prepare_cached("INSERT OR REPLACE INTO dead VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![lane, to_i64(*seq), name, attempts, at_ms, reason, status_code])
        .map(|_| ())
}

pub(crate) fn set_meta(db: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![key, value]).map(|_| ())
}

/// Whether there is no room: in a file, or for the write-ahead log's index.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    let extended = error.sqlite_error().map(|error| error.extended_code);
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}
