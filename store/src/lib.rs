//! The store: a log of events and, per Webhook, a cursor over it.
//!
//! ```text
//! receive --append--> [group commit, one sync] --subscribe--> dispatch --> lanes --save--> cursors
//! ```
//!
//! # Contract
//! What every engine behind [`Store`] promises; the conformance suite checks each line.
//!
//! 1. **Append.** When [`Store::append`] returns [`Appended::New`], the event is on stable storage.
//!    Appends that wait together share one sync. Sequence numbers rise by one and are never used twice.
//! 2. **Announce.** Each new event is sent to the subscriber once, in order, after it is durable and
//!    never before. The channel holds [`SUBSCRIPTION_BOUND`] events; a subscriber that does not keep
//!    up slows appends down, and loses nothing.
//! 3. **Once.** An event whose fingerprint was stored within the window ([`Settings::dedupe_window`])
//!    is not stored again: [`Appended::Duplicate`]. This holds across a restart.
//! 4. **Save.** One [`Changes`] is applied whole or not at all. It need not be durable at return; a
//!    crash may take back the latest ones, in order, never an earlier one without the later.
//! 5. **Refuse before full.** Under [`Settings::min_free_bytes`] of free space appends are refused
//!    with [`AppendError::NoSpace`]; they are taken again when space is back. Saves go on. Free is what
//!    the file system has, and no more than [`Settings::size_limit`] leaves.
//! 6. **End.** Any other write error is final: the store takes nothing more ([`StoreError::Failed`]),
//!    [`Store::failed`] resolves, and the process must end. What was acknowledged stays.
//! 7. **Retention.** Events older than [`Settings::max_age`], and the oldest ones beyond
//!    [`Settings::max_bytes`], are due for removal: [`Store::due_for_removal`] proposes a place, some at a
//!    time. They go when [`Changes::remove_before`] takes them, with what the same [`Changes`] says of them
//!    (4), and never by themselves: whoever removes them has counted who waited for them. Their dead
//!    letters go with them, rows stay. [`Store::oldest`] tells where the log begins.
//!    After a start at a time that is far from the newest event's, none is due for its age for an hour:
//!    the wall clock may be wrong. Removing needs space too: on a full disk it waits, and the store goes on.
//! 8. **Replays.** How far a replay came ([`LaneChange::replays`]), the rows that it put in line and the
//!    dead letters that left for them ([`LaneChange::revived`]) are of one [`Changes`], and so stand or
//!    fall together (4). A row may be written for any event of the log, also one that its cursor has
//!    settled. A replay's progress stays until it is forgotten ([`Changes::forget_replays`]); it belongs
//!    to no lane, and outlives the removal of one.
//! 9. **Damage.** A file that is damaged is an error at open, or at the read that meets it, that names
//!    the file and the way out. A log that ends before the last acknowledged event is damage.
//!    Damage of single events is none: [`Store::get`] answers [`Lookup::Damaged`], [`Store::scan`] gives
//!    their heads, [`Store::read`] passes over them, and [`Store::damaged_events`] counts them. The name in
//!    a head is that of the event or `None`, never another one.
//! 10. **Identity.** [`Store::identity`] is drawn when the store is made and stays as long as its data do,
//!     so that whoever adds up tallies of several stores knows which of them go on.
//! 11. **Versions.** A store of an earlier version is brought up to date at open, whole or not at all, and
//!     everything in it stays. One of a later version is refused ([`StoreError::Newer`]), and every file of
//!     the folder stays as it was.
//! 12. **Dead letters.** A lane keeps its newest [`MAX_DEAD_LETTERS`], as long as their events are there (7).
//!     [`Store::dead_letters_removed`] counts those beyond.

mod clock;
mod commits;
mod dead;
mod log;
mod migrate;
mod quarantine;
mod replay;
mod retention;
mod schema;
mod sqlite;
mod tail;
mod witness;
mod writer;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

pub use clock::{clock_jumps, now_ms, uptime, wall_ms};
pub use commits::CommitStats;
pub use replay::ReplayProgress;
pub use sqlite::SqliteStore;

/// How many events wait for the subscriber before appends wait.
pub const SUBSCRIPTION_BOUND: usize = 1024;

/// How many dead letters one lane keeps, and for a while a tenth more; the oldest go.
pub const MAX_DEAD_LETTERS: u64 = 10_000;

/// An event's place in the log; the first is 1, and 0 stands before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// An event as it was received.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its name, `PostSignIn`.
    pub name: Box<str>,
    /// By which the same event sent again is known.
    pub fingerprint: [u8; 16],
    /// When it was received, in milliseconds since 1970.
    pub received_ms: i64,
    /// The exact bytes.
    pub body: Bytes,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place.
    pub seq: Seq,
    /// Its id, the same for all Webhooks and for ever.
    pub id: Uuid,
    /// Its name.
    pub name: Box<str>,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: i64,
    /// The exact bytes.
    pub body: Bytes,
}

/// What became of an event that is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It is there.
    Found(Arc<Event>),
    /// Retention took it.
    Removed,
    /// It is there, and cannot be read.
    Damaged {
        /// Its name, where the head is whole.
        name: Option<Box<str>>,
    },
}

/// An event without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHead {
    /// Its place.
    pub seq: Seq,
    /// Its name; `None` where the head is damaged: then any Webhook may have selected the event.
    pub name: Option<Box<str>>,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: i64,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored, durably.
    New(Seq),
    /// The log holds it already.
    Duplicate,
}

/// Why an event was not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Less space is free than the guard keeps.
    #[error("only {free_bytes} bytes are free at {path}, {min_free_bytes} are kept: free some space, or lower --min-free-bytes", path = path.display())]
    NoSpace {
        /// The data folder.
        path: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What is kept.
        min_free_bytes: u64,
    },
    /// The store ended.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the store cannot go on, or cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A write or a read failed; nothing more is taken.
    #[error("the store at {path} failed: {reason}", path = path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// The engine's word.
        reason: String,
    },
    /// A file is damaged.
    #[error("the store's file {path} is damaged: {reason}. {way_out}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// What a person can do.
        way_out: String,
    },
    /// A later version wrote it; nothing was touched.
    #[error("the store {path} is of version {found}, this program knows versions up to {known}: run the later tidings-sidecar that wrote it, or restore the data folder from a backup of before its upgrade, or move the folder away to start with an empty log", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i32,
        /// The latest version that is known here.
        known: i32,
    },
    /// Another process has the folder.
    #[error("the data folder {path} is in use by another process: end that one, or name another folder with --data-dir", path = path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The disk has no room for what opening writes.
    #[error("the disk of {path} is full ({reason}): free space on it or enlarge the volume", path = path.display())]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// The folder or a file in it may not be read or written.
    #[error("{path} cannot be read and written ({reason}): give it to the user that the sidecar runs as (in a pod: securityContext.fsGroup), and mount the volume read-write", path = path.display())]
    Forbidden {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// How a store is kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder; made when absent.
    pub dir: PathBuf,
    /// How long events are kept.
    pub max_age: Duration,
    /// How many bytes of bodies are kept.
    pub max_bytes: u64,
    /// Under this much free space appends are refused.
    pub min_free_bytes: u64,
    /// How large the data folder may become, where the file system does not tell it: the kubelet evicts a
    /// pod whose emptyDir is larger than its `sizeLimit`, however much the disk below has free.
    pub size_limit: Option<u64>,
    /// How long an event that is sent again is known.
    pub dedupe_window: Duration,
    /// Open although the log ends before the last acknowledged event.
    pub accept_data_loss: bool,
}

/// One Webhook's cursor. What is at or below `floor`, or in `settled`, or has no row and is neither,
/// is told apart so: settled (or tried: then it has a [`RetryRow`]); settled; to be delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The Webhook's UID: another one under the same name starts anew.
    pub uid: String,
    /// Everything up to here is settled or has a row.
    pub floor: Seq,
    /// What is settled, or has a row, above the floor: inclusive ranges, ascending, disjoint.
    pub settled: Vec<(Seq, Seq)>,
    /// Nothing waited when this was saved: the cursor stands at [`Changes::idle_floor`] if that is higher.
    pub idle: bool,
    /// What is kept with it, as the lane's own JSON: tallies, circuit.
    pub state: String,
}

/// An event that must be tried again, or waits behind one of the same ordering key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRow {
    /// The event.
    pub seq: Seq,
    /// Attempts made; 0 where it waits behind another.
    pub attempts: u32,
    /// When the first was made, in milliseconds since 1970; 0 where none was.
    pub first_attempt_ms: i64,
    /// When the next is due, in milliseconds since 1970.
    pub due_ms: i64,
    /// The hash of its ordering key; 0 without one.
    pub key: u64,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event.
    pub seq: Seq,
    /// Its name.
    pub name: String,
    /// Attempts made.
    pub attempts: u32,
    /// When it was given up, in milliseconds since 1970.
    pub at_ms: i64,
    /// Why: a word such as `HttpStatus`, `Timeout`.
    pub reason: String,
    /// The last answer's status.
    pub status_code: Option<u16>,
}

/// What one lane changed; applied whole.
#[derive(Debug, Clone, Default)]
pub struct LaneChange {
    /// The Webhook, `namespace/name`.
    pub lane: String,
    /// Its cursor as it is now; `None` removes the lane with its rows and dead letters.
    pub cursor: Option<Cursor>,
    /// Rows to write.
    pub put: Vec<RetryRow>,
    /// Rows to remove.
    pub remove: Vec<Seq>,
    /// Dead letters that were put in line again: they are dead letters no more, unless `dead` says so anew.
    pub revived: Vec<Seq>,
    /// New dead letters; their rows are removed too.
    pub dead: Vec<DeadLetter>,
    /// How far the replays into this lane came, with the rows above; contract 8.
    pub replays: Vec<ReplayProgress>,
}

/// What is saved at once.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Idle cursors stand at least here.
    pub idle_floor: Option<Seq>,
    /// Events before this place are removed, in the same transaction; contract 7.
    pub remove_before: Option<Seq>,
    /// Replays to be forgotten, by UID; before what the lanes say of one of the same UID.
    pub forget_replays: Vec<String>,
    /// The lanes that changed.
    pub lanes: Vec<LaneChange>,
}

/// One lane as it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedLane {
    /// The Webhook, `namespace/name`.
    pub lane: String,
    /// Its cursor; an idle one has its floor raised to the idle floor already, and `settled` emptied then.
    pub cursor: Cursor,
    /// Its rows, by sequence number.
    pub rows: Vec<RetryRow>,
    /// How many dead letters it has.
    pub dead_letters: u64,
}

/// A log and cursors. The contract stands at the head of this crate.
///
/// `read`, `get`, `scan`, `lanes`, `dead_letters`, `dead_between` and `replays` block on the file: call
/// them off the async threads where that matters.
pub trait Store: Send + Sync + 'static {
    /// Stores an event; contract 1, 3, 5, 6.
    fn append(&self, event: NewEvent) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// Saves what lanes changed; contract 4.
    fn save(&self, changes: Changes) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes the one subscription; `None` when it is taken. It holds every event since the store was
    /// opened: who needs none of them drops it, else appends wait once [`SUBSCRIPTION_BOUND`] are held.
    fn subscribe(&self) -> Option<mpsc::Receiver<Arc<Event>>>;

    /// Up to `max_events` and about `max_bytes` of bodies (at least one event) with `seq > after`; damaged
    /// events are passed over.
    fn read(&self, after: Seq, max_events: usize, max_bytes: usize) -> Result<Vec<Arc<Event>>, StoreError>;

    /// One event.
    fn get(&self, seq: Seq) -> Result<Lookup, StoreError>;

    /// The heads with `after < seq <= upto`, in order.
    fn scan(&self, after: Seq, upto: Seq, each: &mut dyn FnMut(EventHead)) -> Result<(), StoreError>;

    /// The lanes as they were last saved.
    fn lanes(&self) -> Result<Vec<SavedLane>, StoreError>;

    /// A lane's newest dead letters.
    fn dead_letters(&self, lane: &str, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// The places of a lane's dead letters with `after < seq <= upto`.
    fn dead_between(&self, lane: &str, after: Seq, upto: Seq) -> Result<BTreeSet<Seq>, StoreError>;

    /// How far each replay came, as it was last saved, by UID.
    fn replays(&self) -> Result<Vec<ReplayProgress>, StoreError>;

    /// The store's name among others: 16 hex digits, drawn at random; contract 10.
    fn identity(&self) -> &str;

    /// The last event's place; durable.
    fn head(&self) -> Seq;

    /// The first event's place that retention left; one above the head when the log is empty.
    fn oldest(&self) -> Seq;

    /// Before this place everything is to be removed, as [`Settings`] say; `None` when nothing is due.
    /// Whoever counts what waits for those events asks, and removes them by [`Changes::remove_before`].
    fn due_for_removal(&self) -> Option<Seq>;

    /// Bytes free where the store lives, as last looked at.
    fn free_bytes(&self) -> u64;

    /// How its commits go. A disk that no longer answers is seen by one that runs on and on.
    fn commits(&self) -> CommitStats;

    /// The sizes of the database's file and of its write-ahead log, in bytes.
    fn file_bytes(&self) -> (u64, u64);

    /// Damaged events that were met since it was opened, each counted once; contract 9.
    fn damaged_events(&self) -> u64;

    /// Dead letters that were removed since it was opened, since their lanes had too many; contract 12.
    fn dead_letters_removed(&self) -> u64;

    /// Whether appends are taken now: `Err` tells why not.
    fn writable(&self) -> Result<(), AppendError>;

    /// Resolves when the store has failed for good.
    fn failed(&self) -> impl Future<Output = StoreError> + Send;

    /// Ends it: what waits is written and synced.
    fn close(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

// === impl Lookup ===

impl Lookup {
    /// The event, where it is there and whole.
    pub fn found(self) -> Option<Arc<Event>> {
        match self {
            Self::Found(event) => Some(event),
            Self::Removed | Self::Damaged { .. } => None,
        }
    }
}

// === impl StoreError ===

impl StoreError {
    /// One word for it, as a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "StoreFailed",
            Self::Damaged { .. } => "StoreDamaged",
            Self::Newer { .. } => "StoreNewer",
            Self::Locked { .. } => "StoreLocked",
            Self::Full { .. } => "StoreFull",
            Self::Forbidden { .. } => "StoreForbidden",
            Self::Closed => "StoreClosed",
        }
    }

    /// Whether opening may succeed later in the same process: another process ends, space is freed, a volume
    /// answers again. Files that a person must replace are not opened again meanwhile: a backup that is half
    /// copied can look whole.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Locked { .. } | Self::Full { .. } | Self::Forbidden { .. } => true,
            Self::Damaged { .. } | Self::Newer { .. } | Self::Closed => false,
        }
    }
}

// === impl AppendError ===

impl AppendError {
    /// One word for it, as a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSpace { .. } => "NoSpace",
            Self::Store(error) => error.reason(),
        }
    }
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("tidings-data"),
            max_age: Duration::from_hours(168),
            max_bytes: 4 << 30,
            min_free_bytes: 64 << 20,
            size_limit: None,
            dedupe_window: Duration::from_mins(5),
            accept_data_loss: false,
        }
    }
}
