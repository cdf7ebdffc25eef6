//! A namespace of its own for each test, and sidecars in it that have their `ServiceAccount`'s token.

use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;
use tidings_crds::DeliveryReport;
use tidings_plan::ObjectName;
use tidings_tests::client::{self, Answer};
use tidings_tests::process::{self, Process};
use tidings_tests::until;
use tokio::process::Command;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::publisher::Publisher;

/// The `ServiceAccount` of the manifest.
pub(crate) const ACCOUNT: &str = "logto";

/// Tests share the API server; one that takes it away has it alone.
static SERVER: RwLock<()> = RwLock::const_new(());

/// The definitions are applied once.
static DEFINITIONS: OnceCell<()> = OnceCell::const_new();

/// Holds the API server for a test.
#[expect(dead_code, reason = "held, not read")]
enum Held {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A namespace with the sidecar's rights, and the administrator's way in.
pub(crate) struct Cluster {
    pub(crate) admin: Client,
    pub(crate) namespace: String,
    pub(crate) auth_server: ObjectName,
    folder: TempDir,
    _held: Held,
}

// === impl Cluster ===

impl Cluster {
    /// A namespace in which the sidecar has its rights.
    pub(crate) async fn new() -> Self {
        Self::holding(Held::Shared(SERVER.read().await)).await
    }

    /// The same, for a test that takes the API server away.
    pub(crate) async fn alone() -> Self {
        Self::holding(Held::Alone(SERVER.write().await)).await
    }

    async fn holding(held: Held) -> Self {
        assert!(
            std::env::var_os("KUBECONFIG").is_some(),
            "these tests need an API server of their own: tests/controlplane/run -- cargo test -p tidings-pod --features controlplane"
        );
        DEFINITIONS
            .get_or_init(async || kubectl(&["apply", "--server-side", "-f", &in_workspace("crds")]).await)
            .await;
        let admin = Client::try_default().await.unwrap();
        let metadata = ObjectMeta { generate_name: Some("sidecar-".to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let made = Api::all(admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let namespace = made.metadata.name.unwrap();
        let auth_server = ObjectName::new(&namespace, "logto");
        let cluster = Self { admin, namespace, auth_server, folder: TempDir::new().unwrap(), _held: held };
        cluster.grant().await;
        cluster
    }

    /// Applies the manifest, with this namespace for its own.
    pub(crate) async fn grant(&self) {
        let manifest = std::fs::read_to_string(in_workspace("config/sidecar/rbac.yaml")).unwrap();
        let here = manifest.replace("namespace: auth", &format!("namespace: {}", self.namespace));
        assert_ne!(manifest, here);
        let file = self.path("rbac.yaml");
        std::fs::write(&file, here).unwrap();
        kubectl(&["apply", "-f", file.to_str().unwrap()]).await;
    }

    /// Takes the right to write reports away.
    pub(crate) async fn take_reports_away(&self) {
        let without = r#"[{"op": "remove", "path": "/rules/1"}]"#;
        let role = ["patch", "role", "tidings-sidecar-logto", "--namespace", &self.namespace];
        kubectl(&[&role[..], &["--type=json", "--patch", without]].concat()).await;
    }

    /// Writes plans as the operator does.
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::new(self.admin.clone(), self.auth_server.clone())
    }

    /// The reports of this namespace.
    pub(crate) fn reports(&self) -> Api<DeliveryReport> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// The Secrets of this namespace.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Makes the object of a pod, and tells its UID. No node runs it.
    pub(crate) async fn pod(&self, name: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), &self.namespace);
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"serviceAccountName": ACCOUNT, "containers": [{"name": "auth", "image": "none"}]},
        });
        let apply = PatchParams::apply("test");
        pods.patch(name, &apply, &Patch::Apply(&pod)).await.unwrap().metadata.uid.unwrap()
    }

    /// Deletes the pod's object.
    pub(crate) async fn delete_pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), &self.namespace);
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// A client with the token of a `ServiceAccount`, as a pod would have it.
    pub(crate) async fn client_of(&self, account: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig_of(account).await).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A kubeconfig with the token of a `ServiceAccount`, which is made when it is not there.
    pub(crate) async fn kubeconfig_of(&self, account: &str) -> PathBuf {
        let file = self.path(&format!("{account}.kubeconfig"));
        if file.exists() {
            return file;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), &self.namespace);
        let object =
            serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
        accounts.patch(account, &PatchParams::apply("test"), &Patch::Apply(&object)).await.unwrap();
        let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
        let issued = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        let token = issued.status.unwrap().token;
        let mut kubeconfig = serde_json::to_value(Kubeconfig::read().unwrap()).unwrap();
        for user in kubeconfig["users"].as_array_mut().unwrap() {
            user["user"] = serde_json::json!({"token": token});
        }
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        file
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
            .arg(self.path(&format!("data-{pod}")))
            .env("KUBECONFIG", self.kubeconfig_of(account).await);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Stops or starts the API server.
pub(crate) async fn api_server(verb: &str) {
    let folder =
        std::env::var("TIDINGS_CONTROLPLANE").expect("TIDINGS_CONTROLPLANE tells where the control plane is");
    let mut command = Command::new(PathBuf::from(folder).join("controlplane"));
    command.args(["apiserver", verb]);
    succeed(command).await;
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

async fn kubectl(arguments: &[&str]) {
    let mut command = Command::new("kubectl");
    command.args(arguments);
    succeed(command).await;
}

async fn succeed(command: Command) {
    let what = format!("{command:?}");
    let (status, output) = process::run(command).await;
    assert!(status.success(), "{what}: {output}");
}

fn in_workspace(path: &str) -> String {
    process::in_workspace(path).to_str().unwrap().to_owned()
}

/// The addresses in the log line that every sidecar in a cluster begins with.
fn logged_addresses(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line = output.lines().find(|line| line.contains("looked for in the cluster"))?;
    let address = |key: &str| line.split(' ').find_map(|part| part.strip_prefix(key))?.parse().ok();
    Some((address("events=")?, address("admin=")?))
}
