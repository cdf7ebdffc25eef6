//! A process that appends is killed, or runs into a write error: what it was told is stored is there.
//!
//! The test starts itself again as the process that is killed; [`appends_until_it_is_killed`] is its body.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use tempfile::TempDir;
use tidings_store::{Appended, NewEvent, Seq, Settings, SqliteStore, Store};

const DIR: &str = "TIDINGS_TEST_KILLED_DIR";

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

fn itself() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "appends_until_it_is_killed", "--nocapture"]);
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
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut acknowledged = 0;
    for after in [1, 2, 7, 40, 3, 111, 23, 260, 5, 70] {
        acknowledged = acknowledged.max(run_and_kill(&mut itself(), &data, Some(after)));
        check(&data, acknowledged);
    }
    assert!(acknowledged >= 500, "{acknowledged}");
}

#[test]
fn a_write_error_of_the_file_loses_nothing_acknowledged() {
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
    let more = run_and_kill(&mut itself(), &data, Some(20));
    assert!(more > acknowledged, "with room again it goes on");
    check(&data, more);
}
