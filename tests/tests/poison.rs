//! Events at which an endpoint fails, again and again: they cost the other events nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::time::Duration;

use tidings_signature::SigningKey;
use tidings_tests::client::Client;
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Received, Receiver, Reply};
use tidings_tests::{capture, until};

/// Sends numbered events of a kind.
struct Sender {
    client: Client,
    key: SigningKey,
    number: u32,
}

impl Sender {
    async fn to(sidecar: &Process) -> Self {
        let key = SigningKey::new(&capture::signing_key()).unwrap();
        Self { client: sidecar.sender().await, key, number: 0 }
    }

    async fn send(&mut self, kind: &str, count: u32) {
        for _ in 0..count {
            self.number += 1;
            let body =
                format!(r#"{{"event":"A","createdAt":"t{0}","kind":"{kind}","number":{0}}}"#, self.number);
            let headers =
                format!("logto-signature-sha-256: {}\r\n", self.key.logto_signature(body.as_bytes()));
            let answer = self.client.post("/events", &headers, body.as_bytes()).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
    }
}

fn is(kind: &str, received: &Received) -> bool {
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    body["kind"] == kind
}

async fn wait_for_good(receiver: &Receiver, count: usize) {
    until(&format!("{count} good events arrive"), async || {
        let good = receiver.received().iter().filter(|received| is("good", received)).count();
        (good >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_fails_for_ever_does_not_keep_those_waiting_that_come_after_it() {
    let receiver =
        Receiver::answering(|_, received| Reply::Status(if is("poison", received) { 500 } else { 200 }))
            .await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver).retrying_within(1, 2, 36_000)]));
    let sidecar = home.start().await;
    let mut sender = Sender::to(&sidecar).await;
    sender.send("poison", 1).await;
    sidecar.wait_webhook("shop/all", "the circuit is open", |webhook| webhook["circuit"] == "Open").await;
    sender.send("good", 20).await;
    wait_for_good(&receiver, 20).await;
    // It is tried again by its own schedule, and each attempt counts.
    let numbered = |webhook: &serde_json::Value| webhook["lastFailure"]["attempt"].as_u64() >= Some(8);
    let status = sidecar.wait_webhook("shop/all", "its attempts count", numbered).await;
    assert_eq!((&status["delivered"], &status["pending"]), (&20.into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_counts_for_its_event_and_the_next_one_is_of_another_event() {
    let receiver = Receiver::answering(|_, _| Reply::Status(503)).await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)
        .delivering(|delivery| delivery.concurrency = 1)
        .retrying_within(1, 1, 36_000)]));
    let sidecar = home.start().await;
    Sender::to(&sidecar).await.send("good", 100).await;
    sidecar.wait_webhook("shop/all", "the circuit is open", |webhook| webhook["circuit"] == "Open").await;
    let opened = receiver.count();
    let probes = receiver.wait_for(opened + 6).await.split_off(opened);
    let ids = |received: &[Received]| -> Vec<String> {
        received.iter().map(|received| received.header("webhook-id").to_owned()).collect()
    };
    let (mut probed, all) = (ids(&probes), ids(&receiver.received()));
    assert!(
        probed.windows(2).all(|pair| pair[0] != pair[1]),
        "no event is probed twice in a row: {probed:?}"
    );
    probed.retain(|id| !all[..opened].contains(id));
    probed.dedup();
    assert!(probed.len() >= 2, "events that were never tried are among them");
}

/// Six hundred events are tried again and again; then twenty good ones come.
async fn good_ones_pass_failing_ones(status: u16) {
    let wait = Duration::from_millis(100);
    let refusing = move |status| {
        move |_: usize, received: &Received| {
            if is("bad", received) { Reply::After(wait, status) } else { Reply::Status(200) }
        }
    };
    // A 4xx keeps the circuit closed, and so each of them fails once.
    let receiver = Receiver::answering(refusing(422)).await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver).retrying_within(1, 1, 36_000)]));
    let sidecar = home.start().await;
    let mut sender = Sender::to(&sidecar).await;
    sender.send("bad", 600).await;
    until("each of them was refused once", async || {
        let tried: HashSet<_> =
            receiver.received().iter().map(|bad| bad.header("webhook-id").to_owned()).collect();
        (tried.len() == 600).then_some(())
    })
    .await;
    receiver.now_answering(refusing(status));
    sender.send("good", 20).await;
    wait_for_good(&receiver, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_events_that_are_refused_do_not_keep_twenty_good_ones_waiting() {
    good_ones_pass_failing_ones(422).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_events_at_which_the_endpoint_breaks_do_not_keep_twenty_good_ones_waiting() {
    good_ones_pass_failing_ones(500).await;
}
