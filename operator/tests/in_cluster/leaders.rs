//! Several operators: one writes.

use serde_json::json;
use tidings_tests::process::Process;
use tidings_tests::until;

use crate::objects::Change as _;
use crate::stage::{Stage, metric, sum_of};

async fn leads(operator: &Process) -> bool {
    metric(operator, "tidings_operator_leader ").await == Some(1)
}

async fn wait_leads(operator: &Process) {
    until("it leads", async || leads(operator).await.then_some(())).await;
}

async fn writes(operator: &Process) -> u64 {
    sum_of(operator, "tidings_operator_api_writes_total").await
}

/// Edits the Webhook, and waits until the plan has it.
async fn edit(stage: &Stage, path: &str) -> u64 {
    let url = format!("http://127.0.0.1:9/{path}");
    stage.put(&stage.webhook("mail").with("/spec/endpoint/url", json!(url))).await;
    until(&format!("the plan has {path}"), async || {
        let (head, plan) = stage.plan().await?;
        (plan.webhooks.first()?.endpoint.url == url).then_some(head.generation)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_writes_and_when_it_dies_the_other_takes_over() {
    let stage = Stage::new().await;
    let first = stage.operator("first").await;
    wait_leads(&first).await;
    let second = stage.operator("second").await;
    edit(&stage, "one").await;
    stage.wait_settled().await;
    assert!(writes(&first).await > 0);
    assert_eq!((leads(&second).await, writes(&second).await), (false, 0));

    first.kill().await;
    edit(&stage, "two").await;
    stage.wait_settled().await;
    assert!(leads(&second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_writes_nothing_after_its_successor_did() {
    let stage = Stage::new().await;
    let first = stage.operator("first").await;
    wait_leads(&first).await;
    let second = stage.operator("second").await;
    edit(&stage, "one").await;
    stage.wait_settled().await;
    let before = until("it has written everything", async || {
        let (queue, before) = (metric(&first, "tidings_operator_status_queue ").await, writes(&first).await);
        let again = async || writes(&first).await == before;
        (queue == Some(0) && again().await).then_some(before)
    })
    .await;

    first.signal("STOP").await;
    // What it sees when it wakes up asks for writes of both kinds.
    let of_second = edit(&stage, "two").await;
    stage.wait_settled().await;
    first.signal("CONT").await;
    until("it knows that it does not lead", async || (!leads(&first).await).then_some(())).await;
    let last = edit(&stage, "three").await;
    stage.wait_settled().await;
    assert_eq!((writes(&first).await, leads(&second).await), (before, true));
    assert_eq!(last, of_second + 1, "each plan was published once");
}
