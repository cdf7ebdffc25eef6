//! Watches: what the API server tells becomes changes of the model.
//!
//! In: one watch for each kind, in the whole cluster or in the namespaces that were named. Out: changes,
//! in order, over one bounded channel; a model that is slow slows the watches down. An object that does
//! not fit the types is a change like any other. Deletions are never filtered out.
//!
//! It must never hold what a Secret says: of Secrets and namespaces the metadata alone is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStream, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Pod as KubePod, Secret, Service as KubeService};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tidings_crds::{LabelExpression, Operator, Selector};
use tidings_plan::ObjectName;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::services::{Keeper, Service, Slice};
use crate::surface::Problems;
use crate::world::change::{Change, Kind, Object, Pod, Unreadable};
use crate::world::name_of;

/// The longest wait before a watch is tried again: an API server that is back is seen within it.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The slices that the control plane made of a selector, for Services that have no address of their own: of
/// others it is enough to know that they are the control plane's.
const POD_SLICES: &str =
    "endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io,service.kubernetes.io/headless";

/// The slices that somebody else made.
const FOREIGN_SLICES: &str =
    "endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io,kubernetes.io/service-name";

/// The sidecar's admin port: its name in the pod, and its number where a pod has no port of that name.
const ADMIN_PORT_NAME: &str = "tidings-admin";
const ADMIN_PORT: u16 = 8788;

/// Where objects are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In the whole cluster.
    Cluster,
    /// In these namespaces.
    Namespaces(BTreeSet<String>),
}

/// Where changes go.
#[derive(Debug, Clone)]
struct Sink {
    changes: mpsc::Sender<Change>,
    problems: Problems,
}

/// One kind in one place.
#[derive(Debug, Clone)]
struct Feed {
    kind: Kind,
    namespace: Option<String>,
    sink: Sink,
}

// === impl Scope ===

impl Scope {
    /// The lists that make the model complete.
    pub fn lists(&self) -> Vec<(Kind, Option<String>)> {
        let kinds = [
            Kind::AuthServer,
            Kind::Webhook,
            Kind::Report,
            Kind::Replay,
            Kind::Secret,
            Kind::Service,
            Kind::PodSlice,
            Kind::ForeignSlice,
        ];
        let places = self.places();
        let all = kinds.into_iter().flat_map(|kind| places.iter().map(move |place| (kind, place.clone())));
        // Without rights in the cluster the labels of namespaces cannot be had.
        let namespaces = matches!(self, Self::Cluster).then_some((Kind::Namespace, None));
        all.chain(namespaces).collect()
    }

    fn places(&self) -> Vec<Option<String>> {
        match self {
            Self::Cluster => vec![None],
            Self::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        }
    }
}

/// Starts every watch.
pub fn start(
    client: &Client,
    scope: &Scope,
    changes: &mpsc::Sender<Change>,
    problems: &Problems,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (kind, namespace) in scope.lists() {
        let sink = Sink { changes: changes.clone(), problems: problems.clone() };
        let feed = Feed { kind, namespace, sink };
        let client = client.clone();
        tasks.spawn(async move {
            match feed.kind {
                Kind::AuthServer => feed.guarded(client, |object| Object::AuthServer(Box::new(object))).await,
                Kind::Webhook => feed.guarded(client, |object| Object::Webhook(Box::new(object))).await,
                Kind::Report => feed.guarded(client, |object| Object::Report(Box::new(object))).await,
                Kind::Replay => feed.guarded(client, |object| Object::Replay(Box::new(object))).await,
                Kind::Secret => feed.secrets(client).await,
                Kind::Namespace => feed.namespaces(client).await,
                Kind::Service => feed.services(client).await,
                Kind::PodSlice => feed.slices(client, POD_SLICES, Keeper::ControlPlane).await,
                Kind::ForeignSlice => feed.slices(client, FOREIGN_SLICES, Keeper::Somebody).await,
            }
        });
    }
    tasks
}

// === impl Feed ===

impl Feed {
    fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }

    /// Watches one of our own kinds.
    async fn guarded<K>(self, client: Client, object: fn(K) -> Object)
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
        K::DynamicType: Default,
    {
        let stream = watcher(self.api::<DeserializeGuard<K>>(client), watcher::Config::default());
        let kind = self.kind;
        self.follow(stream, move |DeserializeGuard(read)| match read {
            Ok(mut read) => {
                forget_what_is_not_read(read.meta_mut());
                object(read)
            }
            Err(invalid) => Object::Unreadable(kind, unreadable(invalid)),
        })
        .await;
    }

    async fn secrets(self, client: Client) {
        let stream = watcher(self.api::<PartialObjectMeta<Secret>>(client), watcher::Config::default());
        self.follow(stream, |secret: PartialObjectMeta<Secret>| {
            let version = secret.metadata.resource_version.clone().unwrap_or_default();
            Object::Secret(name_of(&secret.metadata), version)
        })
        .await;
    }

    async fn namespaces(self, client: Client) {
        let stream = watcher(Api::<PartialObjectMeta<Namespace>>::all(client), watcher::Config::default());
        self.follow(stream, |namespace: PartialObjectMeta<Namespace>| {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            Object::Namespace(namespace.metadata.name.clone().unwrap_or_default(), labels)
        })
        .await;
    }

    async fn services(self, client: Client) {
        let stream = watcher(self.api::<KubeService>(client), watcher::Config::default());
        self.follow(stream, |service: KubeService| {
            Object::Service(name_of(&service.metadata), Service::from(&service))
        })
        .await;
    }

    async fn slices(self, client: Client, labels: &str, keeper: Keeper) {
        let config = watcher::Config::default().labels(labels);
        let stream = watcher(self.api::<EndpointSlice>(client), config);
        self.follow(stream, move |slice: EndpointSlice| {
            Object::Slice(name_of(&slice.metadata), Slice::new(&slice, keeper))
        })
        .await;
    }

    /// Passes a watch on, for ever; a model that is gone ends it.
    async fn follow<S, K>(self, stream: S, object: impl Fn(K) -> Object + Send)
    where
        S: TryStream<Ok = Event<K>, Error = watcher::Error> + Send,
        K: Resource + Send,
    {
        let mut stream = std::pin::pin!(stream.into_stream().backoff(Patience::default()));
        let mut listed = BTreeSet::new();
        while let Some(event) = stream.next().await {
            let told = match event {
                Ok(event) => {
                    self.sink.problems.solved(&self.place());
                    self.change(event, &mut listed, &object)
                }
                Err(error) => {
                    self.sink.problems.tell(&self.place(), &describe(&error));
                    None
                }
            };
            if let Some(change) = told
                && self.sink.changes.send(change).await.is_err()
            {
                return;
            }
        }
    }

    fn change<K: Resource>(
        &self,
        event: Event<K>,
        listed: &mut BTreeSet<ObjectName>,
        object: impl Fn(K) -> Object,
    ) -> Option<Change> {
        match event {
            Event::Init => {
                listed.clear();
                None
            }
            Event::InitApply(one) => {
                listed.insert(name_of(one.meta()));
                Some(Change::Put(object(one)))
            }
            Event::InitDone => {
                Some(Change::Listed(self.kind, self.namespace.clone(), std::mem::take(listed)))
            }
            Event::Apply(one) => Some(Change::Put(object(one))),
            Event::Delete(one) => Some(Change::Gone(self.kind, name_of(one.meta()))),
        }
    }

    fn place(&self) -> String {
        let kind = match self.kind {
            Kind::AuthServer => "authservers.tidings.dev",
            Kind::Webhook => "webhooks.tidings.dev",
            Kind::Report => "deliveryreports.tidings.dev",
            Kind::Replay => "webhookreplays.tidings.dev",
            Kind::Secret => "secrets",
            Kind::Namespace => "namespaces",
            Kind::Service => "services",
            Kind::PodSlice => "endpointslices.discovery.k8s.io of headless Services",
            Kind::ForeignSlice => "endpointslices.discovery.k8s.io that the control plane did not make",
        };
        match &self.namespace {
            Some(namespace) => format!("{kind} in namespace {namespace}"),
            None => kind.to_owned(),
        }
    }
}

/// What others keep in an object can be as large as the object, such as the copy that `kubectl apply` makes.
fn forget_what_is_not_read(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.annotations = None;
}

fn unreadable(invalid: kube::core::error_boundary::InvalidObject) -> Unreadable {
    let metadata = invalid.metadata;
    Unreadable {
        name: name_of(&metadata),
        uid: metadata.uid.unwrap_or_default(),
        resource_version: metadata.resource_version.unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        error: invalid.error,
    }
}

/// What is wrong with a watch, and the way out where there is a known one.
fn describe(error: &watcher::Error) -> String {
    let (watcher::Error::InitialListFailed(cause)
    | watcher::Error::WatchStartFailed(cause)
    | watcher::Error::WatchFailed(cause)) = error
    else {
        return error.to_string();
    };
    match cause {
        kube::Error::Api(status) if status.code == 404 => {
            "waiting for the CustomResourceDefinition: apply crds/ of this version".to_owned()
        }
        kube::Error::Api(status) if status.code == 403 => {
            "forbidden: the operator's role lacks list and watch here".to_owned()
        }
        kube::Error::Api(status) => status.message.clone(),
        other => format!("the API server cannot be reached: {other}"),
    }
}

/// Waits that double from 100 ms.
#[derive(Debug, Default)]
struct Patience {
    tries: u32,
}

// === impl Patience ===

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(100) * 2_u32.pow(self.tries.min(10));
        self.tries += 1;
        Some(wait.min(LONGEST_WAIT))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Watches the pods that carry sidecars, of one auth server each; follows the selectors as they change.
pub struct PodWatches {
    client: Client,
    sink: Sink,
    running: BTreeMap<ObjectName, (String, tokio::task::AbortHandle)>,
    tasks: JoinSet<()>,
}

// === impl PodWatches ===

impl PodWatches {
    /// Watches none yet.
    pub fn new(client: Client, changes: mpsc::Sender<Change>, problems: Problems) -> Self {
        let sink = Sink { changes, problems };
        Self { client, sink, running: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Watches these, and no others.
    pub fn follow(&mut self, selectors: &BTreeMap<ObjectName, Selector>) {
        let wanted: BTreeMap<_, _> =
            selectors.iter().map(|(server, selector)| (server.clone(), selector_text(selector))).collect();
        self.running.retain(|server, (text, task)| {
            let stays = wanted.get(server) == Some(text);
            if !stays {
                task.abort();
            }
            stays
        });
        for (server, text) in wanted {
            if !self.running.contains_key(&server) {
                let work = pods(self.client.clone(), server.clone(), text.clone(), self.sink.clone());
                let task = self.tasks.spawn(work);
                self.running.insert(server, (text, task));
            }
        }
    }
}

async fn pods(client: Client, server: ObjectName, selector: String, sink: Sink) {
    let api: Api<KubePod> = Api::namespaced(client, &server.namespace);
    let stream = watcher(api, watcher::Config::default().labels(&selector)).backoff(Patience::default());
    let mut stream = std::pin::pin!(stream);
    let (mut known, mut complete) = (BTreeMap::new(), false);
    let place = format!("pods of AuthServer {server}");
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => (known, complete) = (BTreeMap::new(), false),
            Ok(Event::InitApply(pod) | Event::Apply(pod)) => {
                known.insert(name_of(&pod.metadata).name, state(&pod));
            }
            Ok(Event::Delete(pod)) => {
                known.remove(&name_of(&pod.metadata).name);
            }
            Ok(Event::InitDone) => complete = true,
            Err(error) => {
                sink.problems.tell(&place, &describe(&error));
                continue;
            }
        }
        sink.problems.solved(&place);
        let change = Change::Pods(server.clone(), known.clone());
        if complete && sink.changes.send(change).await.is_err() {
            return;
        }
    }
}

/// What is told of a pod.
pub(crate) fn state(pod: &KubePod) -> Pod {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    Pod { ready: is_ready && pod.metadata.deletion_timestamp.is_none(), admin: admin_of(pod) }
}

/// The sidecar's admin port: the pod's address, which the kubelet writes, and the container port of that name.
fn admin_of(pod: &KubePod) -> Option<SocketAddr> {
    let address: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let spec = pod.spec.as_ref()?;
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|port| port.name.as_deref() == Some(ADMIN_PORT_NAME));
    let port = named.map_or(Some(ADMIN_PORT), |port| u16::try_from(port.container_port).ok())?;
    Some(SocketAddr::new(address, port))
}

/// A selector as the API server takes it in a query.
fn selector_text(selector: &Selector) -> String {
    let Selector { match_labels, match_expressions } = selector;
    let labels = match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let expressions = match_expressions.iter().map(|LabelExpression { key, operator, values }| {
        let values = values.join(",");
        match operator {
            Operator::In => format!("{key} in ({values})"),
            Operator::NotIn => format!("{key} notin ({values})"),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}
