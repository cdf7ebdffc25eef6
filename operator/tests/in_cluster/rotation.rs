//! Keys are replaced while deliveries go on.

use tidings_tests::plan::KEY;
use tidings_tests::receiver::{Received, Receiver};
use tidings_tests::until;

use crate::deliveries::is_signed_with;
use crate::objects::{Change as _, secret};
use crate::stage::{Stage, send};

const NEW: &str = "whsec_dGhlLW5ldy1rZXktb2YtdGhlLXdlYmhvb2s=";

/// Waits until the plan holds so many keys for the Webhook, and the sidecar runs it; the plan's number.
async fn wait_keys(stage: &Stage, keys: &[&str]) -> u64 {
    until(&format!("{} keys are in use", keys.len()), async || {
        let (head, plan) = stage.plan().await?;
        let found: Vec<_> =
            plan.webhooks.first()?.signing_keys.iter().map(|key| key.reveal().to_owned()).collect();
        let report = stage.reports().get("logto-0").await.ok()?;
        let runs = u64::try_from(report.spec.plan.generation).ok()?;
        (found == keys && runs == head.generation).then_some(head.generation)
    })
    .await
}

fn signatures(received: &Received) -> usize {
    received.header("webhook-signature").split(' ').count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_secret_is_a_rotation_and_other_secrets_are_nothing() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    let first = wait_keys(&stage, &[KEY]).await;
    send(&sidecar, "PostSignIn").await;
    receiver.wait_for(1).await;

    for number in 0..3 {
        let text = number.to_string();
        for namespace in [&stage.shop, &stage.auth] {
            stage.put(&secret(namespace, "unrelated", &[("signingKey", &text)])).await;
        }
    }
    stage.put(&secret(&stage.shop, "keys", &[("signingKey", NEW), ("previousSigningKey", KEY)])).await;
    let both = wait_keys(&stage, &[NEW, KEY]).await;
    assert_eq!(both, first + 1, "one plan for the rotation, none for what nobody refers to");
    send(&sidecar, "PostSignIn").await;
    let received = receiver.wait_for(2).await;
    assert_eq!((signatures(&received[0]), signatures(&received[1])), (1, 2));
    let note = stage.wait_event("mail", "SecretRotated").await;
    assert!(!note.contains("whsec"), "{note}");

    stage.put(&secret(&stage.shop, "keys", &[("signingKey", NEW)])).await;
    assert_eq!(wait_keys(&stage, &[NEW]).await, both + 1);
    send(&sidecar, "PostSignIn").await;
    let received = receiver.wait_for(3).await;
    assert!(is_signed_with(&received[2], NEW) && !is_signed_with(&received[2], KEY));
    assert!(is_signed_with(&received[0], KEY) && !is_signed_with(&received[0], NEW));
}
