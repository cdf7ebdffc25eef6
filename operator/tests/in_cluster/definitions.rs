//! The definitions refuse what they should, and `tidings lint` refuses the same offline.

use serde_json::{Value, json};
use tidings_operator::lint::lint;
use tidings_tests::cluster::{kubectl, try_apply};
use tidings_tests::process::in_workspace;

use crate::objects::{Change as _, auth_server, webhook};
use crate::stage::Stage;

/// An object, and what is said of it.
fn table(stage: &Stage) -> Vec<(Value, &'static str)> {
    let hook = || webhook(&stage.shop, "bad", "https://shop.example.com/hook", &stage.auth);
    let server = || auth_server(&stage.auth).with("/metadata/name", json!("bad"));
    let header = |header: Value| hook().with("/spec/endpoint/headers", json!([header]));
    let delivery = |delivery: Value| hook().with("/spec/delivery", delivery);
    let service = json!({ "name": "mail", "port": 80 });
    let to_service = |field: &str, value: Value| {
        let endpoint = json!({ "serviceRef": service }).with(&format!("/serviceRef/{field}"), value);
        hook().with("/spec/endpoint", endpoint)
    };
    let retry = json!({ "initialBackoffSeconds": 60, "maxBackoffSeconds": 10 });
    let reserved = "this header is written by Tidings or by HTTP itself";
    vec![
        (hook().with("/spec/events", json!([])), "spec.events"),
        (hook().with("/spec/events", json!(["Us*er"])), "spec.events[0]"),
        (hook().with("/spec/events", json!("PostSignIn")), "spec.events"),
        (hook().with("/spec/endpoint", json!({})), "write exactly one of url, urlFrom and serviceRef"),
        (
            hook().with("/spec/endpoint/serviceRef", service.clone()),
            "write exactly one of url, urlFrom and serviceRef",
        ),
        (
            hook()
                .with("/spec/endpoint/urlFrom", json!({ "secretKeyRef": { "name": "chat", "key": "url" } })),
            "write exactly one of url, urlFrom and serviceRef",
        ),
        (
            server().with("/spec/allowedNamespaces/grants", json!([{ "events": [] }])),
            "spec.allowedNamespaces.grants[0].events",
        ),
        (server().with("/spec/secretPolicy", json!("Some")), "spec.secretPolicy"),
        (hook().with("/spec/endpoint/url", json!("ftp://shop.example.com")), "spec.endpoint.url"),
        (hook().with("/spec/endpoint/url", json!("https://a b")), "spec.endpoint.url"),
        (hook().with("/spec/filter", json!("")), "spec.filter"),
        (hook().with("/spec/filter", json!("x".repeat(1025))), "spec.filter"),
        (hook().with("/spec/format", json!("Avro")), "spec.format"),
        (header(json!({ "name": "x-a" })), "write exactly one of value and valueFrom"),
        (header(json!({ "name": "Webhook-Id", "value": "1" })), reserved),
        (header(json!({ "name": "Host", "value": "1" })), reserved),
        (header(json!({ "name": "x y", "value": "1" })), "spec.endpoint.headers[0].name"),
        (delivery(json!({ "timeoutSeconds": 0 })), "spec.delivery.timeoutSeconds"),
        (delivery(json!({ "concurrency": 257 })), "spec.delivery.concurrency"),
        (delivery(json!({ "orderingKey": ["no pointer"] })), "spec.delivery.orderingKey[0]"),
        (delivery(json!({ "retry": retry })), "initialBackoffSeconds may not be more than maxBackoffSeconds"),
        (hook().with("/spec/secretRef", Value::Null), "spec.secretRef"),
        (hook().with("/spec/secretRef/name", json!("../../auth/secrets/x")), "spec.secretRef.name"),
        (hook().with("/spec/secretRef/key", json!("a/b")), "spec.secretRef.key"),
        (hook().with("/spec/authServerRef/namespace", json!("a/b")), "spec.authServerRef.namespace"),
        (hook().with("/spec/endpoint/tls/serverName", json!("a/b")), "spec.endpoint.tls.serverName"),
        (to_service("name", json!("10.99.0.1:9999/v1/admin?")), "spec.endpoint.serviceRef.name"),
        (to_service("name", json!("mail.auth")), "spec.endpoint.serviceRef.name"),
        (to_service("port", json!(65536)), "spec.endpoint.serviceRef.port"),
        (to_service("path", json!("/a#b")), "spec.endpoint.serviceRef.path"),
        (to_service("path", json!("/a\\b")), "spec.endpoint.serviceRef.path"),
        (server().with("/metadata/name", json!("l".repeat(201))), "the name has more than 200 characters"),
        (
            server().with("/spec/generic", json!({ "eventPointer": "/type" })),
            "generic belongs to provider Generic alone",
        ),
        (
            server().with("/spec/allowedNamespaces", json!({ "from": "Selector" })),
            "write a selector with from: Selector, and only with it",
        ),
        (
            server().with("/spec/allowedNamespaces", json!({ "from": "All", "selector": {} })),
            "write a selector with from: Selector, and only with it",
        ),
        (server().with("/spec/egress/allow", json!(["everything"])), "spec.egress.allow[0]"),
        (server().with("/spec/provider", json!("Okta")), "spec.provider"),
    ]
}

/// What `tidings lint` says of one object.
fn offline(object: &Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("object.yaml"), object.to_string()).unwrap();
    let report = lint(&[folder.path().to_owned()]);
    let one = |found: &tidings_operator::manifests::FileFinding| {
        format!("{}: {}: {}\n", found.finding.reason, found.finding.field, found.finding.message)
    };
    report.errors.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_server_refuses_lint_refuses_too() {
    let stage = Stage::new().await;
    let mut wrong = Vec::new();
    for (object, says) in table(&stage) {
        let lint = offline(&object);
        match stage.try_put(&object).await {
            Ok(_) => wrong.push(format!("the API server takes it, {says}: {object}")),
            Err(error) if !error.to_string().contains(says) => wrong.push(format!("{says}: {error}")),
            Err(_) => {}
        }
        if !lint.contains(says) {
            wrong.push(format!("lint says {lint:?}, not {says}: {object}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_makes_no_sense_is_refused() {
    let stage = Stage::new().await;
    let replay = |spec: Value| json!({ "apiVersion": "tidings.dev/v1alpha1", "kind": "WebhookReplay", "metadata": { "name": "bad", "namespace": stage.shop }, "spec": spec });
    let mail = json!({ "name": "mail" });
    let table = [
        (json!({ "webhookRef": mail }), "spec.from"),
        (json!({ "webhookRef": mail, "from": "yesterday" }), "spec.from"),
        (
            json!({ "webhookRef": mail, "from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z" }),
            "from must be before to",
        ),
        (
            json!({ "webhookRef": mail, "from": "2026-01-01T00:00:00Z", "ratePerSecond": 0 }),
            "spec.ratePerSecond",
        ),
    ];
    for (spec, says) in table {
        let error = stage.try_put(&replay(spec)).await.expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_definition_is_established_without_a_complaint_and_explained() {
    let stage = Stage::new().await;
    for entry in std::fs::read_dir(in_workspace("crds")).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let file = path.to_str().unwrap();
            let shown = kubectl(&["get", "-f", file, "-o", "jsonpath={.status.conditions}"]).await;
            let conditions: Vec<Value> = serde_json::from_str(&shown).unwrap();
            let is = |kind: &str| {
                conditions.iter().find(|one| one["type"] == kind).map(|one| one["status"].clone())
            };
            assert_eq!(
                (is("Established"), is("NonStructuralSchema")),
                (Some(json!("True")), None),
                "{shown}"
            );
        }
    }
    let explained = kubectl(&["explain", "webhook.spec.secretRef"]).await;
    assert!(explained.contains("previousSigningKey"), "{explained}");
    let (taken, output) = try_apply(&stage.webhook("mail").to_string()).await;
    assert!(taken && !output.contains("Warning"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_nobody_wrote_yet_speaks_of_generation_minus_one() {
    let stage = Stage::new().await;
    stage.put(&stage.webhook("mail")).await;
    let webhook = stage.webhooks().get("mail").await.unwrap();
    assert_eq!(webhook.status.unwrap().observed_generation, Some(-1));
    let _operator = stage.operator("operator-0").await;
    let told = |webhook: &tidings_crds::Webhook| {
        webhook
            .status
            .as_ref()
            .is_some_and(|status| status.observed_generation == webhook.metadata.generation)
    };
    stage.wait_webhook("mail", "its status speaks of it", told).await;
}
