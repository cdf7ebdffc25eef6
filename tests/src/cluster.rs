//! A real API server for tests, and programs that have a `ServiceAccount`'s rights on it and no other.
//!
//! The control plane is that of `tests/controlplane/run`; a test that finds none fails with a sentence.
//! Tests share it, each in namespaces of its own; one that takes the API server away, or changes what
//! belongs to all, has it alone.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::process;

const HOW: &str = "there is no control plane: run this as `tests/controlplane/run -- cargo test -p PACKAGE --features controlplane --test in_cluster`";

/// Tests share the API server; one that takes it away has it alone.
static SERVER: RwLock<()> = RwLock::const_new(());

/// Whether the definitions are there; each test finds them.
static DEFINED: Mutex<bool> = Mutex::const_new(false);

/// Who writes what tests apply.
pub const FIELD_MANAGER: &str = "test";

/// Holds the API server for a test.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
enum Held {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// The administrator's way in, and a folder that goes with the test.
pub struct ControlPlane {
    /// May do everything.
    pub admin: Client,
    folder: TempDir,
    held: Held,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Beside other tests.
    pub async fn shared() -> Self {
        Self::holding(Held::Shared(SERVER.read().await)).await
    }

    /// For a test that takes the API server away, or changes what belongs to all.
    pub async fn alone() -> Self {
        Self::holding(Held::Alone(SERVER.write().await)).await
    }

    async fn holding(held: Held) -> Self {
        assert!(std::env::var_os("KUBECONFIG").is_some(), "{HOW}");
        let admin = Client::try_default().await.unwrap();
        define().await;
        Self { admin, folder: TempDir::new().unwrap(), held }
    }

    /// Removes the definitions and with them every object; whoever comes next finds them again.
    pub async fn undefine(&self) {
        assert!(matches!(self.held, Held::Alone(_)), "the definitions belong to all");
        let mut defined = DEFINED.lock().await;
        *defined = false;
        kubectl(&["delete", "--wait", "-f", &in_workspace("crds")]).await;
    }

    /// Makes a namespace, whose name begins so.
    pub async fn namespace(&self, prefix: &str) -> String {
        let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let made = Api::all(self.admin.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        made.metadata.name.unwrap()
    }

    /// A client with the token of a `ServiceAccount`, as a pod would have it.
    pub async fn client_of(&self, namespace: &str, account: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig_of(namespace, account).await).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    /// A kubeconfig with the token of a `ServiceAccount`, which is made when it is not there.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let file = self.path(&format!("{namespace}-{account}.kubeconfig"));
        if file.exists() {
            return file;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), namespace);
        let object =
            serde_json::json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}});
        accounts.patch(account, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(&object)).await.unwrap();
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

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Applies the definitions, where they are not there.
pub async fn define() {
    let mut defined = DEFINED.lock().await;
    if !*defined {
        kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &in_workspace("crds")]).await;
        kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &in_workspace("crds")]).await;
        *defined = true;
    }
}

/// A file of the workspace, with each text in place of another; each must be there.
pub fn manifest(path: &str, replacements: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(process::in_workspace(path)).unwrap();
    for (from, to) in replacements {
        assert!(text.contains(from), "{path} has no {from:?}");
        text = text.replace(from, to);
    }
    text
}

/// Applies manifests as a user does; one after another, since tests share objects of the whole cluster, and of
/// two that create the same one the later is refused.
pub async fn apply(manifests: &str) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _held = ONE_AT_A_TIME.lock().await;
    let (worked, output) = try_apply(manifests).await;
    assert!(worked, "kubectl apply: {output}");
}

/// Whether the API server takes manifests, and what kubectl says.
pub async fn try_apply(manifests: &str) -> (bool, String) {
    try_apply_with(&[], manifests).await
}

/// The same with options of `kubectl apply`.
pub async fn try_apply_with(options: &[&str], manifests: &str) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command.args(["apply", "-f", "-"]).args(options);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Runs kubectl, which must succeed; what it prints.
pub async fn kubectl(arguments: &[&str]) -> String {
    let mut command = Command::new("kubectl");
    command.args(arguments);
    succeed(command).await
}

/// Runs kubectl: whether it succeeds, and what it prints.
pub async fn try_kubectl(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command.args(arguments);
    let (status, output) = process::run(command).await;
    (status.success(), output)
}

/// Stops or starts the API server.
pub async fn api_server(verb: &str) {
    let folder = std::env::var_os("TIDINGS_CONTROLPLANE").expect(HOW);
    let mut command = Command::new(Path::new(&folder).join("controlplane"));
    command.args(["apiserver", verb]);
    succeed(command).await;
}

async fn succeed(command: Command) -> String {
    let what = format!("{command:?}");
    let (status, output) = process::run(command).await;
    assert!(status.success(), "{what}: {output}");
    output
}

fn in_workspace(path: &str) -> String {
    process::in_workspace(path).to_str().unwrap().to_owned()
}
