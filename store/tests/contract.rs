//! The contract at the head of the crate, point by point, on real files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidings_store::{
    AppendError, Appended, Changes, Cursor, DeadLetter, EventHead, LaneChange, Lookup, MAX_DEAD_LETTERS,
    NewEvent, ReplayProgress, RetryRow, Seq, Settings, SqliteStore, Store, StoreError,
};

fn settings(dir: &TempDir) -> Settings {
    Settings { dir: dir.path().join("data"), min_free_bytes: 0, ..Settings::default() }
}

fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis())
        .unwrap()
}

fn event(number: u64) -> NewEvent {
    let mut fingerprint = [0; 16];
    fingerprint[..8].copy_from_slice(&number.to_le_bytes());
    let body = Bytes::from(format!("body {number}"));
    NewEvent { name: "User.Created".into(), fingerprint, received_ms: now_ms(), body }
}

async fn append(store: &SqliteStore, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        assert_eq!(store.append(event(number)).await.unwrap(), Appended::New(Seq(number)));
    }
}

fn lane(name: &str, cursor: Cursor) -> LaneChange {
    LaneChange { lane: name.to_owned(), cursor: Some(cursor), ..LaneChange::default() }
}

fn cursor(uid: &str, floor: u64) -> Cursor {
    Cursor { uid: uid.to_owned(), floor: Seq(floor), state: "{}".to_owned(), ..Cursor::default() }
}

fn row(seq: u64) -> RetryRow {
    RetryRow { seq: Seq(seq), attempts: 2, first_attempt_ms: 3, due_ms: 4, key: u64::MAX }
}

#[tokio::test]
async fn appended_events_are_there_after_the_store_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=300).await;
    drop(store);
    let store = SqliteStore::open(settings(&dir)).unwrap();
    assert_eq!((store.oldest(), store.head()), (Seq(1), Seq(300)));
    let all = store.read(Seq(0), 1000, usize::MAX).unwrap();
    assert_eq!(all.len(), 300);
    assert!(
        all.iter()
            .zip(1..)
            .all(|(event, number)| event.body == format!("body {number}").as_bytes()
                && event.seq == Seq(number))
    );
    assert_eq!(store.get(Seq(7)).unwrap().found().unwrap().id, all[6].id, "an id stays");
    append(&store, 301..=301).await;
}

#[tokio::test]
async fn waiting_appends_are_numbered_without_a_gap_and_announced_in_order() {
    let dir = TempDir::new().unwrap();
    let store = std::sync::Arc::new(SqliteStore::open(settings(&dir)).unwrap());
    let mut events = store.subscribe().unwrap();
    assert!(store.subscribe().is_none(), "there is one subscription");
    let appends = (1..=500_u64).map(|number| {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move { store.append(event(number)).await.unwrap() })
    });
    let mut given = Vec::new();
    for append in appends.collect::<Vec<_>>() {
        let Appended::New(seq) = append.await.unwrap() else { panic!("new") };
        given.push(seq.0);
    }
    given.sort_unstable();
    assert_eq!(given, (1..=500).collect::<Vec<_>>());
    for seq in 1..=500 {
        assert_eq!(events.recv().await.unwrap().seq, Seq(seq));
    }
}

#[tokio::test]
async fn an_announced_event_is_on_disk_already() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    let mut events = store.subscribe().unwrap();
    append(&store, 1..=1).await;
    let announced = events.recv().await.unwrap();
    // Another reader of the same files sees it.
    let copy = copy_of(&dir);
    let other = SqliteStore::open(settings(&copy)).unwrap();
    assert_eq!(other.get(announced.seq).unwrap().found().unwrap().body, announced.body);
}

#[tokio::test]
async fn the_same_event_is_stored_once_within_the_window_also_over_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=1).await;
    assert_eq!(store.append(event(1)).await.unwrap(), Appended::Duplicate);
    drop(store);
    let store = SqliteStore::open(settings(&dir)).unwrap();
    assert_eq!(store.append(event(1)).await.unwrap(), Appended::Duplicate);
    let later = NewEvent { received_ms: now_ms() + 301_000, ..event(1) };
    assert_eq!(
        store.append(later).await.unwrap(),
        Appended::New(Seq(2)),
        "beyond the window it is another one"
    );
}

#[tokio::test]
async fn what_lanes_save_comes_back_whole() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=9).await;
    let busy = Cursor { settled: vec![(Seq(3), Seq(4)), (Seq(7), Seq(9))], ..cursor("a", 1) };
    let letter = DeadLetter {
        seq: Seq(5),
        name: "User.Created".into(),
        attempts: 9,
        at_ms: 8,
        reason: "HttpStatus".into(),
        status_code: Some(400),
    };
    let mut change = lane("shop/busy", busy.clone());
    (change.put, change.dead) = (vec![row(2), row(5), row(6)], vec![letter.clone()]);
    let idle = lane("shop/idle", Cursor { idle: true, ..cursor("b", 2) });
    store
        .save(Changes { idle_floor: Some(Seq(9)), lanes: vec![change, idle], ..Changes::default() })
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(settings(&dir)).unwrap();
    let saved = store.lanes().unwrap();
    assert_eq!(saved[0].cursor, busy);
    assert_eq!(
        (saved[0].rows.clone(), saved[0].dead_letters),
        (vec![row(2), row(6)], 1),
        "a dead letter has no row"
    );
    assert_eq!(store.dead_letters("shop/busy", 10).unwrap(), [letter]);
    assert_eq!(saved[1].cursor.floor, Seq(9), "an idle lane stands at the idle floor");
    let mut settled = lane("shop/busy", cursor("a", 9));
    settled.remove = vec![Seq(2)];
    store.save(Changes { lanes: vec![settled], ..Changes::default() }).await.unwrap();
    assert_eq!(store.lanes().unwrap()[0].rows, [row(6)]);
    store
        .save(Changes {
            lanes: vec![LaneChange { lane: "shop/busy".into(), ..LaneChange::default() }],
            ..Changes::default()
        })
        .await
        .unwrap();
    assert_eq!(store.lanes().unwrap().len(), 1);
    assert!(store.dead_letters("shop/busy", 10).unwrap().is_empty());
}

fn letter(seq: u64) -> DeadLetter {
    let (name, reason) = ("User.Created".to_owned(), "Timeout".to_owned());
    DeadLetter { seq: Seq(seq), name, attempts: 9, at_ms: 8, reason, status_code: None }
}

fn progress(uid: &str, position: u64) -> ReplayProgress {
    let (uid, position) = (uid.to_owned(), Seq(position));
    ReplayProgress { uid, position, matched: 3, replayed: 2, complete: false, oldest_available_ms: Some(77) }
}

async fn save_lanes(store: &SqliteStore, lanes: Vec<LaneChange>) {
    store.save(Changes { lanes, ..Changes::default() }).await.unwrap();
}

#[tokio::test]
async fn a_replay_is_saved_with_its_rows_and_with_the_dead_letters_that_leave() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=9).await;
    let mut given_up = lane("shop/a", cursor("a", 9));
    given_up.dead = vec![letter(2), letter(5), letter(8)];
    let mut other = lane("shop/b", cursor("b", 9));
    other.dead = vec![letter(5)];
    save_lanes(&store, vec![given_up, other]).await;
    let between = |after, upto| store.dead_between("shop/a", Seq(after), Seq(upto)).unwrap();
    assert_eq!(between(2, 8), [Seq(5), Seq(8)].into(), "above the first, up to the second");
    // 2 and 5 are put in line, below the floor, and 5 is given up once more before it is saved.
    let mut replayed = lane("shop/a", cursor("a", 9));
    (replayed.put, replayed.revived) = (vec![row(2)], vec![Seq(2), Seq(5)]);
    replayed.dead = vec![DeadLetter { attempts: 1, ..letter(5) }];
    replayed.replays = vec![progress("r1", 5)];
    save_lanes(&store, vec![replayed]).await;
    drop(store);
    let store = SqliteStore::open(settings(&dir)).unwrap();
    assert_eq!(store.replays().unwrap(), [progress("r1", 5)]);
    let saved = &store.lanes().unwrap()[0];
    assert_eq!((saved.rows.clone(), saved.dead_letters), (vec![row(2)], 2));
    let left = store.dead_letters("shop/a", 10).unwrap();
    assert_eq!(left, [letter(8), DeadLetter { attempts: 1, ..letter(5) }]);
    assert_eq!(store.dead_letters("shop/b", 10).unwrap(), [letter(5)], "another lane keeps its own");
}

#[tokio::test]
async fn a_replay_is_kept_until_it_is_forgotten_also_without_its_lane() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    let mut change = lane("shop/a", cursor("a", 0));
    change.replays = vec![progress("r2", 1), progress("r1", 4)];
    save_lanes(&store, vec![change]).await;
    save_lanes(&store, vec![LaneChange { lane: "shop/a".into(), ..LaneChange::default() }]).await;
    assert!(store.lanes().unwrap().is_empty());
    assert_eq!(store.replays().unwrap(), [progress("r1", 4), progress("r2", 1)], "by UID");
    // Forgotten, and begun anew in the same save: what is said anew stands.
    let mut anew = lane("shop/a", cursor("a", 0));
    anew.replays = vec![progress("r2", 0)];
    let forget_replays = vec!["r1".to_owned(), "r2".to_owned()];
    store.save(Changes { forget_replays, lanes: vec![anew], ..Changes::default() }).await.unwrap();
    assert_eq!(store.replays().unwrap(), [progress("r2", 0)]);
}

#[tokio::test]
async fn under_the_free_space_guard_appends_are_refused_and_saves_go_on() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(Settings { min_free_bytes: u64::MAX, ..settings(&dir) }).unwrap();
    let refused = store.append(event(1)).await.unwrap_err();
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
    assert!(store.writable().is_err());
    assert!(refused.to_string().contains("--min-free-bytes"));
    store.save(Changes { lanes: vec![lane("shop/a", cursor("a", 0))], ..Changes::default() }).await.unwrap();
    assert_eq!(store.lanes().unwrap().len(), 1);
    drop(store);
    append(&SqliteStore::open(settings(&dir)).unwrap(), 1..=1).await;
}

/// Removes what is due until the log begins there.
async fn until_oldest(store: &SqliteStore, oldest: u64) {
    let began = std::time::Instant::now();
    while store.oldest() != Seq(oldest) {
        let remove_before = store.due_for_removal();
        if remove_before.is_some() {
            store.save(Changes { remove_before, ..Changes::default() }).await.unwrap();
        }
        let failed = tokio::time::timeout(Duration::from_millis(1), store.failed()).await;
        assert!(failed.is_err(), "{failed:?}");
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the log begins at {:?}, not at {oldest}",
            store.oldest()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn events_beyond_their_age_are_removed_from_the_head() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(Settings { max_age: Duration::from_hours(1), ..settings(&dir) }).unwrap();
    for number in 1..=5_u64 {
        let old = NewEvent { received_ms: now_ms() - 7_200_000, ..event(number) };
        store.append(old).await.unwrap();
    }
    append(&store, 6..=8).await;
    until_oldest(&store, 6).await;
    assert_eq!(store.get(Seq(5)).unwrap(), Lookup::Removed);
    assert_eq!(store.read(Seq(0), 10, usize::MAX).unwrap().len(), 3);
}

#[tokio::test]
async fn the_oldest_events_beyond_the_bytes_are_removed_and_a_log_that_is_empty_goes_on_counting() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(Settings { max_bytes: 12, ..settings(&dir) }).unwrap();
    append(&store, 1..=4).await;
    until_oldest(&store, 3).await;
    drop(store);
    let none = Settings { max_age: Duration::ZERO, ..settings(&dir) };
    let store = SqliteStore::open(none.clone()).unwrap();
    until_oldest(&store, 5).await;
    drop(store);
    let store = SqliteStore::open(settings(&dir)).unwrap();
    assert_eq!((store.oldest(), store.head()), (Seq(5), Seq(4)));
    append(&store, 5..=5).await;
}

#[tokio::test]
async fn what_is_due_stays_until_it_is_removed_and_goes_with_what_is_said_of_it() {
    let dir = TempDir::new().unwrap();
    let settings = Settings { max_bytes: 12, ..settings(&dir) };
    let store = SqliteStore::open(settings.clone()).unwrap();
    append(&store, 1..=5).await;
    let mut change = lane("shop/a", cursor("a", 3));
    change.dead = vec![letter(2), letter(5)];
    change.put = vec![row(1), row(4)];
    save_lanes(&store, vec![change]).await;
    while store.due_for_removal() != Some(Seq(4)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nobody counted, and so nothing goes, however often it is opened.
    drop(store);
    let store = SqliteStore::open(settings.clone()).unwrap();
    assert_eq!((store.oldest(), readable(&store)), (Seq(1), vec![1, 2, 3, 4, 5]));
    let lanes = vec![lane("shop/a", cursor("a", 4))];
    let changes = Changes { remove_before: Some(Seq(4)), lanes, ..Changes::default() };
    store.save(changes).await.unwrap();
    for store in
        [store, SqliteStore::open(Settings { dir: copy_of(&dir).keep().join("data"), ..settings }).unwrap()]
    {
        assert_eq!((store.oldest(), store.head(), store.due_for_removal()), (Seq(4), Seq(5), None));
        assert_eq!((readable(&store), scanned(&store)), (vec![4, 5], vec![4, 5]));
        assert_eq!(store.get(Seq(3)).unwrap(), Lookup::Removed);
        let saved = &store.lanes().unwrap()[0];
        assert_eq!((saved.cursor.floor, saved.rows.clone()), (Seq(4), vec![row(1), row(4)]), "rows stay");
        assert_eq!(saved.dead_letters, 1, "dead letters go with their events");
        assert_eq!(store.dead_letters("shop/a", 10).unwrap(), [letter(5)]);
        assert_eq!(store.dead_between("shop/a", Seq(0), Seq(9)).unwrap(), [Seq(5)].into());
    }
}

#[tokio::test]
async fn a_lane_keeps_its_newest_dead_letters_and_no_more_than_its_share() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    let given_up = |name: &str, seqs: std::ops::RangeInclusive<u64>| {
        let mut change = lane(name, cursor(name, 0));
        change.dead = seqs.map(letter).collect();
        change
    };
    save_lanes(&store, vec![given_up("shop/quiet", 1..=50)]).await;
    for round in 0..25 {
        save_lanes(&store, vec![given_up("shop/loud", round * 1000 + 1..=(round + 1) * 1000)]).await;
    }
    let lanes = store.lanes().unwrap();
    let (loud, quiet) = (lanes[0].dead_letters, lanes[1].dead_letters);
    assert!((MAX_DEAD_LETTERS..=MAX_DEAD_LETTERS + MAX_DEAD_LETTERS / 10).contains(&loud), "{loud}");
    assert_eq!((quiet, store.dead_letters_removed()), (50, 25_000 - loud));
    assert_eq!(store.dead_letters("shop/loud", 1).unwrap(), [letter(25_000)], "the newest");
    // Another process goes on with what there is.
    drop(store);
    let store = SqliteStore::open(settings(&dir)).unwrap();
    save_lanes(&store, vec![given_up("shop/loud", 25_001..=27_000)]).await;
    assert!(store.lanes().unwrap()[0].dead_letters <= MAX_DEAD_LETTERS + MAX_DEAD_LETTERS / 10);
}

#[tokio::test]
async fn the_space_of_what_was_removed_is_taken_back() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(Settings { max_bytes: 1000, ..settings(&dir) }).unwrap();
    drop(store.subscribe());
    let mut change = lane("shop/a", cursor("a", 3));
    change.dead = (1..=3000).map(letter).collect();
    save_lanes(&store, vec![change]).await;
    append(&store, 1..=3000).await;
    until_oldest(&store, 3000 - 1000 / 9 + 1).await;
    let counted = |table: &str| {
        let db = rusqlite::Connection::open(dir.path().join("data").join("tidings.db")).unwrap();
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u64>(0)).unwrap()
    };
    for table in ["event", "body", "dead"] {
        let began = std::time::Instant::now();
        while counted(table) != 1000 / 9 {
            assert!(began.elapsed() < Duration::from_secs(20), "{table} has {} rows", counted(table));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The files as they are now: what a crash would leave.
fn copy_of(dir: &TempDir) -> TempDir {
    let copy = TempDir::new().unwrap();
    std::fs::create_dir(copy.path().join("data")).unwrap();
    for entry in std::fs::read_dir(dir.path().join("data")).unwrap().flatten() {
        std::fs::copy(entry.path(), copy.path().join("data").join(entry.file_name())).unwrap();
    }
    copy
}

fn damage(dir: &TempDir, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.path().join("data").join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
}

fn open_damaged(dir: &TempDir) -> StoreError {
    SqliteStore::open(settings(dir)).expect_err("the damage is seen")
}

/// A store that was closed in order: everything stands in the database's file.
async fn closed_store(events: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    drop(store.subscribe());
    append(&store, 1..=events).await;
    store.close().await.unwrap();
    dir
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_said_to_be_damaged_by_name_and_never_reuses_a_place() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=50).await;
    let crashed = copy_of(&dir);
    damage(&crashed, "tidings.db-wal", |wal| wal.truncate(wal.len() * 2 / 3));
    let error = open_damaged(&crashed);
    let StoreError::Damaged { path, way_out, .. } = &error else { panic!("{error}") };
    assert!(path.ends_with("tidings.db-wal") && way_out.contains("--accept-data-loss"), "{error}");
    let store = SqliteStore::open(Settings { accept_data_loss: true, ..settings(&crashed) }).unwrap();
    assert_eq!(store.append(event(51)).await.unwrap(), Appended::New(Seq(51)));
}

#[tokio::test]
async fn a_loss_that_was_accepted_once_is_not_asked_for_again_and_no_place_is_used_twice() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=50).await;
    let crashed = copy_of(&dir);
    damage(&crashed, "tidings.db-wal", |wal| wal.truncate(wal.len() * 2 / 3));
    let accepting = SqliteStore::open(Settings { accept_data_loss: true, ..settings(&crashed) }).unwrap();
    assert!(accepting.subscribe().is_some());
    accepting.close().await.unwrap();
    drop(accepting);
    let store = SqliteStore::open(settings(&crashed)).unwrap();
    assert_eq!(store.append(event(51)).await.unwrap(), Appended::New(Seq(51)));
}

#[tokio::test]
async fn a_flipped_byte_of_the_write_ahead_log_is_not_passed_over() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=50).await;
    let crashed = copy_of(&dir);
    damage(&crashed, "tidings.db-wal", |wal| {
        let middle = wal.len() / 2;
        wal[middle] ^= 1;
    });
    assert!(matches!(open_damaged(&crashed), StoreError::Damaged { .. }));
}

#[tokio::test]
async fn a_database_that_was_cut_or_overwritten_is_said_to_be_damaged_by_name() {
    let cut = closed_store(2000).await;
    damage(&cut, "tidings.db", |bytes| bytes.truncate(bytes.len() / 2));
    let header = closed_store(10).await;
    damage(&header, "tidings.db", |bytes| bytes[..100].fill(0xff));
    for dir in [cut, header] {
        let error = open_damaged(&dir);
        assert!(
            matches!(&error, StoreError::Damaged { path, .. } if path.ends_with("tidings.db")),
            "{error}"
        );
        assert!(error.to_string().contains("Restore the data folder from a backup"), "{error}");
    }
}

/// The places that a reader of the whole log gets.
fn readable(store: &SqliteStore) -> Vec<u64> {
    store.read(Seq(0), usize::MAX >> 1, usize::MAX).unwrap().iter().map(|event| event.seq.0).collect()
}

/// The heads of the log, those without a name as 0.
fn scanned(store: &SqliteStore) -> Vec<u64> {
    let mut places = Vec::new();
    let mut each = |head: EventHead| places.push(head.name.map_or(0, |_| head.seq.0));
    store.scan(Seq(0), store.head(), &mut each).unwrap();
    places
}

fn find(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).position(|window| window == text).expect("the text")
}

#[tokio::test]
async fn a_flipped_byte_of_a_body_costs_that_event_alone() {
    let dir = closed_store(1000).await;
    // In the middle, the first and the last one.
    for body in ["body 500", "body 1", "body 1000"] {
        damage(&dir, "tidings.db", |bytes| {
            let ends = |at: usize| bytes.get(at + body.len()).is_none_or(|next| !next.is_ascii_digit());
            let at = (0..bytes.len()).find(|at| bytes[*at..].starts_with(body.as_bytes()) && ends(*at));
            bytes[at.expect("the body")] ^= 1;
        });
    }
    let store = SqliteStore::open(settings(&dir)).unwrap();
    let name = Some("User.Created".into());
    for seq in [1, 500, 1000, 500] {
        assert_eq!(store.get(Seq(seq)).unwrap(), Lookup::Damaged { name: name.clone() }, "{seq}");
    }
    assert_eq!(store.damaged_events(), 3, "each counts once");
    let others: Vec<u64> = (2..1000).filter(|seq| *seq != 500).collect();
    assert_eq!(readable(&store), others);
    assert_eq!(scanned(&store), (1..=1000).collect::<Vec<_>>(), "their heads are whole");
    append(&store, 1001..=1001).await;
}

#[tokio::test]
async fn a_head_that_is_damaged_is_given_without_a_name_and_never_under_another_one() {
    let dir = closed_store(20).await;
    let mut flipped = Vec::new();
    damage(&dir, "tidings.db", |bytes| {
        let places: Vec<_> =
            (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"User.Created")).collect();
        assert_eq!(places.len(), 20);
        // One to another letter, one to what is no text.
        (bytes[places[4] + 2], bytes[places[11] + 2]) = (b'f', 0xff);
    });
    let store = SqliteStore::open(settings(&dir)).unwrap();
    for (seq, place) in (1..).zip(scanned(&store)) {
        if place == 0 {
            flipped.push(seq);
        }
    }
    assert_eq!(flipped.len(), 2);
    for seq in &flipped {
        assert_eq!(store.get(Seq(*seq)).unwrap(), Lookup::Damaged { name: None });
    }
    assert_eq!(readable(&store).len(), 18);
}

/// Makes the page of the database that holds this text one that is none.
fn damage_page(dir: &TempDir, text: &str) {
    damage(dir, "tidings.db", |bytes| {
        let page = find(bytes, text.as_bytes()) / 4096 * 4096;
        bytes[page..page + 8].fill(0xee);
    });
}

#[tokio::test]
async fn a_damaged_page_of_bodies_costs_those_events_alone_and_retention_passes_it() {
    let dir = closed_store(2000).await;
    damage_page(&dir, "body 500");
    let store = SqliteStore::open(settings(&dir)).unwrap();
    assert_eq!(store.get(Seq(500)).unwrap(), Lookup::Damaged { name: Some("User.Created".into()) });
    let lost = 2000 - readable(&store).len();
    assert!((1..=300).contains(&lost), "{lost} events were on that page");
    assert_eq!(store.damaged_events(), lost as u64);
    append(&store, 2001..=2001).await;
    drop(store);
    let store = SqliteStore::open(Settings { max_age: Duration::ZERO, ..settings(&dir) }).unwrap();
    until_oldest(&store, 2002).await;
    append(&store, 2002..=2002).await;
}

#[tokio::test]
async fn a_damaged_page_that_leads_to_events_is_said_to_be_damage() {
    let dir = closed_store(2000).await;
    damage_page(&dir, "User.Created");
    let error = open_damaged(&dir);
    assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with("tidings.db")), "{error}");
}

#[tokio::test]
async fn a_foreign_database_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let foreign = rusqlite::Connection::open(data.join("tidings.db")).unwrap();
    foreign.execute_batch("CREATE TABLE other (x)").unwrap();
    drop(foreign);
    let before = std::fs::read(data.join("tidings.db")).unwrap();
    let error = SqliteStore::open(settings(&dir)).unwrap_err();
    assert!(error.to_string().contains("not a Tidings store"), "{error}");
    assert_eq!(std::fs::read(data.join("tidings.db")).unwrap(), before);
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    let error = SqliteStore::open(settings(&dir)).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    drop(store);
    SqliteStore::open(settings(&dir)).unwrap();
}

#[tokio::test]
async fn a_closed_store_takes_nothing_more() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(settings(&dir)).unwrap();
    append(&store, 1..=1).await;
    store.close().await.unwrap();
    assert!(matches!(store.append(event(2)).await, Err(AppendError::Store(StoreError::Closed))));
}

#[test]
fn a_store_keeps_its_identity_and_shares_it_with_no_other() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let identity = SqliteStore::open(settings(&dir)).unwrap().identity().to_owned();
    assert_eq!(identity.len(), 16);
    assert!(identity.bytes().all(|byte| byte.is_ascii_hexdigit()), "{identity}");
    assert_eq!(SqliteStore::open(settings(&dir)).unwrap().identity(), identity);
    assert_ne!(SqliteStore::open(settings(&other)).unwrap().identity(), identity);
}
