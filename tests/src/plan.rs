//! Plans for tests, written as sentences.

use std::collections::BTreeMap;

use tidings_plan::{
    Delivery, Egress, Endpoint, EventPattern, Format, Ingest, ObjectName, PLAN_VERSION, Plan, Pointer,
    SecretText, Tls, WebhookPlan,
};

use crate::capture;
use crate::receiver::Receiver;

/// The signing key of the tests' Webhooks, in Standard Webhooks' form.
pub const KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A plan that takes captured events and may deliver to loopback.
pub fn plan(webhooks: impl IntoIterator<Item = WebhookPlan>) -> Plan {
    let mut webhooks: Vec<_> = webhooks.into_iter().collect();
    webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    Plan {
        version: PLAN_VERSION,
        auth_server: ObjectName::new("auth", "logto"),
        ingest: Ingest { signing_keys: vec![SecretText::new(capture::signing_key())], ..Ingest::default() },
        egress: Egress {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            allow_insecure: true,
            ..Egress::default()
        },
        webhooks,
        replays: Vec::new(),
    }
}

/// A Webhook that selects everything and delivers to a receiver.
pub fn webhook(name: &str, receiver: &Receiver) -> WebhookPlan {
    webhook_to(name, &receiver.url())
}

/// A Webhook that selects everything and delivers to a URL.
pub fn webhook_to(name: &str, url: &str) -> WebhookPlan {
    WebhookPlan {
        webhook: ObjectName::new("shop", name),
        uid: format!("uid-of-{name}"),
        generation: 1,
        events: vec![EventPattern::All],
        endpoint: Endpoint {
            url: url.to_owned(),
            in_cluster: false,
            addresses: None,
            headers: BTreeMap::new(),
            tls: Tls::default(),
        },
        signing_keys: vec![SecretText::new(KEY)],
        filter: None,
        format: Format::Native,
        delivery: Delivery::default(),
        suspend: false,
    }
}

/// Changes a Webhook word by word.
pub trait Change: Sized {
    /// Selects these events alone.
    #[must_use]
    fn selecting(self, patterns: &[&str]) -> Self;
    /// Wants only what the filter lets pass.
    #[must_use]
    fn filtered(self, filter: &str) -> Self;
    /// Delivers like this.
    #[must_use]
    fn delivering(self, change: impl FnOnce(&mut Delivery)) -> Self;
    /// Keeps one order for each value at the pointer.
    #[must_use]
    fn ordered_by(self, pointer: &str) -> Self;
    /// Tries again within milliseconds rather than seconds: waits are drawn from nothing to this bound.
    #[must_use]
    fn retrying_within(self, initial_seconds: u32, max_seconds: u32, give_up_seconds: u32) -> Self;
}

impl Change for WebhookPlan {
    fn selecting(mut self, patterns: &[&str]) -> Self {
        self.events = patterns.iter().map(|pattern| EventPattern::parse(pattern).unwrap()).collect();
        self
    }

    fn filtered(mut self, filter: &str) -> Self {
        self.filter = Some(filter.to_owned());
        self
    }

    fn delivering(mut self, change: impl FnOnce(&mut Delivery)) -> Self {
        change(&mut self.delivery);
        self
    }

    fn ordered_by(self, pointer: &str) -> Self {
        self.delivering(|delivery| delivery.ordering_key.push(Pointer::parse(pointer).unwrap()))
    }

    fn retrying_within(self, initial_seconds: u32, max_seconds: u32, give_up_seconds: u32) -> Self {
        self.delivering(|delivery| {
            delivery.retry.initial_backoff_seconds = initial_seconds;
            delivery.retry.max_backoff_seconds = max_seconds;
            delivery.retry.give_up_after_seconds = give_up_seconds;
        })
    }
}
