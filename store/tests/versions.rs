//! Contract 11: stores of earlier versions, as their own code left them ([fixtures](fixtures/README.md)),
//! and one of a later version.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use tidings_store::{
    Appended, Changes, Cursor, LaneChange, NewEvent, ReplayProgress, RetryRow, Seq, Settings, SqliteStore,
    Store, StoreError,
};

fn settings(dir: &Path) -> Settings {
    Settings { dir: dir.to_owned(), min_free_bytes: 0, ..Settings::default() }
}

/// A copy of a data folder, as a crash would leave it.
fn copy_of(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn kept(version: &str) -> TempDir {
    copy_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version))
}

/// Every file of a folder, to its last byte.
fn files(dir: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

fn version(dir: &Path) -> i32 {
    let db = rusqlite::Connection::open(dir.join("tidings.db")).unwrap();
    db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn event(number: u8) -> NewEvent {
    let body = Bytes::from(format!("body {number}"));
    NewEvent { name: "User.Created".into(), fingerprint: [number; 16], received_ms: 4_102_444_800_000, body }
}

fn progress(uid: &str) -> ReplayProgress {
    let (uid, position) = (uid.to_owned(), Seq(3));
    ReplayProgress { uid, position, matched: 3, replayed: 2, complete: false, oldest_available_ms: Some(77) }
}

/// Everything that lies in a kept store is there, and it takes more.
async fn goes_on(dir: &Path, replays: Vec<ReplayProgress>) {
    let store = SqliteStore::open(settings(dir)).unwrap();
    assert_eq!((store.oldest(), store.head()), (Seq(1), Seq(6)));
    let bodies: Vec<_> =
        store.read(Seq(0), 10, usize::MAX).unwrap().iter().map(|event| event.body.clone()).collect();
    assert_eq!(bodies, (1..=6).map(|number| Bytes::from(format!("body {number}"))).collect::<Vec<_>>());
    assert_eq!(store.append(event(6)).await.unwrap(), Appended::Duplicate, "it knows what it has");
    let lanes = store.lanes().unwrap();
    let state = r#"{"delivered":7,"deadLettered":1}"#.to_owned();
    let settled = vec![(Seq(4), Seq(5))];
    let cursor = Cursor { uid: "a".into(), floor: Seq(2), settled, idle: false, state };
    assert_eq!((&lanes[0].lane[..], &lanes[0].cursor), ("shop/busy", &cursor));
    let row = RetryRow { seq: Seq(2), attempts: 2, first_attempt_ms: 3, due_ms: 4, key: u64::MAX };
    assert_eq!((&lanes[0].rows, lanes[0].dead_letters), (&vec![row], 1));
    assert_eq!((&lanes[1].lane[..], lanes[1].cursor.floor), ("shop/idle", Seq(6)));
    assert_eq!(store.dead_letters("shop/busy", 10).unwrap()[0].reason, "HttpStatus");
    assert_eq!(store.replays().unwrap(), replays);
    assert_eq!(store.identity().len(), 16);
    assert_eq!(store.append(event(7)).await.unwrap(), Appended::New(Seq(7)));
    let change = LaneChange {
        lane: "shop/busy".into(),
        cursor: Some(cursor),
        replays: vec![progress("new")],
        ..LaneChange::default()
    };
    store.save(Changes { lanes: vec![change], ..Changes::default() }).await.unwrap();
    assert!(store.replays().unwrap().contains(&progress("new")));
    let identity = store.identity().to_owned();
    drop(store);
    let store = SqliteStore::open(settings(dir)).unwrap();
    assert_eq!((store.head(), store.identity()), (Seq(7), &identity[..]), "and stays what it became");
}

#[tokio::test]
async fn a_store_of_version_1_goes_on_with_everything_in_it() {
    let dir = kept("v1");
    assert_eq!(version(dir.path()), 1);
    goes_on(dir.path(), vec![]).await;
    assert_eq!(version(dir.path()), 3);
}

#[tokio::test]
async fn a_store_of_version_2_goes_on_with_everything_in_it() {
    let dir = kept("v2");
    assert_eq!(version(dir.path()), 2);
    goes_on(dir.path(), vec![progress("r")]).await;
    assert_eq!(version(dir.path()), 3);
}

#[tokio::test]
async fn a_store_that_an_earlier_sidecar_marked_as_its_own_again_goes_on() {
    let dir = kept("v2");
    drop(SqliteStore::open(settings(dir.path())).unwrap());
    let db = rusqlite::Connection::open(dir.path().join("tidings.db")).unwrap();
    db.pragma_update(None, "user_version", 2).unwrap();
    drop(db);
    goes_on(dir.path(), vec![progress("r")]).await;
}

#[tokio::test]
async fn a_version_1_store_whose_tables_were_made_in_part_is_completed() {
    let dir = kept("v1");
    let db = rusqlite::Connection::open(dir.path().join("tidings.db")).unwrap();
    db.execute_batch("DROP TABLE dead; DROP TABLE retry").unwrap();
    drop(db);
    let store = SqliteStore::open(settings(dir.path())).unwrap();
    assert_eq!(store.get(Seq(3)).unwrap().found().unwrap().body, "body 3");
    assert!(store.lanes().unwrap().iter().all(|lane| lane.rows.is_empty()));
}

/// Refused, with both versions and the fix in the error, and not a byte of the folder is another one.
fn is_refused_untouched(dir: &Path) {
    let before = files(dir);
    let error = SqliteStore::open(settings(dir)).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: 3, .. }), "{error}");
    let said = error.to_string();
    for word in ["version 99", "up to 3", "run the later tidings-sidecar", "restore"] {
        assert!(said.contains(word), "{said}");
    }
    let after = files(dir);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, bytes) in before {
        assert!(after[&name] == bytes, "{} was touched", name.display());
    }
}

const LATER: &str = "CREATE TABLE IF NOT EXISTS later (x); PRAGMA user_version = 99";

#[tokio::test]
async fn a_store_of_a_later_version_is_refused_untouched() {
    let dir = kept("v2");
    let store = SqliteStore::open(settings(dir.path())).unwrap();
    store.append(event(7)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let db = rusqlite::Connection::open(dir.path().join("tidings.db")).unwrap();
    db.execute_batch(LATER).unwrap();
    drop(db);
    is_refused_untouched(dir.path());
}

#[tokio::test]
async fn a_store_that_a_later_version_left_in_a_crash_is_refused_untouched() {
    let dir = kept("v2");
    let store = SqliteStore::open(settings(dir.path())).unwrap();
    store.append(event(7)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let db = rusqlite::Connection::open(dir.path().join("tidings.db")).unwrap();
    db.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    db.execute_batch(LATER).unwrap();
    // The version stands in the write-ahead log alone.
    let crashed = copy_of(dir.path());
    drop(db);
    assert_ne!(std::fs::read(crashed.path().join("tidings.db")).unwrap()[63], 99);
    is_refused_untouched(crashed.path());
    // The same on a node where the index of the log was lost.
    std::fs::remove_file(crashed.path().join("tidings.db-shm")).unwrap();
    is_refused_untouched(crashed.path());
}

#[test]
fn a_store_of_this_version_is_opened_without_a_write() {
    let dir = TempDir::new().unwrap();
    drop(SqliteStore::open(settings(dir.path())).unwrap());
    let before = std::fs::read(dir.path().join("tidings.db")).unwrap();
    drop(SqliteStore::open(settings(dir.path())).unwrap());
    assert!(std::fs::read(dir.path().join("tidings.db")).unwrap() == before);
    assert_eq!(version(dir.path()), 3);
}
