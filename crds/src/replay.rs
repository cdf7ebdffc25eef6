//! `WebhookReplay`: events of the past, delivered to a Webhook once more, under their own ids.

#![expect(unreachable_pub, reason = "the derive repeats each type inside of a function")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::LocalRef;
use crate::status::Condition;

/// How long after its completion a replay is deleted that does not say, in seconds: seven days.
pub const REPLAY_TTL_SECONDS: i32 = 7 * 24 * 3600;

/// Events of the past, delivered to a Webhook once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "WebhookReplay",
    plural = "webhookreplays",
    shortname = "whr",
    category = "tidings",
    namespaced,
    status = "WebhookReplayStatus",
    derive = "PartialEq",
    doc = "Events of the past, delivered to a Webhook once more, under their own ids. It runs once: applied again it changes nothing.",
    printcolumn = r#"{"name":"Webhook","type":"string","jsonPath":".spec.webhookRef.name","description":"The Webhook that is delivered to."}"#,
    printcolumn = r#"{"name":"Only","type":"string","jsonPath":".spec.only","description":"Failed: events that were given up. All: those that were delivered too."}"#,
    printcolumn = r#"{"name":"Dry-Run","type":"boolean","jsonPath":".spec.dryRun","description":"Whether it counts, and delivers nothing."}"#,
    printcolumn = r#"{"name":"Complete","type":"string","jsonPath":".status.conditions[?(@.type==\"Complete\")].status","description":"Whether the whole window was gone through."}"#,
    printcolumn = r#"{"name":"Matched","type":"integer","jsonPath":".status.matched","description":"Events of the window that it selects, as far as it came."}"#,
    printcolumn = r#"{"name":"Replayed","type":"integer","jsonPath":".status.replayed","description":"Events that were put in line for delivery again."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"How long ago it was created."}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("self == oldSelf").message("a replay runs once: create another one to replay something else"),
    validation = kube::core::Rule::new("!has(self.to) || self.from < self.to").message("from must be before to")
)]
pub struct WebhookReplaySpec {
    /// The Webhook, in the own namespace.
    pub webhook_ref: LocalRef,
    /// Events received from this time on.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub from: String,
    /// Events received before this time; before the replay's creation when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub to: Option<String>,
    /// Events of these names alone: exact names, a trailing wildcard, or *. All that the Webhook selects
    /// when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = r"^(\*|[A-Za-z0-9._:/-]+(\.\*)?)$"))
    )]
    pub events: Vec<String>,
    /// Failed: events that were given up. All: those that were delivered too.
    #[serde(default)]
    pub only: ReplayOnly,
    /// Counts what would be replayed, and delivers nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The most events put in line in a second.
    #[serde(default = "rate")]
    #[schemars(range(min = 1, max = 10000))]
    pub rate_per_second: i32,
    /// How long after its completion the replay is deleted. A replay that is deleted and applied again, as by
    /// a tool that applies what stands in Git, is another one and runs again: give it a long time there.
    #[serde(default = "ttl")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: i32,
}

/// Which events are replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplayOnly {
    /// Events that were given up.
    #[default]
    Failed,
    /// All, also those that were delivered.
    All,
}

/// What became of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookReplayStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// Accepted and Complete.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Events of the window that the replay selects, as far as it came.
    pub matched: i64,
    /// Events that were put in line for delivery again.
    pub replayed: i64,
    /// When the oldest event that a sidecar still has was received, where the window begins before it: what
    /// was received earlier is no longer there.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub oldest_available_time: Option<String>,
    /// When it was complete.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub completion_time: Option<String>,
}

fn rate() -> i32 {
    100
}

fn ttl() -> i32 {
    REPLAY_TTL_SECONDS
}
