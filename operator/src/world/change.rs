//! What the watches tell the model.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tidings_crds::{AuthServer, DeliveryReport, Webhook, WebhookReplay};
use tidings_plan::{ObjectName, Plan};

use crate::objects::Texts;
use crate::services::{Keeper, Service, Slice};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `AuthServers`.
    AuthServer,
    /// Webhooks.
    Webhook,
    /// `DeliveryReports`.
    Report,
    /// `WebhookReplays`.
    Replay,
    /// The metadata of Secrets.
    Secret,
    /// The metadata of namespaces.
    Namespace,
    /// Services.
    Service,
    /// `EndpointSlices` of headless Services, made by the control plane.
    PodSlice,
    /// `EndpointSlices` that somebody else made.
    ForeignSlice,
}

impl Kind {
    /// Who keeps the slices of this kind, where it is one of slices.
    pub fn keeper(self) -> Option<Keeper> {
        match self {
            Self::PodSlice => Some(Keeper::ControlPlane),
            Self::ForeignSlice => Some(Keeper::Somebody),
            _ => None,
        }
    }
}

/// One change.
#[derive(Debug)]
pub enum Change {
    /// An object is there, or is another one than before.
    Put(Object),
    /// An object is gone.
    Gone(Kind, ObjectName),
    /// These are all the objects of a kind in a namespace (`None`: in the cluster); others are gone.
    Listed(Kind, Option<String>, BTreeSet<ObjectName>),
    /// What stands in a Secret that was asked for; `None` when it is not there.
    SecretRead(ObjectName, Option<SecretContent>),
    /// A Secret that was asked for may not be read; it is asked for again.
    SecretForbidden(ObjectName),
    /// The pods that carry an auth server's sidecar.
    Pods(ObjectName, BTreeMap<String, Pod>),
    /// A status was written: the object has this version now.
    Written(Kind, ObjectName, String),
    /// A status could not be written since the object is another one by now.
    Conflict(Kind, ObjectName),
    /// The published plan of a server has no room for these Webhooks.
    NoRoom(ObjectName, BTreeSet<ObjectName>),
    /// A plan was published under this number.
    Published(Arc<Plan>, u64),
    /// A plan's Secret is not as it was left: the plan is to be looked at again.
    PlanLost(ObjectName),
    /// A plan could not be published.
    PublishFailed(ObjectName, crate::Finding),
}

/// An object that is watched.
#[derive(Debug)]
pub enum Object {
    /// An `AuthServer`.
    AuthServer(Box<AuthServer>),
    /// A Webhook.
    Webhook(Box<Webhook>),
    /// A `DeliveryReport`.
    Report(Box<DeliveryReport>),
    /// A `WebhookReplay`.
    Replay(Box<WebhookReplay>),
    /// A Secret's version.
    Secret(ObjectName, String),
    /// A Service.
    Service(ObjectName, Service),
    /// An `EndpointSlice`.
    Slice(ObjectName, Slice),
    /// A namespace's labels.
    Namespace(String, BTreeMap<String, String>),
    /// An object that does not fit the types, as one that was stored under an older schema.
    Unreadable(Kind, Unreadable),
}

/// An object that does not fit the types.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Its name.
    pub name: ObjectName,
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// Its generation.
    pub generation: i64,
    /// In what it does not fit.
    pub error: String,
}

impl Unreadable {
    /// Whether there is nothing new to tell of it.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        let Self { name, uid, resource_version: _, generation, error } = self;
        (name, uid, generation, error) == (&other.name, &other.uid, &other.generation, &other.error)
    }
}

/// What stands in a Secret.
#[derive(Debug, Clone)]
pub struct SecretContent {
    /// Its version.
    pub version: String,
    /// The keys that were asked for.
    pub keys: BTreeSet<String>,
    /// The texts under these keys.
    pub texts: Texts,
    /// Whether it carries the label by which Webhooks may use it.
    pub is_labelled: bool,
}

/// A pod that carries a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Whether it is ready, and not on its way out.
    pub ready: bool,
    /// Where the sidecar's admin port is, once the pod has an address.
    pub admin: Option<SocketAddr>,
}
