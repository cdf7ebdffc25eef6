//! The API server is away: events are taken and delivered all the same.

use tidings_tests::cluster::api_server;
use tidings_tests::plan::{plan, webhook};
use tidings_tests::receiver::Receiver;
use tidings_tests::until;

use crate::cluster::{ACCOUNT, Cluster, wait_output, wait_ready_page};
use crate::plans::{send, wait_generation};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_server_events_are_delivered_also_by_a_sidecar_that_starts_meanwhile() {
    let cluster = Cluster::alone().await;
    let receiver = Receiver::start().await;
    let mut publisher = cluster.publisher();
    publisher.publish(plan([webhook("one", &receiver)])).await;
    let generation = publisher.publish(plan([webhook("one", &receiver)])).await;
    let sidecar = cluster.sidecar("logto-0").await;
    wait_generation(&sidecar, generation).await;

    api_server("stop").await;
    send(&sidecar).await;
    receiver.wait_for(1).await;
    wait_output(&sidecar, "the API server is not reachable").await;
    sidecar.kill().await;

    let sidecar = cluster.sidecar("logto-0").await;
    wait_generation(&sidecar, generation).await;
    send(&sidecar).await;
    receiver.wait_for(2).await;

    api_server("start").await;
    let newer = publisher.publish(plan([webhook("one", &receiver), webhook("two", &receiver)])).await;
    wait_generation(&sidecar, newer).await;
    send(&sidecar).await;
    receiver.wait_for(4).await;
    until("the report tells what was delivered meanwhile", async || {
        let report = cluster.reports().get_opt("logto-0").await.unwrap()?;
        let delivered: i64 = report.spec.webhooks.iter().map(|webhook| webhook.delivered).sum();
        (delivered == 4 && report.spec.plan.generation == i64::try_from(newer).unwrap()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_without_the_api_server_says_why_it_takes_no_events_and_goes_on_trying() {
    let cluster = Cluster::alone().await;
    let receiver = Receiver::start().await;
    cluster.publisher().publish(plan([webhook("one", &receiver)])).await;
    // The token is asked for while somebody can give one.
    cluster.kubeconfig_of(ACCOUNT).await;
    api_server("stop").await;
    let sidecar = cluster.waiting_sidecar(ACCOUNT, "logto-0").await;
    let page = wait_ready_page(&sidecar, "the API server is not reachable").await;
    assert_eq!(page.status, 503);
    api_server("start").await;
    wait_output(&sidecar, "ready events=").await;
    send(&sidecar).await;
    receiver.wait_for(1).await;
}
