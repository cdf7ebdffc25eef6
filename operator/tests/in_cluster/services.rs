//! What a serviceRef reaches: Pods of its own namespace by a Service that selects them, and nothing that
//! somebody wrote into a Service or an `EndpointSlice`.

use std::net::IpAddr;

use serde_json::{Value, json};
use tidings_tests::until;

use crate::objects::{Change as _, webhook};
use crate::stage::{Scope, Stage, condition, says};

fn service(namespace: &str, spec: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "mailer", "namespace": namespace },
    });
    service["spec"] = spec;
    service
}

fn selecting() -> Value {
    json!({ "selector": { "app": "mailer" }, "ports": [{ "port": 80, "targetPort": 8080 }] })
}

fn headless() -> Value {
    selecting().with("/clusterIP", json!("None"))
}

fn slice(namespace: &str, name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": namespace, "labels": { "kubernetes.io/service-name": "mailer" } },
        "addressType": "IPv4", "ports": [{ "port": 8080 }], "endpoints": [{ "addresses": [address] }],
    })
}

fn mail(stage: &Stage) -> Value {
    stage.webhook("mail").with("/spec/endpoint", json!({ "serviceRef": { "name": "mailer", "port": 80 } }))
}

/// A Pod with an address, as a kubelet would report it.
async fn pod(stage: &Stage, name: &str, address: &str, ready: bool) {
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": stage.system } });
    stage.put(&node).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": stage.shop, "labels": { "app": "mailer" } },
        "spec": {
            "nodeName": stage.system, "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "mailer", "image": "mailer" }],
        },
    });
    if stage.pods().get_opt(name).await.unwrap().is_none() {
        stage.put(&pod).await;
    }
    let ready = if ready { "True" } else { "False" };
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [{ "type": "Ready", "status": ready }],
    } });
    let patch = kube::api::Patch::Merge(status);
    stage.pods().patch_status(name, &kube::api::PatchParams::default(), &patch).await.unwrap();
}

/// Waits until the plan has these addresses for the Webhook; `None`: until it has no such Webhook.
async fn wait_addresses(stage: &Stage, expected: Option<&[&str]>) {
    let expected: Option<Vec<IpAddr>> =
        expected.map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect());
    until(&format!("the plan has the addresses {expected:?}"), async || {
        let (_, plan) = stage.plan().await?;
        let of = plan.webhooks.iter().find(|one| one.webhook.name == "mail");
        let addresses = of.map(|webhook| webhook.endpoint.addresses.clone().unwrap());
        (addresses == expected).then_some(())
    })
    .await;
}

async fn wait_refused(stage: &Stage, reason: &str, words: &str) {
    stage
        .wait_webhook("mail", &format!("{reason}, {words}"), |webhook| {
            says(webhook, "ResolvedRefs", reason)
                && condition(webhook, "ResolvedRefs")
                    .is_some_and(|condition| condition.message.contains(words))
        })
        .await;
    wait_addresses(stage, None).await;
}

async fn cluster_ip(stage: &Stage) -> String {
    stage.services().get("mailer").await.unwrap().spec.unwrap().cluster_ip.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_follows_its_service_from_before_it_is_there_to_after_it_was_made_again() {
    let stage = Stage::new().await;
    let _operator = stage.operator("operator-0").await;
    stage.put(&mail(&stage)).await;
    wait_refused(&stage, "ServiceNotFound", "create it").await;
    let service = service(&stage.shop, selecting());
    stage.put(&service).await;
    let first = cluster_ip(&stage).await;
    wait_addresses(&stage, Some(&[&first])).await;
    let (_, plan) = stage.plan().await.unwrap();
    assert_eq!(plan.webhooks[0].endpoint.url, format!("http://mailer.{}.svc/", stage.shop));

    stage.delete(&service).await;
    wait_refused(&stage, "ServiceNotFound", "create it").await;
    // The address stays with another Service, so that the one that is made again has a new one.
    let other = selecting().with("/clusterIP", json!(first));
    stage.put(&service_named(&stage, "squatter", other)).await;
    stage.put(&service).await;
    let second = cluster_ip(&stage).await;
    assert_ne!(first, second);
    wait_addresses(&stage, Some(&[&second])).await;

    let port = json!([{ "port": 81, "name": "other" }]);
    stage.put(&service.clone().with("/spec/ports", port)).await;
    wait_refused(&stage, "ServicePortNotFound", "81").await;
}

fn service_named(stage: &Stage, name: &str, spec: Value) -> Value {
    service(&stage.shop, spec).with("/metadata/name", json!(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_name_and_a_service_without_a_selector_reach_nothing() {
    let stage = Stage::new().await;
    let _operator = stage.operator("operator-0").await;
    let external = json!({ "type": "ExternalName", "externalName": "kubernetes.default.svc" });
    stage.put(&service(&stage.shop, external)).await;
    stage.put(&mail(&stage)).await;
    wait_refused(&stage, "ServiceNotAllowed", "ExternalName").await;
    stage.delete(&service(&stage.shop, json!({}))).await;
    // With addresses of one's own making behind it.
    let plain = json!({ "ports": [{ "port": 80, "targetPort": 8080 }] });
    stage.put(&slice(&stage.shop, "mine", "10.99.0.1")).await;
    stage.put(&service(&stage.shop, plain)).await;
    wait_refused(&stage, "ServiceNotAllowed", "no selector").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_the_control_plane_did_not_make_closes_its_service_until_it_is_gone() {
    let stage = Stage::new().await;
    let _operator = stage.operator("operator-0").await;
    stage.put(&service(&stage.shop, selecting())).await;
    stage.put(&mail(&stage)).await;
    let address = cluster_ip(&stage).await;
    wait_addresses(&stage, Some(&[&address])).await;
    let mine = slice(&stage.shop, "mine", "10.99.0.1");
    stage.put(&mine).await;
    wait_refused(&stage, "ServiceNotAllowed", "EndpointSlice mine").await;
    // Under the control plane's own name the control plane takes it away.
    let keeper = "endpointslice.kubernetes.io/managed-by";
    let forged = mine.clone();
    let mut forged = forged;
    forged["metadata"]["labels"][keeper] = json!("endpointslice-controller.k8s.io");
    stage.put(&forged).await;
    until("what was forged is taken away", async || {
        let slice = stage.slices().get_opt("mine").await.unwrap();
        slice.is_none_or(|slice| slice.endpoints.unwrap_or_default().is_empty()).then_some(())
    })
    .await;
    wait_addresses(&stage, Some(&[&address])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_headless_service_is_its_ready_pods() {
    let stage = Stage::new().await;
    let _operator = stage.operator("operator-0").await;
    stage.put(&service(&stage.shop, headless())).await;
    stage.put(&mail(&stage)).await;
    wait_addresses(&stage, Some(&[])).await;
    pod(&stage, "mailer-0", "10.1.2.3", true).await;
    pod(&stage, "mailer-1", "10.1.2.4", false).await;
    wait_addresses(&stage, Some(&["10.1.2.3"])).await;
    pod(&stage, "mailer-1", "10.1.2.4", true).await;
    wait_addresses(&stage, Some(&["10.1.2.3", "10.1.2.4"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_service_leads_to_the_api_server() {
    // Alone, since it looks at the whole cluster.
    let stage = Stage::alone(Scope::Cluster).await;
    let _operator = stage.operator("operator-0").await;
    let hook = webhook("default", "sly", "", &stage.auth).with(
        "/spec/endpoint",
        json!({ "serviceRef": { "name": "kubernetes", "port": 443, "scheme": "https" } }),
    );
    stage.put(&crate::objects::secret("default", "keys", &[("signingKey", tidings_tests::plan::KEY)])).await;
    stage.put(&hook).await;
    let webhooks: kube::Api<tidings_crds::Webhook> = kube::Api::namespaced(stage.admin(), "default");
    until("the API server's own Service is refused", async || {
        let webhook = webhooks.get("sly").await.unwrap();
        says(&webhook, "ResolvedRefs", "ServiceNotAllowed").then_some(())
    })
    .await;
    // A Pod that says to have the API server's address.
    let services: kube::Api<k8s_openapi::api::core::v1::Service> =
        kube::Api::namespaced(stage.admin(), "default");
    let plane = services.get("kubernetes").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    stage.put(&service(&stage.shop, headless())).await;
    stage.put(&mail(&stage)).await;
    pod(&stage, "mailer-0", &plane, true).await;
    let webhook =
        stage.wait_webhook("mail", "blocked", |webhook| says(webhook, "Accepted", "AddressBlocked")).await;
    let message = condition(&webhook, "Accepted").unwrap().message;
    assert!(message.contains("control plane"), "{message}");
    wait_addresses(&stage, None).await;
}
