//! The objects that a scenario needs, made and removed; and their statuses as a watch sees them.

use std::collections::HashSet;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_bench::load::INGEST_KEY;
use tidings_crds::{AuthServer, Condition, ConditionStatus, DeliveryReport, Webhook};
use tokio::process::Command;
use tokio::sync::mpsc;

/// The namespace of the auth server, as `config/` has it.
const AUTH: &str = "auth";

/// How many requests make or remove objects at once.
const AT_ONCE: usize = 32;

/// Longer than this nothing is waited for.
const PATIENCE: Duration = Duration::from_mins(10);

/// The cluster, as its administrator sees it.
pub(crate) struct Cluster {
    client: Client,
    folder: TempDir,
}

/// A number of Webhooks over a number of namespaces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) webhooks: usize,
    pub(crate) namespaces: usize,
    /// Names of events, of which each Webhook selects one.
    pub(crate) events: usize,
    pub(crate) receiver: SocketAddr,
}

/// The status of a Webhook, as the watch told it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    /// The generation that is Accepted and Programmed.
    pub(crate) runs: Option<i64>,
    pub(crate) at: Instant,
}

/// Statuses, as they come.
pub(crate) struct Watch(mpsc::UnboundedReceiver<Seen>);

// === impl Cluster ===

impl Cluster {
    /// With definitions and rights applied.
    pub(crate) async fn prepare() -> Self {
        let client =
            Client::try_default().await.expect("tests/controlplane/run -- COMMAND gives a KUBECONFIG");
        std::fs::create_dir_all("target/bench").expect("a folder");
        let cluster = Self { client, folder: TempDir::new_in("target/bench").expect("a folder") };
        kubectl(&["apply", "--server-side", "-f", "crds/"]).await;
        kubectl(&["wait", "--for=condition=Established", "crd", "--all"]).await;
        cluster.create_namespace(AUTH).await;
        kubectl(&["apply", "-f", "config/operator/", "-f", "config/sidecar/"]).await;
        cluster
    }

    /// A file that gives the rights of a `ServiceAccount`, and no others.
    pub(crate) async fn kubeconfig_of(&self, account: &str, namespace: &str) -> PathBuf {
        let config = kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]).await;
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        let token = kubectl(&["create", "token", account, "-n", namespace]).await;
        config["users"][0]["user"] = json!({ "token": token.trim() });
        let file = self.path(&format!("{account}.kubeconfig"));
        std::fs::write(&file, config.to_string()).expect("a file");
        file
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the auth server and the Webhooks, each with a Secret of its own; how long that took.
    pub(crate) async fn create(&self, shape: Shape) -> Duration {
        for namespace in 0..shape.namespaces {
            self.create_namespace(&namespace_of(namespace)).await;
        }
        let began = Instant::now();
        self.put(&secret(AUTH, "logto-hook", INGEST_KEY)).await;
        self.put(&auth_server()).await;
        let each = stream::iter(0..shape.webhooks).for_each_concurrent(AT_ONCE, |at| async move {
            let (namespace, name) = shape.name(at);
            self.put(&secret(&namespace, &name, &format!("bench-signing-key-of-webhook-{at:06}"))).await;
            self.put(&shape.webhook(at)).await;
        });
        each.await;
        began.elapsed()
    }

    /// Removes what was made, and what operator and sidecar made of it.
    pub(crate) async fn remove(&self, shape: Shape) {
        for namespace in (0..shape.namespaces).map(namespace_of) {
            self.remove_all::<Webhook>(&namespace).await;
            self.remove_all::<Secret>(&namespace).await;
        }
        self.remove_all::<AuthServer>(AUTH).await;
        self.remove_all::<DeliveryReport>(AUTH).await;
        self.remove_all::<Secret>(AUTH).await;
    }

    /// Watches every Webhook's status.
    pub(crate) fn watch(&self) -> Watch {
        let (told, seen) = mpsc::unbounded_channel();
        let stream = watcher(Api::<Webhook>::all(self.client.clone()), Config::default());
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                if let Ok(Event::InitApply(webhook) | Event::Apply(webhook)) = event
                    && told.send(Seen::of(&webhook)).is_err()
                {
                    return;
                }
            }
        });
        Watch(seen)
    }

    /// Changes the path of a Webhook's URL; the generation that it has then.
    pub(crate) async fn edit(&self, shape: Shape, at: usize, number: usize) -> (String, i64) {
        let (namespace, name) = shape.name(at);
        let url = format!("http://{}/edited-{number}", shape.receiver);
        let patch = Patch::Merge(json!({ "spec": { "endpoint": { "url": url } } }));
        let api: Api<Webhook> = Api::namespaced(self.client.clone(), &namespace);
        let edited = api.patch(&name, &PatchParams::default(), &patch).await.expect("an edit");
        (format!("{namespace}/{name}"), edited.metadata.generation.expect("a generation"))
    }

    async fn create_namespace(&self, name: &str) {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let created = Api::all(self.client.clone())
            .create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() })
            .await;
        match created {
            // Of the scenario before.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            other => drop(other.expect("a namespace")),
        }
    }

    async fn put<K: Namespaced>(&self, object: &K) {
        let api: Api<K> = Api::namespaced(self.client.clone(), &object.namespace().expect("a namespace"));
        api.create(&PostParams::default(), object).await.expect("a new object");
    }

    async fn remove_all<K: Namespaced>(&self, namespace: &str) {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let removed = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        removed.expect("objects are removed");
    }
}

/// What is made and removed here.
trait Namespaced:
    Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> Namespaced for K where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

// === impl Shape ===

impl Shape {
    fn name(&self, at: usize) -> (String, String) {
        (namespace_of(at % self.namespaces), format!("webhook-{at:05}"))
    }

    /// The names of the events that the Webhooks select.
    pub(crate) fn events(&self) -> Arc<[String]> {
        (0..self.events).map(event).collect()
    }

    fn webhook(&self, at: usize) -> Webhook {
        let (namespace, name) = self.name(at);
        parse(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "authServerRef": { "name": "logto", "namespace": AUTH },
                "events": [event(at % self.events)],
                "endpoint": { "url": format!("http://{}/hook", self.receiver) },
                "secretRef": { "name": name },
            },
        }))
    }
}

fn namespace_of(at: usize) -> String {
    format!("team-{at:03}")
}

fn event(at: usize) -> String {
    format!("User.Event{at}")
}

fn auth_server() -> AuthServer {
    parse(json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": "AuthServer",
        "metadata": { "name": "logto", "namespace": AUTH },
        "spec": {
            "ingest": { "signingKeyRef": { "name": "logto-hook", "key": "signingKey" } },
            "allowedNamespaces": { "from": "All" },
            "egress": { "allow": ["127.0.0.0/8"], "allowInsecure": true },
        },
    }))
}

fn secret(namespace: &str, name: &str, key: &str) -> Secret {
    parse(json!({
        "metadata": { "name": name, "namespace": namespace }, "stringData": { "signingKey": key },
    }))
}

fn parse<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("an object of its kind")
}

// === impl Seen ===

impl Seen {
    fn of(webhook: &Webhook) -> Self {
        let conditions = webhook.status.iter().flat_map(|status| &status.conditions);
        let generation = webhook.metadata.generation;
        let holds = |condition: &&Condition| {
            ["Accepted", "Programmed"].contains(&condition.type_.as_str())
                && condition.status == ConditionStatus::True
                && condition.observed_generation == generation
        };
        let runs = generation.filter(|_| conditions.filter(holds).count() == 2);
        let name = format!("{}/{}", webhook.namespace().unwrap_or_default(), webhook.name_any());
        Self { name, runs, at: Instant::now() }
    }
}

// === impl Watch ===

impl Watch {
    /// Waits until so many Webhooks run as they are.
    pub(crate) async fn all(&mut self, webhooks: usize) -> Instant {
        let mut running = HashSet::new();
        loop {
            let Seen { name, runs, at } = self.next(&format!("{} of {webhooks} run", running.len())).await;
            if runs.is_some() {
                running.insert(name)
            } else {
                running.remove(&name)
            };
            if running.len() == webhooks {
                return at;
            }
        }
    }

    /// Waits until a Webhook runs at a generation.
    pub(crate) async fn one(&mut self, webhook: &str, generation: i64) -> Instant {
        loop {
            let Seen { name, runs, at } = self.next(&format!("{webhook} does not run")).await;
            if name == webhook && runs.is_some_and(|runs| runs >= generation) {
                return at;
            }
        }
    }

    async fn next(&mut self, so_far: &str) -> Seen {
        let seen = tokio::time::timeout(PATIENCE, self.0.recv()).await;
        seen.unwrap_or_else(|_| panic!("{so_far}, and no more")).expect("the watch goes on")
    }
}

async fn kubectl(arguments: &[&str]) -> String {
    let output = Command::new("kubectl").args(arguments).stderr(Stdio::inherit()).output().await;
    let output = output.expect("kubectl is in the PATH");
    assert!(output.status.success(), "kubectl {arguments:?} failed");
    String::from_utf8(output.stdout).expect("text")
}
