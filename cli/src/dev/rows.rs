//! The rows of the table: what kubectl's columns would show of each Webhook.

use serde::Serialize;
use tidings_crds::{CircuitState, FilterFailing};
use tidings_operator::Outcome;
use tidings_operator::status::{Condition, Health, Programming, conditions};
use tidings_plan::ObjectName;
use tidings_sidecar::tally::Snapshot;

/// One Webhook's row. Equal rows look alike: ages are worked out when they are printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) ready: &'static str,
    pub(super) delivering: &'static str,
    pub(super) endpoint: String,
    pub(super) delivered: u64,
    pub(super) pending: u64,
    pub(super) failed: u64,
    pub(super) dead_lettered: u64,
    /// Why it is not ready, or not delivering; empty when all is well.
    pub(super) reason: String,
    pub(super) message: String,
    #[serde(skip)]
    pub(super) last_success_ms: Option<i64>,
}

/// The rows, by namespace and name.
pub(super) fn of(outcome: &Outcome, snapshots: &[Snapshot]) -> Vec<Row> {
    let row = |(name, judged): (&ObjectName, &tidings_operator::Judged)| {
        let snapshot = snapshots.iter().find(|snapshot| snapshot.webhook == name.to_string());
        let generation = outcome
            .plan
            .as_ref()
            .and_then(|plan| plan.webhooks.iter().find(|webhook| webhook.webhook == *name))
            .map_or(0, |webhook| webhook.generation);
        let conditions =
            conditions(judged, &programming(snapshot, generation), snapshot.map(health).as_ref());
        let of = |kind: &str| conditions.iter().find(|condition| condition.kind == kind);
        let (ready, delivering) = (of("Ready"), of("Delivering"));
        let (reason, message) = ready.zip(delivering).map(|(a, b)| trouble(a, b)).unwrap_or_default();
        let status = |condition: Option<&Condition>| condition.map_or("Unknown", Condition::status_str);
        let tally = snapshot.map(|snapshot| snapshot.tally.clone()).unwrap_or_default();
        Row {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            ready: status(ready),
            delivering: status(delivering),
            endpoint: judged.endpoint_host.clone().unwrap_or_default(),
            delivered: tally.delivered,
            pending: snapshot.map_or(0, |snapshot| snapshot.pending),
            failed: tally.failed,
            dead_lettered: tally.dead_lettered,
            reason,
            message,
            last_success_ms: tally.last_success.map(|success| success.time_ms),
        }
    };
    outcome.webhooks.iter().map(row).collect()
}

fn programming(snapshot: Option<&Snapshot>, generation: i64) -> Programming {
    match snapshot {
        Some(snapshot) if snapshot.generation == generation => Programming::Runs,
        Some(snapshot) => Programming::Waits(format!("generation {} runs", snapshot.generation)),
        None => Programming::Waits("it does not run".to_owned()),
    }
}

fn health(snapshot: &Snapshot) -> Health {
    let time = |ms: Option<i64>| {
        ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).map(|time| format!("{time:.0}"))
    };
    let tally = &snapshot.tally;
    Health {
        delivered: tally.delivered,
        consecutive_failures: tally.consecutive_failures,
        failing_since: time(tally.failing_since_ms),
        circuit: CircuitState::of_word(snapshot.circuit),
        last_failure: tally.last_failure.as_ref().map(|failure| failure.message.clone()),
        pending: snapshot.pending,
        next_attempt: time(snapshot.next_attempt_ms),
        filter_failing: tally.filter_failing_of(snapshot.generation).map(|failing| FilterFailing {
            events: i64::try_from(failing.events).unwrap_or(i64::MAX),
            class: failing.class.clone(),
            event: failing.event.clone(),
            time: time(Some(failing.time_ms)).unwrap_or_default(),
        }),
    }
}

fn trouble(ready: &Condition, delivering: &Condition) -> (String, String) {
    [ready, delivering]
        .into_iter()
        .find(|condition| condition.status == Some(false))
        .map(|condition| (condition.reason.to_string(), condition.message.clone()))
        .unwrap_or_default()
}
