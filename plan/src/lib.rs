//! The plan: what the operator renders and the sidecar runs.
//!
//! ```text
//! manifests -> operator: resolve, check, render -> Plan -> sidecar: compile -> lanes
//! ```
//!
//! A [`Plan`] is complete: every default is filled in, every reference is resolved, every secret
//! stands in it. It is versioned ([`PLAN_VERSION`]) and deterministic: the same objects render to
//! the same bytes, so that its [`Plan::digest`] names it.
//!
//! It must never be logged: it holds signing keys. [`SecretText`] keeps them out of `Debug`.

mod filter;
mod pointer;
mod published;
mod secret;
mod selection;

pub mod dns;
pub mod header;
pub mod shards;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use filter::{Filter, FilterError, MAX_FILTER_BYTES};
pub use pointer::{Pointer, PointerError};
pub use published::{FEATURES, LeftOut, Malformed, Published};
pub use secret::SecretText;
pub use selection::{EventPattern, MAX_EVENT_NAME_BYTES, PatternError, SelectionIndex};
pub use tidings_egress::Egress;

/// The version of the plan's shape. A sidecar refuses one that it does not know; what is added to a plan does
/// not change it, see [`Published`].
pub const PLAN_VERSION: u32 = 1;

/// Everything that one sidecar runs: one auth server and the Webhooks that it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The shape of this document, [`PLAN_VERSION`].
    pub version: u32,
    /// The auth server that this plan belongs to.
    pub auth_server: ObjectName,
    /// How events arrive.
    pub ingest: Ingest,
    /// Where deliveries may connect to.
    pub egress: Egress,
    /// The Webhooks, sorted by namespace and name.
    pub webhooks: Vec<WebhookPlan>,
    /// The replays, sorted by UID.
    pub replays: Vec<ReplayPlan>,
}

/// Events of the past that are delivered to a Webhook once more, under their own ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayPlan {
    /// The object's UID: a replay of one UID runs once.
    pub uid: String,
    /// The Webhook.
    pub webhook: ObjectName,
    /// Events received from then on, in milliseconds since 1970.
    pub from_ms: i64,
    /// Events received before then, in milliseconds since 1970.
    pub to_ms: i64,
    /// Events of these names alone, of those that the Webhook selects; empty: all of them.
    pub events: Vec<EventPattern>,
    /// Only events that were given up; else those that were delivered too.
    pub only_failed: bool,
    /// Counts, and delivers nothing.
    pub dry_run: bool,
    /// The most events put in line in a second.
    pub rate_per_second: u32,
}

/// A namespaced object's name, written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// How the auth server's events are read and checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingest {
    /// The keys of which one must have signed an event; empty: no check.
    pub signing_keys: Vec<SecretText>,
    /// Where the event's name stands in the body; `/event` for Logto.
    pub event_pointer: Pointer,
    /// Where the time of the event stands; `/createdAt` for Logto.
    pub time_pointer: Pointer,
    /// Where the sender's id of the event or hook stands, part of the fingerprint by which an event
    /// that is sent again is known; `/hookId` for Logto.
    pub id_pointer: Pointer,
    /// What counts as the same event sent again; a plan of an operator that does not say it has [`SentAgain::Body`].
    #[serde(default)]
    pub sent_again: SentAgain,
}

/// What counts as the same event sent again, within the store's window. In doubt an event is another one: to
/// deliver twice is allowed, to lose one is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SentAgain {
    /// Nothing: each request is an event.
    Never,
    /// The same name and id.
    Id,
    /// The same name, id and time.
    IdAndTime,
    /// The same body, where it has a time: Logto's own.
    #[default]
    Body,
}

/// One Webhook, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookPlan {
    /// Its object.
    pub webhook: ObjectName,
    /// The object's UID: a Webhook deleted and made again under its name is another one.
    pub uid: String,
    /// The object's `metadata.generation`.
    pub generation: i64,
    /// The events that it selects: exact names, `Prefix.*`, or `*`.
    pub events: Vec<EventPattern>,
    /// Where it delivers to.
    pub endpoint: Endpoint,
    /// The live signing keys, the current one first. Never empty.
    pub signing_keys: Vec<SecretText>,
    /// A CEL expression over `event`; an event for which it is not true is dropped.
    pub filter: Option<String>,
    /// The body's form.
    pub format: Format,
    /// How it delivers.
    pub delivery: Delivery,
    /// Keeps its events and sends none.
    pub suspend: bool,
}

/// Where a Webhook delivers to. Its `Debug` leaves the URL out, which may be a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// An absolute http or https URL without user or password.
    pub url: String,
    /// True when the endpoint is a Service of the Webhook's own namespace: private addresses and
    /// plain http are then in order.
    pub in_cluster: bool,
    /// What may be dialled for such a Service, in place of what its name resolves to; empty while it has no
    /// address. `None` where nobody resolved it: in a plan of manifests alone, and in one of an operator that
    /// does not do so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<IpAddr>>,
    /// Headers of the user's own; names in lower case.
    pub headers: BTreeMap<String, SecretText>,
    /// TLS material of the user's own.
    pub tls: Tls,
}

/// TLS material for one endpoint; every part may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// PEM certificates that are trusted in place of the system's.
    pub ca: Option<String>,
    /// PEM certificate chain that is presented.
    pub client_cert: Option<String>,
    /// PEM private key of `client_cert`.
    pub client_key: Option<SecretText>,
    /// The name that the certificate must carry, in place of the URL's host.
    pub server_name: Option<String>,
}

/// The form of a delivered body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The body byte for byte as it arrived.
    #[default]
    Native,
    /// `CloudEvents` 1.0, structured JSON.
    CloudEvents,
}

/// How a Webhook delivers; every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The deadline over one whole attempt, in seconds: DNS, connect, TLS, sending, reading.
    pub timeout_seconds: u32,
    /// The most attempts under way at once.
    pub concurrency: u32,
    /// The most attempts started in a second; `None`: no limit.
    pub rate_per_second: Option<u32>,
    /// JSON pointers of which the first that is present gives the ordering key: events of one key
    /// are delivered one after another. Empty: no order.
    pub ordering_key: Vec<Pointer>,
    /// When a failed event is tried again, and for how long.
    pub retry: Retry,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout_seconds: 15,
            concurrency: 16,
            rate_per_second: None,
            ordering_key: vec![],
            retry: Retry::default(),
        }
    }
}

/// When a failed event is tried again, and for how long. All in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The upper bound of the first wait; each next one doubles.
    pub initial_backoff_seconds: u32,
    /// The upper bound of any wait.
    pub max_backoff_seconds: u32,
    /// How long after its first attempt an event is given up.
    pub give_up_after_seconds: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { initial_backoff_seconds: 5, max_backoff_seconds: 3600, give_up_after_seconds: 3 * 24 * 3600 }
    }
}

/// Why a plan cannot be read at all. Names the field where there is one.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not JSON of the plan's shape.
    #[error("the plan is not readable: {0}")]
    Malformed(#[from] Malformed),
    /// A shape that this program does not know.
    #[error(
        "the plan has version {found}, this sidecar runs version {PLAN_VERSION}: upgrade the older of operator and sidecar"
    )]
    Version {
        /// The plan's version.
        found: u32,
    },
    /// Something in it must not be ignored, and this program does not know it.
    #[error(
        "the plan requires {feature:?}, which this sidecar does not have: upgrade the sidecar to the operator's version"
    )]
    Requires {
        /// The feature.
        feature: String,
    },
}

// === impl Plan ===

impl Plan {
    /// A plan of nothing.
    pub fn empty(auth_server: ObjectName) -> Self {
        Self {
            version: PLAN_VERSION,
            auth_server,
            ingest: Ingest::default(),
            egress: Egress::default(),
            webhooks: Vec::new(),
            replays: Vec::new(),
        }
    }

    /// Reads a plan from its JSON, without the Webhooks that this program cannot run; see [`Published`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, PlanError> {
        published::read_plan(bytes, &mut Vec::new())
    }

    /// Its JSON: the same plan gives the same bytes.
    ///
    /// # Panics
    /// Never: each part has a JSON form.
    #[expect(clippy::expect_used, reason = "maps have string keys and no part's Serialize fails")]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a plan has a JSON form")
    }

    /// The first 16 hex digits of the SHA-256 of its JSON: the plan's name in reports.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.to_json())[..8])
    }
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// === impl ObjectName ===

impl ObjectName {
    /// A name from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Reads `namespace/name`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then(|| Self::new(namespace, name))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl Endpoint ===

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, in_cluster, addresses, headers, tls } = self;
        f.debug_struct("Endpoint")
            .field("url", &format_args!("({} bytes)", url.len()))
            .field("in_cluster", in_cluster)
            .field("addresses", addresses)
            .field("headers", headers)
            .field("tls", tls)
            .finish()
    }
}

// === impl Ingest ===

impl Default for Ingest {
    /// Logto's: `/event`, `/createdAt`, `/hookId`, unsigned.
    fn default() -> Self {
        Self {
            signing_keys: vec![],
            event_pointer: Pointer::of("/event"),
            time_pointer: Pointer::of("/createdAt"),
            id_pointer: Pointer::of("/hookId"),
            sent_again: SentAgain::Body,
        }
    }
}
