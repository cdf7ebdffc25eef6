//! `DeliveryReport`: what one sidecar runs, and what became of its deliveries.

#![expect(clippy::doc_markdown, reason = "the documentation is what kubectl explain prints")]
#![expect(unreachable_pub, reason = "the derive repeats each type inside of a function")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::{Attempt, EventTally, FailedAttempt};

/// How many Webhooks one report holds; a sidecar with more writes further parts.
pub const REPORTED_WEBHOOKS: usize = 500;

/// What one sidecar runs, and what became of its deliveries. Written by the sidecar alone, read by the
/// operator, owned by the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "DeliveryReport",
    plural = "deliveryreports",
    category = "tidings",
    namespaced,
    derive = "PartialEq",
    doc = "What one sidecar runs, and what became of its deliveries.",
    printcolumn = r#"{"name":"AuthServer","type":"string","jsonPath":".spec.authServerRef.name","description":"The auth server."}"#,
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.pod","description":"The pod that the sidecar runs in."}"#,
    printcolumn = r#"{"name":"Plan","type":"integer","jsonPath":".spec.plan.generation","description":"The number of the plan that runs."}"#,
    printcolumn = r#"{"name":"Received","type":"integer","jsonPath":".spec.events.received","description":"Events that were stored."}"#,
    printcolumn = r#"{"name":"Written","type":"date","jsonPath":".spec.time","description":"How long ago this was written."}"#
)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryReportSpec {
    /// The auth server, in the report's own namespace.
    pub auth_server_ref: LocalRef,
    /// The pod that the sidecar runs in.
    #[schemars(length(min = 1, max = 253))]
    pub pod: String,
    /// The identity of the sidecar's store: it stays when a pod is replaced and its volume is not, and the
    /// tallies go on. `unknown` as long as the store is not open.
    #[schemars(length(min = 1, max = 64))]
    pub store: String,
    /// Why the store takes no events, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_problem: Option<StoreProblem>,
    /// Which part of the sidecar's report this is, from 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub part: i32,
    /// The plan that runs.
    pub plan: RunningPlan,
    /// When this was written.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub time: String,
    /// The events that came.
    pub events: EventTally,
    /// The Webhooks of which something was delivered, failed or waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub webhooks: Vec<WebhookReport>,
    /// The Webhooks of the plan that the sidecar could not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub rejected: Vec<RejectedWebhook>,
    /// The replays that the plan holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub replays: Vec<ReplayReport>,
}

/// An object of the own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::NAME))]
    pub name: String,
}

/// Why a sidecar's store takes no events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreProblem {
    /// One word: StoreDamaged, StoreNewer, StoreLocked, StoreFull, StoreForbidden, StoreFailed, StoreOpening, NoSpace, …
    #[schemars(length(min = 1, max = 64))]
    pub reason: String,
    /// A sentence for a person, with the fix.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The plan that a sidecar runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningPlan {
    /// Which one: each published plan has the next number. 0 before the first.
    pub generation: i64,
    /// The digest of what it says.
    #[schemars(length(max = 64))]
    pub digest: String,
}

/// What became of one Webhook's deliveries in one sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookReport {
    /// Its namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The generation that runs.
    pub generation: i64,
    /// Events that the endpoint took.
    pub delivered: i64,
    /// Attempts that failed.
    pub failed: i64,
    /// Events that wait.
    pub pending: i64,
    /// Events that were given up.
    pub dead_lettered: i64,
    /// Events that retention removed before they were delivered.
    #[serde(default)]
    pub expired: i64,
    /// Events that the filter or a change of the Webhook dropped.
    #[serde(default)]
    pub dropped: i64,
    /// When the oldest event that waits was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub oldest_pending_time: Option<String>,
    /// The last event that the endpoint took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Attempt>,
    /// The last attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailedAttempt>,
    /// Failures since the last success.
    pub consecutive_failures: i64,
    /// When the failures in a row began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub failing_since: Option<String>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub next_attempt_time: Option<String>,
    /// Closed, Open, Probing, Gone or Suspended.
    pub circuit: CircuitState,
    /// Set where the filter could not be evaluated over events, which were delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_failing: Option<FilterFailing>,
}

/// A filter that could not be evaluated over some events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterFailing {
    /// Over how many events of the generation that runs.
    pub events: i64,
    /// Why, of the last one: TooCostly, NotBool, Body or Evaluation.
    #[schemars(length(max = 64))]
    pub class: String,
    /// The last one's name.
    #[schemars(length(max = 256))]
    pub event: String,
    /// When the last one was.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub time: String,
}

/// Whether the endpoint is sent anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CircuitState {
    /// Everything is sent.
    #[default]
    Closed,
    /// Nothing is sent before the next probe.
    Open,
    /// One probe is under way.
    Probing,
    /// The endpoint answered 410: nothing is sent until the Webhook is changed.
    Gone,
    /// The Webhook is suspended.
    Suspended,
}

// === impl CircuitState ===

impl CircuitState {
    /// What a sidecar's word means; any other is that of a circuit through which everything goes.
    pub fn of_word(word: &str) -> Self {
        match word {
            "Open" => Self::Open,
            "Probing" => Self::Probing,
            "Gone" => Self::Gone,
            "Suspended" => Self::Suspended,
            _ => Self::Closed,
        }
    }
}

/// A Webhook that the sidecar could not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RejectedWebhook {
    /// Its namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Why.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// How far one sidecar is with a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayReport {
    /// The WebhookReplay's UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Events of the window that the replay selects, as far as it came.
    pub matched: i64,
    /// Events that were put in line for delivery again.
    pub replayed: i64,
    /// When the oldest event that the sidecar still has was received, where the window begins before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub oldest_available_time: Option<String>,
    /// Whether the whole window was gone through.
    pub complete: bool,
}
