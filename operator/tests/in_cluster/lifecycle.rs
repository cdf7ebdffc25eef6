//! What is deleted is gone, blocks nothing, and can be made again.

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use tidings_crds::Webhook;
use tidings_plan::shards::{self, HEAD_KEY, Head, SHARD_KEY};
use tidings_tests::cluster::api_server;
use tidings_tests::receiver::Receiver;
use tidings_tests::until;

use crate::objects::{Change as _, auth_server, secret};
use crate::stage::{Scope, Stage, metric, says, send};

async fn in_plan(stage: &Stage) -> Vec<String> {
    let plan = stage.plan().await.map(|(_, plan)| plan.webhooks).unwrap_or_default();
    plan.iter().map(|webhook| webhook.webhook.name.clone()).collect()
}

async fn wait_plan(stage: &Stage, names: &[&str]) {
    until(&format!("the plan has {names:?}"), async || (in_plan(stage).await == names).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_follows_webhooks_and_secrets_that_are_deleted_made_again_and_renamed() {
    let stage = Stage::new().await;
    let receiver = Receiver::start().await;
    let (_operator, sidecar) = stage.at_work().await;
    let (mail, sync) = (stage.webhook("mail").to(&receiver), stage.webhook("sync").to(&receiver));
    stage.put(&mail).await;
    stage.put(&sync).await;
    wait_plan(&stage, &["mail", "sync"]).await;
    stage.delete(&mail).await;
    wait_plan(&stage, &["sync"]).await;
    until("the object is gone", async || {
        stage.webhooks().get_opt("mail").await.ok()?.is_none().then_some(())
    })
    .await;
    stage.put(&mail).await;
    wait_plan(&stage, &["mail", "sync"]).await;

    // Its Secret is gone: it says so, and nothing else changes.
    let keys = secret(&stage.shop, "own-keys", &[("signingKey", tidings_tests::plan::KEY)]);
    stage.put(&keys).await;
    stage.put(&sync.clone().with("/spec/secretRef/name", json!("own-keys"))).await;
    stage.wait_ready("sync").await;
    stage.delete(&keys).await;
    let lost = |webhook: &Webhook| says(webhook, "ResolvedRefs", "SecretNotFound");
    stage.wait_webhook("sync", "SecretNotFound", lost).await;
    wait_plan(&stage, &["mail"]).await;
    stage.put(&keys).await;
    stage.wait_ready("sync").await;

    stage.delete(&mail).await;
    stage.put(&stage.webhook("letters").to(&receiver)).await;
    wait_plan(&stage, &["letters", "sync"]).await;
    stage.wait_ready("letters").await;
    send(&sidecar, "PostSignIn").await;
    receiver.wait_for(2).await;
    stage.wait_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_server_takes_its_plan_with_it_and_a_namespace_goes_with_all_that_is_in_it() {
    let stage = Stage::alone(Scope::Cluster).await;
    // So that the garbage collector knows the definitions at once.
    api_server("stop").await;
    api_server("start").await;
    let (_operator, _sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_ready("mail").await;

    stage.delete(&auth_server(&stage.auth)).await;
    let lost = |webhook: &Webhook| says(webhook, "Accepted", "AuthServerNotFound");
    stage.wait_webhook("mail", "AuthServerNotFound", lost).await;
    until("nothing of the plan is left", async || {
        let left = stage.secrets().list_metadata(&ListParams::default()).await.ok()?;
        let is_plan = |name: &str| shards::is_part_of_a_plan(name);
        let any =
            left.items.iter().any(|secret| is_plan(secret.metadata.name.as_deref().unwrap_or_default()));
        (!any).then_some(())
    })
    .await;
    stage.put(&auth_server(&stage.auth)).await;
    stage.wait_ready("mail").await;

    let namespaces: Api<Namespace> = Api::all(stage.admin());
    namespaces.delete(&stage.shop, &DeleteParams::default()).await.unwrap();
    wait_plan(&stage, &[]).await;
    until("the namespace is gone", async || {
        namespaces.get_opt(&stage.shop).await.ok()?.is_none().then_some(())
    })
    .await;
    stage.put(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": stage.shop } })).await;
    stage.put(&secret(&stage.shop, "keys", &[("signingKey", tidings_tests::plan::KEY)])).await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_ready("mail").await;
    namespaces.delete(&stage.auth, &DeleteParams::default()).await.unwrap();
    until("the auth server's namespace is gone", async || {
        namespaces.get_opt(&stage.auth).await.ok()?.is_none().then_some(())
    })
    .await;
    let left: Api<Secret> = Api::namespaced(stage.admin(), &stage.auth);
    assert!(left.list(&ListParams::default()).await.unwrap().items.is_empty());
    stage.wait_webhook("mail", "AuthServerNotFound", lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_was_changed_or_is_of_a_later_version_is_published_anew_under_a_higher_number() {
    let stage = Stage::new().await;
    stage.put(&stage.webhook("mail")).await;
    let _operator = stage.operator("operator-0").await;
    for (field, value, number) in
        [("/frame/version", json!(99), 70), ("/frame/egress/allow", json!(["0.0.0.0/0"]), 90)]
    {
        let head = stage.wait_settled().await;
        assert!(head.generation < number);
        let mut changed: serde_json::Value = serde_json::from_slice(&head.to_json()).unwrap();
        *changed.pointer_mut(field).unwrap() = value;
        changed["generation"] = json!(number);
        stage.write_head(changed.to_string().into_bytes()).await;
        until("the plan is published anew", async || {
            let (head, plan) = stage.try_plan().await?;
            (head.generation > number && plan.webhooks.len() == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_somebody_overwrote_is_repaired() {
    let stage = Stage::new().await;
    let _operator = stage.operator("operator-0").await;
    stage.put(&stage.webhook("mail")).await;
    wait_plan(&stage, &["mail"]).await;
    let (before, _) = stage.plan().await.unwrap();
    let slot = shards::slot_name(&stage.server, before.shards[0].slot);
    let foreign = json!({ "data": { SHARD_KEY: "Zm9yZWlnbg==" } });
    stage.secrets().patch(&slot, &PatchParams::default(), &Patch::Merge(foreign)).await.unwrap();
    let after = until("the head names shards that are whole", async || {
        let head = stage.secrets().get(&shards::head_name(&stage.server)).await.unwrap();
        let head = Head::from_json(&head.data?.get(HEAD_KEY)?.0).ok()?;
        let shard = stage.secrets().get_opt(&shards::slot_name(&stage.server, head.shards[0].slot)).await;
        let bytes = shard.unwrap()?.data?.remove(SHARD_KEY)?;
        (shards::digest(&bytes.0) == head.shards[0].digest).then_some(head)
    })
    .await;
    assert_eq!(after.generation, before.generation + 1, "once");
    wait_plan(&stage, &["mail"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auth_server_without_rights_is_told_so_and_costs_the_others_nothing() {
    let stage = Stage::new().await;
    // The operator may write no Secret in the team's namespace.
    let names: Vec<_> = (0..20).map(|number| format!("a{number}")).collect();
    for name in &names {
        let mut server = auth_server(&stage.shop);
        server["metadata"]["name"] = json!(name);
        server["spec"]["ingest"] = json!(null);
        stage.put(&server).await;
    }
    let (operator, _sidecar) = stage.at_work().await;
    stage.put(&stage.webhook("mail")).await;
    stage.wait_ready("mail").await;
    let servers: Api<tidings_crds::AuthServer> = Api::namespaced(stage.admin(), &stage.shop);
    until("each of them is told", async || {
        let all = servers.list(&ListParams::default()).await.ok()?;
        let is_told = |server: &tidings_crds::AuthServer| {
            let conditions = server.status.as_ref().map(|status| status.conditions.clone());
            conditions.unwrap_or_default().iter().any(|one| one.reason == "PublishingFailed")
        };
        all.items.iter().all(is_told).then_some(())
    })
    .await;
    let plan =
        format!("tidings_operator_plan_webhooks{{namespace=\"{}\",auth_server=\"logto\"}} ", stage.auth);
    assert_eq!(metric(&operator, &plan).await, Some(1));
    stage.delete(&auth_server(&stage.auth)).await;
    until("the plan of an AuthServer that is gone is counted no more", async || {
        metric(&operator, &plan).await.is_none().then_some(())
    })
    .await;
}
