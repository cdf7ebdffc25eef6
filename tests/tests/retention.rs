//! Retention takes what waits: every acknowledged event is in one of a Webhook's numbers, over kills and
//! changes of the plan too.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tidings_signature::SigningKey;
use tidings_tests::capture;
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Receiver, Reply};

/// About a hundred of the events below fit.
const SMALL: [&str; 2] = ["--max-bytes", "100Ki"];

/// Stores so many events of a thousand bytes; each third one has another name.
async fn store(sidecar: &Process, events: std::ops::Range<usize>) {
    let mut sender = sidecar.sender().await;
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    for number in events {
        let name = if number % 3 == 0 { "Other.Thing" } else { "User.Created" };
        let fill = "x".repeat(900);
        let body = format!(r#"{{"event":"{name}","createdAt":"t{number}","fill":"{fill}"}}"#);
        let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(body.as_bytes()));
        let answer = sender.post("/events", &headers, body.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn number(webhook: &Value, name: &str) -> u64 {
    webhook[name].as_u64().unwrap()
}

/// The sum of where an event can be.
fn accounted(webhook: &Value) -> u64 {
    ["delivered", "deadLettered", "dropped", "expired", "pending"]
        .map(|name| number(webhook, name))
        .iter()
        .sum()
}

/// Waits until retention has left no more than fits, and each acknowledged event is in one number.
async fn add_up(sidecar: &Process, name: &str, acknowledged: u64) -> Value {
    let webhook = sidecar
        .wait_webhook(name, "retention took what does not fit", |webhook| {
            number(webhook, "pending") <= 130 && accounted(webhook) == acknowledged
        })
        .await;
    assert!(number(&webhook, "expired") > 0, "{webhook}");
    webhook
}

/// Takes the first few events, and fails from then on.
async fn takes(first: usize) -> Receiver {
    let taken = Arc::new(AtomicUsize::new(0));
    let answer = move |_: usize, _: &_| {
        Reply::Status(if taken.fetch_add(1, Ordering::SeqCst) < first { 200 } else { 503 })
    };
    Receiver::answering(answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_that_retention_takes_is_counted_also_over_kills() {
    let receiver = takes(55).await;
    let home = Home::default();
    home.put(&plan([
        webhook("all", &receiver).retrying_within(1, 1, 36_000),
        webhook("users", &receiver).selecting(&["User.*"]).ordered_by("/event"),
    ]));
    let mut sent = 0;
    for kill in 0..4 {
        let sidecar = home.start_with(&SMALL).await;
        store(&sidecar, sent..sent + 330).await;
        sent += 330;
        add_up(&sidecar, "shop/all", sent as u64).await;
        let users = add_up(&sidecar, "shop/users", sent as u64 * 2 / 3).await;
        let line = r#"tidings_webhook_expired_total{namespace="shop",webhook="users"} "#;
        assert!(sidecar.metric(line).await.unwrap() >= number(&users, "expired"));
        assert!(sidecar.output().contains("retention removed events that waited"), "{}", sidecar.output());
        // At a moment that differs: while retention is at work, or after it.
        if kill % 2 == 0 {
            store(&sidecar, sent..sent + 90).await;
            sent += 90;
        }
        sidecar.kill().await;
    }
    receiver.now_answering(|_, _| Reply::Status(200));
    let sidecar = home.start_with(&SMALL).await;
    for (name, acknowledged) in [("shop/all", sent as u64), ("shop/users", sent as u64 * 2 / 3)] {
        let settled = sidecar.wait_webhook(name, "nothing waits", |webhook| webhook["pending"] == 0).await;
        assert_eq!(accounted(&settled), acknowledged, "{settled}");
        assert!(number(&settled, "delivered") > 60, "what was left is delivered: {settled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_out_of_the_plan_finds_what_retention_took_meanwhile_in_its_numbers() {
    let receiver = takes(20).await;
    let home = Home::default();
    let both = || plan([webhook("all", &receiver), webhook("users", &receiver).selecting(&["User.*"])]);
    let without = || plan([webhook("all", &receiver)]);
    home.put(&both());
    let sidecar = home.start_with(&SMALL).await;
    store(&sidecar, 0..60).await;
    // It leaves in the process that ran it, and retention passes it.
    home.put(&without());
    tidings_tests::until("it has left", async || {
        let all = tidings_tests::client::get_json(sidecar.admin, "/webhooks").await;
        (all.as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    store(&sidecar, 60..360).await;
    add_up(&sidecar, "shop/all", 360).await;
    // The next process never ran it.
    sidecar.kill().await;
    let sidecar = home.start_with(&SMALL).await;
    store(&sidecar, 360..660).await;
    add_up(&sidecar, "shop/all", 660).await;
    sidecar.kill().await;
    let sidecar = home.start_with(&SMALL).await;
    store(&sidecar, 660..720).await;
    home.put(&both());
    tidings_tests::until("it is back", async || {
        let all = tidings_tests::client::get_json(sidecar.admin, "/webhooks").await;
        (all.as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let users = add_up(&sidecar, "shop/users", 480).await;
    assert!(number(&users, "expired") > 300, "{users}");
    assert!(sidecar.metric("tidings_events_expired_absent_total ").await.is_some());
    receiver.now_answering(|_, _| Reply::Status(200));
    let settled =
        sidecar.wait_webhook("shop/users", "nothing waits", |webhook| webhook["pending"] == 0).await;
    assert_eq!(accounted(&settled), 480, "{settled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_webhook_counts_what_its_age_costs_it() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([tidings_plan::WebhookPlan { suspend: true, ..webhook("all", &receiver) }]));
    let sidecar = home.start_with(&["--max-age-seconds", "1"]).await;
    store(&sidecar, 0..200).await;
    let expired = |webhook: &Value| webhook["expired"] == 200 && webhook["pending"] == 0;
    sidecar.wait_webhook("shop/all", "all are too old", expired).await;
    assert_eq!(receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_retention_takes_during_its_attempt_is_counted_also_when_the_process_is_killed() {
    let receiver = Receiver::answering(|_, _| Reply::Never).await;
    let home = Home::default();
    let slow = webhook("all", &receiver)
        .delivering(|delivery| (delivery.timeout_seconds, delivery.concurrency) = (600, 4));
    home.put(&plan([slow]));
    let sidecar = home.start_with(&SMALL).await;
    store(&sidecar, 0..330).await;
    receiver.wait_for(4).await;
    add_up(&sidecar, "shop/all", 330).await;
    sidecar.kill().await;
    receiver.now_answering(|_, _| Reply::Status(200));
    let sidecar = home.start_with(&SMALL).await;
    let settled = sidecar.wait_webhook("shop/all", "nothing waits", |webhook| webhook["pending"] == 0).await;
    assert_eq!(accounted(&settled), 330, "{settled}");
}
