//! Bounds what one Webhook and one namespace take of an auth server's plan, so that no team can fill it.
//!
//! In: Webhooks as they were rendered. Out: a finding for each that is too large, or beyond its namespace's
//! share, with the field that takes most. Bytes are counted as they stand in the plan before it is packed:
//! text that does not pack takes as many after it. It must never depend on the order in which objects came.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use tidings_crds::{AuthServerSpec, WebhookSpec};
use tidings_plan::shards::{self, MAX_SHARD_BYTES};
use tidings_plan::{ObjectName, WebhookPlan};

use crate::{Finding, Reason};

/// The most bytes that one Webhook takes of a plan, where the `AuthServer` sets no other bound.
pub const WEBHOOK_BYTES: usize = 64 << 10;

/// The most bytes that the Webhooks of one namespace take of a plan, where the `AuthServer` sets no other
/// bound: half of a shard, since whoever chooses names also chooses the shard.
pub const NAMESPACE_BYTES: usize = MAX_SHARD_BYTES / 2;

/// The bounds that an `AuthServer` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    webhook: usize,
    namespace: usize,
}

/// A Webhook of a namespace, and when it was created: the oldest have their share first.
pub(crate) struct Claim<'a> {
    pub(crate) created: Option<Time>,
    pub(crate) spec: &'a WebhookSpec,
    pub(crate) plan: &'a WebhookPlan,
}

// === impl Bounds ===

impl Bounds {
    pub(crate) fn of(spec: &AuthServerSpec) -> Self {
        let limits = spec.limits.clone().unwrap_or_default();
        let bytes =
            |limit: Option<i32>, ours| limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(ours);
        Self {
            webhook: bytes(limits.webhook_bytes, WEBHOOK_BYTES),
            namespace: bytes(limits.namespace_bytes, NAMESPACE_BYTES),
        }
    }

    /// Whether one Webhook is small enough.
    pub(crate) fn webhook(&self, spec: &WebhookSpec, plan: &WebhookPlan) -> Result<(), Finding> {
        let (bytes, most) = (shards::bytes(plan), self.webhook);
        if bytes <= most {
            return Ok(());
        }
        let (field, part) = largest(spec, plan);
        let message = format!(
            "the Webhook takes {bytes} bytes of the plan, at most {most}; this field takes {part} of them: make it smaller, or have the platform team raise spec.limits.webhookBytes of the AuthServer"
        );
        Err(Finding::new(Reason::TooLarge, field, message))
    }

    /// The Webhooks of a namespace that are beyond its share.
    pub(crate) fn namespace(&self, mut claims: Vec<Claim<'_>>) -> BTreeMap<ObjectName, Finding> {
        claims.sort_by(|a, b| (&a.created, &a.plan.webhook).cmp(&(&b.created, &b.plan.webhook)));
        let (mut taken, mut beyond) = (0, BTreeMap::new());
        for claim in claims {
            let bytes = shards::bytes(claim.plan);
            if taken + bytes <= self.namespace {
                taken += bytes;
            } else {
                beyond.insert(claim.plan.webhook.clone(), self.beyond(&claim, bytes));
            }
        }
        beyond
    }

    fn beyond(&self, claim: &Claim<'_>, bytes: usize) -> Finding {
        let (field, part) = largest(claim.spec, claim.plan);
        let message = format!(
            "together with the older Webhooks of namespace {} this one's {bytes} bytes are beyond the {} that a namespace may take of the plan; this field takes {part} of them: make it smaller, delete other Webhooks, or have the platform team raise spec.limits.namespaceBytes of the AuthServer",
            claim.plan.webhook.namespace, self.namespace
        );
        Finding::new(Reason::NamespaceTooLarge, field, message)
    }
}

/// The field that takes most, and how many bytes.
fn largest(spec: &WebhookSpec, plan: &WebhookPlan) -> (String, usize) {
    let WebhookPlan { endpoint, signing_keys, filter, events, delivery, .. } = plan;
    let fixed = [
        (crate::endpoint::field(&spec.endpoint), json(&endpoint.url)),
        ("spec.endpoint.tls.caSecretRef", json(&endpoint.tls.ca)),
        (
            "spec.endpoint.tls.clientCertSecretRef",
            json(&(&endpoint.tls.client_cert, &endpoint.tls.client_key)),
        ),
        ("spec.secretRef", json(signing_keys)),
        ("spec.filter", json(filter)),
        ("spec.events", json(events)),
        ("spec.delivery", json(delivery)),
    ];
    let headers = spec.endpoint.headers.iter().enumerate().map(|(at, header)| {
        let value = endpoint.headers.get(&header.name.to_ascii_lowercase());
        (format!("spec.endpoint.headers[{at}]"), header.name.len() + json(&value))
    });
    let all = fixed.into_iter().map(|(field, bytes)| (field.to_owned(), bytes)).chain(headers);
    all.max_by_key(|(_, bytes)| *bytes).unwrap_or_default()
}

fn json(part: &impl Serialize) -> usize {
    serde_json::to_vec(part).map_or(0, |json| json.len())
}
