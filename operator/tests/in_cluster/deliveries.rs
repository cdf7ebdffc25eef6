//! What a team sees of its deliveries: columns, numbers, conditions, Events.

use std::time::Duration;

use serde_json::{Value, json};
use tidings_crds::{ConditionStatus, Webhook};
use tidings_signature::verify::verify;
use tidings_tests::capture;
use tidings_tests::cluster::{apply, kubectl};
use tidings_tests::plan::KEY;
use tidings_tests::process::Process;
use tidings_tests::receiver::{Received, Receiver, Reply};

use crate::objects::{Change as _, auth_server};
use crate::stage::{Stage, condition, says, send};

/// Whether any receiver's library takes it.
pub(crate) fn is_signed_with(received: &Received, key: &str) -> bool {
    let headers: Vec<_> = received
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    verify(key, &headers, &received.body, None).is_verified()
}

/// A table of kubectl by its header, of its first row.
fn columns(table: &str) -> Vec<(&str, &str)> {
    let mut lines = table.lines();
    let (header, row) = (lines.next().unwrap(), lines.next().unwrap());
    header.split_whitespace().zip(row.split_whitespace()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applied_webhook_gets_ready_and_delivers_and_kubectl_shows_it() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    apply(&stage.webhook("mail").to(&receiver).to_string()).await;
    let ready = ["wait", "--for=condition=Ready", "webhook/mail", "--timeout=60s", "-n", &stage.shop];
    kubectl(&ready).await;
    let event = capture::of_event("PostSignIn");
    let answer = sidecar.sender().await.send(&event).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    let received = &receiver.wait_for(1).await[0];
    assert_eq!(received.body, event.body);
    assert!(is_signed_with(received, KEY));
    let has_delivered = |webhook: &Webhook| {
        webhook.status.as_ref().is_some_and(|status| status.delivered == 1 && status.last_success.is_some())
    };
    let webhook = stage.wait_webhook("mail", "1 delivered", has_delivered).await;
    let success = webhook.status.unwrap().last_success.unwrap();
    assert_eq!((success.event.as_str(), success.status_code, success.attempt), ("PostSignIn", 200, 1));

    let table = kubectl(&["get", "webhooks", "-n", &stage.shop]).await;
    let shown = columns(&table);
    let host = format!("127.0.0.1:{}", receiver.port());
    let expected = [
        ("NAME", "mail"),
        ("READY", "True"),
        ("DELIVERING", "True"),
        ("ENDPOINT", &host),
        ("DELIVERED", "1"),
        ("PENDING", "0"),
    ];
    assert_eq!(shown[..6], expected, "{table}");
    assert_eq!((shown[6].0, shown[7].0), ("LAST-SUCCESS", "AGE"), "{table}");
    assert!(shown[6].1.ends_with('s'), "{table}");
    let table = kubectl(&["get", "authservers", "-n", &stage.auth]).await;
    let shown = columns(&table);
    assert_eq!(shown[..4], [("NAME", "logto"), ("READY", "True"), ("PROVIDER", "Logto"), ("SIDECARS", "1")]);
}

/// A Webhook that runs and was sent one event.
async fn sent_one(stage: &Stage, sidecar: &Process, webhook: Value) {
    let name = webhook["metadata"]["name"].as_str().unwrap().to_owned();
    stage.put(&webhook).await;
    stage.wait_ready(&name).await;
    send(sidecar, &name).await;
}

/// A Webhook that selects the events of its own name.
fn alone(stage: &Stage, name: &str, receiver: &Receiver) -> Value {
    stage.webhook(name).to(receiver).with("/spec/events", json!([name]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_endpoint_is_described_with_all_that_somebody_needs_who_is_woken_by_it() {
    let stage = Stage::new().await;
    let silent = Receiver::answering(|_, _| Reply::Never).await;
    let (_operator, sidecar) = stage.at_work().await;
    let webhook = alone(&stage, "silent", &silent).with("/spec/delivery/timeoutSeconds", json!(1));
    sent_one(&stage, &sidecar, webhook).await;
    // While an attempt is under way there is no next one to tell of.
    let failing = |webhook: &Webhook| {
        let next = webhook.status.as_ref().and_then(|status| status.next_attempt_time.as_ref());
        says(webhook, "Delivering", "DeliveryFailing") && next.is_some()
    };
    stage.wait_webhook("silent", "DeliveryFailing", failing).await;
    stage.wait_event("silent", "DeliveryFailing").await;
    let text = kubectl(&["describe", "webhook", "silent", "-n", &stage.shop]).await;
    let pattern = r"Timeout in phase Waiting: .* \(event silent, attempt \d+, 1\d\d\d ms of at most 1 s\); \d+ failures? in a row since 20\d\d-\S+; 1 event waits; next attempt 20\d\d-";
    assert!(regex::Regex::new(pattern).unwrap().is_match(&text), "{text}");
    assert!(
        regex::Regex::new(r"(?m)^Events:(?s:.*)Warning\s+DeliveryFailing\s").unwrap().is_match(&text),
        "{text}"
    );
    for line in ["Pending:", "Oldest Pending Time:", "Failing Since:", "Next Attempt Time:", "Phase:"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains(KEY) && !text.contains("/hook\n  Status"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_that_opens_and_the_recovery_are_told() {
    let stage = Stage::new().await;
    let receiver = Receiver::answering(|_, _| Reply::Status(503)).await;
    let (_operator, sidecar) = stage.at_work().await;
    sent_one(&stage, &sidecar, alone(&stage, "down", &receiver)).await;
    for _ in 0..5 {
        send(&sidecar, "down").await;
    }
    let open = |webhook: &Webhook| says(webhook, "Delivering", "CircuitOpen");
    let webhook = stage.wait_webhook("down", "CircuitOpen", open).await;
    let message = condition(&webhook, "Delivering").unwrap().message;
    assert!(message.contains("HttpStatus") && message.contains("503"), "{message}");
    assert!(crate::stage::is_ready(&webhook), "a receiver that is down fails no GitOps sync");
    stage.wait_event("down", "CircuitOpened").await;

    receiver.now_answering(|_, _| Reply::Status(200));
    let recovered = |webhook: &Webhook| {
        says(webhook, "Delivering", "Delivering") && webhook.status.as_ref().unwrap().pending == 0
    };
    let webhook = stage.wait_webhook("down", "it delivers again", recovered).await;
    assert_eq!(webhook.status.unwrap().delivered, 6);
    stage.wait_event("down", "DeliveryRecovered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_and_events_that_are_given_up_are_told() {
    let stage = Stage::new().await;
    let gone = Receiver::answering(|_, _| Reply::Status(410)).await;
    let failing = Receiver::answering(|_, _| Reply::Status(500)).await;
    let (_operator, sidecar) = stage.at_work().await;
    sent_one(&stage, &sidecar, alone(&stage, "gone", &gone)).await;
    let retry = json!({ "initialBackoffSeconds": 1, "maxBackoffSeconds": 1, "giveUpAfterSeconds": 1 });
    sent_one(&stage, &sidecar, alone(&stage, "given-up", &failing).with("/spec/delivery/retry", retry)).await;

    let is_gone = |webhook: &Webhook| says(webhook, "Delivering", "EndpointGone");
    let webhook = stage.wait_webhook("gone", "EndpointGone", is_gone).await;
    let message = condition(&webhook, "Delivering").unwrap().message;
    assert!(message.contains("nothing is sent until the Webhook is changed"), "{message}");
    stage.wait_event("gone", "EndpointGone").await;
    let note = stage.wait_event("given-up", "DeliveriesExhausted").await;
    assert!(note.contains("1 in all") && note.contains("WebhookReplay"), "{note}");
    let webhook = stage
        .wait_webhook("given-up", "1 dead", |webhook| webhook.status.as_ref().unwrap().dead_lettered == 1)
        .await;
    assert_eq!(webhook.status.unwrap().pending, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_opened_no_longer_is_told_wherever_it_is_found() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_ascii_lowercase();
    let by_name = format!("http://{host}:{}/hook", receiver.port());
    let closed: Vec<_> = tokio::net::lookup_host((host.as_str(), 80))
        .await
        .expect("the host's own name has an address")
        .map(|address| format!("{}/{}", address.ip(), if address.is_ipv4() { 32 } else { 128 }))
        .collect();
    stage.put(&alone(&stage, "named", &receiver).with("/spec/endpoint/url", json!(by_name))).await;
    stage.wait_ready("named").await;
    sent_one(&stage, &sidecar, alone(&stage, "literal", &receiver)).await;
    receiver.wait_for(1).await;

    let narrow = auth_server(&stage.auth).with("/spec/egress/allow", json!([]));
    stage.put(&narrow.with("/spec/egress/deny", json!(closed))).await;
    // An address is judged before anything is sent, a name only when it is resolved.
    let refused = |webhook: &Webhook| says(webhook, "Accepted", "AddressBlocked");
    let webhook = stage.wait_webhook("literal", "AddressBlocked", refused).await;
    let message = condition(&webhook, "Accepted").unwrap().message;
    assert!(message.starts_with("spec.endpoint.url: 127.0.0.1 "), "{message}");
    let runs = |plan: &tidings_plan::Plan| plan.egress.allow.is_empty() && plan.webhooks.len() == 1;
    let generation = tidings_tests::until("the plan is narrower", async || {
        let (head, plan) = stage.plan().await?;
        runs(&plan).then_some(head.generation)
    })
    .await;
    tidings_tests::until("the sidecar runs it", async || {
        let report = stage.reports().get("logto-0").await.ok()?;
        (u64::try_from(report.spec.plan.generation).ok()? >= generation).then_some(())
    })
    .await;
    send(&sidecar, "named").await;
    let note = stage.wait_event("named", "AddressBlocked").await;
    assert!(note.contains("egress.deny"), "{note}");
    let blocked = |webhook: &Webhook| {
        webhook
            .status
            .as_ref()
            .and_then(|status| status.last_failure.as_ref())
            .is_some_and(|failure| failure.reason == "AddressBlocked")
    };
    stage.wait_webhook("named", "its last failure says so", blocked).await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_suspended_is_kept_and_comes_on_resume() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    let suspended = alone(&stage, "later", &receiver).with("/spec/suspend", json!(true));
    sent_one(&stage, &sidecar, suspended).await;
    let waits = |webhook: &Webhook| {
        let delivering = condition(webhook, "Delivering");
        delivering.is_some_and(|one| one.status == ConditionStatus::Unknown && one.reason == "Suspended")
            && webhook.status.as_ref().unwrap().pending == 1
    };
    stage.wait_webhook("later", "suspended, 1 waits", waits).await;
    assert_eq!(receiver.count(), 0);
    stage.put(&alone(&stage, "later", &receiver)).await;
    tokio::time::timeout(Duration::from_mins(1), receiver.wait_for(1)).await.unwrap();
}
