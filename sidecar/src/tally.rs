//! What became of one Webhook's deliveries: the numbers that its status shows, and its recent attempts.
//!
//! No body, no secret, no URL ever enters here.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many recent attempts are kept for one Webhook.
pub const RECENT_ATTEMPTS: usize = 50;

/// The tallies of one Webhook; they survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tally {
    /// Events that the endpoint took.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Events that the Webhook selected by name and dropped: by its filter, or since it changed.
    pub dropped: u64,
    /// Events that the filter could not be evaluated over; they were delivered.
    pub filter_errors: u64,
    /// The filter that could not be evaluated, where one could not.
    pub filter_failing: Option<FilterFailing>,
    /// Events that were given up.
    pub dead_lettered: u64,
    /// Events that retention took before they were delivered.
    pub expired: u64,
    /// Failures since the last success.
    pub consecutive_failures: u64,
    /// When the failures in a row began, in milliseconds since 1970.
    pub failing_since_ms: Option<i64>,
    /// The last event that the endpoint took.
    pub last_success: Option<Success>,
    /// The last attempt that failed.
    pub last_failure: Option<Failure>,
    /// The generation of the Webhook whose endpoint answered 410.
    pub gone_generation: Option<i64>,
}

/// A filter that could not be evaluated over some events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterFailing {
    /// The generation of the Webhook whose filter it is.
    pub generation: i64,
    /// Over how many events of that generation.
    pub events: u64,
    /// The last one's class: `TooCostly`, `NotBool`, `Body`, `Evaluation`.
    pub class: String,
    /// The last one's name.
    pub event: String,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
}

/// An attempt that the endpoint took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Success {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// The event's name.
    pub event: String,
    /// The answer's status.
    pub status_code: u16,
    /// How long the attempt took.
    pub duration_milliseconds: u64,
    /// Which attempt it was, from 1.
    pub attempt: u32,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// The event's name.
    pub event: String,
    /// One word, such as `HttpStatus`, `Timeout`, `AddressBlocked`.
    pub reason: String,
    /// How far the attempt came: `Dns`, `Connect`, `Tls`, `Waiting`, `Reading`.
    pub phase: Option<String>,
    /// The answer's status.
    pub status_code: Option<u16>,
    /// A sentence for a person.
    pub message: String,
    /// How long the attempt took; 0 where an older sidecar saved it.
    #[serde(default)]
    pub duration_milliseconds: u64,
    /// How long it might have taken; 0 where an older sidecar saved it.
    #[serde(default)]
    pub timeout_seconds: u32,
    /// Which attempt it was, from 1; 0 where an older sidecar saved it.
    #[serde(default)]
    pub attempt: u32,
}

/// One attempt, as `/deliveries` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempted {
    /// When it ended, in milliseconds since 1970.
    pub time_ms: i64,
    /// The event's name.
    pub event: String,
    /// The delivery's `webhook-id`.
    pub webhook_id: String,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// `Delivered`, or the failure's reason.
    pub outcome: String,
    /// The answer's status.
    pub status_code: Option<u16>,
    /// How long it took.
    pub duration_milliseconds: u64,
}

/// A Webhook's numbers at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The Webhook, `namespace/name`.
    pub webhook: String,
    /// Its UID.
    pub uid: String,
    /// The generation that runs.
    pub generation: i64,
    /// The tallies.
    #[serde(flatten)]
    pub tally: Tally,
    /// Events that wait for delivery.
    pub pending: u64,
    /// When the oldest of them was received, in milliseconds since 1970.
    pub oldest_pending_ms: Option<i64>,
    /// When the next attempt is due, where none is under way, in milliseconds since 1970.
    pub next_attempt_ms: Option<i64>,
    /// `Closed`, `Open`, `Probing`, `Gone` or `Suspended`.
    pub circuit: &'static str,
}

/// What a Webhook's status says in one word: it differs when there is something to tell at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "five answers that do not depend on one another")]
pub struct Standing {
    /// The endpoint took an event.
    pub delivered: bool,
    /// The last attempt failed.
    pub failing: bool,
    /// Events were given up.
    pub dead_letters: bool,
    /// Nothing is sent, or probes alone.
    pub stopped: bool,
    /// The filter could not be evaluated over some event.
    pub filter_failing: bool,
}

// === impl Tally ===

impl Tally {
    /// Counts an event that the filter of this generation could not be evaluated over; whether it is the first.
    pub fn filter_failed(&mut self, generation: i64, class: &str, event: &str, time_ms: i64) -> bool {
        self.filter_errors += 1;
        let before = self.filter_failing.as_ref().filter(|failing| failing.generation == generation);
        let events = before.map_or(0, |failing| failing.events) + 1;
        let (class, event) = (class.to_owned(), event.to_owned());
        self.filter_failing = Some(FilterFailing { generation, events, class, event, time_ms });
        events == 1
    }

    /// The filter of this generation, where it could not be evaluated.
    pub fn filter_failing_of(&self, generation: i64) -> Option<&FilterFailing> {
        self.filter_failing.as_ref().filter(|failing| failing.generation == generation)
    }
}

/// The recent attempts of one Webhook, the newest last.
#[derive(Debug, Default)]
pub struct Recent(VecDeque<Attempted>);

// === impl Recent ===

impl Recent {
    /// Adds one, and forgets the oldest beyond [`RECENT_ATTEMPTS`].
    pub fn push(&mut self, attempted: Attempted) {
        if self.0.len() == RECENT_ATTEMPTS {
            self.0.pop_front();
        }
        self.0.push_back(attempted);
    }

    /// All of them.
    pub fn to_vec(&self) -> Vec<Attempted> {
        self.0.iter().cloned().collect()
    }
}
