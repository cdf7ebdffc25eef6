//! The operator dies at any moment, while Webhooks are edited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tidings_tests::process::Process;
use tidings_tests::until;

use crate::objects::Change as _;
use crate::sequences::Chance;
use crate::stage::{Stage, metric, sum_of};

const WEBHOOKS: u64 = 30;

/// Edits Webhooks one after another, until it is told to end.
async fn edit(stage: Arc<Stage>, over: Arc<AtomicBool>, mut chance: Chance) -> usize {
    let mut pace = tokio::time::interval(Duration::from_millis(40));
    let mut edits = 0;
    while !over.load(Ordering::Relaxed) {
        pace.tick().await;
        let webhook = stage.webhook(&format!("hook-{}", chance.below(WEBHOOKS)));
        let path = format!("http://127.0.0.1:9/{}", chance.below(1000));
        match chance.below(10) {
            0 => stage.delete(&webhook).await,
            1 => stage.put(&webhook.with("/spec/filter", json!("no (expression"))).await,
            2 => stage.put(&webhook.with("/spec/secretRef/name", json!("nowhere"))).await,
            _ => stage.put(&webhook.with("/spec/endpoint/url", json!(path))).await,
        }
        edits += 1;
    }
    edits
}

/// Looks at the plan again and again; a half of one panics. How many different ones it saw.
async fn look(stage: Arc<Stage>, over: Arc<AtomicBool>) -> u64 {
    let (mut newest, mut seen) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        if let Some((head, _)) = stage.plan().await {
            assert!(head.generation >= newest, "plan {} after plan {newest}", head.generation);
            seen += u64::from(head.generation > newest);
            newest = head.generation;
        }
    }
    seen
}

/// Kills an operator once it has led for some writes.
async fn kill_after(operator: Process, writes: u64) {
    until("it leads", async || {
        (metric(&operator, "tidings_operator_leader ").await == Some(1)).then_some(())
    })
    .await;
    until(&format!("it made {writes} writes"), async || {
        (sum_of(&operator, "tidings_operator_api_writes_total").await >= writes).then_some(())
    })
    .await;
    operator.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_never_half_written_however_often_the_operator_is_killed() {
    let kills = std::env::var("TIDINGS_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut chance = Chance::new("a_plan_is_never_half_written");
    let stage = Arc::new(Stage::new().await);
    let over = Arc::new(AtomicBool::new(false));
    let editing = tokio::spawn(edit(Arc::clone(&stage), Arc::clone(&over), chance.another()));
    let looking = tokio::spawn(look(Arc::clone(&stage), Arc::clone(&over)));
    for kill in 0..kills {
        let operator = stage.operator(&format!("operator-{kill}")).await;
        kill_after(operator, 1 + chance.below(30)).await;
        assert!(!looking.is_finished() && !editing.is_finished(), "a look or an edit failed");
    }
    over.store(true, Ordering::Relaxed);
    let (edits, plans) = (editing.await.unwrap(), looking.await.unwrap());
    println!("{kills} kills, {edits} edits, {plans} plans seen");
    assert!(plans >= kills, "{plans} plans seen over {kills} kills");
    let operator = stage.operator("the-last").await;
    stage.assert_a_fresh_operator_agrees(operator).await;
}
