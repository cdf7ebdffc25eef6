//! What goes wrong with a rollout: a sidecar that cannot start, an image that is not there. The auth server goes on.

use serde_json::{Value, json};

use crate::shell::{attempt, get, helm, kubectl, until};
use crate::stage::{self, Copy, condition, name};

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_crashes_or_has_no_image_stops_the_rollout_and_not_the_auth_server() {
    let copy = Copy::deployed("broken", |_| {}).await;
    let serving = copy.ready_pods(1).await.remove(0);
    let listens_nowhere = json!([{"name": "TIDINGS_LISTEN", "value": "nowhere"}]);
    broken(&copy, &serving, &json!({"name": "tidings", "env": listens_nowhere}), "CrashLoopBackOff").await;
    let no_image = json!({"name": "tidings", "image": "tidings-sidecar:there-is-none"});
    broken(&copy, &serving, &no_image, "ImagePull").await;
    copy.wait_status("both events are delivered", |status| status["delivered"] == 2).await;
    copy.removed().await;
}

/// Breaks the sidecar's container, and looks what is said of the new pod while the old one works on.
async fn broken(copy: &Copy, serving: &str, sidecar: &Value, reason: &str) {
    let patch = json!({"spec": {"template": {"spec": {"initContainers": [sidecar]}}}}).to_string();
    kubectl(&["patch", "deployment", "logto", "-n", &copy.auth, "-p", &patch]).await;
    until(&format!("the new pod says {reason}"), async || {
        let pods = copy.pods().await;
        let new = pods.iter().find(|pod| name(pod) != serving)?;
        let waiting = &new["status"]["initContainerStatuses"][0]["state"]["waiting"]["reason"];
        waiting.as_str().filter(|said| said.contains(reason)).map(|_| ())
    })
    .await;
    copy.sign_in(serving).await;
    let pods = copy.pods().await;
    let old = pods.iter().find(|pod| name(pod) == serving).expect("the old pod is there");
    assert_eq!(condition(&old["status"], "Ready"), Some("True"));
    let status = copy.webhook().await["status"].clone();
    assert_eq!(condition(&status, "Ready"), Some("True"), "what was Ready stays so: {status}");
    kubectl(&["rollout", "undo", "deployment/logto", "-n", &copy.auth]).await;
    copy.rolled_out("deployment/logto", &copy.auth).await;
    assert_eq!(copy.ready_pods(1).await, [serving], "the old pod served through it all");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whose_new_image_is_not_there_goes_on_as_it_was() {
    let copy = Copy::deployed("images", |_| {}).await;
    let servers = stage::authservers();
    let upgrade = ["upgrade", "tidings", "charts/tidings", "-n", stage::SYSTEM, "--set-json", &servers];
    let (worked, said) = attempt(
        "helm",
        &[&upgrade[..], &["--set", "image.tag=there-is-none", "--wait", "--timeout", "15s"]].concat(),
    )
    .await;
    assert!(!worked, "helm says that it did not get ready: {said}");
    let edit = r#"{"spec":{"events":["PostSignIn","User.*"]}}"#;
    kubectl(&["patch", "webhook", "welcome-mail", "-n", &copy.shop, "--type=merge", "-p", edit]).await;
    copy.wait_status("the edit runs", |status| {
        status["observedGeneration"] == 2 && condition(status, "Programmed") == Some("True")
    })
    .await;
    helm(&["rollback", "tidings", "-n", stage::SYSTEM, "--wait", "--timeout", "60s"]).await;
    let operator = get(&["deployment", "tidings-operator", "-n", stage::SYSTEM]).await;
    assert_eq!(operator["status"]["readyReplicas"], operator["spec"]["replicas"]);
    copy.removed().await;
}
