//! The API server takes everything that the examples render, and what stands in config/, as it would on
//! installation; `PodMonitor` and `PrometheusRule` too, by the Prometheus Operator's own definitions.

use std::collections::BTreeSet;

use serde_json::Value;
use tidings_tests::charts::{SYSTEM, examples, objects, template, tool};
use tidings_tests::cluster::{ControlPlane, kubectl, try_apply_with};
use tidings_tests::process::in_workspace;

/// Makes every namespace that is named, the accounts of pods, and the definitions of the Prometheus Operator.
async fn furnish(manifests: &[Value]) {
    let named = manifests.iter().filter_map(|object| object["metadata"]["namespace"].as_str());
    let named: BTreeSet<_> = named.chain([SYSTEM]).collect();
    let namespace =
        |name: &str| serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let all: Vec<_> = named.into_iter().map(|name| namespace(name).to_string()).collect();
    let (worked, said) = try_apply_with(&["--server-side"], &all.join("\n---\n")).await;
    assert!(worked, "{said}");
    // The server takes no pod whose ServiceAccount is not there, and a dry run makes none.
    if manifests.iter().any(|object| object["kind"] == "Pod") {
        let accounts = manifests.iter().filter(|object| object["kind"] == "ServiceAccount");
        let accounts: Vec<_> = accounts.map(Value::to_string).collect();
        let (worked, said) =
            try_apply_with(&["--server-side", "--force-conflicts"], &accounts.join("\n---\n")).await;
        assert!(worked, "{said}");
    }
    let definitions = tool("monitoring");
    kubectl(&["apply", "--server-side", "-f", definitions.to_str().unwrap()]).await;
    kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", definitions.to_str().unwrap()])
        .await;
}

/// Applies nothing, and fails where the server would refuse or complain. Fields that an earlier suite on this
/// server applied are taken over, of which kubectl warns.
async fn would_be_taken(what: &str, manifests: &str) {
    furnish(&objects(manifests)).await;
    let options = ["--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts"];
    let (worked, said) = try_apply_with(&options, manifests).await;
    let complaint = said.lines().find(|line| line.contains("Warning") && !line.contains("failed to migrate"));
    assert!(worked && complaint.is_none(), "{what}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_example_without_a_warning() {
    let _plane = ControlPlane::shared().await;
    for example in examples() {
        would_be_taken(&example, &template(&["-f", &example])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_what_kustomize_makes_of_config() {
    let _plane = ControlPlane::shared().await;
    for folder in ["crds", "config/operator", "config/sidecar", "config/default"] {
        let path = in_workspace(folder);
        would_be_taken(folder, &kubectl(&["kustomize", path.to_str().unwrap()]).await).await;
    }
}

/// The pod that the Deployment would make, as this namespace's admission judges it.
async fn admitted(namespace: &str, pod: &Value) -> (bool, String) {
    let metadata = serde_json::json!({"name": "operator", "namespace": namespace});
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod});
    try_apply_with(&["--dry-run=server"], &pod.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_pod_is_admitted_where_the_restricted_standard_is_enforced() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace("restricted").await;
    kubectl(&["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"]).await;
    kubectl(&["create", "serviceaccount", "tidings-operator", "-n", &namespace]).await;
    for example in examples() {
        let objects = objects(&template(&["-f", &example]));
        let operator = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        let mut pod = operator["spec"]["template"]["spec"].clone();
        let (taken, said) = admitted(&namespace, &pod).await;
        assert!(taken, "{example}: {said}");
        pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
        let (taken, said) = admitted(&namespace, &pod).await;
        assert!(!taken && said.contains("violates PodSecurity"), "{example}: {said}");
    }
}
