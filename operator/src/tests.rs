use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tidings_crds::{AuthServer, Webhook};
use tidings_plan::SecretText;

use super::*;

/// A cluster in which one Webhook is in order; tests change one thing.
struct World(Objects);

fn name(name: &str) -> ObjectName {
    ObjectName::parse(name).unwrap()
}

impl World {
    fn new() -> Self {
        let mut world = Self(Objects::default());
        world.server(&json!({ "allowedNamespaces": { "from": "All" } }));
        world.secret("shop/signing", &[("signingKey", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]);
        world.webhook("shop/mail", &json!({}));
        world
    }

    fn server(&mut self, spec: &Value) {
        let server: AuthServer = serde_json::from_value(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "AuthServer",
            "metadata": { "name": "logto", "namespace": "auth" }, "spec": spec,
        }))
        .unwrap();
        self.0.auth_servers.insert(name("auth/logto"), server);
    }

    fn secret(&mut self, of: &str, entries: &[(&str, &str)]) {
        let entries = entries.iter().map(|(key, text)| ((*key).to_owned(), SecretText::new(*text).into()));
        self.0.secrets.insert(name(of), entries.collect::<BTreeMap<_, _>>());
    }

    /// A Webhook that is in order, with some fields of its spec replaced.
    fn webhook(&mut self, of: &str, change: &Value) {
        let mut spec = json!({
            "authServerRef": { "name": "logto", "namespace": "auth" },
            "events": ["PostSignIn"],
            "endpoint": { "url": "https://example.com/hook?token=hush" },
            "secretRef": { "name": "signing" },
        });
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let of = name(of);
        let webhook: Webhook = serde_json::from_value(json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook",
            "metadata": { "name": of.name, "namespace": of.namespace, "generation": 3 }, "spec": spec,
        }))
        .unwrap();
        self.0.webhooks.insert(of, webhook);
    }

    fn reconcile(&self) -> Outcome {
        reconcile(&self.0, &name("auth/logto"))
    }

    fn judged(&self) -> Judged {
        self.reconcile().webhooks[&name("shop/mail")].clone()
    }
}

fn changed(change: &Value) -> Judged {
    let mut world = World::new();
    world.webhook("shop/mail", change);
    world.judged()
}

#[test]
fn a_webhook_in_order_is_in_the_plan_with_every_default_filled_in() {
    let plan = World::new().reconcile().plan.unwrap();
    let [webhook] = plan.webhooks.as_slice() else { panic!("one Webhook") };
    assert_eq!((webhook.generation, webhook.delivery.timeout_seconds), (3, 15));
    assert_eq!(webhook.signing_keys.len(), 1);
    assert_eq!(
        plan.digest(),
        World::new().reconcile().plan.unwrap().digest(),
        "the same objects, the same plan"
    );
}

#[test]
fn each_mistake_has_its_reason_and_its_field() {
    let cases = [
        (json!({ "endpoint": { "url": "http://example.com" } }), Reason::AddressBlocked, "spec.endpoint.url"),
        (json!({ "endpoint": { "url": "https://127.0.0.1" } }), Reason::AddressBlocked, "spec.endpoint.url"),
        (json!({ "endpoint": { "url": "https://" } }), Reason::InvalidEndpoint, "spec.endpoint.url"),
        (json!({ "endpoint": {} }), Reason::InvalidEndpoint, "spec.endpoint"),
        (
            json!({ "endpoint": { "url": "https://example.com", "headers": [{ "name": "x-team", "value": "hush\nx" }] } }),
            Reason::InvalidHeader,
            "spec.endpoint.headers[0].value",
        ),
        (
            json!({ "endpoint": { "url": "https://example.com", "headers": [{ "name": "x team", "value": "hush" }] } }),
            Reason::InvalidHeader,
            "spec.endpoint.headers[0].name",
        ),
        (json!({ "events": ["User*"] }), Reason::InvalidEvents, "spec.events[0]"),
        (json!({ "events": [] }), Reason::InvalidEvents, "spec.events"),
        (json!({ "filter": "event.(" }), Reason::InvalidFilter, "spec.filter"),
        (
            json!({ "delivery": { "orderingKey": ["userId"] } }),
            Reason::InvalidOrderingKey,
            "spec.delivery.orderingKey[0]",
        ),
    ];
    for (change, reason, field) in cases {
        let finding = changed(&change).accepted.unwrap_err();
        assert_eq!((finding.reason, finding.field.as_str()), (reason, field), "{change}");
        assert!(!finding.message.contains("hush"), "no query in a message");
    }
}

#[test]
fn a_missing_secret_or_key_is_told_by_name() {
    let finding = changed(&json!({ "secretRef": { "name": "nowhere" } })).resolved_refs.unwrap_err();
    assert_eq!((finding.reason, finding.field.as_str()), (Reason::SecretNotFound, "spec.secretRef.name"));
    assert!(finding.message.contains("shop/nowhere"));
    let finding =
        changed(&json!({ "secretRef": { "name": "signing", "key": "other" } })).resolved_refs.unwrap_err();
    assert_eq!((finding.reason, finding.field.as_str()), (Reason::SecretKeyNotFound, "spec.secretRef.key"));
}

#[test]
fn one_bad_webhook_changes_nothing_for_the_others() {
    let mut world = World::new();
    let alone = world.reconcile().plan.unwrap();
    world.webhook("shop/broken", &json!({ "filter": "event.(" }));
    world.webhook("shop/unresolved", &json!({ "secretRef": { "name": "nowhere" } }));
    assert_eq!(world.reconcile().plan.unwrap(), alone);
}

#[test]
fn a_webhook_of_another_namespace_needs_the_auth_servers_leave() {
    let mut world = World::new();
    for (spec, allowed) in [
        (json!({}), false),
        (json!({ "allowedNamespaces": { "from": "Same" } }), false),
        (json!({ "allowedNamespaces": { "from": "All" } }), true),
        (selector("team", "shop"), true),
        (selector("team", "other"), false),
        (
            json!({ "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "kubernetes.io/metadata.name": "shop" } } } }),
            true,
        ),
    ] {
        world
            .0
            .namespaces
            .insert("shop".to_owned(), BTreeMap::from([("team".to_owned(), "shop".to_owned())]));
        world.server(&spec);
        assert_eq!(world.judged().accepted.is_ok(), allowed, "{spec}");
        assert_eq!(world.reconcile().plan.unwrap().webhooks.len(), usize::from(allowed));
    }
}

fn selector(key: &str, value: &str) -> Value {
    json!({ "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { key: value } } } })
}

#[test]
fn an_auth_server_that_cannot_be_used_has_no_plan_and_says_why() {
    let mut world = World::new();
    world.server(&json!({
        "ingest": { "signingKeyRef": { "name": "nowhere", "key": "key" } },
        "egress": { "allow": ["10.0.0.0"] },
        "allowedNamespaces": { "from": "All" },
    }));
    let outcome = world.reconcile();
    assert!(outcome.plan.is_none());
    let reasons: Vec<_> = outcome.auth_server.iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [Reason::SecretNotFound, Reason::InvalidCidr]);
    assert_eq!(world.judged().accepted.unwrap_err().reason, Reason::AuthServerInvalid);
}

#[test]
fn a_rotation_is_two_keys_the_current_one_first() {
    let mut world = World::new();
    world.secret(
        "shop/signing",
        &[
            ("signingKey", "new-key-of-twenty-four-bytes"),
            ("previousSigningKey", "old-key-of-twenty-four-bytes"),
        ],
    );
    let keys = world.reconcile().plan.unwrap().webhooks[0].signing_keys.clone();
    assert_eq!(
        keys.iter().map(SecretText::reveal).collect::<Vec<_>>(),
        ["new-key-of-twenty-four-bytes", "old-key-of-twenty-four-bytes"]
    );
}

#[test]
fn what_is_odd_but_works_is_a_warning() {
    let mut world = World::new();
    world.secret("shop/signing", &[("signingKey", "short\n")]);
    world.webhook("shop/mail", &json!({ "events": ["PostSignIn", "User.*", "Not.Yet"] }));
    let judged = world.judged();
    assert!(judged.is_ready());
    let reasons: Vec<_> =
        judged.warnings.iter().map(|warning| (warning.reason, warning.field.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (Reason::UnknownEvent, "spec.events[2]"),
            (Reason::ShortSigningKey, "spec.secretRef"),
            (Reason::SigningKeyEndsInLineBreak, "spec.secretRef"),
        ]
    );
}

#[test]
fn the_webhooks_words_win_over_the_auth_servers_and_those_over_ours() {
    let mut world = World::new();
    world.server(&json!({
        "allowedNamespaces": { "from": "All" },
        "defaults": { "delivery": { "timeoutSeconds": 7, "concurrency": 2, "retry": { "maxBackoffSeconds": 60 } } },
    }));
    world.webhook(
        "shop/mail",
        &json!({ "delivery": { "concurrency": 9, "retry": { "initialBackoffSeconds": 1 } } }),
    );
    let delivery = world.reconcile().plan.unwrap().webhooks[0].delivery.clone();
    assert_eq!((delivery.timeout_seconds, delivery.concurrency), (7, 9));
    assert_eq!((delivery.retry.initial_backoff_seconds, delivery.retry.max_backoff_seconds), (1, 60));
}

#[test]
fn a_webhook_that_is_too_large_is_told_which_field_takes_most_and_costs_nobody_else() {
    let mut world = World::new();
    let alone = world.reconcile().plan.unwrap();
    let headers =
        json!([{ "name": "x-a", "value": "a" }, { "name": "X-Large", "value": "hush".repeat(20_000) }]);
    world.webhook("shop/large", &json!({ "endpoint": { "url": "https://example.com", "headers": headers } }));
    let outcome = world.reconcile();
    let finding = outcome.webhooks[&name("shop/large")].accepted.clone().unwrap_err();
    assert_eq!((finding.reason, finding.field.as_str()), (Reason::TooLarge, "spec.endpoint.headers[1]"));
    assert!(
        finding.message.contains("at most 65536") && !finding.message.contains("hush"),
        "{}",
        finding.message
    );
    assert_eq!(outcome.plan.unwrap(), alone);
}

#[test]
fn a_value_of_a_secret_that_is_too_large_for_its_use_is_told_by_key_and_bound() {
    let mut world = World::new();
    let secret = |bytes: usize| {
        let data = [("token".to_owned(), k8s_openapi::ByteString(vec![b'a'; bytes]))];
        Secret { data: Some(data.into()), ..Secret::default() }
    };
    let from = json!({ "name": "large", "key": "token" });
    let headers = json!([{ "name": "x-token", "valueFrom": { "secretKeyRef": from } }]);
    let header = json!({ "url": "https://example.com", "headers": headers });
    let ca = json!({ "url": "https://example.com", "tls": { "caSecretRef": from } });
    let of_header = "spec.endpoint.headers[0].valueFrom.secretKeyRef.key";
    let of_ca = "spec.endpoint.tls.caSecretRef.key";
    for (endpoint, bytes, field) in [
        (&header, 32_769, Some(of_header)),
        (&header, 900_000, Some(of_header)),
        (&header, 32_768, None),
        (&ca, 65_537, Some(of_ca)),
        (&ca, 60_000, None),
    ] {
        world.0.add_secret(name("shop/large"), secret(bytes));
        world.webhook("shop/mail", &json!({ "endpoint": endpoint }));
        let judged = world.judged();
        let finding = judged.resolved_refs.err();
        assert_eq!(finding.as_ref().map(|finding| finding.field.as_str()), field, "{bytes}");
        if let Some(finding) = finding {
            assert_eq!(finding.reason, Reason::TooLarge);
            assert!(finding.message.contains(&format!("{bytes} bytes")), "{}", finding.message);
        }
    }
}

#[test]
fn a_service_is_spoken_to_in_the_webhooks_own_namespace_over_plain_http() {
    let mut world = World::new();
    world.webhook(
        "shop/mail",
        &json!({ "endpoint": { "serviceRef": { "name": "mailer", "port": 8080, "path": "/hook" } } }),
    );
    let endpoint = world.reconcile().plan.unwrap().webhooks[0].endpoint.clone();
    assert_eq!((endpoint.url.as_str(), endpoint.in_cluster), ("http://mailer.shop.svc:8080/hook", true));
    assert_eq!(world.judged().endpoint_host.as_deref(), Some("mailer.shop.svc:8080"));
}

mod grants;
mod names;
mod url_from;
