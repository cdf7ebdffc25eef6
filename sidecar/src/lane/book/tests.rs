use std::collections::HashSet;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn event(seq: u64) -> Arc<Event> {
    Arc::new(Event {
        seq: Seq(seq),
        id: Uuid::from_u128(u128::from(seq)),
        name: "PostSignIn".into(),
        received_ms: 1,
        body: Bytes::from_static(b"{}"),
    })
}

fn row(due_ms: i64) -> Row {
    Row { attempts: 1, first_attempt_ms: 1, due_ms, key: 0, received_ms: 1 }
}

fn live(head: u64) -> Book {
    let mut book = Book::new("uid", Seq(head));
    book.go_live(Seq(head));
    book
}

#[test]
fn the_floor_stays_below_what_is_under_way_and_what_is_settled_above_it_is_kept() {
    let mut book = live(0);
    for seq in [2, 5, 9] {
        book.hand_over(&event(seq));
        book.take_ready(|_| 0);
    }
    book.settle(Seq(5), 0);
    let cursor = book.take_changes("a/b").unwrap().cursor.unwrap();
    assert_eq!(cursor.floor, Seq(1));
    assert_eq!(cursor.settled, [(Seq(3), Seq(8))]);
    assert!(!cursor.idle);
    book.settle(Seq(2), 0);
    book.settle(Seq(9), 0);
    let cursor = book.take_changes("a/b").unwrap().cursor.unwrap();
    assert_eq!((cursor.floor, cursor.settled, cursor.idle), (Seq(9), vec![], true));
}

#[test]
fn a_row_does_not_hold_the_floor_back_and_is_saved_with_it() {
    let mut book = live(0);
    book.hand_over(&event(1));
    book.take_ready(|_| 0);
    book.retry(Seq(1), row(77));
    let change = book.take_changes("a/b").unwrap();
    assert_eq!(change.cursor.unwrap().floor, Seq(1));
    assert_eq!(change.put, [RetryRow { seq: Seq(1), attempts: 1, first_attempt_ms: 1, due_ms: 77, key: 0 }]);
    assert_eq!(book.take_due(76), None);
    assert_eq!(book.take_due(77).unwrap().0, Seq(1));
    book.settle(Seq(1), 0);
    assert_eq!(book.take_changes("a/b").unwrap().remove, [Seq(1)]);
}

#[test]
fn events_of_one_key_go_one_after_another_and_others_pass() {
    let mut book = live(0);
    for seq in 1..=4 {
        book.hand_over(&event(seq));
    }
    let key_of = |event: &Event| if event.seq.0 == 3 { 8 } else { 7 };
    assert_eq!(book.take_ready(key_of).unwrap().unwrap().seq, Seq(1));
    assert!(book.take_ready(key_of).unwrap().is_none(), "2 waits behind 1");
    assert_eq!(book.take_ready(key_of).unwrap().unwrap().seq, Seq(3));
    assert!(book.take_ready(key_of).unwrap().is_none(), "4 waits behind 1");
    assert_eq!(book.take_due(i64::MAX), None);
    book.settle(Seq(1), 7);
    assert_eq!(book.take_due(i64::MAX).unwrap().0, Seq(2));
    assert_eq!(book.take_due(i64::MAX), None, "4 waits behind 2");
    book.settle(Seq(2), 7);
    assert_eq!(book.take_due(i64::MAX).unwrap().0, Seq(4));
}

#[test]
fn what_is_forgotten_from_the_queue_is_read_again() {
    let mut book = live(0);
    for seq in 1..=3 {
        book.hand_over(&event(seq));
    }
    book.take_ready(|_| 0);
    book.rewind();
    assert_eq!((book.position, book.live, book.pending()), (Seq(1), false, 3));
    book.take_read(Seq(1), vec![event(2), event(3)], Seq(3));
    assert_eq!(book.pending(), 3);
    book.go_live(Seq(3));
    assert!(book.live);
}

/// What a fuzzed lane does next.
#[derive(Debug, Clone)]
enum Step {
    Announce,
    Take,
    Settle(prop::sample::Index),
    Retry(prop::sample::Index),
    Due,
    Rewind,
    BeginReading,
    EndReading,
    Crash,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Announce),
        4 => Just(Step::Take),
        3 => any::<prop::sample::Index>().prop_map(Step::Settle),
        2 => any::<prop::sample::Index>().prop_map(Step::Retry),
        2 => Just(Step::Due),
        1 => Just(Step::Rewind),
        3 => Just(Step::BeginReading),
        3 => Just(Step::EndReading),
        1 => Just(Step::Crash),
    ]
}

/// A lane beside the log that it works on; `head` events are in the log, all of them selected.
struct World {
    book: Book,
    saved: SavedLane,
    head: u64,
    /// A reading of the log that is under way: after which place, and up to which.
    reading: Option<(u64, u64)>,
    under_way: Vec<Seq>,
    settled: HashSet<Seq>,
}

impl World {
    fn save(&mut self) {
        let Some(change) = self.book.take_changes("a/b") else { return };
        for put in change.put {
            self.saved.rows.retain(|row| row.seq != put.seq);
            self.saved.rows.push(put);
        }
        self.saved.rows.retain(|row| !change.remove.contains(&row.seq));
        self.saved.rows.sort_by_key(|row| row.seq);
        self.saved.cursor = change.cursor.unwrap();
    }

    fn begin_reading(&mut self) {
        self.book.go_live(Seq(self.head));
        if !self.book.live && self.reading.is_none() {
            let after = self.book.position.0;
            self.reading = Some((after, self.head.min(after + 3)));
        }
    }

    fn end_reading(&mut self) {
        if let Some((after, upto)) = self.reading.take() {
            self.book.take_read(Seq(after), (after + 1..=upto).map(event).collect(), Seq(upto));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Announce => {
                self.head += 1;
                self.book.hand_over(&event(self.head));
            }
            Step::Take => self.under_way.extend(self.book.take_ready(|_| 0).flatten().map(|event| event.seq)),
            Step::Due => self.under_way.extend(self.book.take_due(i64::MAX).map(|(seq, _)| seq)),
            Step::Settle(at) if !self.under_way.is_empty() => {
                let seq = self.under_way.swap_remove(at.index(self.under_way.len()));
                self.book.settle(seq, 0);
                self.settled.insert(seq);
            }
            Step::Retry(at) if !self.under_way.is_empty() => {
                let seq = self.under_way.swap_remove(at.index(self.under_way.len()));
                self.book.retry(seq, row(0));
            }
            Step::Settle(_) | Step::Retry(_) => {}
            Step::Rewind => self.book.rewind(),
            Step::BeginReading => self.begin_reading(),
            Step::EndReading => self.end_reading(),
            Step::Crash => {
                self.book = Book::restore(self.saved.clone());
                self.under_way.clear();
                self.reading = None;
            }
        }
    }
}

proptest! {
    #[test]
    fn no_event_is_lost_whatever_happens_in_whatever_order(script in proptest::collection::vec((steps(), any::<bool>()), 1..200)) {
        let saved = SavedLane { lane: "a/b".into(), cursor: Cursor::default(), rows: vec![], dead_letters: 0 };
        let mut world = World { book: live(0), saved, head: 0, reading: None, under_way: vec![], settled: HashSet::new() };
        for (step, save) in &script {
            world.step(step);
            if *save {
                world.save();
            }
        }
        // Now all goes well, after one last crash.
        world.step(&Step::Crash);
        for _ in 0..=3 * world.head {
            world.begin_reading();
            world.end_reading();
            world.step(&Step::Take);
            world.step(&Step::Due);
            while let Some(seq) = world.under_way.pop() {
                world.book.settle(seq, 0);
                world.settled.insert(seq);
            }
        }
        let missing: Vec<_> = (1..=world.head).filter(|seq| !world.settled.contains(&Seq(*seq))).collect();
        prop_assert_eq!(missing, Vec::<u64>::new());
        prop_assert_eq!(world.book.pending(), 0);
    }
}
