//! The sidecar comes to a pod that asks for it by a label.

use serde_json::json;

use crate::shell::kubectl;
use crate::stage::{self, Copy, name};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_by_a_label_gets_a_sidecar_that_delivers() {
    stage::installed().await;
    stage::install(&["--set", "injection.enabled=true"]).await;
    let copy = Copy::of("examples/quickstart", "injected", |objects| {
        let template = &mut objects.object("Deployment", "logto")["spec"]["template"];
        template["metadata"]["labels"] =
            json!({"app.kubernetes.io/name": "logto", "tidings.dev/inject": "logto"});
        for added in ["initContainers", "volumes"] {
            template["spec"].as_object_mut().expect("a spec").remove(added);
        }
    })
    .await;
    copy.ready().await;
    let pod = copy.ready_pods(1).await.remove(0);
    let pods = copy.pods().await;
    let sidecar = &pods[0]["spec"]["initContainers"][0];
    assert_eq!(
        (name(&pods[0]), &sidecar["name"], &sidecar["restartPolicy"]),
        (pod.clone(), &json!("tidings"), &json!("Always"))
    );
    copy.sign_in(&pod).await;
    copy.wait_status("it is delivered", |status| status["delivered"] == 1).await;
    kubectl(&["delete", "deployment", "logto", "-n", &copy.auth]).await;
    stage::install(&["--set", "injection.enabled=false"]).await;
    copy.removed().await;
}
