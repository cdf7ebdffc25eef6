//! Upgrade, rollback and uninstall, while events are delivered.

use tempfile::TempDir;
use tidings_tests::process::in_workspace;

use crate::shell::{get, helm, kubectl, run, until};
use crate::stage::{self, Copy, condition};

/// The version before this one: its chart with a number of its own, and one operator in place of two.
async fn earlier_chart() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let to = folder.path().to_str().expect("a path in UTF-8");
    run("cp", &["-a", in_workspace("charts").to_str().expect("a path in UTF-8"), to]).await;
    let chart = folder.path().join("charts/tidings/Chart.yaml");
    let text = std::fs::read_to_string(&chart).expect("Chart.yaml");
    let own =
        |line: &str| if line.starts_with("version:") { "version: 0.0.9".to_owned() } else { line.to_owned() };
    let earlier: Vec<_> = text.lines().map(own).collect();
    std::fs::write(&chart, earlier.join("\n") + "\n").expect("it is written");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_rollback_and_uninstall_stop_no_delivery_and_take_no_webhook() {
    let earlier = earlier_chart().await;
    let chart = earlier.path().join("charts/tidings");
    let chart = chart.to_str().expect("a path in UTF-8");
    let copy = Copy::deployed("releases", |_| {}).await;
    let mut delivered = 0;
    for (chart, more, version) in [
        (chart, &["--set", "operator.replicas=1"][..], "tidings-0.0.9"),
        ("charts/tidings", &[], env!("CARGO_PKG_VERSION")),
    ] {
        stage::upgrade(chart, more).await;
        let releases = helm(&["list", "-n", stage::SYSTEM]).await;
        assert!(releases.contains(version) && releases.contains("deployed"), "{releases}");
        one_more(&copy, &mut delivered).await;
    }
    helm(&["rollback", "tidings", "-n", stage::SYSTEM, "--wait", "--timeout", "60s"]).await;
    let releases = helm(&["list", "-n", stage::SYSTEM]).await;
    assert!(releases.contains("tidings-0.0.9"), "{releases}");
    one_more(&copy, &mut delivered).await;

    helm(&["uninstall", "tidings", "-n", stage::SYSTEM, "--wait"]).await;
    helm(&["uninstall", "tidings-crds", "-n", stage::SYSTEM, "--wait"]).await;
    get(&["crd", "webhooks.tidings.dev", "authservers.tidings.dev"]).await;
    assert_eq!(condition(&copy.webhook().await["status"], "Ready"), Some("True"), "the Webhook is there");
    let pod = copy.ready_pods(1).await.remove(0);
    let before = copy.ledgers.received();
    copy.sign_in(&pod).await;
    until("it is delivered without any operator", async || (copy.ledgers.received() > before).then_some(()))
        .await;

    stage::install(&[]).await;
    delivered += 1;
    copy.wait_status("the operator tells of it when it is back", |status| status["delivered"] == delivered)
        .await;
    kubectl(&["delete", "webhook", "welcome-mail", "-n", &copy.shop]).await;
    copy.removed().await;
}

async fn one_more(copy: &Copy, delivered: &mut u64) {
    let pod = copy.ready_pods(1).await.remove(0);
    copy.sign_in(&pod).await;
    *delivered += 1;
    let expected = *delivered;
    copy.wait_status("it is delivered, and told", |status| status["delivered"] == expected).await;
}
