//! From the sidecar's numbers to its `DeliveryReport`, in parts of a bounded size. Pure.
//!
//! What is told of the whole sidecar stands in the first part alone: a new plan, or an event that comes,
//! changes that one and no other, however many Webhooks there are. Webhooks of which there is nothing to
//! tell take no place. No URL, secret or body can enter: the tallies have none.

use std::sync::Arc;

use jiff::Timestamp;
use tidings_crds::{
    Attempt, CircuitState, DeliveryReportSpec, EventTally, FailedAttempt, FilterFailing, LocalRef,
    REPORTED_WEBHOOKS, RejectedWebhook, ReplayReport, RunningPlan, StoreProblem, WebhookReport,
};
use tidings_plan::ObjectName;
use tidings_sidecar::engine::Applied;
use tidings_sidecar::front;
use tidings_sidecar::tally::{self, Failure, Snapshot, Success};
use tidings_store::ReplayProgress;

/// The most characters of a sentence.
const MAX_MESSAGE: usize = 1024;

/// The most characters of an event's name.
const MAX_EVENT: usize = 256;

/// The most replays that are told of.
const MAX_REPLAYS: usize = 256;

/// The identity of a store that is not open.
const UNKNOWN_STORE: &str = "unknown";

/// What a report is made from.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The auth server's name.
    pub auth_server: String,
    /// The pod's name.
    pub pod: String,
    /// The store's identity.
    pub store: String,
    /// Why the store takes nothing, where it does not.
    pub problem: Option<front::StoreProblem>,
    /// What became of the last plan.
    pub applied: Arc<Applied>,
    /// Events that were stored, since the store was made.
    pub received: u64,
    /// Events that no Webhook selects, since the store was made.
    pub unmatched: u64,
    /// The numbers of the plan's Webhooks, by namespace and name.
    pub webhooks: Vec<Snapshot>,
    /// How far each replay of the plan came.
    pub replays: Vec<ReplayProgress>,
    /// The time, in milliseconds since 1970.
    pub time_ms: i64,
}

/// The report's parts, at least one.
pub fn parts(observed: &Observed) -> Vec<DeliveryReportSpec> {
    let Observed {
        auth_server,
        pod,
        store,
        problem,
        applied,
        received,
        unmatched,
        webhooks,
        replays,
        time_ms,
    } = observed;
    let telling: Vec<_> = webhooks.iter().filter(|one| is_telling(one)).map(webhook).collect();
    let mut webhooks = telling.chunks(REPORTED_WEBHOOKS);
    let mut rejected = applied.rejected.chunks(REPORTED_WEBHOOKS);
    let count = webhooks.len().max(rejected.len()).max(1);
    let part = |part: usize| DeliveryReportSpec {
        auth_server_ref: LocalRef { name: auth_server.clone() },
        pod: pod.clone(),
        store: store.clone(),
        store_problem: problem.as_ref().filter(|_| part == 0).map(store_problem),
        part: i32::try_from(part).unwrap_or(i32::MAX),
        plan: RunningPlan { generation: number(applied.generation), digest: applied.digest.clone() },
        time: time(*time_ms),
        events: match part {
            0 => EventTally { received: number(*received), unmatched: number(*unmatched) },
            _ => EventTally::default(),
        },
        webhooks: webhooks.next().unwrap_or_default().to_vec(),
        rejected: rejected.next().unwrap_or_default().iter().map(left_out).collect(),
        replays: if part == 0 { replays.iter().take(MAX_REPLAYS).map(replay).collect() } else { Vec::new() },
    };
    (0..count).map(part).collect()
}

/// The report of a sidecar whose store is not open.
pub fn without_store(
    auth_server: &str,
    pod: &str,
    problem: front::StoreProblem,
    time_ms: i64,
) -> Vec<DeliveryReportSpec> {
    parts(&Observed {
        auth_server: auth_server.to_owned(),
        pod: pod.to_owned(),
        store: UNKNOWN_STORE.to_owned(),
        problem: Some(problem),
        applied: Arc::default(),
        received: 0,
        unmatched: 0,
        webhooks: Vec::new(),
        replays: Vec::new(),
        time_ms,
    })
}

/// Whether two parts say the same: when it was written is no news, and which plan runs is the first
/// part's to say.
pub fn says_the_same(one: &DeliveryReportSpec, other: &DeliveryReportSpec) -> bool {
    let plan =
        |spec: &DeliveryReportSpec| if spec.part == 0 { spec.plan.clone() } else { RunningPlan::default() };
    let timeless = |spec: &DeliveryReportSpec| DeliveryReportSpec {
        time: String::new(),
        plan: plan(spec),
        ..spec.clone()
    };
    timeless(one) == timeless(other)
}

/// Something was delivered, failed, waits or was given up.
fn is_telling(snapshot: &Snapshot) -> bool {
    let tally = &snapshot.tally;
    let lost = [tally.dead_lettered, tally.expired, tally.dropped];
    [tally.delivered, tally.failed, snapshot.pending].iter().chain(&lost).any(|count| *count > 0)
}

fn webhook(snapshot: &Snapshot) -> WebhookReport {
    let Snapshot { webhook, uid, generation, tally, pending, oldest_pending_ms, next_attempt_ms, circuit } =
        snapshot;
    let ObjectName { namespace, name } =
        ObjectName::parse(webhook).unwrap_or_else(|| ObjectName::new("", webhook));
    WebhookReport {
        namespace,
        name,
        uid: uid.clone(),
        generation: *generation,
        delivered: number(tally.delivered),
        failed: number(tally.failed),
        pending: number(*pending),
        dead_lettered: number(tally.dead_lettered),
        expired: number(tally.expired),
        dropped: number(tally.dropped),
        oldest_pending_time: known(*oldest_pending_ms),
        last_success: tally.last_success.as_ref().map(success),
        last_failure: tally.last_failure.as_ref().map(failure),
        consecutive_failures: number(tally.consecutive_failures),
        failing_since: known(tally.failing_since_ms),
        next_attempt_time: known(*next_attempt_ms),
        circuit: CircuitState::of_word(circuit),
        filter_failing: tally.filter_failing_of(*generation).map(filter_failing),
    }
}

fn filter_failing(failing: &tally::FilterFailing) -> FilterFailing {
    let tally::FilterFailing { generation: _, events, class, event, time_ms } = failing;
    FilterFailing {
        events: number(*events),
        class: class.clone(),
        event: shortened(event, MAX_EVENT),
        time: time(*time_ms),
    }
}

fn success(success: &Success) -> Attempt {
    let Success { time_ms, event, status_code, duration_milliseconds, attempt } = success;
    Attempt {
        time: time(*time_ms),
        event: shortened(event, MAX_EVENT),
        status_code: i32::from(*status_code),
        duration_milliseconds: number(*duration_milliseconds),
        attempt: small(*attempt),
    }
}

fn failure(failure: &Failure) -> FailedAttempt {
    let Failure {
        time_ms,
        event,
        reason,
        phase,
        status_code,
        message,
        duration_milliseconds,
        timeout_seconds,
        attempt,
    } = failure;
    FailedAttempt {
        time: time(*time_ms),
        event: shortened(event, MAX_EVENT),
        reason: reason.clone(),
        status_code: status_code.map(i32::from),
        phase: phase.clone(),
        duration_milliseconds: number(*duration_milliseconds),
        timeout_seconds: small(*timeout_seconds),
        attempt: small(*attempt),
        message: shortened(message, MAX_MESSAGE),
    }
}

fn store_problem(problem: &front::StoreProblem) -> StoreProblem {
    let front::StoreProblem { reason, message } = problem;
    StoreProblem { reason: (*reason).to_owned(), message: shortened(message, MAX_MESSAGE) }
}

fn left_out((webhook, message): &(ObjectName, String)) -> RejectedWebhook {
    let ObjectName { namespace, name } = webhook.clone();
    RejectedWebhook { namespace, name, message: shortened(message, MAX_MESSAGE) }
}

fn replay(progress: &ReplayProgress) -> ReplayReport {
    let ReplayProgress { uid, position: _, matched, replayed, complete, oldest_available_ms } = progress;
    ReplayReport {
        uid: uid.clone(),
        matched: number(*matched),
        replayed: number(*replayed),
        oldest_available_time: known(*oldest_available_ms),
        complete: *complete,
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or_default().to_string()
}

/// A time that is known; 0 means at once, and is no time to show.
fn known(ms: Option<i64>) -> Option<String> {
    ms.filter(|ms| *ms > 0).map(time)
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn small(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests;
