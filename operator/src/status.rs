//! Conditions: from what was judged and what sidecars report to what kubectl shows. Pure.

use crate::{Finding, Judged, Reason};

/// What the sidecars report of one Webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// The generation that they run; `None` where one does not run it at all.
    pub generation: Option<i64>,
    /// Events that the endpoint took.
    pub delivered: u64,
    /// Failures since the last success.
    pub consecutive_failures: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// `Closed`, `Open`, `Probing`, `Gone` or `Suspended`.
    pub circuit: String,
    /// The last failure's sentence.
    pub last_failure: Option<String>,
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

/// The conditions of a Webhook at this generation: Accepted, `ResolvedRefs`, Programmed, Ready, Delivering.
pub fn conditions(judged: &Judged, generation: i64, reported: Option<&Reported>) -> [Condition; 5] {
    let accepted = of_result("Accepted", &judged.accepted, Reason::Accepted, "the spec is in order");
    let resolved = of_result(
        "ResolvedRefs",
        &judged.resolved_refs,
        Reason::ResolvedRefs,
        "everything it refers to is there",
    );
    let programmed = programmed(judged, generation, reported);
    let ready = ready([&accepted, &resolved, &programmed]);
    [accepted, resolved, programmed, ready, delivering(reported)]
}

// === impl Condition ===

impl Condition {
    fn new(kind: &'static str, status: Option<bool>, reason: Reason, message: impl Into<String>) -> Self {
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

fn of_result(kind: &'static str, result: &Result<(), Finding>, good: Reason, message: &str) -> Condition {
    match result {
        Ok(()) => Condition::new(kind, Some(true), good, message),
        Err(Finding { reason, field, message }) => {
            Condition::new(kind, Some(false), *reason, format!("{field}: {message}"))
        }
    }
}

fn programmed(judged: &Judged, generation: i64, reported: Option<&Reported>) -> Condition {
    let runs = reported.and_then(|reported| reported.generation);
    if judged.is_ready() && runs == Some(generation) {
        return Condition::new(
            "Programmed",
            Some(true),
            Reason::Programmed,
            "every ready sidecar runs this generation",
        );
    }
    let message = match runs {
        Some(older) => format!("the sidecars run generation {older}"),
        None => "no sidecar runs it".to_owned(),
    };
    Condition::new("Programmed", Some(false), Reason::Pending, message)
}

/// The first condition that is not true is the reason.
fn ready(conditions: [&Condition; 3]) -> Condition {
    match conditions.into_iter().find(|condition| condition.status != Some(true)) {
        None => Condition::new("Ready", Some(true), Reason::Ready, "the Webhook runs"),
        Some(first) => Condition::new("Ready", Some(false), first.reason, first.message.clone()),
    }
}

fn delivering(reported: Option<&Reported>) -> Condition {
    let unknown = || Condition::new("Delivering", None, Reason::NothingSent, "nothing has been sent yet");
    let Some(reported) = reported else { return unknown() };
    let failure = reported.last_failure.clone().unwrap_or_default();
    let failing = |reason| Condition::new("Delivering", Some(false), reason, failure.clone());
    match reported.circuit.as_str() {
        "Gone" => failing(Reason::EndpointGone),
        "Suspended" => Condition::new("Delivering", None, Reason::Suspended, "suspended: events are kept"),
        "Open" | "Probing" => failing(Reason::CircuitOpen),
        _ if reported.consecutive_failures > 0 => failing(Reason::DeliveryFailing),
        _ if reported.delivered > 0 => {
            Condition::new("Delivering", Some(true), Reason::Delivering, "the endpoint takes what is sent")
        }
        _ => unknown(),
    }
}
