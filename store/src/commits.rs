//! How the writer's commits go: how many, how large, how long, and since when one is under way.
//!
//! In: the writer, around each commit. Out: numbers for metrics, and for who must know that a disk no longer
//! answers: a sync that hangs returns no error, and whoever waits for it waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The commits since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// How many there were.
    pub commits: u64,
    /// How many events they held together.
    pub events: u64,
    /// How long they took together, each with its sync.
    pub time: Duration,
    /// How long the one that is under way has taken by now.
    pub running: Option<Duration>,
}

/// The writer's own count.
#[derive(Debug)]
pub(crate) struct Commits {
    opened: Instant,
    /// Microseconds from `opened` to the begin of the one that is under way, and one; 0 while there is none.
    began: AtomicU64,
    count: AtomicU64,
    events: AtomicU64,
    micros: AtomicU64,
}

// === impl Commits ===

impl Default for Commits {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self { opened: Instant::now(), began: zero(), count: zero(), events: zero(), micros: zero() }
    }
}

impl Commits {
    /// Runs one commit of so many events.
    pub(crate) fn commit<T>(&self, events: usize, commit: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = self.watch(commit);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Runs other work at the files, which is seen when it hangs, and not counted.
    pub(crate) fn watch<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.began.store(began + 1, Ordering::Relaxed);
        let result = work();
        self.began.store(0, Ordering::Relaxed);
        result
    }

    pub(crate) fn stats(&self) -> CommitStats {
        let began = self.began.load(Ordering::Relaxed).checked_sub(1);
        CommitStats {
            commits: self.count.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            time: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
            running: began.map(|began| self.opened.elapsed().saturating_sub(Duration::from_micros(began))),
        }
    }
}
