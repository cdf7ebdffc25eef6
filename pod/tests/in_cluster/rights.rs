//! What the sidecar's token can do ends at its plan and its report.

use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchParams};
use tidings_crds::{DeliveryReport, Webhook};
use tidings_tests::plan::{plan, webhook};
use tidings_tests::receiver::Receiver;

use crate::cluster::{ACCOUNT, Cluster, wait_ready_page};

fn forbidden<T>(what: &str, result: Result<T, kube::Error>) {
    match result {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{what}: {}", status.message),
        Err(other) => panic!("{what}: {other}"),
        Ok(_) => panic!("{what} was allowed"),
    }
}

fn secret(name: &str) -> Secret {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    Secret { metadata, ..Secret::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_secret_can_be_read_listed_watched_or_written() {
    let cluster = Cluster::new().await;
    let receiver = Receiver::start().await;
    cluster.publisher().publish(plan([webhook("one", &receiver)])).await;
    cluster.secrets().create(&PostParams::default(), &secret("database")).await.unwrap();
    let client = cluster.client_of(ACCOUNT).await;
    let secrets: Api<Secret> = Api::namespaced(client, &cluster.namespace);
    let only = |name: &str| WatchParams::default().fields(&format!("metadata.name={name}"));

    secrets.get("tidings-plan-logto").await.unwrap();
    secrets.get("tidings-shard-0-logto").await.unwrap();
    drop(secrets.watch(&only("tidings-plan-logto"), "").await.unwrap());

    forbidden("get of another", secrets.get("database").await);
    forbidden("get of a slot that is none", secrets.get("tidings-shard-32-logto").await);
    forbidden("list", secrets.list(&ListParams::default()).await);
    let by_name = ListParams::default().fields("metadata.name=tidings-plan-logto");
    forbidden("list by name", secrets.list(&by_name).await);
    forbidden("watch of another", secrets.watch(&only("database"), "").await.map(drop));
    forbidden("watch of all", secrets.watch(&WatchParams::default(), "").await.map(drop));
    forbidden("create", secrets.create(&PostParams::default(), &secret("tidings-shard-9-logto")).await);
    let edit = Patch::Merge(serde_json::json!({"data": null}));
    forbidden("edit", secrets.patch("tidings-plan-logto", &PatchParams::default(), &edit).await);
    forbidden("delete", secrets.delete("tidings-plan-logto", &DeleteParams::default()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_namespace_and_no_other_object_can_be_touched() {
    let (cluster, other) = (Cluster::new().await, Cluster::new().await);
    let receiver = Receiver::start().await;
    other.publisher().publish(plan([webhook("one", &receiver)])).await;
    let client = cluster.client_of(ACCOUNT).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &other.namespace);
    forbidden("a plan of another namespace", secrets.get("tidings-plan-logto").await);
    let reports: Api<DeliveryReport> = Api::namespaced(client.clone(), &other.namespace);
    forbidden("a report of another namespace", reports.get("logto-0").await);
    let webhooks: Api<Webhook> = Api::namespaced(client.clone(), &cluster.namespace);
    forbidden("Webhooks read", webhooks.list(&ListParams::default()).await);
    let edit = Patch::Merge(serde_json::json!({"spec": {"suspend": true}}));
    forbidden("a Webhook written", webhooks.patch("one", &PatchParams::default(), &edit).await);
    forbidden(
        "a Webhook's status written",
        webhooks.patch_status("one", &PatchParams::default(), &edit).await,
    );
    let own: Api<DeliveryReport> = Api::namespaced(client.clone(), &cluster.namespace);
    forbidden("reports listed", own.list(&ListParams::default()).await);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
    forbidden("pods", pods.list(&ListParams::default()).await);
    forbidden("namespaces", Api::<Namespace>::all(client).list(&ListParams::default()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_without_rights_names_the_right_that_it_lacks() {
    let cluster = Cluster::new().await;
    let sidecar = cluster.waiting_sidecar("nobody", "logto-0").await;
    let lacks = format!("not allowed to watch Secret {}/tidings-plan-logto", cluster.namespace);
    let page = wait_ready_page(&sidecar, &lacks).await;
    assert_eq!(page.status, 503);
}
