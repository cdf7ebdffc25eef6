//! A `WebhookReplay` from its object to the receiver.

use std::time::{SystemTime, UNIX_EPOCH};

use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tidings_crds::{Condition, ConditionStatus, WebhookReplay, WebhookReplayStatus};
use tidings_tests::receiver::Receiver;
use tidings_tests::until;

use crate::objects::Change as _;
use crate::stage::{Stage, send};

fn replay(stage: &Stage, name: &str) -> Value {
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "WebhookReplay",
        "metadata": { "name": name, "namespace": stage.shop },
        "spec": { "webhookRef": { "name": "mail" }, "from": "2026-01-01T00:00:00Z", "only": "All" },
    })
}

fn replays(stage: &Stage) -> Api<WebhookReplay> {
    Api::namespaced(stage.admin(), &stage.shop)
}

fn is_true(condition: &Condition, kind: &str) -> bool {
    condition.type_ == kind && condition.status == ConditionStatus::True
}

async fn wait_complete(stage: &Stage, name: &str) -> WebhookReplayStatus {
    until(&format!("{name} is complete"), async || {
        let status = replays(stage).get(name).await.ok()?.status?;
        status.conditions.iter().any(|condition| is_true(condition, "Complete")).then_some(status)
    })
    .await
}

/// A replay's window ends with the second in which it was made: waits until the one of now is over.
async fn wait_next_second() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let began = now();
    until("the second is over", async || (now() > began).then_some(())).await;
}

fn ids(receiver: &Receiver) -> Vec<String> {
    let mut ids: Vec<_> = receiver.received().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_delivers_what_its_window_holds_under_the_same_ids_and_runs_once() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    stage.wait_ready("mail").await;
    for event in ["PostSignIn", "PostSignIn", "User.Created"] {
        send(&sidecar, event).await;
    }
    receiver.wait_for(3).await;
    let first = ids(&receiver);
    wait_next_second().await;

    stage.put(&replay(&stage, "count").with("/spec/dryRun", json!(true))).await;
    let counted = wait_complete(&stage, "count").await;
    assert_eq!((counted.matched, counted.replayed, receiver.count()), (3, 0, 3), "{counted:?}");
    assert!(counted.completion_time.is_some());

    let sign_ins = replay(&stage, "again").with("/spec/events", json!(["PostSignIn"]));
    stage.put(&sign_ins).await;
    let replayed = wait_complete(&stage, "again").await;
    assert_eq!((replayed.matched, replayed.replayed), (2, 2), "{replayed:?}");
    receiver.wait_for(5).await;
    let mut distinct = ids(&receiver);
    distinct.dedup();
    assert_eq!(distinct, first, "no id is new");

    let before = replays(&stage).get("again").await.unwrap();
    stage.put(&sign_ins).await;
    let refused = stage.try_put(&replay(&stage, "again").with("/spec/events", json!(["*"]))).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("a replay runs once"), "{message}");
    send(&sidecar, "User.Created").await;
    receiver.wait_for(6).await;
    let after = replays(&stage).get("again").await.unwrap();
    assert_eq!((after.status, after.metadata.generation), (before.status, before.metadata.generation));
    assert_eq!(receiver.count(), 6);
}

async fn reasons(stage: &Stage) -> Vec<String> {
    let all = replays(stage).list(&ListParams::default()).await.unwrap();
    let complete = |replay: &WebhookReplay| {
        let mut conditions = replay.status.iter().flat_map(|status| &status.conditions);
        conditions.find(|one| one.type_ == "Complete").map(|one| one.reason.clone())
    };
    all.iter().filter_map(complete).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_large_replays_is_queued_and_edits_go_on_and_a_finished_one_is_deleted_after_its_time() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let _operator = stage.operator("operator-0").await;
    stage.put(&stage.webhook("mail").to(&receiver)).await;
    let names: Vec<_> = (0..64).map(|nth| format!("{nth:0>250}")).collect();
    for number in 0..64 {
        let large = replay(&stage, &format!("flood-{number:02}")).with("/spec/events", json!(names));
        stage.put(&large.with("/spec/ttlSecondsAfterFinished", json!(0))).await;
    }
    until("two run and the others are queued", async || {
        let reasons = reasons(&stage).await;
        let count = |reason: &str| reasons.iter().filter(|one| *one == reason).count();
        ((count("Replaying"), count("Queued")) == (2, 62)).then_some(())
    })
    .await;
    let (head, plan) = stage.plan().await.unwrap();
    assert_eq!(plan.replays.len(), 2);
    assert!(head.to_json().len() < 300 << 10, "{}", head.to_json().len());
    let _sidecar = stage.sidecar("logto-0").await;
    stage.put(&stage.webhook("mail").to(&receiver).with("/spec/filter", json!("event.event != ''"))).await;
    stage.wait_ready("mail").await;
    for finished in ["flood-00", "flood-02", "flood-04"] {
        until(&format!("{finished} had its turn, and is deleted"), async || {
            replays(&stage).get_opt(finished).await.unwrap().is_none().then_some(())
        })
        .await;
    }
}
