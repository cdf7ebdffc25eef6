//! `AuthServer`: whose events these are, who may use them, and where deliveries may go.

#![expect(clippy::doc_markdown, reason = "the documentation is what kubectl explain prints")]
#![expect(unreachable_pub, reason = "the derive repeats each type inside of a function")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::{Condition, EventTally, SidecarTally, WebhookTally};
use crate::webhook::{DeliverySpec, SecretKeyRef, SecretRef};

/// An auth server whose events are delivered by a sidecar beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "AuthServer",
    plural = "authservers",
    shortname = "authsrv",
    category = "tidings",
    namespaced,
    status = "AuthServerStatus",
    derive = "PartialEq",
    validation = kube::core::Rule::new("self.metadata.name.size() <= 200").message("the name has more than 200 characters, and the Secrets of its plan have longer ones: take a shorter name"),
    doc = "An auth server whose events are delivered by a sidecar beside it.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether the configuration is in order and every ready sidecar runs its plan."}"#,
    printcolumn = r#"{"name":"Provider","type":"string","jsonPath":".spec.provider","description":"The kind of auth server."}"#,
    printcolumn = r#"{"name":"Sidecars","type":"integer","jsonPath":".status.sidecars.ready","description":"Sidecars that run the current plan."}"#,
    printcolumn = r#"{"name":"Webhooks","type":"integer","jsonPath":".status.webhooks.accepted","description":"Webhooks that are in the plan."}"#,
    printcolumn = r#"{"name":"Rejected","type":"integer","jsonPath":".status.webhooks.rejected","description":"Webhooks that name it and are not in the plan."}"#,
    printcolumn = r#"{"name":"Events","type":"integer","jsonPath":".status.events.received","description":"Events that were stored."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"How long ago it was created."}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!has(self.generic) || (has(self.provider) && self.provider == 'Generic')").message("generic belongs to provider Generic alone"))]
pub struct AuthServerSpec {
    /// Logto, or Generic: then `generic` tells where an event's name stands.
    #[serde(default)]
    pub provider: Provider,
    /// Where name, id and time stand in the body of a Generic provider's event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generic: Option<GenericEvents>,
    /// The pods that carry the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// How arriving events are checked; not at all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<IngestSpec>,
    /// Logto's Management API, through which the hook is registered and gaps are recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logto: Option<LogtoSpec>,
    /// Which namespaces' Webhooks may name this auth server; the own one alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// Which Secrets of their namespace Webhooks may use; Any when absent. Who may write a Webhook can have any
    /// Secret that it may use sent to an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_policy: Option<SecretPolicy>,
    /// What a Webhook has where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
    /// Where deliveries may connect to; the public internet over https when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressSpec>,
    /// How much a Webhook and a namespace may take of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// How much a Webhook and a namespace may take of the plan, which holds 16 times 512 KiB after packing. Text
/// that does not pack, as keys and certificates, takes as many bytes as it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// The most bytes that one Webhook takes: its URL, headers, TLS material, keys, filter and events. 65536
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4096, max = 262_144))]
    pub webhook_bytes: Option<i32>,
    /// The most bytes that the Webhooks of one namespace take together. 262144 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4096, max = 8_388_608))]
    pub namespace_bytes: Option<i32>,
}

/// The kind of auth server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Provider {
    /// Logto.
    #[default]
    Logto,
    /// Any other that posts JSON.
    Generic,
}

/// Where name, id and time stand in an event's body, as JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!(self.sentAgain in ['Id', 'IdAndTime']) || has(self.idPointer)").message("sentAgain Id and IdAndTime need an idPointer"))]
#[x_kube(validation = kube::core::Rule::new("!(self.sentAgain in ['IdAndTime', 'Body']) || has(self.timePointer)").message("sentAgain IdAndTime and Body need a timePointer"))]
pub struct GenericEvents {
    /// The event's name.
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/([^~]|~[01])+$"))]
    pub event_pointer: String,
    /// The event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/([^~]|~[01])+$"))]
    pub id_pointer: Option<String>,
    /// The event's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/([^~]|~[01])+$"))]
    pub time_pointer: Option<String>,
    /// What counts as the same event sent again, and is stored once: Never (each request is an event), Id (the same
    /// name and id), IdAndTime (the same name, id and time) or Body (the same body). Name an id of the event, not
    /// one of a flow, a session or an attempt: different events that share it would be lost.
    #[serde(default)]
    pub sent_again: SentAgain,
}

/// What counts as the same event sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SentAgain {
    /// Nothing.
    #[default]
    Never,
    /// The same name and id.
    Id,
    /// The same name, id and time.
    IdAndTime,
    /// The same body.
    Body,
}

/// How arriving events are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IngestSpec {
    /// The hook's signing key, in a Secret of the own namespace.
    pub signing_key_ref: SecretKeyRef,
}

/// Logto's Management API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogtoSpec {
    /// Its URL.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub endpoint: String,
    /// The API resource's indicator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub resource: Option<String>,
    /// A Secret with clientId and clientSecret of a machine-to-machine application.
    pub credentials_ref: SecretRef,
}

/// Which namespaces' Webhooks may name the auth server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("has(self.selector) == (has(self.from) && self.from == 'Selector')").message("write a selector with from: Selector, and only with it"))]
pub struct AllowedNamespaces {
    /// Same, All or Selector.
    #[serde(default)]
    pub from: From,
    /// The labels of the namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Which events the allowed namespaces may select; all when there is no grant. Once there is one, a
    /// namespace may select the events of the grants that are for it, and no others. The AuthServer's own
    /// namespace may select all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub grants: Vec<Grant>,
}

/// Events that Webhooks of some namespaces may select.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The names of the namespaces; every allowed one when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 63), regex(pattern = crate::LABEL)))]
    pub namespaces: Vec<String>,
    /// The events: exact names, a trailing wildcard, or * for all.
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 256), regex(pattern = r"^(\*|[A-Za-z0-9._:/-]+(\.\*)?)$"))
    )]
    pub events: Vec<String>,
}

/// Which Secrets Webhooks may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecretPolicy {
    /// Every Secret of the Webhook's namespace.
    #[default]
    Any,
    /// Those with the label tidings.dev/webhooks: allowed.
    Labelled,
}

/// Which namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum From {
    /// The AuthServer's own.
    #[default]
    Same,
    /// All.
    All,
    /// Those that the selector selects.
    Selector,
}

/// A label selector, as Kubernetes has it, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must be there with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Expressions that must all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelExpression>,
}

/// One expression over a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelExpression {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: Operator,
    /// The values of In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// What an expression asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// What a Webhook has where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// How events are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
}

/// Where deliveries may connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressSpec {
    /// CIDRs that are opened besides the public internet: loopback, private ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"))
    )]
    pub allow: Vec<String>,
    /// CIDRs that are closed; this wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 64), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"))
    )]
    pub deny: Vec<String>,
    /// Permits plain http.
    #[serde(default)]
    pub allow_insecure: bool,
}

/// What became of an AuthServer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthServerStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, Ready.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The sidecars.
    pub sidecars: SidecarTally,
    /// The Webhooks that name it.
    pub webhooks: WebhookTally,
    /// Its events.
    pub events: EventTally,
}
