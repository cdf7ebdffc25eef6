use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use proptest::prelude::*;
use tidings_store::Cursor;
use uuid::Uuid;

use super::replay::REPLAYED_IN_LINE;
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
    book.join(Seq(head));
    book.go_live(Seq(head));
    book
}

#[test]
fn the_floor_stays_below_what_is_under_way_and_what_is_settled_above_it_is_kept() {
    let mut book = live(0);
    for seq in [2, 5, 9] {
        book.hand_over(&event(seq));
        book.take_ready(0, |_| 0);
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
    book.take_ready(0, |_| 0);
    book.retry(Seq(1), row(77), 0);
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
    assert_eq!(book.take_ready(0, key_of).unwrap().unwrap().seq, Seq(1));
    assert!(book.take_ready(0, key_of).unwrap().is_none(), "2 waits behind 1");
    assert_eq!(book.take_ready(0, key_of).unwrap().unwrap().seq, Seq(3));
    assert!(book.take_ready(0, key_of).unwrap().is_none(), "4 waits behind 1");
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
    book.take_ready(0, |_| 0);
    book.rewind();
    assert_eq!((book.position, book.feed(), book.pending()), (Seq(1), Feed::Behind, 3));
    book.take_read(Seq(1), vec![event(2), event(3)], Seq(3));
    assert_eq!(book.pending(), 3);
    book.go_live(Seq(3));
    assert_eq!(book.feed(), Feed::Live);
}

fn untried(key: u64) -> Row {
    Row { attempts: 0, key, ..row(0) }
}

fn letter(seq: u64) -> DeadLetter {
    let (name, reason) = ("PostSignIn".to_owned(), "Timeout".to_owned());
    DeadLetter { seq: Seq(seq), name, attempts: 1, at_ms: 1, reason, status_code: None }
}

fn progress(uid: u64, position: u64) -> ReplayProgress {
    ReplayProgress { uid: uid.to_string(), position: Seq(position), ..ReplayProgress::default() }
}

#[test]
fn what_waits_is_not_put_in_line_again_and_what_was_settled_is_also_below_the_floor() {
    let mut book = live(0);
    for seq in 1..=5 {
        book.hand_over(&event(seq));
    }
    for _ in 1..=3 {
        book.take_ready(0, |_| 0);
    }
    book.settle(Seq(1), 0);
    book.retry(Seq(2), row(9), 0);
    let put: Vec<_> = (1..=6).filter(|seq| book.put_in_line(Seq(*seq), untried(0))).collect();
    assert_eq!(put, [1], "2 is a row, 3 is under way, 4 and 5 are ready, 6 is to come");
    let change = book.take_changes("a/b").unwrap();
    assert_eq!(change.cursor.unwrap().floor, Seq(2));
    assert!(change.put.iter().any(|row| row.seq == Seq(1)));
    assert_eq!((change.revived, book.pending()), (vec![Seq(1)], 5));
}

#[test]
fn a_dead_letter_that_is_put_in_line_leaves_whether_it_was_saved_or_not() {
    let mut book = live(0);
    book.hand_over(&event(1));
    book.take_ready(0, |_| 0);
    book.bury(letter(1), 0);
    assert!(book.put_in_line(Seq(1), untried(0)));
    book.note_replay(progress(1, 1));
    let change = book.take_changes("a/b").unwrap();
    assert_eq!((change.dead.len(), change.put.len(), change.revived), (0, 1, vec![Seq(1)]));
    assert_eq!(change.replays, [progress(1, 1)]);
    // Given up once more before the next save.
    book.take_replayed(0).unwrap();
    book.bury(letter(1), 0);
    let change = book.take_changes("a/b").unwrap();
    assert_eq!((change.dead.len(), change.remove, change.replays.len()), (1, vec![Seq(1)], 0));
}

#[test]
fn a_replay_waits_for_room_until_what_it_put_in_line_is_settled() {
    let head = u64::try_from(REPLAYED_IN_LINE).unwrap() + 1;
    let mut book = live(head);
    for seq in 1..head {
        assert!(book.put_in_line(Seq(seq), untried(0)));
    }
    assert_eq!(book.replay_room(), 0);
    let (first, _) = book.take_replayed(0).unwrap();
    assert_eq!(book.take_due(i64::MAX), None, "they do not go before what must be tried again");
    book.retry(first, row(5), 0);
    assert_eq!(book.replay_room(), 0, "one that failed still waits");
    assert_eq!(book.take_due(5).unwrap().0, first);
    book.settle(first, 0);
    assert_eq!(book.replay_room(), 1);
}

#[test]
fn a_replayed_event_waits_behind_one_of_its_key_that_is_under_way() {
    let mut book = live(4);
    book.hand_over(&event(5));
    book.take_ready(0, |_| 7);
    for seq in [2, 3] {
        book.put_in_line(Seq(seq), untried(7));
    }
    assert_eq!(book.take_replayed(0), None, "2 waits behind 5");
    book.retry(Seq(5), Row { key: 7, ..row(0) }, 0);
    assert_eq!(book.take_replayed(0), None, "and behind its next attempt");
    assert_eq!(book.take_due(0).unwrap().0, Seq(5));
    book.settle(Seq(5), 7);
    assert_eq!(book.take_replayed(0).unwrap().0, Seq(2));
    assert_eq!(book.take_replayed(0), None, "3 waits behind 2");
    book.settle(Seq(2), 7);
    assert_eq!(book.take_replayed(0).unwrap().0, Seq(3));
}

fn failing(seq: u64, key: u64) -> Row {
    Row { first_attempt_ms: i64::try_from(seq).unwrap(), key, ..row(0) }
}

#[test]
fn the_rows_that_have_been_failing_the_longest_give_way_and_new_events_go_on() {
    let mut book = Book { row_limit: RowLimit(3), ..live(0) };
    for seq in 1..=6 {
        book.hand_over(&event(seq));
        assert_eq!(
            book.take_ready(0, |_| 0).unwrap().unwrap().seq,
            Seq(seq),
            "no row keeps a new event waiting"
        );
        book.retry(Seq(seq), failing(seq, 0), 77);
    }
    assert_eq!((book.pending(), book.tally.dead_lettered, book.take_given_up_for_room()), (3, 3, 3));
    let change = book.take_changes("a/b").unwrap();
    let dead: Vec<_> =
        change.dead.iter().map(|dead| (dead.seq.0, dead.at_ms, dead.reason.as_str())).collect();
    assert_eq!(dead, [(1, 77, "RetryQueueFull"), (2, 77, "RetryQueueFull"), (3, 77, "RetryQueueFull")]);
    assert_eq!([(); 3].map(|()| book.take_due(0).unwrap().0), [Seq(4), Seq(5), Seq(6)]);
}

#[test]
fn a_full_queue_gives_up_what_failed_and_never_what_only_waits_for_its_turn() {
    let mut book = Book { row_limit: RowLimit(4), ..live(0) };
    for seq in 1..=6 {
        book.hand_over(&event(seq));
    }
    book.take_ready(0, |_| 7).unwrap().unwrap();
    book.retry(Seq(1), failing(1, 7), 0);
    assert!([2, 3, 4].iter().all(|_| book.take_ready(0, |_| 7) == Some(None)), "they wait behind 1");
    assert_eq!(book.dead.iter().map(|letter| letter.seq).collect::<Vec<_>>(), [Seq(1)], "4 needed its room");
    assert_eq!(book.take_ready(0, |_| 7), None, "2, 3 and 4 were not tried, and 5 stays in the log");
    for seq in 2..=3 {
        assert_eq!(book.take_due(0).unwrap().0, Seq(seq));
        book.settle(Seq(seq), 7);
    }
    assert_eq!(book.take_ready(0, |_| 7), Some(None));
    assert_eq!(book.take_due(0).unwrap().0, Seq(4));
    book.settle(Seq(4), 7);
    assert_eq!(book.take_due(0).unwrap().0, Seq(5));
}

#[test]
fn what_was_settled_before_a_restart_is_not_read_again_after_the_queue_was_forgotten() {
    let mut book = live(0);
    for seq in 1..=3 {
        book.hand_over(&event(seq));
        book.take_ready(0, |_| 0);
    }
    book.settle(Seq(2), 0);
    let cursor = book.take_changes("a/b").unwrap().cursor.unwrap();
    let mut book = Book::restore(SavedLane { lane: "a/b".into(), cursor, rows: vec![], dead_letters: 0 });
    book.join(Seq(3));
    for _ in 1..=2 {
        book.take_read(Seq(0), (1..=3).map(event).collect(), Seq(3));
        book.rewind();
        assert_eq!(book.position, Seq(0));
    }
    book.take_read(Seq(0), (1..=3).map(event).collect(), Seq(3));
    let taken = [(); 3].map(|()| book.take_ready(0, |_| 0).flatten().map(|event| event.seq));
    assert_eq!(taken, [Some(Seq(1)), Some(Seq(3)), None]);
}

#[test]
fn a_damaged_event_is_one_dead_letter_however_often_the_queue_is_forgotten() {
    let mut book = Book::new("uid", Seq(0));
    book.join(Seq(3));
    for _ in 1..=2 {
        book.bury_unread(Seq(0), vec![letter(2)]);
        book.take_read(Seq(0), vec![event(1), event(3)], Seq(3));
        book.rewind();
        assert_eq!(book.position, Seq(0));
    }
    assert_eq!((book.tally.dead_lettered, book.dead.len()), (1, 1));
    let cursor = book.take_changes("a/b").unwrap().cursor.unwrap();
    assert_eq!((cursor.floor, cursor.settled), (Seq(0), vec![(Seq(2), Seq(2))]));
}

#[test]
fn what_comes_while_the_webhook_is_absent_is_read_when_it_is_back() {
    let mut book = live(0);
    book.hand_over(&event(1));
    book.take_ready(0, |_| 0);
    book.hand_over(&event(2));
    book.leave(Seq(2));
    // The dispatcher had looked up its routes already.
    book.hand_over(&event(3));
    book.go_live(Seq(3));
    book.retry(Seq(1), row(0), 0);
    assert_eq!(book.feed(), Feed::Absent, "nothing makes it live");
    assert!(book.take_ready(0, |_| 0).is_none() && book.take_due(i64::MAX).is_none(), "and nothing begins");
    let start = book.join(Seq(4));
    let waiting: Vec<_> = (1..=5).filter(|seq| start.waits(Seq(*seq))).collect();
    assert_eq!((start.floor, waiting), (Seq(1), vec![2, 3, 4]));
    book.add_backlog(3, Some(1));
    book.hand_over(&event(4));
    book.hand_over(&event(5));
    assert_eq!(book.pending(), 5, "none is counted twice");
    book.take_read(Seq(1), (2..=5).map(event).collect(), Seq(5));
    book.go_live(Seq(5));
    assert_eq!((book.feed(), book.pending()), (Feed::Live, 5));
}

/// What a fuzzed lane does next.
#[derive(Debug, Clone)]
enum Step {
    Announce,
    Take,
    Settle(prop::sample::Index),
    Retry(prop::sample::Index),
    Due,
    Bury(prop::sample::Index),
    /// The replay comes to the next event of the log.
    Replay,
    TakeReplayed,
    Rewind,
    BeginReading,
    EndReading,
    /// The plan holds the Webhook no longer, or holds it again.
    LeaveOrJoin,
    Crash,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Announce),
        4 => Just(Step::Take),
        3 => any::<prop::sample::Index>().prop_map(Step::Settle),
        2 => any::<prop::sample::Index>().prop_map(Step::Retry),
        2 => Just(Step::Due),
        1 => any::<prop::sample::Index>().prop_map(Step::Bury),
        4 => Just(Step::Replay),
        2 => Just(Step::TakeReplayed),
        1 => Just(Step::Rewind),
        3 => Just(Step::BeginReading),
        3 => Just(Step::EndReading),
        1 => Just(Step::LeaveOrJoin),
        1 => Just(Step::Crash),
    ]
}

/// The ordering key of an event; every third has none.
fn key_of(seq: Seq) -> u64 {
    seq.0 % 3
}

/// A lane beside the log that it works on; `head` events are in the log, all of them selected.
struct World {
    book: Book,
    /// How many rows the book keeps.
    rows: usize,
    saved: SavedLane,
    saved_dead: BTreeSet<Seq>,
    saved_replay: ReplayProgress,
    head: u64,
    /// A reading of the log that is under way: after which place, and up to which.
    reading: Option<(u64, u64)>,
    under_way: Vec<Seq>,
    /// Delivered or given up at some time.
    settled: HashSet<Seq>,
    /// One replay after another goes through the whole log.
    replay: ReplayProgress,
    /// What the replay came by and was neither delivered nor given up since.
    owed: BTreeSet<Seq>,
}

impl World {
    fn new(rows: usize) -> Self {
        let saved =
            SavedLane { lane: "a/b".into(), cursor: Cursor::default(), rows: vec![], dead_letters: 0 };
        Self {
            book: Book { row_limit: RowLimit(rows), ..live(0) },
            rows,
            saved,
            saved_dead: BTreeSet::new(),
            saved_replay: progress(0, 0),
            head: 0,
            reading: None,
            under_way: vec![],
            settled: HashSet::new(),
            replay: progress(0, 0),
            owed: BTreeSet::new(),
        }
    }

    /// What the store does with a change.
    fn save(&mut self) {
        let Some(change) = self.book.take_changes("a/b") else { return };
        for put in change.put {
            self.saved.rows.retain(|row| row.seq != put.seq);
            self.saved.rows.push(put);
        }
        self.saved_dead.retain(|seq| !change.revived.contains(seq));
        self.saved_dead.extend(change.dead.iter().map(|letter| letter.seq));
        self.saved
            .rows
            .retain(|row| !change.remove.contains(&row.seq) && !self.saved_dead.contains(&row.seq));
        self.saved.rows.sort_by_key(|row| row.seq);
        self.saved.cursor = change.cursor.unwrap();
        self.saved_replay = change.replays.last().cloned().unwrap_or_else(|| self.saved_replay.clone());
    }

    fn begin_reading(&mut self) {
        self.book.go_live(Seq(self.head));
        if self.book.feed() == Feed::Behind && self.reading.is_none() {
            let after = self.book.position.0;
            self.reading = Some((after, self.head.min(after + 3)));
        }
    }

    fn end_reading(&mut self) {
        if let Some((after, upto)) = self.reading.take() {
            self.book.take_read(Seq(after), (after + 1..=upto).map(event).collect(), Seq(upto));
        }
    }

    /// One event goes on its way; none of its ordering key may be under way.
    fn begin(&mut self, seq: Option<Seq>) {
        let Some(seq) = seq else { return };
        let busy = self.under_way.iter().any(|other| key_of(seq) != 0 && key_of(*other) == key_of(seq));
        assert!(!busy && !self.under_way.contains(&seq), "{seq:?} beside {:?}", self.under_way);
        self.under_way.push(seq);
    }

    fn end(&mut self, at: prop::sample::Index) -> Option<Seq> {
        (!self.under_way.is_empty()).then(|| self.under_way.swap_remove(at.index(self.under_way.len())))
    }

    /// The endpoint took an event: each earlier one of its key was delivered or given up before.
    fn settle(&mut self, seq: Seq) {
        let overtaken = (1..seq.0).map(Seq).filter(|other| key_of(seq) != 0 && key_of(*other) == key_of(seq));
        let overtaken: Vec<_> = overtaken.filter(|other| !self.settled.contains(other)).collect();
        assert_eq!(overtaken, [], "{seq:?} is delivered before those");
        self.book.settle(seq, key_of(seq));
        self.settled.insert(seq);
        self.owed.remove(&seq);
    }

    fn replay(&mut self) {
        if self.replay.position.0 == self.head {
            let next = self.replay.uid.parse::<u64>().unwrap() + 1;
            self.replay = progress(next, 0);
        }
        let seq = Seq(self.replay.position.0 + 1);
        if seq.0 <= self.head {
            self.book.put_in_line(seq, untried(key_of(seq)));
            // Put in line, or waiting: it must be settled after this.
            self.owed.insert(seq);
            self.replay.position = seq;
        }
        self.book.note_replay(self.replay.clone());
    }

    fn leave_or_join(&mut self) {
        match self.book.feed() {
            Feed::Absent => drop(self.book.join(Seq(self.head))),
            _ => self.book.leave(Seq(self.head)),
        }
    }

    fn crash(&mut self) {
        self.book = Book::restore(self.saved.clone());
        self.book.row_limit = RowLimit(self.rows);
        self.book.join(Seq(self.head));
        self.under_way.clear();
        self.reading = None;
        if self.replay.uid != self.saved_replay.uid {
            // The earlier one goes on; what it came by before it was saved is still there to be settled.
            self.owed.clear();
        }
        self.replay = self.saved_replay.clone();
        // The replay comes by those again.
        self.owed.retain(|seq| *seq <= self.saved_replay.position);
    }

    fn step(&mut self, step: &Step) {
        self.make(step);
        let given_up =
            self.book.dead.iter().filter(|letter| letter.reason == LostReason::RetryQueueFull.as_str());
        for DeadLetter { seq, attempts, .. } in given_up {
            assert!(
                *attempts > 0 && !self.under_way.contains(seq),
                "{seq:?} was tried, and is not under way"
            );
            self.settled.insert(*seq);
            self.owed.remove(seq);
        }
    }

    fn make(&mut self, step: &Step) {
        match step {
            Step::Announce => {
                self.head += 1;
                self.book.hand_over(&event(self.head));
            }
            Step::Take => {
                let taken =
                    self.book.take_ready(0, |event| key_of(event.seq)).flatten().map(|event| event.seq);
                self.begin(taken);
            }
            Step::Due => {
                let taken = self.book.take_due(i64::MAX).map(|(seq, _)| seq);
                self.begin(taken);
            }
            Step::TakeReplayed => {
                let taken = self.book.take_replayed(i64::MAX).map(|(seq, _)| seq);
                self.begin(taken);
            }
            Step::Settle(at) => {
                if let Some(seq) = self.end(*at) {
                    self.settle(seq);
                }
            }
            Step::Retry(at) => {
                if let Some(seq) = self.end(*at) {
                    self.book.retry(seq, Row { key: key_of(seq), ..row(0) }, 0);
                }
            }
            Step::Bury(at) => {
                if let Some(seq) = self.end(*at) {
                    self.book.bury(letter(seq.0), key_of(seq));
                    self.settled.insert(seq);
                    self.owed.remove(&seq);
                }
            }
            Step::Replay => self.replay(),
            Step::Rewind => self.book.rewind(),
            Step::BeginReading => self.begin_reading(),
            Step::EndReading => self.end_reading(),
            Step::LeaveOrJoin => self.leave_or_join(),
            Step::Crash => self.crash(),
        }
    }

    /// Now all goes well: the replay comes to its end, and everything is tried and taken.
    fn go_on_to_the_end(&mut self) {
        if self.book.feed() == Feed::Absent {
            self.leave_or_join();
        }
        while self.replay.position.0 < self.head {
            self.replay();
        }
        for _ in 0..=3 * self.head {
            self.begin_reading();
            self.end_reading();
            for step in [Step::Take, Step::Due, Step::TakeReplayed] {
                self.step(&step);
            }
            while let Some(seq) = self.under_way.pop() {
                self.settle(seq);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_event_is_lost_and_none_overtakes_one_of_its_key_whatever_happens_in_whatever_order(
        script in proptest::collection::vec((steps(), any::<bool>()), 1..200),
        rows in prop_oneof![Just(MAX_ROWS), 2..6_usize],
    ) {
        let mut world = World::new(rows);
        for (step, save) in &script {
            world.step(step);
            if *save {
                world.save();
            }
        }
        // One last crash.
        world.step(&Step::Crash);
        world.go_on_to_the_end();
        let missing: Vec<_> = (1..=world.head).filter(|seq| !world.settled.contains(&Seq(*seq))).collect();
        prop_assert_eq!(missing, Vec::<u64>::new());
        prop_assert_eq!(&world.owed, &BTreeSet::new(), "what the replay came by is settled after that");
        prop_assert_eq!(world.book.pending(), 0);
        prop_assert_eq!(world.book.keys.len(), 0, "no key is stuck");
        world.save();
        prop_assert_eq!(world.saved.rows, vec![]);
    }
}

#[test]
fn an_event_that_was_under_way_at_a_crash_goes_before_those_that_waited_for_it() {
    let mut world = World::new(MAX_ROWS);
    // 1 and 4 are of one key, 2 and 5 of another.
    for _ in 1..=5 {
        world.step(&Step::Announce);
        world.step(&Step::Take);
    }
    world.save();
    world.step(&Step::Crash);
    world.step(&Step::Due);
    assert_eq!(world.under_way, [Seq(1)]);
    world.under_way.clear();
    world.settle(Seq(1));
    assert_eq!([0, 0].map(|now| world.book.take_due(now).unwrap().0), [Seq(2), Seq(4)]);
    assert_eq!(world.book.take_due(0), None, "5 waits behind 2");
}

#[test]
fn a_lane_that_was_idle_says_in_the_first_save_after_a_restart_that_it_is_not() {
    let cursor = Cursor { uid: "uid".to_owned(), floor: Seq(7), idle: true, ..Cursor::default() };
    let saved = SavedLane { lane: "shop/mail".to_owned(), cursor, rows: vec![], dead_letters: 0 };
    let change = Book::restore(saved).take_changes("shop/mail").expect("it is saved");
    let cursor = change.cursor.expect("its cursor");
    assert_eq!((cursor.floor, cursor.idle), (Seq(7), false));
}
