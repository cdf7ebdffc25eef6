//! Conditions: from what was judged and what sidecars report to what kubectl shows. Pure.

use std::fmt::Write as _;

use tidings_crds::{CircuitState, FilterFailing};

use crate::reason::Place;
use crate::{Finding, Judged, Reason};

/// An endpoint that took something before is said to fail after so many failures in a row: one attempt in
/// a thousand that fails is no news, and a condition that flaps tells nobody anything.
const FAILURES_TO_TELL: u64 = 3;

/// Whether the sidecars run a Webhook as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Programming {
    /// Every ready sidecar does.
    Runs,
    /// Not yet; a sentence tells who does not.
    Waits(String),
    /// There is no sidecar.
    NoSidecar(String),
    /// The plan has no room for it.
    NoRoom(String),
    /// A sidecar could not.
    Rejected(String),
}

/// How deliveries go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Events that the endpoint took.
    pub delivered: u64,
    /// Failures since the last success.
    pub consecutive_failures: u64,
    /// When they began.
    pub failing_since: Option<String>,
    /// Whether the endpoint is sent anything.
    pub circuit: CircuitState,
    /// The last failure's sentence.
    pub last_failure: Option<String>,
    /// Events that wait.
    pub pending: u64,
    /// When the next attempt is due.
    pub next_attempt: Option<String>,
    /// What the filter could not be evaluated over, where there is such a thing.
    pub filter_failing: Option<FilterFailing>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub kind: &'static str,
    /// True, False, or `None` for Unknown.
    pub status: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person.
    pub message: String,
}

/// The conditions of a Webhook: Accepted, `ResolvedRefs`, Programmed, Ready, Delivering, and Stalled where it is
/// so. `health` is `None`
/// where no sidecar tells of the Webhook.
pub fn conditions(judged: &Judged, programming: &Programming, health: Option<&Health>) -> Vec<Condition> {
    let accepted = of_result("Accepted", &judged.accepted, Reason::Accepted, &in_order(judged));
    let resolved = of_result(
        "ResolvedRefs",
        &judged.resolved_refs,
        Reason::ResolvedRefs,
        "everything it refers to is there",
    );
    let programmed = programmed(judged, programming);
    let ready = ready([&accepted, &resolved, &programmed], "the Webhook runs");
    let stalled = stalled(&ready);
    [accepted, resolved, programmed, ready, delivering(health)].into_iter().chain(stalled).collect()
}

/// `Stalled`, where nothing goes on before a person changes something, as kstatus has it: tools that wait for
/// an object wait no longer. What may yet come by itself, such as a Secret of the same commit, is waited for.
pub(crate) fn stalled(ready: &Condition) -> Option<Condition> {
    let is_stalled = ready.status == Some(false) && ready.reason.stands_in(Place::Stalled);
    is_stalled.then(|| Condition::new("Stalled", Some(true), ready.reason, ready.message.clone()))
}

// === impl Condition ===

impl Condition {
    /// A condition, of a reason that the list has stand there.
    pub fn new(kind: &'static str, status: Option<bool>, reason: Reason, message: impl Into<String>) -> Self {
        let is_listed = Place::of_condition(kind).is_some_and(|place| reason.stands_in(place));
        debug_assert!(is_listed, "say in reason.rs that {reason} stands in {kind}");
        Self { kind, status, reason, message: message.into() }
    }

    /// `True`, `False` or `Unknown`.
    pub fn status_str(&self) -> &'static str {
        match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// A warning is worth a place where people look, and keeps nothing from working.
fn in_order(judged: &Judged) -> String {
    let mut text = "the spec is in order".to_owned();
    for Finding { reason, field, message } in &judged.warnings {
        // Writing into a text does not fail.
        let _ = write!(text, "; {reason}: {field}: {message}");
    }
    text
}

pub(crate) fn of_result(
    kind: &'static str,
    result: &Result<(), Finding>,
    good: Reason,
    message: &str,
) -> Condition {
    match result {
        Ok(()) => Condition::new(kind, Some(true), good, message),
        Err(Finding { reason, field, message }) => {
            Condition::new(kind, Some(false), *reason, format!("{field}: {message}"))
        }
    }
}

fn programmed(judged: &Judged, programming: &Programming) -> Condition {
    let not = |reason, message: &str| Condition::new("Programmed", Some(false), reason, message);
    match programming {
        _ if !judged.is_ready() => not(Reason::NotInPlan, "it is in no plan: see Accepted and ResolvedRefs"),
        Programming::Waits(message) => not(Reason::Pending, message),
        Programming::NoSidecar(message) => not(Reason::NoSidecar, message),
        Programming::NoRoom(message) => not(Reason::PlanTooLarge, message),
        Programming::Rejected(message) => not(Reason::RejectedBySidecar, message),
        Programming::Runs => Condition::new(
            "Programmed",
            Some(true),
            Reason::Programmed,
            "every ready sidecar runs this generation",
        ),
    }
}

/// The first condition that is not true is the reason.
pub(crate) fn ready(conditions: [&Condition; 3], good: &str) -> Condition {
    match conditions.into_iter().find(|condition| condition.status != Some(true)) {
        None => Condition::new("Ready", Some(true), Reason::Ready, good),
        Some(first) => Condition::new("Ready", Some(false), first.reason, first.message.clone()),
    }
}

fn delivering(health: Option<&Health>) -> Condition {
    let unknown = || Condition::new("Delivering", None, Reason::NothingSent, "nothing has been sent yet");
    let Some(health) = health else { return unknown() };
    let failing = |reason| Condition::new("Delivering", Some(false), reason, trouble(health));
    let tell_from = if health.delivered > 0 { FAILURES_TO_TELL } else { 1 };
    match health.circuit {
        CircuitState::Gone => failing(Reason::EndpointGone),
        CircuitState::Suspended => {
            Condition::new("Delivering", None, Reason::Suspended, "suspended: events are kept")
        }
        CircuitState::Open | CircuitState::Probing => failing(Reason::CircuitOpen),
        CircuitState::Closed if health.consecutive_failures >= tell_from => failing(Reason::DeliveryFailing),
        CircuitState::Closed if health.delivered > 0 => match &health.filter_failing {
            Some(failing) => {
                Condition::new("Delivering", Some(true), Reason::FilterFailing, doubtful(failing))
            }
            None => Condition::new(
                "Delivering",
                Some(true),
                Reason::Delivering,
                "the endpoint takes what is sent",
            ),
        },
        CircuitState::Closed => unknown(),
    }
}

/// Which events were delivered although nobody knows whether they are wanted.
fn doubtful(FilterFailing { events, class, event, time }: &FilterFailing) -> String {
    let events = if *events == 1 { "1 event".to_owned() } else { format!("{events} events") };
    format!(
        "the endpoint takes what is sent; the filter could not be evaluated over {events}, which were delivered, last over {event} at {time}: {class}"
    )
}

/// What is wrong, since when, how many wait, and when it is tried again: what somebody needs who is woken
/// by it.
fn trouble(health: &Health) -> String {
    let Health {
        delivered: _,
        consecutive_failures,
        failing_since,
        circuit,
        last_failure,
        pending,
        next_attempt,
        filter_failing: _,
    } = health;
    let mut text = last_failure.clone().unwrap_or_else(|| "the endpoint fails".to_owned());
    let failures = if *consecutive_failures == 1 { "failure" } else { "failures" };
    let _ = write!(text, "; {consecutive_failures} {failures} in a row");
    if let Some(since) = failing_since {
        let _ = write!(text, " since {since}");
    }
    let wait = if *pending == 1 { "event waits" } else { "events wait" };
    let _ = write!(text, "; {pending} {wait}");
    match (circuit, next_attempt) {
        (CircuitState::Gone, _) => text.push_str("; nothing is sent until the Webhook is changed"),
        (_, Some(next)) => drop(write!(text, "; next attempt {next}")),
        (_, None) => {}
    }
    text
}
