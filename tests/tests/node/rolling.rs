//! Restarts under load: what was answered 2xx arrives.

use serde_json::json;

use crate::shell::{get, kubectl, until};
use crate::stage::Copy;

/// Of each of two pods.
const RATE: &str = "--rate=250";

/// How many deliveries are to be seen before and after each restart.
const SOME: usize = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_under_500_events_a_second_lose_nothing() {
    let copy = Copy::deployed("rolling", |objects| {
        objects.with_ledger("Deployment", "logto");
        objects.arguments("Deployment", "logto", &[RATE, "--ledger=/ledger/sent-$(POD_NAME).jsonl"]);
        objects.object("Deployment", "logto")["spec"]["replicas"] = json!(2);
        objects.object("Webhook", "welcome-mail")["spec"]["events"] = json!(["*"]);
    })
    .await;
    copy.ready_pods(2).await;
    for _ in 0..2 {
        more_arrive(&copy).await;
        kubectl(&["rollout", "restart", "deployment/logto", "-n", &copy.auth]).await;
        copy.rolled_out("deployment/logto", &copy.auth).await;
    }
    more_arrive(&copy).await;
    kubectl(&["scale", "deployment/logto", "--replicas=0", "-n", &copy.auth]).await;
    until("the last pods have ended", async || {
        let all = get(&["pods", "-n", &copy.auth, "-l", "tidings.dev/auth-server=logto"]).await;
        all["items"].as_array()?.is_empty().then_some(())
    })
    .await;
    let verdict = copy.ledgers.judge().await;
    println!("rolling restarts under load: {verdict}");
    assert!(verdict["acknowledged"].as_u64().is_some_and(|count| count > 3 * SOME as u64), "{verdict}");
    assert_eq!(verdict["lost"], json!([]), "{verdict}");
    copy.removed().await;
}

/// Waits until deliveries go on.
async fn more_arrive(copy: &Copy) {
    let before = copy.ledgers.received();
    until("deliveries go on", async || (copy.ledgers.received() >= before + SOME).then_some(())).await;
}
