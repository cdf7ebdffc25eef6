//! `Webhook`: which events go where, and how.

#![expect(clippy::doc_markdown, reason = "the documentation is what kubectl explain prints")]
#![expect(unreachable_pub, reason = "the derive repeats each type inside of a function")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::{Attempt, Condition, FailedAttempt, SourceTally};
use crate::{LABEL, NAME};

/// A key of a Secret.
const KEY: &str = r"^[-._a-zA-Z0-9]+$";

/// A Service's name (RFC 1035): it becomes the first label of a host.
const SERVICE: &str = r"^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// A path, with a query if there is one: it becomes the end of a URL.
const PATH: &str = r"^/[^\s#\\\x00-\x1f\x7f]*$";

/// The name of a host, or an address.
const HOST: &str = r"^[A-Za-z0-9._:-]+$";

/// Which events of an auth server go to which endpoint, signed with which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "tidings.dev",
    version = "v1alpha1",
    kind = "Webhook",
    plural = "webhooks",
    shortname = "wh",
    category = "tidings",
    namespaced,
    status = "WebhookStatus",
    derive = "PartialEq",
    doc = "Events of an auth server, delivered to an endpoint: stored first, signed, tried again.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether the configuration is in order and every ready sidecar runs it."}"#,
    printcolumn = r#"{"name":"Delivering","type":"string","jsonPath":".status.conditions[?(@.type==\"Delivering\")].status","description":"Whether the endpoint takes what is sent; Unknown before the first and while suspended."}"#,
    printcolumn = r#"{"name":"Endpoint","type":"string","jsonPath":".status.endpointHost","description":"The host that events go to."}"#,
    printcolumn = r#"{"name":"Delivered","type":"integer","jsonPath":".status.delivered","description":"Events that the endpoint took."}"#,
    printcolumn = r#"{"name":"Pending","type":"integer","jsonPath":".status.pending","description":"Events that wait."}"#,
    printcolumn = r#"{"name":"Last-Success","type":"date","jsonPath":".status.lastSuccess.time","description":"How long ago the endpoint took an event."}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"How long ago it was created."}"#,
    printcolumn = r#"{"name":"Events","type":"string","jsonPath":".spec.events","priority":1,"description":"The events that it selects."}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.failed","priority":1,"description":"Attempts that failed."}"#,
    printcolumn = r#"{"name":"Dead","type":"integer","jsonPath":".status.deadLettered","priority":1,"description":"Events that were given up."}"#,
    printcolumn = r#"{"name":"Expired","type":"integer","jsonPath":".status.expired","priority":1,"description":"Events that retention removed before they were delivered."}"#,
    printcolumn = r#"{"name":"Last-Failure","type":"date","jsonPath":".status.lastFailure.time","priority":1,"description":"How long ago an attempt failed."}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.lastFailure.reason","priority":1,"description":"Why the last attempt failed that did, in one word; it stays after a success."}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSpec {
    /// The auth server whose events these are.
    pub auth_server_ref: AuthServerRef,
    /// The events: exact names (PostSignIn), a trailing wildcard (User.*), or * for all. Unknown names are
    /// accepted with a warning, since auth servers add events all the time.
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 256), regex(pattern = r"^(\*|[A-Za-z0-9._:/-]+(\.\*)?)$"))
    )]
    pub events: Vec<String>,
    /// Where they go.
    pub endpoint: EndpointSpec,
    /// The signing key. A key previousSigningKey in the same Secret also signs.
    pub secret_ref: SigningKeyRef,
    /// A CEL expression over `event`, the event's body: events for which it is false are dropped. One that it
    /// cannot be evaluated over, since a key is missing or it takes more than a millisecond, is delivered and
    /// counted: ask has(event.key) first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub filter: Option<String>,
    /// Native: the body byte for byte as it arrived. CloudEvents: CloudEvents 1.0, structured JSON.
    #[serde(default)]
    pub format: Format,
    /// How they are delivered; what is absent comes from the AuthServer's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
    /// Keeps events and delivers them on resume, within retention.
    #[serde(default)]
    pub suspend: bool,
}

/// The name of an AuthServer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthServerRef {
    /// The AuthServer's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
    /// Its namespace; the Webhook's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: Option<String>,
}

/// Where events go: a URL, one that is a secret itself, or a Service of the own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("(has(self.url) ? 1 : 0) + (has(self.urlFrom) ? 1 : 0) + (has(self.serviceRef) ? 1 : 0) == 1").message("write exactly one of url, urlFrom and serviceRef"))]
pub struct EndpointSpec {
    /// An https URL; http where the AuthServer's egress.allowInsecure permits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: Option<String>,
    /// Where such a URL stands that is a secret itself, as those of chat services are. It is shown nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<UrlSource>,
    /// A Service of the Webhook's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_ref: Option<ServiceRef>,
    /// Headers of one's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// TLS material of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// A Service of the Webhook's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The Service's name: the name alone, without a namespace, a port or a path.
    #[schemars(length(min = 1, max = 63), regex(pattern = SERVICE))]
    pub name: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The path, with a query if there is one.
    #[serde(default = "root", skip_serializing_if = "is_root")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub path: String,
    /// http or https.
    #[serde(default)]
    pub scheme: Scheme,
}

/// How a Service is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

/// One header: its value, or the Secret that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("has(self.value) != has(self.valueFrom)").message("write exactly one of value and valueFrom"),
    validation = kube::core::Rule::new("!self.name.lowerAscii().startsWith('webhook-') && !(self.name.lowerAscii() in ['host', 'content-length', 'content-type', 'connection', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'expect', 'keep-alive', 'proxy-authorization', 'proxy-connection', 'user-agent', 'traceparent', 'tracestate', 'logto-signature-sha-256'])").message("this header is written by Tidings or by HTTP itself: take another name")
)]
pub struct Header {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"))]
    pub name: String,
    /// Its value, for all to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub value: Option<String>,
    /// Where its value stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<HeaderSource>,
}

/// Where a header's value stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderSource {
    /// A key of a Secret of the own namespace.
    pub secret_key_ref: SecretKeyRef,
}

/// Where a URL stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlSource {
    /// A key of a Secret of the own namespace.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
}

/// A Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
}

/// The Secret with the signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningKeyRef {
    /// The Secret's name, in the Webhook's own namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
    /// The key in it. One that begins with whsec_ is read as Standard Webhooks has it, any other as its bytes.
    #[serde(default = "signing_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
}

/// TLS material of one's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// The certificates that are trusted in place of the system's: the Secret's key ca.crt by custom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// A Secret of type kubernetes.io/tls with the certificate that is presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<SecretRef>,
    /// The name that the certificate must carry, in place of the URL's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = HOST))]
    pub server_name: Option<String>,
}

/// The form of a delivered body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// The body byte for byte as it arrived.
    #[default]
    Native,
    /// CloudEvents 1.0, structured JSON.
    CloudEvents,
}

/// How events are delivered; what is absent has its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySpec {
    /// The deadline over one whole attempt: DNS, connect, TLS, sending, reading. 15 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 120))]
    pub timeout_seconds: Option<i32>,
    /// The most attempts under way at once. 16 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: Option<i32>,
    /// The most attempts started in a second. No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub rate_per_second: Option<i32>,
    /// JSON pointers (RFC 6901) into the event's body; the first that is present gives the key. Events of
    /// one key are delivered one after another, others in parallel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4), inner(length(min = 2, max = 256), regex(pattern = r"^/([^~]|~[01])+$")))]
    pub ordering_key: Option<Vec<String>>,
    /// When a failed event is tried again, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
}

/// When a failed event is tried again, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!has(self.initialBackoffSeconds) || !has(self.maxBackoffSeconds) || self.initialBackoffSeconds <= self.maxBackoffSeconds").message("initialBackoffSeconds may not be more than maxBackoffSeconds"))]
pub struct RetrySpec {
    /// The upper bound of the first wait; each next one doubles. 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub initial_backoff_seconds: Option<i32>,
    /// The upper bound of any wait. 3600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub max_backoff_seconds: Option<i32>,
    /// How long after its first attempt an event is given up. 259200, three days, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub give_up_after_seconds: Option<i32>,
}

/// The most tallies in `status.sources`.
pub const MAX_SOURCES: usize = 128;

/// What became of a Webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookStatus {
    /// The generation of the spec that this speaks of.
    pub observed_generation: Option<i64>,
    /// Accepted, ResolvedRefs, Programmed, Ready, Delivering.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The host that events go to, or the Secret that holds their URL.
    #[schemars(length(max = 300))]
    pub endpoint_host: Option<String>,
    /// Events that the endpoint took.
    pub delivered: i64,
    /// Attempts that failed.
    pub failed: i64,
    /// Events that wait.
    pub pending: i64,
    /// Events that were given up.
    pub dead_lettered: i64,
    /// Events that the sidecar's retention removed before they were delivered: they are lost for this Webhook.
    pub expired: i64,
    /// Events that the filter or a change of the Webhook dropped.
    pub dropped: i64,
    /// When the oldest event that waits was received.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub oldest_pending_time: Option<String>,
    /// The last event that the endpoint took.
    pub last_success: Option<Attempt>,
    /// The last attempt that failed.
    pub last_failure: Option<FailedAttempt>,
    /// Failures since the last success.
    pub consecutive_failures: i64,
    /// When the failures in a row began.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub failing_since: Option<String>,
    /// When the next attempt is due.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub next_attempt_time: Option<String>,
    /// The tallies by sidecar store, of which the sums stand above.
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["store"]))]
    pub sources: Vec<SourceTally>,
}

fn root() -> String {
    "/".to_owned()
}

fn is_root(path: &str) -> bool {
    path == "/"
}

fn signing_key() -> String {
    "signingKey".to_owned()
}
