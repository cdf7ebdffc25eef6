//! What was seen in the cluster, and nothing of what it means.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tidings_crds::{AuthServer, DeliveryReport, Webhook};
use tidings_operator::objects::Texts;
use tidings_plan::ObjectName;

/// What one look brought.
#[derive(Debug, Clone)]
pub(in crate::cluster) enum Look<T> {
    /// It is there.
    Seen(T),
    /// It is not there.
    Missing,
    /// It could not be looked at; why, and the way out.
    Barred(String),
}

/// Everything that is judged.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    /// When it was gathered.
    pub(super) now: Timestamp,
    /// Where Webhooks were looked for, in words.
    pub(super) scope: String,
    /// The kinds of Tidings that the API server serves, by plural.
    pub(super) definitions: Look<BTreeSet<String>>,
    /// The operator's Lease.
    pub(super) operator: Look<Operator>,
    /// The Webhooks; barred where they may not be listed.
    pub(super) webhooks: Look<Vec<Patient>>,
    /// The auth servers that they name.
    pub(super) servers: BTreeMap<ObjectName, Server>,
}

/// The operator's Lease, and its Deployment where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) struct Operator {
    pub(in crate::cluster) namespace: String,
    pub(in crate::cluster) holder: Option<String>,
    pub(in crate::cluster) renewed: Option<Timestamp>,
    pub(in crate::cluster) lease_seconds: i32,
    /// How many replicas are ready, and how many are wanted.
    pub(in crate::cluster) replicas: Option<(i32, i32)>,
}

/// One Webhook and what it refers to.
#[derive(Debug, Clone)]
pub(super) struct Patient {
    pub(super) name: ObjectName,
    pub(super) webhook: Look<Webhook>,
    /// The labels of its namespace.
    pub(super) namespace: Look<BTreeMap<String, String>>,
    /// The Secrets that it refers to, by name.
    pub(super) secrets: BTreeMap<String, Look<Texts>>,
}

/// One auth server and what stands beside it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) object: Look<AuthServer>,
    /// The head of its plan; nothing in it is looked at.
    pub(super) plan: Look<()>,
    pub(super) reports: Look<Vec<DeliveryReport>>,
}
