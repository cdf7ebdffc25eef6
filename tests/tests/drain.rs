//! The end of a sidecar whose volume goes with its pod, and what its auth server's start waits for.

use std::time::{Duration, Instant};

use tidings_tests::capture;
use tidings_tests::client::get;
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::until;

const EPHEMERAL: [&str; 2] = ["--drain-until", "delivered"];

/// Sends so many different events, each of which is answered 2xx.
async fn send(sidecar: &Process, events: usize) {
    let mut sender = sidecar.sender().await;
    for capture in &capture::captured()[..events] {
        assert_eq!(sender.send(capture).await.status, 200, "{}", capture.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_delivered_before_a_sidecar_ends_whose_volume_goes_with_it() {
    let slow = Receiver::answering(|_, _| Reply::After(Duration::from_millis(50), 204)).await;
    let home = Home::default();
    home.put(&plan([webhook("slow", &slow).delivering(|delivery| delivery.concurrency = 1)]));
    let sidecar = home.start_with(&EPHEMERAL).await;
    send(&sidecar, 20).await;
    assert!(slow.count() < 20, "events wait");
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    assert_eq!(slow.count(), 20);
    assert!(output.contains("everything is delivered"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_back_gets_what_was_far_from_its_next_attempt() {
    let receiver = Receiver::answering(|_, _| Reply::Status(503)).await;
    let home = Home::default();
    home.put(&plan([webhook("back", &receiver).retrying_within(600, 600, 86_400)]));
    let sidecar = home.start_with(&EPHEMERAL).await;
    send(&sidecar, 9).await;
    let opened = |webhook: &serde_json::Value| webhook["circuit"] == "Open";
    sidecar.wait_webhook("shop/back", "its circuit is open", opened).await;
    receiver.now_answering(|_, _| Reply::Status(204));
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    assert!(output.contains("everything is delivered"), "{output}");
    let again = home.start().await;
    again.wait_webhook("shop/back", "all are delivered", |webhook| webhook["delivered"] == 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_holds_up_no_end_and_its_loss_is_said() {
    let (dead, alive) = (Receiver::answering(|_, _| Reply::Status(503)).await, Receiver::start().await);
    let home = Home::default();
    // Two events fail twice: the circuit stays closed, and no probe is near.
    home.put(&plan([
        webhook("dead", &dead).retrying_within(86_400, 86_400, 604_800),
        webhook("alive", &alive),
    ]));
    let sidecar = home.start_with(&[&EPHEMERAL[..], &["--drain-seconds", "40"]].concat()).await;
    send(&sidecar, 2).await;
    // Each attempt ended: what is under way at the end is not tried again.
    sidecar.wait_webhook("shop/dead", "both failed", |webhook| webhook["failed"] == 2).await;
    let began = Instant::now();
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    assert!(began.elapsed() < Duration::from_secs(30), "nothing could go on: {:?}", began.elapsed());
    assert_eq!((alive.count(), dead.count()), (2, 4), "each was tried once more");
    assert!(output.contains("lost unless the volume stays webhook=\"shop/dead\" pending=2"), "{output}");
    assert!(output.contains("what waits goes with the volume webhooks=1 deliveries=2"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_webhook_is_not_waited_for() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    let mut suspended = webhook("suspended", &receiver);
    suspended.suspend = true;
    home.put(&plan([suspended]));
    let sidecar = home.start_with(&[&EPHEMERAL[..], &["--drain-seconds", "600"]].concat()).await;
    send(&sidecar, 2).await;
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    assert!(output.contains("deliveries=2"), "{output}");
    assert_eq!(receiver.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_servers_start_waits_for_the_plan_and_not_for_ever() {
    let home = Home::default();
    let sidecar = home.start().await;
    let page = async || get(sidecar.admin, "/startupz").await.unwrap();
    let began = Instant::now();
    let first = page().await;
    assert_eq!(first.status, 503, "{}", first.body);
    assert!(first.body.contains("no plan yet"), "{}", first.body);
    until("the start may go on", async || (page().await.status == 200).then_some(())).await;
    assert!(began.elapsed() > Duration::from_secs(5), "it waited");
    assert!(page().await.body.starts_with("ok without a plan"));
    assert_eq!(get(sidecar.admin, "/readyz").await.unwrap().status, 503);
    home.put(&plan([]));
    until("a plan runs", async || (page().await.body == "ok\n").then_some(())).await;
}
