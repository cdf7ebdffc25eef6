//! The store beside a model of it: a list and a map.
//!
//! In a program of its own: a process that is being started holds each open file for a moment, the lock
//! too, and so a store could not be opened again beside tests that start processes.

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tidings_store::{Appended, Changes, Cursor, LaneChange, NewEvent, Seq, Settings, SqliteStore, Store};

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

/// What a caller does with a store.
#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Save { lane: u8, floor: u8 },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        4 => any::<u8>().prop_map(Step::Append),
        2 => (0_u8..4, any::<u8>()).prop_map(|(lane, floor)| Step::Save { lane, floor }),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn it_does_what_a_list_and_a_map_would_do(script in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = TempDir::new().unwrap();
        let mut store = SqliteStore::open(settings(dir.path())).unwrap();
        let (mut log, mut floors) = (Vec::<u8>::new(), std::collections::BTreeMap::new());
        for step in script {
            match step {
                Step::Append(number) => {
                    let appended = runtime.block_on(store.append(event(u64::from(number)))).unwrap();
                    if log.contains(&number) {
                        prop_assert_eq!(appended, Appended::Duplicate);
                    } else {
                        log.push(number);
                        prop_assert_eq!(appended, Appended::New(Seq(log.len() as u64)));
                    }
                }
                Step::Save { lane, floor } => {
                    let cursor = Cursor { floor: Seq(floor.into()), ..Cursor::default() };
                    let lane = format!("shop/{lane}");
                    let change = LaneChange { lane: lane.clone(), cursor: Some(cursor), ..LaneChange::default() };
                    runtime.block_on(store.save(Changes { lanes: vec![change], ..Changes::default() })).unwrap();
                    floors.insert(lane, Seq(floor.into()));
                }
                Step::Reopen => {
                    drop(store);
                    store = SqliteStore::open(settings(dir.path())).unwrap();
                }
            }
        }
        let stored: Vec<_> = store.read(Seq(0), 1000, usize::MAX).unwrap().iter().map(|event| event.body.clone()).collect();
        prop_assert_eq!(stored, log.iter().map(|number| body(u64::from(*number))).collect::<Vec<_>>());
        let saved: Vec<_> = store.lanes().unwrap().into_iter().map(|saved| (saved.lane, saved.cursor.floor)).collect();
        prop_assert_eq!(saved, floors.into_iter().collect::<Vec<_>>());
    }
}
