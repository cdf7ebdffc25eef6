//! Events of the past, delivered once more: by a real sidecar, to a real receiver.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde_json::Value;
use tidings_plan::{EventPattern, ObjectName, Plan, ReplayPlan, WebhookPlan};
use tidings_signature::SigningKey;
use tidings_tests::client::{Client, get_json};
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Received, Receiver, Reply};
use tidings_tests::{capture, until};

/// A replay of everything to shop/all, faster than any test counts.
fn replay(uid: &str) -> ReplayPlan {
    ReplayPlan {
        uid: uid.to_owned(),
        webhook: ObjectName::new("shop", "all"),
        from_ms: 0,
        to_ms: i64::MAX,
        events: vec![],
        only_failed: false,
        dry_run: false,
        rate_per_second: 10_000,
    }
}

fn replaying(webhooks: impl IntoIterator<Item = WebhookPlan>, replay: &ReplayPlan) -> Plan {
    Plan { replays: vec![replay.clone()], ..plan(webhooks) }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn body(name: &str, number: u64) -> String {
    format!(r#"{{"event":"{name}","createdAt":"t{number}","number":{number}}}"#)
}

/// Posts numbered events, signed as the auth server would.
async fn post(sidecar: &Process, name: &str, numbers: impl IntoIterator<Item = u64>) {
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    let mut sender: Client = sidecar.sender().await;
    for number in numbers {
        let body = body(name, number);
        let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(body.as_bytes()));
        let answer = sender.post("/events", &headers, body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn number_of(received: &Received) -> u64 {
    serde_json::from_slice::<Value>(&received.body).unwrap()["number"].as_u64().unwrap()
}

/// How often each number came; whatever came twice did so under one id and with one body.
fn arrivals(received: &[Received]) -> BTreeMap<u64, usize> {
    let (mut counts, mut seen) = (BTreeMap::new(), BTreeMap::new());
    for one in received {
        *counts.entry(number_of(one)).or_default() += 1;
        let first = seen.entry(number_of(one)).or_insert(one);
        assert_eq!(one.header("webhook-id"), first.header("webhook-id"), "one id over all deliveries");
        assert_eq!(one.body, first.body);
    }
    counts
}

async fn wait_replay(sidecar: &Process, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
    until(&format!("the replay: {what}"), async || {
        let replays = get_json(sidecar.admin, "/replays").await;
        replays.get(0).filter(|replay| is_so(replay)).cloned()
    })
    .await
}

async fn wait_complete(sidecar: &Process) -> Value {
    wait_replay(sidecar, "complete", |replay| replay["complete"] == true).await
}

async fn wait_idle(sidecar: &Process) {
    sidecar.wait_webhook("shop/all", "nothing waits", |webhook| webhook["pending"] == 0).await;
}

/// A running sidecar that delivered so many events to shop/all.
async fn delivered(receiver: &Receiver, count: u64) -> (Home, Process) {
    let home = Home::default();
    home.put(&plan([webhook("all", receiver)]));
    let sidecar = home.start().await;
    post(&sidecar, "User.Created", 1..=count).await;
    receiver.wait_for(usize::try_from(count).unwrap()).await;
    wait_idle(&sidecar).await;
    (home, sidecar)
}

/// A moment that lies after what was answered until now, and has come.
async fn a_moment() -> i64 {
    let moment = now_ms() + 1;
    until("the next millisecond", async || (now_ms() >= moment).then_some(())).await;
    moment
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_window_comes_again_under_the_same_ids_and_nothing_else_does() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)]));
    let sidecar = home.start().await;
    post(&sidecar, "User.Created", 1..=5).await;
    let from_ms = a_moment().await;
    post(&sidecar, "User.Created", 6..=40).await;
    post(&sidecar, "Role.Created", 41..=45).await;
    let to_ms = a_moment().await;
    post(&sidecar, "User.Created", 46..=50).await;
    receiver.wait_for(50).await;
    wait_idle(&sidecar).await;
    let users = vec![EventPattern::parse("User.*").unwrap()];
    home.put(&replaying(
        [webhook("all", &receiver)],
        &ReplayPlan { from_ms, to_ms, events: users, ..replay("r") },
    ));
    let replay = wait_complete(&sidecar).await;
    assert_eq!((&replay["matched"], &replay["replayed"]), (&35.into(), &35.into()));
    receiver.wait_for(85).await;
    wait_idle(&sidecar).await;
    let expected = (1..=50).map(|number| (number, if (6..=40).contains(&number) { 2 } else { 1 }));
    assert_eq!(arrivals(&receiver.received()), expected.collect());
    sidecar.wait_metric("tidings_events_replayed_total", 35).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_ones_alone_come_again_and_leave_the_dead_letters() {
    let odd = |received: &Received| number_of(received) % 2 == 1;
    let receiver = Receiver::answering(move |_, it| Reply::Status(if odd(it) { 400 } else { 200 })).await;
    let all = || webhook("all", &receiver).retrying_within(1, 1, 1);
    let home = Home::default();
    home.put(&plan([all()]));
    let sidecar = home.start().await;
    post(&sidecar, "User.Created", 1..=20).await;
    sidecar.wait_webhook("shop/all", "ten given up", |webhook| webhook["deadLettered"] == 10).await;
    wait_idle(&sidecar).await;
    receiver.now_answering(|_, _| Reply::Status(200));
    let before = receiver.count();
    home.put(&replaying([all()], &ReplayPlan { only_failed: true, ..replay("r") }));
    let replay = wait_complete(&sidecar).await;
    assert_eq!((&replay["matched"], &replay["replayed"]), (&10.into(), &10.into()));
    wait_idle(&sidecar).await;
    let received = receiver.received();
    arrivals(&received);
    assert_eq!(arrivals(&received[before..]), (1..=20).step_by(2).map(|number| (number, 1)).collect());
    until("no dead letter is left", async || {
        let page = get_json(sidecar.admin, "/deadletters?webhook=shop/all").await;
        page["deadLetters"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_event_that_is_given_up_once_more_is_a_dead_letter_again() {
    let receiver = Receiver::answering(|_, _| Reply::Status(400)).await;
    let all = || webhook("all", &receiver).retrying_within(1, 1, 1);
    let home = Home::default();
    home.put(&plan([all()]));
    let sidecar = home.start().await;
    post(&sidecar, "User.Created", 1..=3).await;
    sidecar.wait_webhook("shop/all", "given up", |webhook| webhook["deadLettered"] == 3).await;
    until("the dead letters are saved", async || {
        let page = get_json(sidecar.admin, "/deadletters?webhook=shop/all").await;
        (page["deadLetters"].as_array().unwrap().len() == 3).then_some(())
    })
    .await;
    home.put(&replaying([all()], &ReplayPlan { only_failed: true, ..replay("r") }));
    assert_eq!(wait_complete(&sidecar).await["replayed"], 3);
    sidecar.wait_webhook("shop/all", "given up again", |webhook| webhook["deadLettered"] == 6).await;
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    let sidecar = home.start().await;
    let page = get_json(sidecar.admin, "/deadletters?webhook=shop/all").await;
    assert_eq!(page["deadLetters"].as_array().unwrap().len(), 3, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_the_webhook_wants_and_delivers_nothing() {
    let receiver = Receiver::start().await;
    let (home, sidecar) = delivered(&receiver, 30).await;
    let picky = webhook("all", &receiver).filtered("event.number > 12");
    home.put(&replaying([picky], &ReplayPlan { dry_run: true, rate_per_second: 1, ..replay("r") }));
    let replay = wait_complete(&sidecar).await;
    assert_eq!((&replay["matched"], &replay["replayed"]), (&18.into(), &0.into()));
    assert_eq!(replay["oldestAvailableMs"].as_i64().map(|ms| ms <= now_ms()), Some(true), "nothing is older");
    wait_idle(&sidecar).await;
    assert_eq!(receiver.count(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_again_and_again_goes_on_where_it_was_and_loses_nothing() {
    const EVENTS: u64 = 150;
    let receiver = Receiver::start().await;
    let (home, mut sidecar) = delivered(&receiver, EVENTS).await;
    home.put(&replaying([webhook("all", &receiver)], &ReplayPlan { rate_per_second: 50, ..replay("r") }));
    for _ in 0..3 {
        let before = receiver.count();
        receiver.wait_for(before + 20).await;
        sidecar.kill().await;
        sidecar = home.start().await;
    }
    let replay = wait_complete(&sidecar).await;
    assert_eq!((&replay["matched"], &replay["replayed"]), (&EVENTS.into(), &EVENTS.into()));
    wait_idle(&sidecar).await;
    let arrivals = arrivals(&receiver.received());
    let missed: Vec<_> = (1..=EVENTS).filter(|number| arrivals[number] < 2).collect();
    assert!(missed.is_empty(), "not replayed: {missed:?}");
    let again = receiver.count() - 2 * usize::try_from(EVENTS).unwrap();
    println!("3 kills: {again} of {EVENTS} came a third time");
    // A kill takes back a tenth of a second, and what was under way: not the replay.
    assert!(again <= 3 * 20, "{again} came more than twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_runs_once_however_often_it_is_applied_and_anew_only_when_it_was_taken_away() {
    let receiver = Receiver::start().await;
    let (home, sidecar) = delivered(&receiver, 10).await;
    home.put(&replaying([webhook("all", &receiver)], &replay("r")));
    let complete = wait_complete(&sidecar).await;
    receiver.wait_for(20).await;
    wait_idle(&sidecar).await;
    // Another Webhook comes; the replay is applied again.
    let other = Receiver::start().await;
    let both = || [webhook("all", &receiver), webhook("other", &other)];
    home.put(&replaying(both(), &replay("r")));
    until("two Webhooks run", async || {
        let all = get_json(sidecar.admin, "/webhooks").await;
        (all.as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    let sidecar = home.start().await;
    assert_eq!(wait_complete(&sidecar).await, complete);
    post(&sidecar, "User.Created", [11]).await;
    receiver.wait_for(21).await;
    wait_idle(&sidecar).await;
    assert_eq!(receiver.count(), 21, "nothing but the new event came");
    home.put(&plan(both()));
    until("the replay is gone", async || {
        let replays = get_json(sidecar.admin, "/replays").await;
        replays.as_array().unwrap().is_empty().then_some(())
    })
    .await;
    home.put(&replaying(both(), &replay("r")));
    assert_eq!(wait_complete(&sidecar).await["replayed"], 11, "it was forgotten");
    receiver.wait_for(32).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_says_where_retention_took_part_of_its_window() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)]));
    let sidecar = home.start_with(&["--max-bytes", "1000"]).await;
    let began_ms = a_moment().await;
    post(&sidecar, "User.Created", 1..=9).await;
    let later_ms = a_moment().await;
    post(&sidecar, "User.Created", 10..=50).await;
    receiver.wait_for(50).await;
    let left = 1000 / u64::try_from(body("User.Created", 50).len()).unwrap();
    let oldest = 51 - left;
    until("retention took what is beyond its bytes", async || {
        sidecar.metric("tidings_store_oldest").await.filter(|first| *first == oldest)
    })
    .await;
    home.put(&replaying([webhook("all", &receiver)], &ReplayPlan { from_ms: began_ms, ..replay("r") }));
    let replay = wait_complete(&sidecar).await;
    assert_eq!((&replay["matched"], &replay["replayed"]), (&left.into(), &left.into()));
    let oldest_available_ms = replay["oldestAvailableMs"].as_i64().expect("it says so");
    assert!((later_ms..=now_ms()).contains(&oldest_available_ms), "{replay}");
    wait_idle(&sidecar).await;
    let twice: HashSet<_> = arrivals(&receiver.received())
        .into_iter()
        .filter(|(_, n)| *n == 2)
        .map(|(number, _)| number)
        .collect();
    assert_eq!(twice, (oldest..=50).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_is_kept() {
    let receiver = Receiver::start().await;
    let (home, sidecar) = delivered(&receiver, 60).await;
    home.put(&replaying([webhook("all", &receiver)], &ReplayPlan { rate_per_second: 20, ..replay("r") }));
    let received = receiver.wait_for(120).await;
    wait_complete(&sidecar).await;
    let took = received[119].at.duration_since(received[60].at);
    println!("60 events at 20 a second took {took:?}");
    assert!(took >= Duration::from_millis(1900), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_go_on_being_delivered_during_a_large_replay() {
    const EVENTS: u64 = 800;
    let receiver = Receiver::start().await;
    let (home, sidecar) = delivered(&receiver, EVENTS).await;
    receiver.now_answering(|_, _| Reply::After(Duration::from_millis(5), 200));
    let one_at_a_time = webhook("all", &receiver).delivering(|delivery| delivery.concurrency = 1);
    home.put(&replaying([one_at_a_time], &replay("r")));
    let old = usize::try_from(EVENTS).unwrap();
    receiver.wait_for(old + 20).await;
    for live in EVENTS + 1..=EVENTS + 10 {
        post(&sidecar, "User.Created", [live]).await;
        let before = receiver.count();
        let at = until("the new event arrives", async || {
            receiver.received().iter().position(|received| number_of(received) == live)
        })
        .await;
        let waited_for = at.saturating_sub(before);
        assert!(waited_for <= 20, "{live} waited behind {waited_for} others");
    }
    assert!(receiver.count() < 2 * old, "the replay was still under way");
    receiver.wait_for(2 * old + 10).await;
    wait_idle(&sidecar).await;
    assert!(arrivals(&receiver.received()).values().take(old).all(|count| *count == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_matched_and_delivered_once() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    let mut suspended = webhook("all", &receiver);
    suspended.suspend = true;
    home.put(&plan([suspended.clone()]));
    let sidecar = home.start().await;
    post(&sidecar, "User.Created", 1..=10).await;
    home.put(&replaying([suspended], &replay("r")));
    let complete = wait_complete(&sidecar).await;
    assert_eq!((&complete["matched"], &complete["replayed"]), (&10.into(), &0.into()));
    home.put(&replaying([webhook("all", &receiver)], &replay("r")));
    receiver.wait_for(10).await;
    wait_idle(&sidecar).await;
    assert_eq!(arrivals(&receiver.received()), (1..=10).map(|number| (number, 1)).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_waits_for_its_webhook_and_brings_it_what_came_before_it() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let home = Home::default();
    home.put(&replaying([webhook("other", &other)], &replay("r")));
    let sidecar = home.start().await;
    post(&sidecar, "User.Created", 1..=10).await;
    other.wait_for(10).await;
    assert_eq!(get_json(sidecar.admin, "/replays").await[0]["position"], 0);
    // One key for all: the order of the log is the order at the receiver.
    let all = webhook("all", &receiver).ordered_by("/event");
    home.put(&replaying([all, webhook("other", &other)], &replay("r")));
    wait_complete(&sidecar).await;
    let received: Vec<_> = receiver.wait_for(10).await.iter().map(number_of).collect();
    assert_eq!(received, (1..=10).collect::<Vec<_>>());
    assert_eq!(other.count(), 10);
}
