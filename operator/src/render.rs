//! Renders what was judged in order into the plan: complete, sorted, the same for the same objects.

use tidings_crds::{DeliverySpec, Format as FormatSpec, RetrySpec, Webhook};
use tidings_plan::{
    Delivery, Endpoint, EventPattern, Format, ObjectName, PLAN_VERSION, Plan, Pointer, ReplayPlan, Retry,
    WebhookPlan,
};

use crate::endpoint::url_of;
use crate::resolve::{Frame, Resolved};

/// The plan of one auth server.
pub(crate) fn plan(
    auth_server: &ObjectName,
    frame: &Frame,
    mut webhooks: Vec<WebhookPlan>,
    mut replays: Vec<ReplayPlan>,
) -> Plan {
    let Frame { ingest, egress, defaults: _, bounds: _, secret_policy: _ } = frame.clone();
    webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    replays.sort_by(|a, b| a.uid.cmp(&b.uid));
    Plan { version: PLAN_VERSION, auth_server: auth_server.clone(), ingest, egress, webhooks, replays }
}

/// One Webhook of the plan.
pub(crate) fn webhook(
    name: &ObjectName,
    webhook: &Webhook,
    resolved: &Resolved,
    frame: &Frame,
) -> WebhookPlan {
    let Resolved { url, signing_keys, headers, tls, addresses } = resolved.clone();
    let spec = &webhook.spec;
    WebhookPlan {
        webhook: name.clone(),
        uid: webhook.metadata.uid.clone().unwrap_or_default(),
        generation: webhook.metadata.generation.unwrap_or_default(),
        events: spec.events.iter().filter_map(|text| EventPattern::parse(text).ok()).collect(),
        endpoint: Endpoint {
            // What is rendered was checked before.
            url: url_of(&name.namespace, &spec.endpoint, url.as_ref())
                .ok()
                .flatten()
                .map_or_else(String::new, String::from),
            in_cluster: spec.endpoint.service_ref.is_some(),
            addresses,
            headers,
            tls,
        },
        signing_keys,
        filter: spec.filter.clone(),
        format: match spec.format {
            FormatSpec::Native => Format::Native,
            FormatSpec::CloudEvents => Format::CloudEvents,
        },
        delivery: delivery(spec.delivery.as_ref(), &frame.defaults),
        suspend: spec.suspend,
    }
}

/// What the Webhook says, else what the `AuthServer` says, else our own defaults.
pub(crate) fn delivery(spec: Option<&DeliverySpec>, defaults: &DeliverySpec) -> Delivery {
    let ours = Delivery::default();
    let spec = spec.cloned().unwrap_or_default();
    let (retry, retry_defaults) =
        (spec.retry.unwrap_or_default(), defaults.retry.clone().unwrap_or_default());
    let ordering_key = spec.ordering_key.or_else(|| defaults.ordering_key.clone()).unwrap_or_default();
    Delivery {
        timeout_seconds: first(spec.timeout_seconds, defaults.timeout_seconds, ours.timeout_seconds),
        concurrency: first(spec.concurrency, defaults.concurrency, ours.concurrency),
        rate_per_second: spec.rate_per_second.or(defaults.rate_per_second).and_then(positive),
        ordering_key: ordering_key.iter().filter_map(|text| Pointer::parse(text).ok()).collect(),
        retry: merge(&retry, &retry_defaults, &ours.retry),
    }
}

fn merge(spec: &RetrySpec, defaults: &RetrySpec, ours: &Retry) -> Retry {
    let RetrySpec { initial_backoff_seconds, max_backoff_seconds, give_up_after_seconds } = spec;
    Retry {
        initial_backoff_seconds: first(
            *initial_backoff_seconds,
            defaults.initial_backoff_seconds,
            ours.initial_backoff_seconds,
        ),
        max_backoff_seconds: first(
            *max_backoff_seconds,
            defaults.max_backoff_seconds,
            ours.max_backoff_seconds,
        ),
        give_up_after_seconds: first(
            *give_up_after_seconds,
            defaults.give_up_after_seconds,
            ours.give_up_after_seconds,
        ),
    }
}

fn first(spec: Option<i32>, default: Option<i32>, ours: u32) -> u32 {
    spec.or(default).and_then(positive).unwrap_or(ours)
}

fn positive(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}
