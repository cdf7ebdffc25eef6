//! The cluster as its platform team has it: the charts installed, and copies of the examples in namespaces of
//! their own, each with an auth server, its sidecar, a receiver and a Webhook.

use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::ledgers::Ledgers;
use crate::objects::Objects;
use crate::shell::{apply, attempt, get, helm, kubectl, until};

/// The copies that tests make. The chart gives rights in each one's namespace, so it must know them all.
const COPIES: [&str; 8] = ["rolling", "two", "kept", "lost", "broken", "images", "releases", "injected"];

/// Where the operator is.
pub(crate) const SYSTEM: &str = "tidings-system";

/// Whether the charts are installed as tests expect them.
static INSTALLED: Mutex<bool> = Mutex::const_new(false);

/// A copy of an example.
pub(crate) struct Copy {
    /// The namespace of the auth server.
    pub(crate) auth: String,
    /// The namespace of the receiver and the Webhook.
    pub(crate) shop: String,
    /// What was sent and received, and the switch by which the receiver fails.
    pub(crate) ledgers: Ledgers,
}

/// Installs the charts, where they are not.
pub(crate) async fn installed() {
    let mut installed = INSTALLED.lock().await;
    if !*installed {
        let namespaces: Vec<Value> = COPIES.iter().flat_map(|name| namespaces(name)).collect();
        apply(&namespaces).await;
        install(&[]).await;
        *installed = true;
    }
}

/// A test installs the charts in its own way: whoever comes next installs them again.
pub(crate) async fn disturbed() {
    *INSTALLED.lock().await = false;
}

/// Installs the charts, or upgrades them to what they are here, with more arguments for helm.
pub(crate) async fn install(more: &[&str]) {
    let definitions = ["upgrade", "--install", "tidings-crds", "charts/tidings-crds"];
    helm(&[&definitions[..], &["-n", SYSTEM, "--create-namespace", "--wait"]].concat()).await;
    upgrade("charts/tidings", more).await;
}

/// Upgrades the operator's chart, and waits until it runs.
pub(crate) async fn upgrade(chart: &str, more: &[&str]) {
    let servers = authservers();
    let arguments = [
        "upgrade",
        "--install",
        "tidings",
        chart,
        "-n",
        SYSTEM,
        "--create-namespace",
        "--set-json",
        &servers,
    ];
    helm(&[&arguments[..], &["--wait", "--timeout", "120s"], more].concat()).await;
}

/// The value `authServers` of all copies.
pub(crate) fn authservers() -> String {
    let server = |name: &&str| json!({"namespace": format!("auth-{name}"), "name": "logto"});
    let all: Vec<_> = COPIES.iter().map(server).collect();
    format!("authServers={}", json!(all))
}

fn namespaces(name: &str) -> [Value; 2] {
    ["auth", "shop"].map(|prefix| {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let metadata = json!({"name": format!("{prefix}-{name}"), "labels": labels});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    })
}

// === impl Copy ===

impl Copy {
    /// Deploys a copy of the quick start, changed, and waits until its Webhook is Ready.
    pub(crate) async fn deployed(name: &str, change: impl FnOnce(&mut Objects)) -> Self {
        let copy = Self::of("examples/quickstart", name, change).await;
        copy.ready().await;
        copy
    }

    /// Applies a copy of an example.
    pub(crate) async fn of(example: &str, name: &str, change: impl FnOnce(&mut Objects)) -> Self {
        assert!(COPIES.contains(&name), "{name} stands in COPIES");
        installed().await;
        let (auth, shop) = (format!("auth-{name}"), format!("shop-{name}"));
        let ledgers = Ledgers::new(&[&auth, &shop]).await;
        let mut objects = Objects::of_example("examples/quickstart", &auth, &shop).await;
        if example != "examples/quickstart" {
            let Objects(theirs) = Objects::of_example(example, &auth, &shop).await;
            let names: Vec<_> = theirs.iter().map(identity).collect();
            objects.0.retain(|object| {
                !names.contains(&identity(object)) && object["kind"] != "Deployment" || is_mail(object)
            });
            objects.0.extend(theirs);
        }
        objects.with_ledger("Deployment", "mail");
        objects.arguments(
            "Deployment",
            "mail",
            &["--ledger=/ledger/received.jsonl", "--fail-while=/ledger/down"],
        );
        change(&mut objects);
        apply(&objects.0).await;
        Self { auth, shop, ledgers }
    }

    /// Waits until the Webhook is Ready, and the receiver's and the auth server's pods are.
    pub(crate) async fn ready(&self) {
        self.rolled_out("deployment/mail", &self.shop).await;
        kubectl(&[
            "wait",
            "--for=condition=Ready",
            "webhook/welcome-mail",
            "-n",
            &self.shop,
            "--timeout=120s",
        ])
        .await;
    }

    /// Waits until a workload's pods are as its object says.
    pub(crate) async fn rolled_out(&self, workload: &str, namespace: &str) {
        kubectl(&["rollout", "status", workload, "-n", namespace, "--timeout=120s"]).await;
    }

    /// One event from the auth server in a pod; it must be stored.
    pub(crate) async fn sign_in(&self, pod: &str) {
        let command = ["exec", pod, "-n", &self.auth, "-c", "logto", "--", "/tidings", "demo", "sign-in"];
        let answer = kubectl(&command).await;
        assert!(answer.contains("\"stored\":true"), "{answer}");
    }

    /// The Webhook.
    pub(crate) async fn webhook(&self) -> Value {
        get(&["webhook", "welcome-mail", "-n", &self.shop]).await
    }

    /// Waits until the Webhook's status is so.
    pub(crate) async fn wait_status(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(what, async || Some(self.webhook().await["status"].clone()).filter(&holds)).await
    }

    /// The auth server's pods that are not ending, by name.
    pub(crate) async fn pods(&self) -> Vec<Value> {
        let pods = get(&["pods", "-n", &self.auth, "-l", "tidings.dev/auth-server=logto"]).await;
        let alive = |pod: &&Value| pod["metadata"].get("deletionTimestamp").is_none();
        pods["items"].as_array().expect("items").iter().filter(alive).cloned().collect()
    }

    /// Waits for so many pods that are ready, and gives their names.
    pub(crate) async fn ready_pods(&self, count: usize) -> Vec<String> {
        until(&format!("{count} pods of {} are ready", self.auth), async || {
            let pods = self.pods().await;
            let ready = pods.iter().filter(|pod| condition(&pod["status"], "Ready") == Some("True")).count();
            (pods.len() == count && ready == count).then(|| pods.iter().map(name).collect())
        })
        .await
    }

    /// Removes the workloads, so that the node has room for the next test.
    pub(crate) async fn removed(self) {
        for namespace in [&self.auth, &self.shop] {
            let workloads = "deployments,statefulsets";
            attempt("kubectl", &["delete", workloads, "--all", "-n", namespace, "--wait=false"]).await;
        }
    }
}

/// Prints what the kubelet measures of each container of the pods of an auth server.
pub(crate) async fn measured_memory(namespace: &str, auth_server: &str) {
    let label = format!("tidings.dev/auth-server={auth_server}");
    let pods = get(&["pods", "-n", namespace, "-l", &label]).await;
    let pod = name(&pods["items"][0]);
    let node = pods["items"][0]["spec"]["nodeName"].as_str().expect("it was scheduled").to_owned();
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let containers = until("the kubelet has measured the sidecar", async || {
        let summary: Value = serde_json::from_str(&kubectl(&["get", "--raw", &path]).await).ok()?;
        let pod = summary["pods"].as_array()?.iter().find(|one| one["podRef"]["name"] == *pod)?.clone();
        let containers = pod["containers"].as_array()?.clone();
        containers.iter().all(|one| one["memory"]["workingSetBytes"].is_u64()).then_some(containers)
    })
    .await;
    for container in containers {
        let mib = |field: &str| container["memory"][field].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
        let (working, resident) = (mib("workingSetBytes"), mib("rssBytes"));
        println!(
            "memory of {} in {pod}: working set {working:.1} MiB, resident {resident:.1} MiB",
            container["name"]
        );
    }
}

/// The status of a condition.
pub(crate) fn condition<'a>(status: &'a Value, of_type: &str) -> Option<&'a str> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == of_type)?["status"].as_str()
}

/// An object's name.
pub(crate) fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("a name").to_owned()
}

fn identity(object: &Value) -> (String, String) {
    (object["kind"].to_string(), object["metadata"]["name"].to_string())
}

fn is_mail(object: &Value) -> bool {
    object["metadata"]["name"] == "mail"
}
