//! The objects: `Webhook`, `AuthServer` and `WebhookReplay`, which users apply, and `DeliveryReport`, which
//! sidecars write; group `tidings.dev`, version `v1alpha1`.
//!
//! The types are the source; the YAML in this folder, the chart `tidings-crds` and the JSON Schemas are
//! generated from them by `cargo run -p tidings-crds --example generate`, and a test fails when one is stale.
//! Every list and string is bounded, so that the cost of each CEL rule is too. What a rule says here is said
//! once: the API server runs it, and `tidings lint` runs the very same one.

mod auth_server;
mod files;
mod json_schema;
mod replay;
mod report;
mod status;
mod webhook;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt as _;
use saphyr::{Scalar, Yaml, YamlEmitter};
use serde_json::{Number, Value, json};

pub use auth_server::{
    AllowedNamespaces, AuthServer, AuthServerSpec, AuthServerStatus, Defaults, EgressSpec, From,
    GenericEvents, Grant, IngestSpec, LabelExpression, Limits, LogtoSpec, Operator, Provider, SecretPolicy,
    Selector, SentAgain,
};
pub use files::files;
pub use replay::{REPLAY_TTL_SECONDS, ReplayOnly, WebhookReplay, WebhookReplaySpec, WebhookReplayStatus};
pub use report::{
    CircuitState, DeliveryReport, DeliveryReportSpec, FilterFailing, LocalRef, REPORTED_WEBHOOKS,
    RejectedWebhook, ReplayReport, RunningPlan, StoreProblem, WebhookReport,
};
pub use status::{
    Attempt, Condition, ConditionStatus, EventTally, FailedAttempt, SidecarTally, SourceTally, WebhookTally,
};
pub use webhook::{
    AuthServerRef, DeliverySpec, EndpointSpec, Format, Header, HeaderSource, MAX_SOURCES, RetrySpec, Scheme,
    SecretKeyRef, SecretRef, ServiceRef, SigningKeyRef, TlsSpec, UrlSource, Webhook, WebhookSpec,
    WebhookStatus,
};

/// The group of all objects.
pub const GROUP: &str = "tidings.dev";

/// The version that is served.
pub const VERSION: &str = "v1alpha1";

/// The name of most objects (RFC 1123, a subdomain).
pub(crate) const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// The name of a namespace (RFC 1123, a label).
pub(crate) const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// The definitions, in the order in which they are applied.
pub fn definitions() -> [CustomResourceDefinition; 4] {
    [AuthServer::crd(), Webhook::crd(), DeliveryReport::crd(), WebhookReplay::crd()]
        .map(with_unobserved_status)
}

/// A status that nobody wrote yet speaks of generation -1: tools that compare generations, as kstatus and Flux
/// do, wait for the operator instead of taking the object for done.
fn with_unobserved_status(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let properties = schema.and_then(|schema| schema.properties.as_mut());
        if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        }
    }
    definition
}

/// A definition as YAML, its keys in order.
pub fn yaml(definition: &CustomResourceDefinition) -> String {
    let value = serde_json::to_value(definition).unwrap_or_default();
    let mut text = "# Generated from the types of the crate tidings-crds; do not edit.\n".to_owned();
    // Writing into a text does not fail.
    let _ = YamlEmitter::new(&mut text).dump(&yaml_of(&value));
    text.push('\n');
    text
}

fn yaml_of(value: &Value) -> Yaml<'_> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(value) => Yaml::Value(Scalar::Boolean(*value)),
        Value::Number(number) => Yaml::Value(number_of(number)),
        Value::String(text) => Yaml::Value(Scalar::String(text.as_str().into())),
        Value::Array(items) => Yaml::Sequence(items.iter().map(yaml_of).collect()),
        Value::Object(entries) => {
            let key = |key: &'_ String| Yaml::Value(Scalar::String(key.clone().into()));
            Yaml::Mapping(entries.iter().map(|(name, value)| (key(name), yaml_of(value))).collect())
        }
    }
}

/// A number; bounds are kept as floats by the schema's type, and are whole numbers all the same.
fn number_of(number: &Number) -> Scalar<'static> {
    let float = number.as_f64().unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "it was compared with itself")]
    let whole = float as i64;
    #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "that is the question")]
    let is_whole = whole as f64 == float;
    number.as_i64().or(is_whole.then_some(whole)).map_or(Scalar::FloatingPoint(float.into()), Scalar::Integer)
}

/// A definition's file: `tidings.dev_webhooks.yaml`.
pub fn file_name(definition: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", definition.spec.group, definition.spec.names.plural)
}
