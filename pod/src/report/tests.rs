use tidings_sidecar::tally::Tally;

use super::*;

const NOON: i64 = 1_767_268_800_000;

fn snapshot(at: usize, tally: Tally) -> Snapshot {
    Snapshot {
        webhook: format!("shop/hook-{at:04}"),
        uid: format!("uid-{at}"),
        generation: 3,
        tally,
        pending: 0,
        oldest_pending_ms: None,
        next_attempt_ms: None,
        circuit: "Closed",
    }
}

fn delivered(count: u64) -> Tally {
    Tally { delivered: count, ..Tally::default() }
}

fn observed(webhooks: Vec<Snapshot>) -> Observed {
    let applied =
        Applied { digest: "0123456789abcdef".to_owned(), generation: 7, webhooks: 1, rejected: vec![] };
    Observed {
        auth_server: "logto".to_owned(),
        pod: "logto-0".to_owned(),
        store: "feedfacefeedface".to_owned(),
        problem: None,
        applied: Arc::new(applied),
        received: 12,
        unmatched: 2,
        webhooks,
        replays: vec![],
        time_ms: NOON,
    }
}

#[test]
fn a_sidecar_without_webhooks_reports_its_plan_and_its_events() {
    let parts = parts(&observed(vec![]));
    let [part] = parts.as_slice() else { panic!("{parts:?}") };
    assert_eq!((part.part, part.pod.as_str(), part.time.as_str()), (0, "logto-0", "2026-01-01T12:00:00Z"));
    assert_eq!(part.plan, RunningPlan { generation: 7, digest: "0123456789abcdef".to_owned() });
    assert_eq!(part.events, EventTally { received: 12, unmatched: 2 });
}

#[test]
fn a_store_that_takes_nothing_is_reported_once_with_its_reason_within_bounds() {
    let problem = front::StoreProblem { reason: "StoreDamaged", message: "x".repeat(5000) };
    let webhooks = (0..=REPORTED_WEBHOOKS).map(|at| snapshot(at, delivered(1))).collect();
    let parts = parts(&Observed { problem: Some(problem.clone()), ..observed(webhooks) });
    let told = parts[0].store_problem.as_ref().unwrap();
    assert_eq!((told.reason.as_str(), told.message.len()), ("StoreDamaged", MAX_MESSAGE));
    assert_eq!((parts.len(), &parts[1].store_problem), (2, &None));
    let [part] = &without_store("logto", "logto-0", problem, NOON)[..] else { panic!("one part") };
    assert_eq!((part.store.as_str(), part.plan.generation), ("unknown", 0));
    assert!(part.store_problem.is_some() && part.webhooks.is_empty());
}

#[test]
fn a_failing_webhook_is_reported_with_all_that_is_known_of_its_last_attempt() {
    let failure = Failure {
        time_ms: NOON,
        event: "User.Created".to_owned(),
        reason: "Timeout".to_owned(),
        phase: Some("Waiting".to_owned()),
        status_code: None,
        message: "no answer within 15 s; the time ran out while waiting for the answer".to_owned(),
        duration_milliseconds: 15_001,
        timeout_seconds: 15,
        attempt: 4,
    };
    let tally = Tally {
        failed: 4,
        consecutive_failures: 4,
        failing_since_ms: Some(NOON - 1000),
        last_failure: Some(failure),
        ..Tally::default()
    };
    let webhook = Snapshot {
        pending: 9,
        oldest_pending_ms: Some(NOON - 500),
        next_attempt_ms: Some(NOON + 250),
        circuit: "Open",
        ..snapshot(1, tally)
    };
    let reported = parts(&observed(vec![webhook])).remove(0).webhooks.remove(0);
    assert_eq!((reported.namespace.as_str(), reported.name.as_str()), ("shop", "hook-0001"));
    assert_eq!((reported.failed, reported.pending, reported.circuit), (4, 9, CircuitState::Open));
    assert_eq!(reported.failing_since.as_deref(), Some("2026-01-01T11:59:59Z"));
    assert_eq!(reported.oldest_pending_time.as_deref(), Some("2026-01-01T11:59:59.5Z"));
    assert_eq!(reported.next_attempt_time.as_deref(), Some("2026-01-01T12:00:00.25Z"));
    let last = reported.last_failure.unwrap();
    assert_eq!((last.attempt, last.timeout_seconds, last.duration_milliseconds), (4, 15, 15_001));
    assert_eq!((last.phase.as_deref(), last.status_code), (Some("Waiting"), None));
}

#[test]
fn webhooks_of_which_there_is_nothing_to_tell_are_left_out() {
    let parts = parts(&observed(vec![snapshot(0, Tally::default()), snapshot(1, delivered(1))]));
    assert_eq!(parts[0].webhooks.len(), 1);
    assert_eq!(parts[0].webhooks[0].name, "hook-0001");
}

/// The parts in which two reports differ.
fn changed(before: &Observed, after: &Observed) -> Vec<i32> {
    let (before, after) = (parts(before), parts(after));
    let pairs = before.iter().zip(&after);
    pairs.filter(|(one, other)| !says_the_same(one, other)).map(|(one, _)| one.part).collect()
}

#[test]
fn a_delivery_changes_the_one_part_in_which_its_webhook_stands_and_a_plan_the_first() {
    let before = observed((0..1200).map(|at| snapshot(at, delivered(1))).collect());
    assert_eq!(parts(&before).len(), 3);
    let mut after = Observed { time_ms: NOON + 1000, ..before.clone() };
    assert_eq!(changed(&before, &after), Vec::<i32>::new(), "time alone is no news");
    after.webhooks[700].tally = delivered(2);
    assert_eq!(changed(&before, &after), [1]);
    let newer = Applied { generation: 8, ..(*before.applied).clone() };
    let after = Observed { applied: Arc::new(newer), ..before.clone() };
    assert_eq!(changed(&before, &after), [0]);
    let events: i64 = parts(&after).iter().map(|part| part.events.received).sum();
    assert_eq!(events, 12, "a sum over parts is right");
}

#[test]
fn webhooks_that_cannot_run_are_reported_with_the_reason_within_its_bound() {
    let mut observed = observed(vec![]);
    let rejected =
        (0..501).map(|at| (ObjectName::new("shop", format!("bad-{at:03}")), "ä".repeat(2000))).collect();
    observed.applied = Arc::new(Applied { rejected, ..(*observed.applied).clone() });
    let parts = parts(&observed);
    assert_eq!((parts.len(), parts[0].rejected.len(), parts[1].rejected.len()), (2, 500, 1));
    assert_eq!(parts[1].rejected[0].name, "bad-500");
    assert_eq!(parts[0].rejected[0].message.chars().count(), 1024);
}

#[test]
fn an_attempt_that_is_due_at_once_has_no_time() {
    let probing = Snapshot { next_attempt_ms: Some(0), ..snapshot(0, delivered(1)) };
    assert_eq!(parts(&observed(vec![probing]))[0].webhooks[0].next_attempt_time, None);
}

#[test]
fn what_was_lost_is_reported_also_of_a_webhook_to_which_nothing_else_happened() {
    let tally = Tally { expired: 1788, dropped: 2, ..Tally::default() };
    let parts = parts(&observed(vec![snapshot(1, tally), snapshot(2, Tally::default())]));
    let [webhook] = parts[0].webhooks.as_slice() else { panic!("{parts:?}") };
    assert_eq!((webhook.expired, webhook.dropped), (1788, 2));
}
