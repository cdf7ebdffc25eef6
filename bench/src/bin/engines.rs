//! Our own trace on three embedded engines: group commit and a sync before each answer, a growing log,
//! a restart, and the head of a log of which the first half was removed.
//!
//! `cargo run --release -p tidings-bench --bin engines` runs each engine in a process of its own and
//! prints one table. What came of it: `docs/decisions/0001-embedded-engine.md`.

#![expect(clippy::cast_precision_loss, reason = "counts and sizes are far below 2^52")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use redb::{ReadableDatabase as _, ReadableTable as _};

/// Compares embedded engines on the store's trace.
#[derive(Debug, Parser)]
struct Arguments {
    /// One engine alone, and its row.
    #[arg(long)]
    engine: Option<Kind>,
    /// How many events the log holds in the end.
    #[arg(long, default_value_t = 500_000)]
    events: usize,
    /// How many producers wait for an answer at once.
    #[arg(long, default_value_t = 32)]
    producers: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Sqlite,
    Redb,
    Fjall,
}

/// The least that the log needs of an engine.
trait Engine: Send + Sized + 'static {
    /// Opens or makes it.
    fn open(dir: &Path) -> Self;
    /// Writes a batch, and returns when it is on stable storage.
    fn append(&mut self, first: u64, bodies: &[Arc<[u8]>]);
    /// Removes everything before a place.
    fn remove_before(&mut self, seq: u64);
    /// The first place that is there.
    fn first(&self) -> Option<u64>;
}

struct Sqlite(rusqlite::Connection);
struct Redb(redb::Database);
struct Fjall(fjall::Database, fjall::Keyspace);

const EVENTS: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("event");

impl Engine for Sqlite {
    fn open(dir: &Path) -> Self {
        let db = rusqlite::Connection::open(dir.join("db")).expect("a database");
        db.pragma_update(None, "journal_mode", "WAL").expect("WAL");
        db.pragma_update(None, "synchronous", "FULL").expect("a pragma");
        db.pragma_update(None, "wal_autocheckpoint", 2048).expect("a pragma");
        db.execute_batch("CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")
            .expect("a table");
        Self(db)
    }

    fn append(&mut self, first: u64, bodies: &[Arc<[u8]>]) {
        let transaction = self.0.transaction().expect("a transaction");
        for (seq, body) in (first..).zip(bodies) {
            let mut insert =
                transaction.prepare_cached("INSERT INTO event VALUES (?1, ?2)").expect("a statement");
            insert.execute(rusqlite::params![seq.cast_signed(), &body[..]]).expect("an insert");
        }
        transaction.commit().expect("a commit");
    }

    fn remove_before(&mut self, seq: u64) {
        // A little at a time, as the store does it.
        for upto in (1000..=seq).step_by(1000) {
            self.0.execute("DELETE FROM event WHERE seq < ?1", [upto.cast_signed()]).expect("a removal");
        }
    }

    fn first(&self) -> Option<u64> {
        let mut query =
            self.0.prepare_cached("SELECT seq FROM event ORDER BY seq LIMIT 1").expect("a statement");
        query.query_row([], |row| row.get::<_, i64>(0)).ok().map(i64::cast_unsigned)
    }
}

impl Engine for Redb {
    fn open(dir: &Path) -> Self {
        Self(redb::Database::create(dir.join("db")).expect("a database"))
    }

    fn append(&mut self, first: u64, bodies: &[Arc<[u8]>]) {
        let transaction = self.0.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(EVENTS).expect("a table");
            for (seq, body) in (first..).zip(bodies) {
                table.insert(seq, &body[..]).expect("an insert");
            }
        }
        transaction.commit().expect("a commit");
    }

    fn remove_before(&mut self, seq: u64) {
        for from in (0..seq).step_by(1000) {
            let transaction = self.0.begin_write().expect("a transaction");
            {
                let mut table = transaction.open_table(EVENTS).expect("a table");
                for at in from..seq.min(from + 1000) {
                    table.remove(at).expect("a removal");
                }
            }
            transaction.commit().expect("a commit");
        }
    }

    fn first(&self) -> Option<u64> {
        let table = self.0.begin_read().expect("a transaction").open_table(EVENTS).expect("a table");
        table.first().expect("a read").map(|(seq, _)| seq.value())
    }
}

impl Engine for Fjall {
    fn open(dir: &Path) -> Self {
        let db = fjall::Database::builder(dir).open().expect("a database");
        let events = db.keyspace("event", fjall::KeyspaceCreateOptions::default).expect("a keyspace");
        Self(db, events)
    }

    fn append(&mut self, first: u64, bodies: &[Arc<[u8]>]) {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::SyncData));
        for (seq, body) in (first..).zip(bodies) {
            batch.insert(&self.1, seq.to_be_bytes(), &body[..]);
        }
        batch.commit().expect("a commit");
    }

    fn remove_before(&mut self, seq: u64) {
        for from in (0..seq).step_by(1000) {
            let mut batch = self.0.batch().durability(Some(fjall::PersistMode::SyncData));
            (from..seq.min(from + 1000)).for_each(|at| batch.remove(&self.1, at.to_be_bytes()));
            batch.commit().expect("a commit");
        }
    }

    fn first(&self) -> Option<u64> {
        let (key, _) = self.1.first_key_value()?.into_inner().expect("a read");
        Some(u64::from_be_bytes(key[..].try_into().expect("eight bytes")))
    }
}

/// One event to be written, and whom to tell.
type Asked = (Arc<[u8]>, Sender<()>);

/// One engine's figures.
struct Figures {
    rate: f64,
    p50: Duration,
    p99: Duration,
    full: f64,
    reopen: Duration,
    rss: f64,
    disk: f64,
    head: Duration,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(kind) = arguments.engine {
        let figures = match kind {
            Kind::Sqlite => measure::<Sqlite>(&arguments),
            Kind::Redb => measure::<Redb>(&arguments),
            Kind::Fjall => measure::<Fjall>(&arguments),
        };
        print(kind, &figures);
        return;
    }
    println!(
        "{:<8} {:>10} {:>9} {:>9} {:>10} {:>11} {:>9} {:>10} {:>12}",
        "engine", "events/s", "p50", "p99", "full log/s", "reopen", "RSS", "disk", "pruned head"
    );
    for kind in ["sqlite", "redb", "fjall"] {
        let program = std::env::current_exe().expect("a path");
        let (events, producers) = (arguments.events.to_string(), arguments.producers.to_string());
        let arguments = ["--engine", kind, "--events", &events, "--producers", &producers];
        let status = std::process::Command::new(program).args(arguments).status().expect("it runs");
        assert!(status.success(), "{kind}");
    }
}

fn print(kind: Kind, figures: &Figures) {
    let Figures { rate, p50, p99, full, reopen, rss, disk, head } = figures;
    let name = format!("{kind:?}").to_lowercase();
    let millis = |time: &Duration| time.as_secs_f64() * 1e3;
    println!(
        "{name:<8} {rate:>10.0} {:>6.2} ms {:>6.2} ms {full:>10.0} {:>8.1} ms {rss:>5.0} MiB {disk:>6.0} MiB {:>9.3} ms",
        millis(p50),
        millis(p99),
        millis(reopen),
        millis(head)
    );
}

fn measure<E: Engine>(arguments: &Arguments) -> Figures {
    std::fs::create_dir_all("target/bench").expect("a folder");
    let dir = tempfile::TempDir::new_in("target/bench").expect("a folder");
    let (ask, asked) = channel();
    let engine = E::open(dir.path());
    let writer = std::thread::spawn(move || write(engine, &asked));
    let first = (arguments.events / 10).min(100_000);
    let rate = flood(&ask, first, arguments.producers);
    let (p50, p99) = paced(&ask);
    flood(&ask, arguments.events.saturating_sub(2 * first), arguments.producers);
    let full = flood(&ask, first, arguments.producers);
    drop(ask);
    drop(writer.join().expect("the writer ends"));
    let began = Instant::now();
    let mut engine = E::open(dir.path());
    assert_eq!(engine.first(), Some(1));
    let reopen = began.elapsed();
    let (rss, disk) = (rss(), size_of(dir.path()));
    engine.remove_before(arguments.events as u64 / 2);
    let began = Instant::now();
    assert!(engine.first().is_some());
    Figures { rate, p50, p99, full, reopen, rss, disk, head: began.elapsed() }
}

/// Takes everything that waits, writes it at once, and answers: as the store's writer does.
fn write<E: Engine>(mut engine: E, asked: &Receiver<Asked>) -> E {
    let mut next = 1;
    while let Ok(first) = asked.recv() {
        let group: Vec<_> = std::iter::once(first).chain(asked.try_iter().take(511)).collect();
        let (bodies, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        engine.append(next, &bodies);
        next += bodies.len() as u64;
        for answer in answers {
            let _ = answer.send(());
        }
    }
    engine
}

/// Appends so many events, as fast as they are answered; events in a second.
fn flood(ask: &Sender<Asked>, events: usize, producers: usize) -> f64 {
    let left = Arc::new(AtomicUsize::new(events));
    let body: Arc<[u8]> = vec![b'x'; 1024].into();
    let began = Instant::now();
    let threads: Vec<_> = (0..producers)
        .map(|_| {
            let (ask, left, body) = (ask.clone(), Arc::clone(&left), Arc::clone(&body));
            std::thread::spawn(move || {
                let (answer, answered) = channel();
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    ask.send((Arc::clone(&body), answer.clone())).expect("a writer");
                    answered.recv().expect("an answer");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a producer ends");
    }
    events as f64 / began.elapsed().as_secs_f64()
}

/// The latency of an append at 200 in a second.
fn paced(ask: &Sender<Asked>) -> (Duration, Duration) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let (tick, ticks) = sync_channel::<()>(0);
    let body: Arc<[u8]> = vec![b'x'; 1024].into();
    let began = Instant::now();
    for number in 1..=2000_u32 {
        let due = began + Duration::from_millis(5) * number;
        // Nobody sends: this waits until the time is there.
        let _ = ticks.recv_timeout(due.saturating_duration_since(Instant::now()));
        let (answer, answered) = channel();
        let sent = Instant::now();
        ask.send((Arc::clone(&body), answer)).expect("a writer");
        answered.recv().expect("an answer");
        times.lock().expect("no panic").push(sent.elapsed());
    }
    drop(tick);
    let mut times = times.lock().expect("no panic").clone();
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// The size of a folder, in MiB.
fn size_of(path: &Path) -> f64 {
    let entries = std::fs::read_dir(path).expect("a folder").flatten();
    entries
        .map(|entry| {
            let metadata = entry.metadata().expect("metadata");
            if metadata.is_dir() {
                size_of(&entry.path())
            } else {
                metadata.len() as f64 / f64::from(1 << 20)
            }
        })
        .sum()
}
