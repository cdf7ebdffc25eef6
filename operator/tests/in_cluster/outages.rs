//! What is away for a while: the API server, a sidecar, the definitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::api::DeleteParams;
use tidings_crds::Webhook;
use tidings_tests::cluster::{api_server, define};
use tidings_tests::process::Process;
use tidings_tests::receiver::Receiver;
use tidings_tests::{client, until};

use crate::objects::Change as _;
use crate::stage::{Scope, Stage, send, try_send};

fn delivered(webhook: &Webhook) -> i64 {
    webhook.status.as_ref().map_or(0, |status| status.delivered)
}

/// Sends events until it is told to end; how many were taken, and how many were not.
async fn load(sidecar: Arc<Process>, over: Arc<AtomicBool>) -> (i64, i64) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let (mut taken, mut refused) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        pace.tick().await;
        match try_send(&sidecar, "PostSignIn").await {
            Some(200) => taken += 1,
            _ => refused += 1,
        }
    }
    (taken, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_events_go_on_and_afterwards_the_statuses_follow() {
    let stage = Stage::alone(Scope::Namespaces).await;
    let receiver = Receiver::start().await;
    let (mut operator, sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    let (sidecar, over) = (Arc::new(sidecar), Arc::new(AtomicBool::new(false)));
    let sending = tokio::spawn(load(Arc::clone(&sidecar), Arc::clone(&over)));
    receiver.wait_for(20).await;

    api_server("stop").await;
    receiver.wait_for(receiver.count() + 100).await;
    assert!(operator.is_running(), "{}", operator.output());
    api_server("start").await;

    receiver.wait_for(receiver.count() + 20).await;
    over.store(true, Ordering::Relaxed);
    let (taken, refused) = sending.await.unwrap();
    assert_eq!(refused, 0);
    stage.wait_webhook("mail", &format!("{taken} delivered"), |webhook| delivered(webhook) == taken).await;
    let other = Receiver::start().await;
    stage.put(&stage.webhook("mail").to(&other)).await;
    stage.wait_ready("mail").await;
    send(&sidecar, "PostSignIn").await;
    other.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sidecar_delivered_that_is_gone_still_counts() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    for _ in 0..3 {
        send(&sidecar, "PostSignIn").await;
    }
    stage.wait_webhook("mail", "3 delivered", |webhook| delivered(webhook) == 3).await;
    sidecar.kill().await;
    stage.reports().delete("logto-0", &DeleteParams::default()).await.unwrap();
    stage
        .wait_webhook("mail", "nobody runs it", |webhook| crate::stage::says(webhook, "Ready", "NoSidecar"))
        .await;

    let sidecar = stage.sidecar("logto-1").await;
    let webhook = stage.wait_ready("mail").await;
    assert_eq!(delivered(&webhook), 3);
    for _ in 0..2 {
        send(&sidecar, "PostSignIn").await;
    }
    let webhook = stage.wait_webhook("mail", "5 delivered", |webhook| delivered(webhook) == 5).await;
    assert_eq!(webhook.status.unwrap().sources.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_definitions_the_operator_says_what_it_waits_for_and_is_ready_once_they_come() {
    let stage = Stage::alone(Scope::Namespaces).await;
    stage.plane.undefine().await;
    let mut operator = stage.operator("operator-0").await;
    for kind in ["authservers", "webhooks", "deliveryreports", "webhookreplays"] {
        let wanted = format!(
            "{kind}.tidings.dev in namespace {}: waiting for the CustomResourceDefinition",
            stage.shop
        );
        until(&wanted, async || {
            let page = client::get(operator.admin, "/readyz").await?;
            (page.status == 503 && page.body.contains(&wanted)).then_some(())
        })
        .await;
    }
    assert!(operator.is_running());
    assert_eq!(client::get(operator.admin, "/livez").await.unwrap().status, 200);

    define().await;
    until("it is ready", async || {
        let page = client::get(operator.admin, "/readyz").await?;
        (page.status == 200 && page.body == "ok\n").then_some(())
    })
    .await;
    stage.furnish().await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_settled().await;
}
