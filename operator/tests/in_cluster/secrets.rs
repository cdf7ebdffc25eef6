//! Secrets that a Webhook may not use, or the operator not read.

use serde_json::json;
use tidings_tests::until;

use crate::objects::{Change as _, secret};
use crate::stage::{Scope, Stage, says, sum_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_operator_may_not_read_is_told_so_and_read_once_it_may() {
    // Alone, since the role is one of the cluster.
    let stage = Stage::alone(Scope::Namespaces).await;
    let roles: kube::Api<k8s_openapi::api::rbac::v1::ClusterRole> = kube::Api::all(stage.admin());
    let mut role = roles.get("tidings-operator").await.unwrap();
    let whole = role.clone();
    for rule in role.rules.iter_mut().flatten() {
        if rule.resources.as_ref().is_some_and(|resources| resources.contains(&"secrets".to_owned())) {
            rule.verbs.retain(|verb| verb != "get");
        }
    }
    roles.replace("tidings-operator", &kube::api::PostParams::default(), &role).await.unwrap();
    let _operator = stage.operator("operator-0").await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_webhook("mail", "forbidden", |webhook| says(webhook, "ResolvedRefs", "SecretForbidden")).await;
    // The rights come back, and nothing else changes.
    let mut whole = whole;
    whole.metadata.resource_version = None;
    roles.replace("tidings-operator", &kube::api::PostParams::default(), &whole).await.unwrap();
    stage
        .wait_webhook("mail", "its Secrets are read", |webhook| says(webhook, "ResolvedRefs", "ResolvedRefs"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_from_the_plan_itself_makes_no_loop() {
    let stage = Stage::new().await;
    let operator = stage.operator("operator-0").await;
    stage.put(&stage.webhook("mail")).await;
    until("there is a plan", async || stage.plan().await.filter(|(_, plan)| plan.webhooks.len() == 1)).await;
    let from = json!({ "secretKeyRef": { "name": "tidings-plan-logto", "key": "head.json" } });
    let headers = json!([{ "name": "x-plan", "valueFrom": from }]);
    let sly = crate::objects::webhook(&stage.auth, "sly", "https://example.com/", &stage.auth)
        .with("/spec/endpoint/headers", headers);
    stage.put(&secret(&stage.auth, "keys", &[("signingKey", tidings_tests::plan::KEY)])).await;
    stage.put(&sly).await;
    let webhooks: kube::Api<tidings_crds::Webhook> = kube::Api::namespaced(stage.admin(), &stage.auth);
    until("it is refused", async || {
        let webhook = webhooks.get("sly").await.unwrap();
        says(&webhook, "ResolvedRefs", "SecretNotAllowed").then_some(())
    })
    .await;
    // Another Webhook comes in with the next plan, and that is the only one.
    let (before, _) = stage.plan().await.unwrap();
    stage.put(&stage.webhook("more")).await;
    let after = until("the next plan", async || {
        stage.plan().await.filter(|(_, plan)| plan.webhooks.len() == 2).map(|(head, _)| head)
    })
    .await;
    assert_eq!(after.generation, before.generation + 1);
    assert!(sum_of(&operator, "tidings_operator_api_writes_total").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_used_once_it_carries_the_label_that_is_asked_for() {
    let stage = Stage::new().await;
    let _operator = stage.operator("operator-0").await;
    let server = crate::objects::auth_server(&stage.auth).with("/spec/secretPolicy", json!("Labelled"));
    stage.put(&server).await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_webhook("mail", "refused", |webhook| says(webhook, "ResolvedRefs", "SecretNotAllowed")).await;
    let labelled = secret(&stage.shop, "keys", &[("signingKey", tidings_tests::plan::KEY)])
        .with("/metadata/labels", json!({ "tidings.dev/webhooks": "allowed" }));
    stage.put(&labelled).await;
    stage.wait_webhook("mail", "resolved", |webhook| says(webhook, "ResolvedRefs", "ResolvedRefs")).await;
    stage.put(&secret(&stage.shop, "keys", &[("signingKey", tidings_tests::plan::KEY)])).await;
    stage.wait_webhook("mail", "refused", |webhook| says(webhook, "ResolvedRefs", "SecretNotAllowed")).await;
}
