//! The plan in Secrets: what is published runs, whole or not at all.

use tidings_tests::client::{self, Answer};
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::Process;
use tidings_tests::receiver::Receiver;
use tidings_tests::until;

use crate::cluster::{ACCOUNT, Cluster, wait_output, wait_ready_page};

/// Sends one `PostSignIn`, which is stored.
pub(crate) async fn send(sidecar: &Process) {
    send_event(sidecar, "PostSignIn").await;
}

/// Sends one event, which is stored. It has no time of its own, so that each one is another.
pub(crate) async fn send_event(sidecar: &Process, name: &str) {
    let answer = post(sidecar, name).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn post(sidecar: &Process, name: &str) -> Answer {
    let body = serde_json::json!({"event": name}).to_string();
    sidecar.sender().await.post("/events", "", body.as_bytes()).await.unwrap()
}

/// Waits until a published plan runs.
pub(crate) async fn wait_generation(sidecar: &Process, generation: u64) {
    let line = format!("tidings_plan_generation {generation}.0\n");
    until(&format!("plan {generation} runs"), async || {
        let page = client::get(sidecar.admin, "/metrics").await?;
        page.body.contains(&line).then_some(())
    })
    .await;
}

async fn runs(sidecar: &Process) -> Vec<String> {
    let all = client::get_json(sidecar.admin, "/webhooks").await;
    all.as_array().unwrap().iter().map(|webhook| webhook["webhook"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_plan_runs_and_an_edit_of_it_is_live_for_the_next_event() {
    let cluster = Cluster::new().await;
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let mut publisher = cluster.publisher();
    publisher.publish(plan([webhook("first", &first)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    send(&sidecar).await;
    first.wait_for(1).await;

    let edited = publisher.publish(plan([webhook("first", &first), webhook("second", &second)])).await;
    wait_generation(&sidecar, edited).await;
    send(&sidecar).await;
    second.wait_for(1).await;
    first.wait_for(2).await;
    assert_eq!((first.count(), second.count()), (2, 1), "an edit is for events that come after it");

    let moved = publisher.publish(plan([webhook("first", &second).selecting(&["PostSignIn"])])).await;
    wait_generation(&sidecar, moved).await;
    send(&sidecar).await;
    second.wait_for(2).await;
    assert_eq!(first.count(), 2, "the old address gets nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_waits_for_its_first_plan_and_says_so() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    let sidecar = cluster.waiting_sidecar(ACCOUNT, "logto-0").await;
    let name = format!("Secret {}/tidings-plan-logto", cluster.namespace);
    let page = wait_ready_page(&sidecar, &format!("{name} is waited for")).await;
    assert_eq!(page.status, 503);
    let refused = post(&sidecar, "PostSignIn").await;
    assert_eq!((refused.status, refused.body.contains("NoPlan")), (503, true));
    assert!(!sidecar.output().contains("ready events="));

    cluster.publisher().publish(plan([webhook("first", &receiver)])).await;
    wait_output(&sidecar, "ready events=").await;
    assert_eq!(client::get(sidecar.admin, "/readyz").await.unwrap().status, 200);
    send(&sidecar).await;
    receiver.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_plan_is_not_run_and_the_whole_is_once_it_is_there() {
    let cluster = Cluster::new().await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    let mut publisher = cluster.publisher();
    publisher.publish(plan([webhook("one", &old)])).await;
    let sidecar = cluster.sidecar("logto-0").await;

    let prepared = publisher.prepare(plan([webhook("one", &new), webhook("two", &new)]));
    let slot = prepared.head.shards[0].slot;
    publisher.put_bytes(slot, b"of another plan").await;
    let generation = publisher.put_head(&prepared).await;
    wait_output(&sidecar, "is not the one that the head names").await;
    send(&sidecar).await;
    old.wait_for(1).await;
    assert_eq!(runs(&sidecar).await, ["shop/one"]);

    publisher.put_shards(&prepared).await;
    wait_generation(&sidecar, generation).await;
    send(&sidecar).await;
    new.wait_for(2).await;
    assert_eq!((old.count(), new.count()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_not_there_yet_is_waited_for() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    let mut publisher = cluster.publisher();
    let prepared = publisher.prepare(plan([webhook("one", &receiver)]));
    publisher.put_head(&prepared).await;
    let sidecar = cluster.waiting_sidecar(ACCOUNT, "logto-0").await;
    wait_ready_page(&sidecar, "tidings-shard-0-logto is not there").await;
    publisher.put_shards(&prepared).await;
    wait_output(&sidecar, "ready events=").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_not_readable_leaves_the_plan_before_at_work_and_shows_nothing_of_itself() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    let mut publisher = cluster.publisher();
    publisher.publish(plan([webhook("one", &receiver)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    let broken = br#"{"generation": 2, "digest": "", "frame": "whsec_very_secret", "shards": []}"#;
    publisher.put_head_bytes(broken).await;
    wait_output(&sidecar, "the plan is not readable").await;
    assert!(!sidecar.output().contains("very_secret"));
    send(&sidecar).await;
    receiver.wait_for(1).await;

    let repaired = publisher.publish(plan([webhook("one", &receiver), webhook("two", &receiver)])).await;
    wait_generation(&sidecar, repaired).await;
    wait_output(&sidecar, "is followed again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_a_later_operator_runs_but_for_the_webhook_that_requires_more_and_the_report_names_it() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    let mut publisher = cluster.publisher();
    let first = publisher.publish(plan([webhook("one", &receiver)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    let later = plan([webhook("one", &receiver), webhook("two", &receiver)]);
    let change = |webhooks: &mut serde_json::Value| {
        webhooks[0]["ofALaterVersion"] = serde_json::json!(["ignored"]);
        webhooks[1]["requires"] = serde_json::json!(["quota-of-a-later-version"]);
    };
    let generation = publisher.publish_changed(later, change).await;
    assert!(generation > first);
    wait_generation(&sidecar, generation).await;
    assert_eq!(runs(&sidecar).await, ["shop/one"]);
    send(&sidecar).await;
    receiver.wait_for(1).await;
    until("the report names the Webhook and the fix", async || {
        let report = cluster.reports().get_opt("logto-0").await.unwrap()?;
        let left_out = report.spec.rejected.first()?;
        (left_out.name == "two" && left_out.message.contains("upgrade the sidecar")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_deleted_runs_on() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    cluster.publisher().publish(plan([webhook("one", &receiver)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    cluster.secrets().delete("tidings-plan-logto", &kube::api::DeleteParams::default()).await.unwrap();
    wait_output(&sidecar, "was deleted").await;
    send(&sidecar).await;
    receiver.wait_for(1).await;
}
