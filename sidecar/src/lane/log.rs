//! What a lane writes into the log: when its endpoint begins to fail, when its circuit opens and closes, and when
//! events become dead letters.
//!
//! In: the book, looked at after each step. Out: lines, each for a change and not for an attempt: an endpoint
//! that fails a thousand times a second has one line. It must never hold a body, a secret or a URL.

use std::time::{Duration, Instant};

use tidings_plan::ObjectName;
use tidings_store::Store;

use super::Lane;
use super::book::Book;
use crate::tally::Failure;

/// How often dead letters are logged at most; those in between are in the next line's count.
const SELDOM: Duration = Duration::from_mins(1);

/// What was logged of a lane.
#[derive(Debug)]
pub(super) struct Logged {
    state: State,
    /// When dead letters were logged, and how many there were then.
    dead_letters: (Option<Instant>, u64),
}

/// What is logged when it changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    failing: bool,
    open: bool,
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Fails,
    Recovers,
    Opens,
    Closes,
    DeadLetters(u64),
}

// === impl Logged ===

impl Logged {
    /// Of a lane that begins: how it stood before is no news.
    pub(super) fn new(book: &Book) -> Self {
        Self { state: State::of(book), dead_letters: (None, book.tally.dead_lettered) }
    }

    /// The lines that are due now.
    fn lines(&mut self, book: &Book, now: Instant) -> Vec<Line> {
        let (before, state) = (self.state, State::of(book));
        self.state = state;
        let changes = [
            (!before.failing && state.failing, Line::Fails),
            (!before.open && state.open, Line::Opens),
            (before.open && !state.open, Line::Closes),
            (before.failing && !state.failing && !before.open, Line::Recovers),
        ];
        let mut lines: Vec<_> =
            changes.into_iter().filter_map(|(is_so, line)| is_so.then_some(line)).collect();
        let (at, counted) = self.dead_letters;
        let more = book.tally.dead_lettered.saturating_sub(counted);
        if more > 0 && at.is_none_or(|at| now.duration_since(at) >= SELDOM) {
            self.dead_letters = (Some(now), book.tally.dead_lettered);
            lines.push(Line::DeadLetters(more));
        }
        lines
    }
}

// === impl State ===

impl State {
    fn of(book: &Book) -> Self {
        Self { failing: book.tally.consecutive_failures > 0, open: book.circuit.is_open() }
    }
}

// === impl Line ===

impl Line {
    fn write(&self, webhook: &ObjectName, pending: u64, last: Option<&Failure>) {
        let reason = last.map(|last| last.reason.as_str());
        let message = last.map(|last| last.message.as_str());
        let event = last.map(|last| last.event.as_str());
        match self {
            Self::Fails => tracing::warn!(
                %webhook, event, reason, message,
                "an attempt failed: the event is tried again by its retry schedule"
            ),
            Self::Recovers => tracing::info!(%webhook, "the endpoint takes events again"),
            Self::Opens => tracing::warn!(
                %webhook, reason, message, pending,
                "the circuit opened: the endpoint fails, and is probed until it takes an event"
            ),
            Self::Closes => tracing::info!(%webhook, pending, "the circuit closed: what waits is delivered"),
            Self::DeadLetters(count) => tracing::warn!(
                %webhook, count, reason, message,
                "events became dead letters: `kubectl tidings deadletters` lists them, a WebhookReplay delivers them again"
            ),
        }
    }
}

// === impl Lane ===

impl<S: Store> Lane<S> {
    /// Logs what changed since the last time.
    pub(super) fn log_changes(&mut self) {
        let book = self.handle.lock();
        let lines = self.logged.lines(&book, Instant::now());
        if lines.is_empty() {
            return;
        }
        let (pending, last) = (book.pending(), book.tally.last_failure.clone());
        drop(book);
        for line in lines {
            line.write(&self.handle.webhook, pending, last.as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_store::Seq;

    use super::*;
    use crate::circuit::Circuit;

    fn fail(book: &mut Book) {
        book.tally.consecutive_failures += 1;
    }

    #[test]
    fn an_endpoint_that_fails_and_comes_back_has_a_line_for_each_change_and_none_for_an_attempt() {
        let (mut book, now) = (Book::new("uid", Seq(0)), Instant::now());
        let mut logged = Logged::new(&book);
        fail(&mut book);
        assert_eq!(logged.lines(&book, now), [Line::Fails]);
        fail(&mut book);
        assert_eq!(logged.lines(&book, now), []);
        book.circuit = Circuit::Open { until_ms: 0, probes: 0 };
        assert_eq!(logged.lines(&book, now), [Line::Opens]);
        book.circuit = Circuit::Probing { probes: 0 };
        fail(&mut book);
        assert_eq!(logged.lines(&book, now), []);
        (book.circuit, book.tally.consecutive_failures) = (Circuit::default(), 0);
        assert_eq!(logged.lines(&book, now), [Line::Closes]);
        fail(&mut book);
        logged.lines(&book, now);
        book.tally.consecutive_failures = 0;
        assert_eq!(logged.lines(&book, now), [Line::Recovers]);
    }

    #[test]
    fn dead_letters_are_counted_in_one_line_a_minute_and_those_of_before_a_start_are_no_news() {
        let (mut book, now) = (Book::new("uid", Seq(0)), Instant::now());
        book.tally.dead_lettered = 100;
        let mut logged = Logged::new(&book);
        assert_eq!(logged.lines(&book, now), []);
        book.tally.dead_lettered += 1;
        assert_eq!(logged.lines(&book, now), [Line::DeadLetters(1)]);
        book.tally.dead_lettered += 500;
        assert_eq!(logged.lines(&book, now + SELDOM / 2), []);
        assert_eq!(logged.lines(&book, now + SELDOM), [Line::DeadLetters(500)]);
    }
}
