//! The parts of a status.

#![expect(clippy::doc_markdown, reason = "the documentation is what kubectl explain prints")]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition, as Kubernetes writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Accepted, ResolvedRefs, Programmed, Ready, Receiving, Delivering or Complete.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// One word in CamelCase: why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// A sentence for a person.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// When the status last changed.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The generation of the spec that this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It is not known.
    Unknown,
}

/// An attempt that the endpoint took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub time: String,
    /// The event's name.
    #[schemars(length(max = 256))]
    pub event: String,
    /// The answer's status.
    pub status_code: i32,
    /// How long it took.
    pub duration_milliseconds: i64,
    /// Which attempt it was, from 1.
    pub attempt: i32,
}

/// An attempt that failed. Never a secret, never the answer's body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedAttempt {
    /// When.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub time: String,
    /// The event's name.
    #[schemars(length(max = 256))]
    pub event: String,
    /// One word: HttpStatus, Timeout, ConnectFailed, TlsFailed, DnsFailed, AddressBlocked, …
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The answer's status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i32>,
    /// How far it came, where there was no answer: Dns, Connect, Tls, Waiting or Reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub phase: Option<String>,
    /// How long it took.
    pub duration_milliseconds: i64,
    /// How long it might have taken.
    pub timeout_seconds: i32,
    /// Which attempt it was, from 1.
    pub attempt: i32,
    /// A sentence for a person.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What one sidecar's store delivered; that of stores that are gone is folded into one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceTally {
    /// The store's identity; `gone` for all those that are.
    #[schemars(length(max = 64))]
    pub store: String,
    /// Events that the endpoint took.
    pub delivered: i64,
    /// Attempts that failed.
    pub failed: i64,
    /// Events that were given up.
    pub dead_lettered: i64,
    /// Events that retention removed before they were delivered.
    #[serde(default)]
    pub expired: i64,
    /// Events that the filter or a change of the Webhook dropped.
    #[serde(default)]
    pub dropped: i64,
}

/// How many sidecars there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SidecarTally {
    /// That run the current plan.
    pub ready: i32,
    /// That exist.
    pub total: i32,
}

/// How many Webhooks name the auth server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookTally {
    /// That are in the plan.
    pub accepted: i32,
    /// That are not.
    pub rejected: i32,
}

/// How many events came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventTally {
    /// That were stored.
    pub received: i64,
    /// That no Webhook selects.
    pub unmatched: i64,
}
