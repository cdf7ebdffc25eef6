//! What is broken says so, and costs nobody else anything.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tidings_crds::{ConditionStatus, Webhook};
use tidings_tests::receiver::Receiver;
use tidings_tests::until;

use crate::objects::{Change as _, auth_server, secret, webhook};
use crate::stage::{Scope, Stage, condition, says, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_webhook_says_what_is_wrong_where_and_changes_nobody_elses_plan() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("good").to(&receiver)).await;
    stage.wait_ready("good").await;
    let (before, _) = stage.plan().await.unwrap();
    let table = [
        ("/spec/filter", json!("event.x ==="), "Accepted", "InvalidFilter", "spec.filter: "),
        ("/spec/secretRef/name", json!("none"), "ResolvedRefs", "SecretNotFound", "spec.secretRef.name: "),
        ("/spec/secretRef/key", json!("none"), "ResolvedRefs", "SecretKeyNotFound", "spec.secretRef.key: "),
        (
            "/spec/endpoint/url",
            json!("http://10.1.2.3/"),
            "Accepted",
            "AddressBlocked",
            "spec.endpoint.url: ",
        ),
        ("/spec/authServerRef/name", json!("none"), "Accepted", "AuthServerNotFound", "spec.authServerRef: "),
    ];
    for (number, (place, value, kind, reason, begins)) in table.into_iter().enumerate() {
        let name = format!("bad-{number}");
        stage.put(&stage.webhook(&name).to(&receiver).with(place, value)).await;
        let webhook = stage.wait_webhook(&name, reason, |webhook| says(webhook, kind, reason)).await;
        let told = condition(&webhook, kind).unwrap();
        assert_eq!(told.status, ConditionStatus::False);
        assert!(told.message.starts_with(begins), "{}", told.message);
        let ready = condition(&webhook, "Ready").unwrap();
        assert_eq!((ready.status, ready.reason.as_str()), (ConditionStatus::False, reason));
    }
    let (after, _) = stage.plan().await.unwrap();
    assert_eq!((after.generation, &after.digest), (before.generation, &before.digest));
    send(&sidecar, "PostSignIn").await;
    receiver.wait_for(1).await;
    // One that was good and is spoilt is out of the plan, and in again when it is mended.
    stage.put(&stage.webhook("good").to(&receiver).with("/spec/filter", json!("event.x ==="))).await;
    stage.wait_webhook("good", "InvalidFilter", |webhook| says(webhook, "Ready", "InvalidFilter")).await;
    stage.put(&stage.webhook("good").to(&receiver)).await;
    stage.wait_ready("good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_of_a_namespace_that_is_not_allowed_is_told_so_and_runs_once_it_is() {
    let stage = Stage::new().await;
    let only = |namespace: &str| {
        let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
        auth_server(&stage.auth)
            .with("/spec/allowedNamespaces", json!({ "from": "Selector", "selector": selector }))
    };
    stage.put(&only("elsewhere")).await;
    let (_operator, _sidecar) = stage.at_work().await;
    stage.put(&secret(&stage.auth, "keys", &[("signingKey", tidings_tests::plan::KEY)])).await;
    stage.put(&webhook(&stage.auth, "own", "http://127.0.0.1:9/", &stage.auth)).await;
    let own: Api<Webhook> = Api::namespaced(stage.admin(), &stage.auth);
    until("the own namespace is allowed", async || own.get("own").await.ok().filter(crate::stage::is_ready))
        .await;
    let (before, _) = stage.plan().await.unwrap();
    stage.put(&stage.webhook("mail")).await;
    let refused = |webhook: &Webhook| says(webhook, "Accepted", "NotAllowedByAuthServer");
    let webhook = stage.wait_webhook("mail", "NotAllowedByAuthServer", refused).await;
    let message = condition(&webhook, "Accepted").unwrap().message;
    assert!(message.contains(&stage.shop) && message.contains("spec.allowedNamespaces"), "{message}");
    let (after, _) = stage.plan().await.unwrap();
    assert_eq!(after, before);

    stage.put(&only(&stage.shop)).await;
    stage.wait_ready("mail").await;
}

/// The Webhooks' definition as it is applied.
fn definition() -> Value {
    let is_it = |one: &CustomResourceDefinition| one.metadata.name.as_deref() == Some(Webhook::crd_name());
    serde_json::to_value(tidings_crds::definitions().into_iter().find(is_it).unwrap()).unwrap()
}

/// The same, with a spec of which it knows nothing.
fn relaxed() -> Value {
    let mut definition = definition();
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"] = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    definition
}

async fn put_definition(stage: &Stage, definition: &Value) {
    let api: Api<CustomResourceDefinition> = Api::all(stage.admin());
    let params = PatchParams::apply("kubectl").force();
    api.patch("webhooks.tidings.dev", &params, &Patch::Apply(definition)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_an_older_schema_is_told_so_and_the_others_go_on() {
    let stage = Stage::alone(Scope::Namespaces).await;
    put_definition(&stage, &relaxed()).await;
    let old = [
        stage.webhook("of-another-type").with("/spec/events", json!("PostSignIn")),
        stage.webhook("without-a-field").with("/spec/secretRef", json!({})),
        stage.webhook("of-another-word").with("/spec/format", json!("Avro")),
    ];
    for webhook in &old {
        until("the API server takes it", async || stage.try_put(webhook).await.ok()).await;
    }
    put_definition(&stage, &definition()).await;
    until("the API server takes no such object any more", async || {
        stage.try_put(&stage.webhook("new").with("/spec/events", json!("PostSignIn"))).await.err()
    })
    .await;

    let receiver = Receiver::start().await;
    let (operator, sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("good").to(&receiver)).await;
    stage.wait_ready("good").await;
    send(&sidecar, "PostSignIn").await;
    receiver.wait_for(1).await;
    let api: Api<DynamicObject> =
        Api::namespaced_with(stage.admin(), &stage.shop, &ApiResource::erase::<Webhook>(&()));
    for name in ["of-another-type", "without-a-field", "of-another-word"] {
        let told = until(&format!("{name} is told so"), async || {
            let object = api.get(name).await.ok()?;
            let conditions = object.data["status"]["conditions"].as_array()?.clone();
            conditions.into_iter().find(|condition| condition["type"] == "Accepted")
        })
        .await;
        assert_eq!(
            (told["status"].as_str(), told["reason"].as_str()),
            (Some("False"), Some("InvalidSchema"))
        );
        assert!(told["message"].as_str().unwrap().contains("apply it again"), "{told}");
    }
    // Each was told once, however often its own status comes back.
    let versions = async || {
        let listed = api.list_metadata(&ListParams::default()).await.unwrap();
        listed.items.into_iter().map(|object| object.metadata.resource_version).collect::<Vec<_>>()
    };
    let before = versions().await;
    stage.put(&stage.webhook("good").to(&receiver).with("/spec/filter", json!("event.x ==="))).await;
    stage.wait_webhook("good", "InvalidFilter", |webhook| says(webhook, "Ready", "InvalidFilter")).await;
    assert_eq!(
        crate::stage::metric(&operator, "tidings_operator_status_writes_total{result=\"error\"}").await,
        None
    );
    let after = versions().await;
    assert_eq!(
        before.iter().zip(&after).filter(|(before, after)| before != after).count(),
        1,
        "the good one alone"
    );
    // Mended, it runs as if nothing had been.
    stage.put(&stage.webhook("without-a-field")).await;
    stage.wait_ready("without-a-field").await;
}
