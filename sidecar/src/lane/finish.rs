//! What an attempt ended in, entered: tallies, circuit, the delivery's next state.
//!
//! In: an attempt that ended. Out: changes of the book and of the metrics. Each way out of an attempt
//! settles its event, makes it a row, or ends the process.

use tidings_store::{DeadLetter, Event, Store, now_ms};

use super::Lane;
use super::attempt::{Done, End};
use super::book::{Book, Row, damaged_letter};
use super::spec::Spec;
use crate::dial::{Attempt, Outcome};
use crate::schedule::{Delivery, MAX_RETRY_AFTER_MS, Verdict};
use crate::tally::{Attempted, Failure, Success};

// === impl Lane ===

impl<S: Store> Lane<S> {
    pub(super) fn finish(&mut self, done: Done) {
        let Done { seq, row, probe, spec, end } = done;
        match end {
            End::Attempted { event, webhook_id, attempt } => {
                self.finish_attempt(&spec, row, probe, &event, webhook_id, &attempt);
            }
            End::Dropped => self.drop_event(seq, row.key),
            End::Expired => {
                let mut book = self.handle.lock();
                book.tally.expired += 1;
                book.settle(seq, row.key);
            }
            End::Damaged(name) => {
                let letter = damaged_letter(seq, name, row.attempts, now_ms());
                self.handle.lock().bury(letter, row.key);
            }
            // The process ends by it, and the event stays in the log.
            End::Failed(error) => self.fatal.tell(error),
        }
        if probe {
            // One that was an attempt has been entered, and the circuit is open or closed by now.
            self.handle.lock().probe_said_nothing();
        }
        self.report_given_up();
        self.handle.changed(&self.unsaved);
    }

    /// Logs that rows were given up for others: once, until there is room again.
    pub(super) fn report_given_up(&mut self) {
        let (given_up, full) = {
            let mut book = self.handle.lock();
            (book.take_given_up_for_room(), book.is_rather_full())
        };
        if given_up > 0 && !self.reported_full {
            tracing::warn!(webhook = %self.handle.webhook, "more events fail than can be kept for another attempt: those that have been failing the longest become dead letters");
        }
        self.reported_full = full && (given_up > 0 || self.reported_full);
    }

    fn finish_attempt(
        &self,
        spec: &Spec,
        row: Row,
        probe: bool,
        event: &Event,
        webhook_id: String,
        attempt: &Attempt,
    ) {
        let now = now_ms();
        let judged = Judged::of(&attempt.outcome);
        // How long ago a replayed event came says nothing of how fast events are delivered.
        let replayed = self.handle.lock().is_replayed(event.seq);
        self.metrics.attempted(
            judged.label,
            attempt.duration,
            attempt.reused_connection,
            (!replayed).then_some(now - event.received_ms),
            judged.verdict,
        );
        let chance = rand::random::<f64>();
        let retry = &spec.plan.delivery.retry;
        let mut book = self.handle.lock();
        note(&mut book, &judged, event, webhook_id, row.attempts + 1, attempt, now);
        if judged.verdict.blames_endpoint() {
            book.endpoint_failed(event.seq, probe, now, retry, chance);
        } else {
            book.endpoint_answered();
        }
        if let Some(wait) = judged.verdict.holds_for_ms(retry, chance) {
            book.hold_until_ms = book.hold_until_ms.max(now + wait);
        }
        if judged.verdict == Verdict::Gone {
            tracing::warn!(webhook = %self.handle.webhook, "the endpoint answered 410 Gone: its Webhook is stopped until it is changed");
            book.tally.gone_generation = Some(spec.plan.generation);
        }
        let before = Delivery::Pending {
            attempts: row.attempts,
            first_attempt_ms: row.first_attempt_ms,
            due_ms: row.due_ms,
        };
        let after = before.next(judged.verdict, now, retry, chance);
        enter(&mut book, after, event, row, &judged, now);
    }
}

/// What an outcome means, in words that metrics, status and schedule share.
struct Judged {
    verdict: Verdict,
    label: &'static str,
    status_code: Option<u16>,
    phase: Option<&'static str>,
    message: String,
}

impl Judged {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Status { code, retry_after } => {
                let wait =
                    retry_after.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(MAX_RETRY_AFTER_MS));
                let verdict = Verdict::of_status(*code, wait);
                let label = if verdict == Verdict::Taken { "Delivered" } else { "HttpStatus" };
                Self {
                    verdict,
                    label,
                    status_code: Some(*code),
                    phase: None,
                    message: format!("the endpoint answered {code}"),
                }
            }
            Outcome::Failed { phase, reason, message } => Self {
                verdict: Verdict::Again { retry_after_ms: None },
                label: reason.as_str(),
                status_code: None,
                phase: Some(phase.as_str()),
                message: message.clone(),
            },
        }
    }
}

/// Writes an attempt into the tallies.
fn note(
    book: &mut Book,
    judged: &Judged,
    event: &Event,
    webhook_id: String,
    number: u32,
    attempt: &Attempt,
    now: i64,
) {
    let duration_milliseconds = u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX);
    let name = event.name.to_string();
    book.recent.push(Attempted {
        time_ms: now,
        event: name.clone(),
        webhook_id,
        attempt: number,
        outcome: judged.label.to_owned(),
        status_code: judged.status_code,
        duration_milliseconds,
    });
    let tally = &mut book.tally;
    if let (Verdict::Taken, Some(status_code)) = (judged.verdict, judged.status_code) {
        tally.delivered += 1;
        tally.consecutive_failures = 0;
        tally.failing_since_ms = None;
        tally.last_success =
            Some(Success { time_ms: now, event: name, status_code, duration_milliseconds, attempt: number });
        return;
    }
    tally.failed += 1;
    tally.consecutive_failures += 1;
    tally.failing_since_ms.get_or_insert(now);
    tally.last_failure = Some(Failure {
        time_ms: now,
        event: name,
        reason: judged.label.to_owned(),
        phase: judged.phase.map(str::to_owned),
        status_code: judged.status_code,
        message: judged.message.clone(),
        duration_milliseconds,
        timeout_seconds: u32::try_from(attempt.deadline.as_secs()).unwrap_or(u32::MAX),
        attempt: number,
    });
}

/// Enters a delivery's next state into the book.
fn enter(book: &mut Book, delivery: Delivery, event: &Event, row: Row, judged: &Judged, now: i64) {
    match delivery {
        Delivery::Delivered => book.settle(event.seq, row.key),
        Delivery::Pending { attempts, first_attempt_ms, due_ms } => {
            book.retry(
                event.seq,
                Row { attempts, first_attempt_ms, due_ms, key: row.key, received_ms: event.received_ms },
                now,
            );
        }
        Delivery::DeadLettered => {
            let letter = DeadLetter {
                seq: event.seq,
                name: event.name.to_string(),
                attempts: row.attempts + 1,
                at_ms: now,
                reason: judged.label.to_owned(),
                status_code: judged.status_code,
            };
            book.bury(letter, row.key);
        }
    }
}
