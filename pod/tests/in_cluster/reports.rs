//! The report: what kubectl and the operator read of a sidecar.

use kube::api::{DeleteParams, Patch, PatchParams};
use tidings_crds::{CircuitState, DeliveryReport};
use tidings_tests::plan::{Change as _, KEY, plan, webhook};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::until;
use tokio::process::Command;

use crate::cluster::{ACCOUNT, Cluster, wait_output};
use crate::plans::send;

async fn wait_report(
    cluster: &Cluster,
    name: &str,
    what: &str,
    mut is_so: impl FnMut(&DeliveryReport) -> bool,
) -> DeliveryReport {
    until(&format!("report {name}: {what}"), async || {
        cluster.reports().get_opt(name).await.unwrap().filter(|report| is_so(report))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_tells_what_runs_and_what_became_of_it_and_goes_with_its_pod() {
    let cluster = Cluster::new().await;
    let (good, bad) = (Receiver::start().await, Receiver::answering(|_, _| Reply::Status(500)).await);
    let failing = webhook("failing", &bad).retrying_within(600, 600, 3600);
    let generation = cluster.publisher().publish(plan([webhook("good", &good), failing])).await;
    let uid = cluster.pod("logto-7").await;
    let mut command: Command = cluster.command(ACCOUNT, "logto-7").await;
    command.env("POD_UID", &uid);
    let sidecar = tidings_tests::process::Process::start(command).await;
    send(&sidecar).await;

    let report = wait_report(&cluster, "logto-7", "both attempts", |report| {
        let ended = report.spec.webhooks.iter().filter(|webhook| webhook.delivered + webhook.failed == 1);
        ended.count() == 2
    })
    .await;
    let owners = report.metadata.owner_references.as_deref().unwrap();
    assert_eq!((owners.len(), owners[0].kind.as_str(), owners[0].uid.as_str()), (1, "Pod", uid.as_str()));
    assert_eq!(report.metadata.labels.as_ref().unwrap()["tidings.dev/auth-server"], "logto");
    let text = serde_json::to_string(&report).unwrap();
    let spec = report.spec;
    assert_eq!((spec.auth_server_ref.name.as_str(), spec.pod.as_str(), spec.part), ("logto", "logto-7", 0));
    assert_eq!(spec.plan.generation, i64::try_from(generation).unwrap());
    assert_eq!(spec.store.len(), 16);
    let [failed, delivered] = spec.webhooks.as_slice() else { panic!("{:?}", spec.webhooks) };
    assert_eq!(
        (delivered.name.as_str(), delivered.uid.as_str(), delivered.delivered),
        ("good", "uid-of-good", 1)
    );
    assert_eq!(delivered.last_success.as_ref().unwrap().attempt, 1);
    assert_eq!((failed.failed, failed.pending, failed.consecutive_failures), (1, 1, 1));
    let failure = failed.last_failure.as_ref().unwrap();
    assert_eq!((failure.status_code, failure.attempt, failure.timeout_seconds), (Some(500), 1, 15));
    assert!(!text.contains(&good.url()) && !text.contains("127.0.0.1") && !text.contains(KEY), "{text}");

    sidecar.kill().await;
    cluster.delete_pod("logto-7").await;
    until("the report goes with its pod", async || {
        cluster.reports().get_opt("logto-7").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_somebody_deleted_or_changed_is_written_again() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    let generation = cluster.publisher().publish(plan([webhook("one", &receiver)])).await;
    let runs = |report: &DeliveryReport| report.spec.plan.generation == i64::try_from(generation).unwrap();
    let mut command = cluster.command(ACCOUNT, "logto-0").await;
    command.args(["--report-check-seconds", "1"]);
    let _sidecar = tidings_tests::process::Process::start(command).await;
    let first = wait_report(&cluster, "logto-0", "it runs the plan", runs).await;
    cluster.reports().delete("logto-0", &DeleteParams::default()).await.unwrap();
    let second = wait_report(&cluster, "logto-0", "it is there again", runs).await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    let lie = Patch::Merge(serde_json::json!({ "spec": { "plan": { "generation": 99 } } }));
    cluster.reports().patch("logto-0", &PatchParams::default(), &lie).await.unwrap();
    wait_report(&cluster, "logto-0", "it tells what runs again", runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_tells_when_an_endpoint_fails_and_when_it_is_back() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    cluster.publisher().publish(plan([webhook("one", &receiver).retrying_within(1, 1, 3600)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    send(&sidecar).await;
    wait_report(&cluster, "logto-0", "it delivers", |report| {
        report
            .spec
            .webhooks
            .first()
            .is_some_and(|one| one.delivered == 1 && one.circuit == CircuitState::Closed)
    })
    .await;
    receiver.now_answering(|_, _| Reply::Status(503));
    send(&sidecar).await;
    wait_report(&cluster, "logto-0", "its circuit is open", |report| {
        report.spec.webhooks[0].circuit != CircuitState::Closed
            && report.spec.webhooks[0].failing_since.is_some()
    })
    .await;
    receiver.now_answering(|_, _| Reply::Status(200));
    let report = wait_report(&cluster, "logto-0", "it delivers again", |report| {
        report.spec.webhooks[0].consecutive_failures == 0 && report.spec.webhooks[0].delivered == 2
    })
    .await;
    assert_eq!(report.spec.webhooks[0].circuit, CircuitState::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_the_store_go_on_over_a_restart() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    let selecting = webhook("one", &receiver).selecting(&["User.*"]);
    cluster.publisher().publish(plan([selecting])).await;
    let mut sidecar = cluster.sidecar("logto-0").await;
    send(&sidecar).await;
    let before =
        wait_report(&cluster, "logto-0", "one event", |report| report.spec.events.unmatched == 1).await;
    sidecar.kill().await;
    sidecar = cluster.sidecar("logto-0").await;
    send(&sidecar).await;
    let after =
        wait_report(&cluster, "logto-0", "two events", |report| report.spec.events.unmatched == 2).await;
    assert_eq!((after.spec.events.received, after.spec.store), (2, before.spec.store));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_many_webhooks_is_written_in_parts_and_a_part_that_is_not_needed_goes() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    let mut publisher = cluster.publisher();
    let many = (0..501).map(|at| webhook(&format!("hook-{at:03}"), &receiver));
    publisher.publish(plan(many)).await;
    let sidecar = cluster.sidecar("logto-0").await;
    send(&sidecar).await;
    receiver.wait_for(501).await;
    let last =
        |report: &DeliveryReport| report.spec.webhooks.first().is_some_and(|one| one.name == "hook-500");
    wait_report(&cluster, "logto-0-1", "the last Webhook stands in the second part", last).await;
    sidecar.kill().await;
    publisher.publish(plan([webhook("hook-000", &receiver)])).await;
    let _sidecar = cluster.sidecar("logto-0").await;
    until("the second part is removed", async || {
        cluster.reports().get_opt("logto-0-1").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_report_events_are_delivered_and_with_it_the_report_comes() {
    let cluster = Cluster::new().await;
    cluster.take_reports_away().await;
    let receiver = Receiver::start().await;
    cluster.publisher().publish(plan([webhook("one", &receiver)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    wait_output(&sidecar, "not allowed to patch DeliveryReport").await;
    send(&sidecar).await;
    receiver.wait_for(1).await;
    cluster.grant().await;
    wait_report(&cluster, "logto-0", "it is there", |report| report.spec.webhooks.len() == 1).await;
    assert_eq!(sidecar.output().matches("not allowed to patch").count(), 1, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_ends_reports_what_it_delivered_last() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    cluster.publisher().publish(plan([webhook("one", &receiver)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    send(&sidecar).await;
    wait_report(&cluster, "logto-0", "it delivers", |report| report.spec.webhooks.len() == 1).await;
    for _ in 0..5 {
        send(&sidecar).await;
    }
    sidecar.wait_webhook("shop/one", "all are delivered", |one| one["delivered"] == 6).await;
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    let report = cluster.reports().get("logto-0").await.unwrap();
    assert_eq!(report.spec.webhooks.first().map(|one| one.delivered), Some(6));
}
