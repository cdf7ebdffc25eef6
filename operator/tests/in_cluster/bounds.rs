//! What one team puts into its Webhooks, Secrets and replays is bounded, and costs the others nothing.

use serde_json::{Value, json};
use tidings_tests::receiver::Receiver;

use crate::objects::{Change as _, secret, webhook};
use crate::stage::{Stage, condition, says, until_told};

/// Text that does not pack well, as keys and certificates do not.
fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letter = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from(*state >> 57).unwrap_or_default() % 90)
    };
    (0..bytes).map(|_| letter(&mut state)).filter(|letter| *letter != '"').collect()
}

fn with_headers(webhook: Value, secret: &str, keys: &[&str]) -> Value {
    let header = |key: &&str| {
        let from = json!({ "secretKeyRef": { "name": secret, "key": key } });
        json!({ "name": format!("x-{key}"), "valueFrom": from })
    };
    webhook.with("/spec/endpoint/headers", keys.iter().map(header).collect())
}

/// An edit of a team that does nothing unusual arrives at the sidecar.
async fn assert_an_edit_of_others_runs(stage: &Stage, receiver: &Receiver, filter: &str) {
    stage.put(&stage.webhook("mail").to(receiver).with("/spec/filter", json!(filter))).await;
    stage.wait_ready("mail").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_of_900_kilobytes_stops_its_own_webhook_and_nobody_elses_edit() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, _sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    stage.put(&secret(&stage.shop, "huge", &[("token", &noise(900_000))])).await;
    stage.put(&with_headers(stage.webhook("hostile"), "huge", &["token"])).await;
    let told = stage.wait_webhook("hostile", "TooLarge", |webhook| says(webhook, "Ready", "TooLarge")).await;
    let message = condition(&told, "Ready").unwrap().message;
    let field = "spec.endpoint.headers[0].valueFrom.secretKeyRef.key";
    assert!(message.starts_with(field) && message.contains("32768 bytes"), "{message}");
    assert_an_edit_of_others_runs(&stage, &receiver, "event.createdAt != '1'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_takes_more_than_its_share_keeps_its_oldest_webhooks_and_the_others_all_of_theirs() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, _sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    let large = noise(29_000);
    stage.put(&secret(&stage.auth, "large", &[("a", &large), ("b", &large)])).await;
    stage.put(&secret(&stage.auth, "keys", &[("signingKey", tidings_tests::plan::KEY)])).await;
    for number in 0..12 {
        let name = format!("large-{number:02}");
        let hook = webhook(&stage.auth, &name, "http://127.0.0.1:9/", &stage.auth);
        stage.put(&with_headers(hook, "large", &["a", "b"])).await;
    }
    let mut told = Vec::new();
    let all = until_told("each large Webhook runs, or is told that it does not fit", async || {
        told = stage.ready_reasons_in(&stage.auth).await;
        told.iter().all(|reason| matches!(reason.as_str(), "Ready" | "NamespaceTooLarge")).then_some(())
    });
    all.await.unwrap_or_else(|why| panic!("{why}: {told:?}"));
    assert_eq!(told.iter().filter(|reason| *reason == "Ready").count(), 4, "{told:?}");
    assert_an_edit_of_others_runs(&stage, &receiver, "event.createdAt != '2'").await;
}
