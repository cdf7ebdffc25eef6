//! A process that appends is killed, or runs into a write error: what it was told is stored is there.
//!
//! The test starts itself again as the process that is killed; [`appends_until_it_is_killed`] is its body.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tempfile::TempDir;
use tidings_store::{
    Appended, Changes, Cursor, DeadLetter, LaneChange, NewEvent, RetryRow, Seq, Settings, SqliteStore, Store,
};

const DIR: &str = "TIDINGS_TEST_KILLED_DIR";

/// One test at a time: a process that is being started holds each open file for a moment, the lock of
/// another test's store too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(dir: &Path) -> Settings {
    Settings { dir: dir.to_owned(), min_free_bytes: 0, ..Settings::default() }
}

fn body(number: u64) -> Bytes {
    Bytes::from(format!("{number}-").repeat(200))
}

fn event(number: u64) -> NewEvent {
    let mut fingerprint = [0; 16];
    fingerprint[..8].copy_from_slice(&number.to_le_bytes());
    NewEvent { name: "User.Created".into(), fingerprint, received_ms: i64::MAX / 2, body: body(number) }
}

/// Nothing by itself; started again with a folder, it appends and says each acknowledged place.
#[tokio::test]
async fn appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = SqliteStore::open(settings(Path::new(&dir))).unwrap();
    drop(store.subscribe());
    loop {
        let number = store.head().0 + 1;
        match store.append(event(number)).await {
            Ok(Appended::New(seq)) => println!("acknowledged {}", seq.0),
            Ok(Appended::Duplicate) => panic!("each is another one"),
            Err(error) => {
                println!("refused {error}");
                std::process::exit(3);
            }
        }
    }
}

/// How many events were given up before the replay that is killed.
const GIVEN_UP: u64 = 2000;

fn lane(change: LaneChange) -> Changes {
    let cursor = Cursor { uid: "a".into(), floor: Seq(GIVEN_UP), ..Cursor::default() };
    let change = LaneChange { lane: "shop/a".into(), cursor: Some(cursor), ..change };
    Changes { lanes: vec![change], ..Changes::default() }
}

/// The same of a replay: started again with a folder, it puts one dead letter after another in line.
#[tokio::test]
async fn replays_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = SqliteStore::open(settings(Path::new(&dir))).unwrap();
    let mut progress = store.replays().unwrap().pop().unwrap_or_default();
    progress.uid = "r".into();
    for seq in progress.position.0 + 1..=GIVEN_UP {
        (progress.position, progress.replayed) = (Seq(seq), progress.replayed + 1);
        let row = RetryRow { seq: Seq(seq), attempts: 0, first_attempt_ms: 0, due_ms: 1, key: 0 };
        let change = LaneChange {
            put: vec![row],
            revived: vec![Seq(seq)],
            replays: vec![progress.clone()],
            ..LaneChange::default()
        };
        store.save(lane(change)).await.unwrap();
        println!("acknowledged {seq}");
    }
}

/// Starts it again, and kills it after so many acknowledged appends; the last acknowledged place.
fn run_and_kill(command: &mut Command, dir: &Path, kill_after: Option<usize>) -> u64 {
    let mut child = command.env(DIR, dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut last, mut count) = (0, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, seq)) = line.split_once("acknowledged ") {
            (last, count) = (seq.parse().unwrap(), count + 1);
        }
        if kill_after.is_some_and(|after| count >= after) {
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    last
}

fn itself(body: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", body, "--nocapture"]);
    command
}

fn check(dir: &Path, acknowledged: u64) {
    let store = SqliteStore::open(settings(dir)).unwrap();
    assert!(store.head() >= Seq(acknowledged), "{:?} < {acknowledged}", store.head());
    let events = store.read(Seq(0), usize::try_from(i64::MAX).unwrap(), usize::MAX).unwrap();
    let places: Vec<_> = events.iter().map(|event| event.seq.0).collect();
    assert_eq!(places, (1..=store.head().0).collect::<Vec<_>>(), "no gap");
    assert!(events.iter().all(|event| event.body == body(event.seq.0)), "each body is whole");
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_again_and_again() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut acknowledged = 0;
    for after in [1, 2, 7, 40, 3, 111, 23, 260, 5, 70] {
        acknowledged =
            acknowledged.max(run_and_kill(&mut itself("appends_until_it_is_killed"), &data, Some(after)));
        check(&data, acknowledged);
    }
    assert!(acknowledged >= 500, "{acknowledged}");
}

#[test]
fn a_write_error_of_the_file_loses_nothing_acknowledged() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    // No file may grow beyond this: a write fails in the middle, as on a broken disk.
    let program = std::env::current_exe().unwrap();
    let mut limited = Command::new("sh");
    limited
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 2048; exec \"$0\" --exact appends_until_it_is_killed --nocapture",
        ])
        .arg(program);
    let acknowledged = run_and_kill(&mut limited, &data, None);
    assert!(acknowledged > 50, "{acknowledged} were acknowledged before the limit");
    check(&data, acknowledged);
    let more = run_and_kill(&mut itself("appends_until_it_is_killed"), &data, Some(20));
    assert!(more > acknowledged, "with room again it goes on");
    check(&data, more);
}

/// What a replay put in line, what it says of itself, and what is left of the dead letters agree.
fn check_replay(dir: &Path) {
    let store = SqliteStore::open(settings(dir)).unwrap();
    let progress = store.replays().unwrap().pop().unwrap_or_default();
    let saved = store.lanes().unwrap().pop().unwrap();
    let in_line: Vec<_> = saved.rows.iter().map(|row| row.seq.0).collect();
    assert_eq!(in_line, (1..=progress.position.0).collect::<Vec<_>>(), "a row for each event up to there");
    assert_eq!(progress.replayed, progress.position.0);
    assert_eq!(saved.dead_letters, GIVEN_UP - progress.position.0, "and no other has left");
}

#[test]
fn a_replay_and_what_it_put_in_line_survive_a_kill_together_or_not_at_all() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let letter = |seq| DeadLetter {
        seq: Seq(seq),
        name: "User.Created".into(),
        attempts: 9,
        at_ms: 1,
        reason: "Timeout".into(),
        status_code: None,
    };
    let store = SqliteStore::open(settings(&data)).unwrap();
    let dead = (1..=GIVEN_UP).map(letter).collect();
    runtime.block_on(store.save(lane(LaneChange { dead, ..LaneChange::default() }))).unwrap();
    runtime.block_on(store.close()).unwrap();
    drop(store);
    let mut reached = 0;
    for after in [1, 2, 7, 40, 3, 111, 23] {
        reached = reached.max(run_and_kill(&mut itself("replays_until_it_is_killed"), &data, Some(after)));
        check_replay(&data);
    }
    assert!(reached >= 187, "{reached}");
}
