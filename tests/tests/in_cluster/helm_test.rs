//! `helm test` of a release. The control plane has no node: the test takes the kubelet's place, and runs the program that
//! the pod names, with the pod's arguments and the rights of its `ServiceAccount`, and nothing more.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tidings_tests::charts::{Said, helm, helm_works};
use tidings_tests::cluster::{ControlPlane, apply, kubectl, try_kubectl};
use tidings_tests::process::binary;
use tidings_tests::until;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// A release in a namespace of its own, which enforces the restricted standard, with an auth server's namespace.
struct Release {
    plane: ControlPlane,
    name: String,
    auth: String,
}

// === impl Release ===

impl Release {
    async fn install() -> Self {
        // What takes a while to build must not count against helm's patience.
        binary("tidings");
        let plane = ControlPlane::shared().await;
        let (name, auth) = (plane.namespace("tested").await, plane.namespace("auth").await);
        kubectl(&["label", "namespace", &name, "pod-security.kubernetes.io/enforce=restricted"]).await;
        let server = format!("authServers[0].namespace={auth},authServers[0].name=logto");
        let more = "operator.replicas=1,rbac.aggregate=false,rbac.deliveries=false,test.timeoutSeconds=0";
        helm_works(&["install", &name, "charts/tidings", "-n", &name, "--set", &server, "--set", more]);
        Self { plane, name, auth }
    }

    fn operator(&self) -> String {
        format!("{}-operator", self.name)
    }

    /// What a kubelet writes once the operator's `/readyz` answers; from it the Deployment counts its replicas.
    async fn operator_gets_ready(&self) {
        let of_operator = ListParams::default().labels("app.kubernetes.io/component=operator");
        let pod = until("the Deployment makes a pod", async || {
            self.pods().list(&of_operator).await.unwrap().items.into_iter().next()
        })
        .await;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let name = pod.metadata.name.unwrap();
        self.pods().patch_status(&name, &PatchParams::default(), &Patch::Strategic(&ready)).await.unwrap();
        let deployment = ["get", "deployment", &self.operator(), "-n", &self.name, "-o", "json"];
        until("the Deployment counts it", async || {
            let deployment: Value = serde_json::from_str(&kubectl(&deployment).await).unwrap();
            (deployment["status"]["readyReplicas"] == 1).then_some(())
        })
        .await;
    }

    /// What an operator writes that leads.
    async fn operator_leads(&self) {
        let now = k8s_openapi::jiff::Timestamp::now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.operator(), "namespace": self.name},
            "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15, "renewTime": format!("{now:.6}")},
        });
        apply(&lease.to_string()).await;
    }

    async fn auth_server(&self, ready: bool) {
        let object = json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "AuthServer",
            "metadata": {"name": "logto", "namespace": self.auth}, "spec": {},
        });
        apply(&object.to_string()).await;
        let status = if ready { "True" } else { "False" };
        let condition = json!({
            "type": "Ready", "status": status, "reason": "NoSidecar", "message": "no sidecar has reported",
            "lastTransitionTime": "2026-11-24T10:00:00Z", "observedGeneration": 1,
        });
        let patch = json!({"status": {"observedGeneration": 1, "conditions": [condition]}}).to_string();
        let object = ["authserver", "logto", "-n", &self.auth];
        kubectl(&[&["patch"], &object[..], &["--subresource=status", "--type=merge", "-p", &patch]].concat())
            .await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.plane.admin.clone(), &self.name)
    }

    /// Begins `helm test`, whose end waits for the pod's.
    fn helm_test(&self) -> JoinHandle<Said> {
        let name = self.name.clone();
        tokio::task::spawn_blocking(move || helm(&["test", &name, "-n", &name, "--timeout", "2m"]))
    }

    /// Runs the pod that helm made, other than this one, as the kubelet would; its identity, and what it printed.
    async fn run_pod(&self, other_than: Option<&str>) -> (String, bool, String) {
        let name = format!("{}-test", self.name);
        let pod = until("helm makes the pod", async || {
            let pod = self.pods().get_opt(&name).await.unwrap()?;
            (pod.metadata.uid.as_deref() != other_than && pod.metadata.deletion_timestamp.is_none())
                .then_some(pod)
        })
        .await;
        let spec = pod.spec.unwrap();
        let account = spec.service_account_name.unwrap();
        let kubeconfig = self.kubeconfig(&account).await;
        let mut command = Command::new(binary("tidings"));
        command.args(spec.containers[0].args.as_ref().unwrap()).env("KUBECONFIG", kubeconfig);
        let (status, output) = tidings_tests::process::run(command).await;
        let phase = if status.success() { "Succeeded" } else { "Failed" };
        let ended = json!({"status": {"phase": phase}});
        self.pods().patch_status(&name, &PatchParams::default(), &Patch::Merge(&ended)).await.unwrap();
        (pod.metadata.uid.unwrap(), status.success(), output)
    }

    async fn kubeconfig(&self, account: &str) -> PathBuf {
        self.plane.kubeconfig_of(&self.name, account).await
    }

    /// What is left of the test.
    async fn left(&self) -> Vec<&'static str> {
        let name = format!("{}-test", self.name);
        let mut left = Vec::new();
        for kind in ["pod", "serviceaccount", "role", "rolebinding"] {
            if try_kubectl(&["get", kind, &name, "-n", &self.name]).await.0 {
                left.push(kind);
            }
        }
        let role = ["get", "role", &format!("{name}-authservers"), "-n", &self.auth];
        if try_kubectl(&role).await.0 {
            left.push("role of the auth server's namespace");
        }
        left
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_succeeds_when_operator_and_auth_servers_are_ready_and_leaves_nothing() {
    let release = Release::install().await;
    release.auth_server(true).await;
    release.operator_gets_ready().await;
    release.operator_leads().await;
    let tested = release.helm_test();
    let (_, worked, output) = release.run_pod(None).await;
    assert!(worked && output.contains("1 of 1 are ready"), "{output}");
    assert!(output.contains(&format!("authserver {}/logto", release.auth)), "{output}");
    let said = tested.await.unwrap();
    assert!(said.worked, "{}{}", said.out, said.err);
    assert_eq!(release.left().await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_test_fails_with_the_reason_keeps_its_pod_and_can_be_repeated() {
    let release = Release::install().await;
    release.operator_leads().await;
    let tested = release.helm_test();
    let (first, worked, output) = release.run_pod(None).await;
    assert!(!worked && output.contains("0 of 1 are ready"), "{output}");
    assert!(output.contains("there is no AuthServer yet"), "{output}");
    assert!(!tested.await.unwrap().worked);
    assert!(release.left().await.contains(&"pod"), "its log is there to be read");

    release.auth_server(false).await;
    release.operator_gets_ready().await;
    let tested = release.helm_test();
    let (_, worked, output) = release.run_pod(Some(&first)).await;
    assert!(!worked && output.contains("Ready is False: NoSidecar: no sidecar has reported"), "{output}");
    assert!(!tested.await.unwrap().worked);
}
