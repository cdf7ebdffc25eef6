//! A namespace of its own for each test, and sidecars in it that have their `ServiceAccount`'s token.

use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use tidings_crds::DeliveryReport;
use tidings_plan::ObjectName;
use tidings_tests::client::{self, Answer};
use tidings_tests::cluster::{ControlPlane, FIELD_MANAGER, apply, kubectl, manifest};
use tidings_tests::process::Process;
use tidings_tests::until;
use tokio::process::Command;

use crate::publisher::Publisher;

/// The `ServiceAccount` of the manifest.
pub(crate) const ACCOUNT: &str = "logto";

/// A namespace with the sidecar's rights, and the administrator's way in.
pub(crate) struct Cluster {
    plane: ControlPlane,
    pub(crate) namespace: String,
    pub(crate) auth_server: ObjectName,
}

// === impl Cluster ===

impl Cluster {
    /// A namespace in which the sidecar has its rights.
    pub(crate) async fn new() -> Self {
        Self::on(ControlPlane::shared().await).await
    }

    /// The same, for a test that takes the API server away.
    pub(crate) async fn alone() -> Self {
        Self::on(ControlPlane::alone().await).await
    }

    async fn on(plane: ControlPlane) -> Self {
        let namespace = plane.namespace("sidecar").await;
        let auth_server = ObjectName::new(&namespace, "logto");
        let cluster = Self { plane, namespace, auth_server };
        cluster.grant().await;
        cluster
    }

    /// Applies the manifest, with this namespace for its own.
    pub(crate) async fn grant(&self) {
        let here = format!("namespace: {}", self.namespace);
        apply(&manifest("config/sidecar/rbac.yaml", &[("namespace: auth", &here)])).await;
    }

    /// Takes the right to write reports away.
    pub(crate) async fn take_reports_away(&self) {
        let without = r#"[{"op": "remove", "path": "/rules/1"}]"#;
        let role = ["patch", "role", "tidings-sidecar-logto", "--namespace", &self.namespace];
        kubectl(&[&role[..], &["--type=json", "--patch", without]].concat()).await;
    }

    /// Writes plans as the operator does.
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::new(self.plane.admin.clone(), self.auth_server.clone())
    }

    /// The reports of this namespace.
    pub(crate) fn reports(&self) -> Api<DeliveryReport> {
        Api::namespaced(self.plane.admin.clone(), &self.namespace)
    }

    /// The Secrets of this namespace.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.plane.admin.clone(), &self.namespace)
    }

    /// Makes the object of a pod, and tells its UID. No node runs it.
    pub(crate) async fn pod(&self, name: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.plane.admin.clone(), &self.namespace);
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"serviceAccountName": ACCOUNT, "containers": [{"name": "auth", "image": "none"}]},
        });
        let apply = PatchParams::apply(FIELD_MANAGER);
        pods.patch(name, &apply, &Patch::Apply(&pod)).await.unwrap().metadata.uid.unwrap()
    }

    /// Deletes the pod's object.
    pub(crate) async fn delete_pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.plane.admin.clone(), &self.namespace);
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// A client with the token of a `ServiceAccount`, as a pod would have it.
    pub(crate) async fn client_of(&self, account: &str) -> Client {
        self.plane.client_of(&self.namespace, account).await
    }

    /// A kubeconfig with the token of a `ServiceAccount`, which is made when it is not there.
    pub(crate) async fn kubeconfig_of(&self, account: &str) -> PathBuf {
        self.plane.kubeconfig_of(&self.namespace, account).await
    }

    /// Starts a sidecar, and waits until it takes events.
    pub(crate) async fn sidecar(&self, pod: &str) -> Process {
        Process::start(self.command(ACCOUNT, pod).await).await
    }

    /// Starts a sidecar that cannot take events yet, and waits until its ports are open.
    pub(crate) async fn waiting_sidecar(&self, account: &str, pod: &str) -> Process {
        Process::start_until(self.command(account, pod).await, logged_addresses).await
    }

    /// A sidecar's command line. One pod name has one data folder.
    pub(crate) async fn command(&self, account: &str, pod: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-sidecar"));
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--pod-name", pod])
            .args(["--auth-server", &self.auth_server.to_string(), "--pod-namespace", &self.namespace])
            .arg("--data-dir")
            .arg(self.plane.path(&format!("data-{pod}")))
            .env("KUBECONFIG", self.kubeconfig_of(account).await);
        command
    }
}

/// Waits until `/readyz` says something.
pub(crate) async fn wait_ready_page(process: &Process, what: &str) -> Answer {
    until(&format!("/readyz says {what:?}"), async || {
        client::get(process.admin, "/readyz").await.filter(|answer| answer.body.contains(what))
    })
    .await
}

/// Waits until the output says something.
pub(crate) async fn wait_output(process: &Process, what: &str) {
    until(&format!("the output says {what:?}"), async || process.output().contains(what).then_some(())).await;
}

/// The addresses in the log line that every sidecar in a cluster begins with.
fn logged_addresses(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = output.lines().find(|line| line.contains("looked for in the cluster"))?;
    let address = |key: &str| line.split(' ').find_map(|part| part.strip_prefix(key))?.parse().ok();
    Some((address("events=")?, address("admin=")?))
}
