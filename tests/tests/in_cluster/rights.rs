//! What the operator and the sidecar may do with the rights that the chart gives, each tried with its own
//! token.

use std::process::Stdio;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tidings_tests::cluster::apply;
use tidings_tests::process::binary;
use tidings_tests::rights::{Line, assert_rights};
use tidings_tests::until;
use tokio::process::{Child, Command};

use crate::stage::{Stage, Watch};

const KINDS: [&str; 4] = [
    "webhooks.tidings.dev",
    "authservers.tidings.dev",
    "webhookreplays.tidings.dev",
    "deliveryreports.tidings.dev",
];
const STATUSES: [&str; 3] =
    ["webhooks.tidings.dev/status", "authservers.tidings.dev/status", "webhookreplays.tidings.dev/status"];

/// What the operator may do, where it looks at this much.
fn operator_may<'a>(stage: &'a Stage, lease: &'a str) -> Vec<Line<'a>> {
    let (system, auth, shop) = (stage.system.as_str(), stage.auth.as_str(), stage.shop.as_str());
    let places = [auth, shop];
    let read = KINDS.into_iter().chain(["secrets"]).map(|kind| ("get list watch", kind));
    let seen = ["services", "endpointslices.discovery.k8s.io"].map(|kind| ("list watch", kind));
    let write =
        STATUSES.into_iter().map(|kind| ("patch", kind)).chain([("create patch", "events.events.k8s.io")]);
    // One that is complete goes after its time.
    let write = write.chain([("delete", "webhookreplays.tidings.dev")]);
    let here =
        read.chain(seen).chain(write).flat_map(|(verbs, kind)| places.map(|place| (verbs, kind, place)));
    let named = [
        ("create", "secrets", auth),
        ("update delete", "secrets:tidings-plan-logto", auth),
        ("update delete", "secrets:tidings-shard-0-logto", auth),
        ("update delete", "secrets:tidings-shard-31-logto", auth),
        ("list watch", "pods", auth),
        ("create", "leases.coordination.k8s.io", system),
        ("get update", lease, system),
    ];
    here.chain(named).collect()
}

/// What the operator must be refused wherever it looks.
fn operator_may_not(stage: &Stage) -> Vec<Line<'_>> {
    let (system, auth, shop) = (stage.system.as_str(), stage.auth.as_str(), stage.shop.as_str());
    let places = [auth, shop, system, &stage.other];
    let own = KINDS.map(|kind| match kind {
        "webhookreplays.tidings.dev" => ("create update patch deletecollection", kind),
        _ => ("create update patch delete deletecollection", kind),
    });
    let nowhere = [
        ("get create update patch delete", "services"),
        ("get create update patch delete", "endpointslices.discovery.k8s.io"),
        ("get list create update", "endpoints"),
        ("update patch deletecollection", "secrets"),
        ("update", "webhooks.tidings.dev/status"),
        ("create update patch delete get", "pods"),
        ("create get", "pods/exec"),
        ("create get", "pods/portforward"),
        ("create get", "services/proxy"),
        ("get", "pods/log"),
        ("create", "serviceaccounts/token"),
        ("impersonate", "serviceaccounts"),
        ("get list watch create update", "configmaps"),
        ("get list create update patch", "deployments.apps"),
        ("create bind escalate", "roles.rbac.authorization.k8s.io"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("get update", "leases.coordination.k8s.io:another"),
        ("list watch delete", "leases.coordination.k8s.io"),
        ("get list delete", "events.events.k8s.io"),
        ("*", "*"),
    ];
    let everywhere = own.into_iter().chain(nowhere);
    let everywhere = everywhere.flat_map(|(verbs, kind)| places.map(|place| (verbs, kind, place)));
    let here = [
        ("create delete", "secrets", shop),
        ("create delete", "secrets", system),
        ("update delete", "secrets:logto-hook", auth),
        ("update delete", "secrets:tidings-shard-32-logto", auth),
        ("update delete", "secrets:tidings-plan-another", auth),
        ("list watch", "pods", shop),
        ("create", "leases.coordination.k8s.io", auth),
        ("create update patch delete", "namespaces", ""),
        ("create bind escalate", "clusterroles.rbac.authorization.k8s.io", ""),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", ""),
        ("get list update", "customresourcedefinitions.apiextensions.k8s.io", ""),
        ("get list", "nodes", ""),
        ("impersonate", "users", ""),
        ("impersonate", "groups", ""),
    ];
    everywhere.chain(here).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_whole_cluster_the_operator_may_read_everywhere_and_write_what_is_its_own() {
    let stage = Stage::new(Watch::Cluster).await;
    let operator = stage.plane.client_of(&stage.system, &stage.operator()).await;
    let lease = format!("leases.coordination.k8s.io:{}", stage.operator());
    let everywhere = KINDS.into_iter().chain(["secrets"]).map(|kind| ("get list watch", kind, ""));
    let whole = everywhere.chain([
        ("list watch", "namespaces", ""),
        ("list watch", "services", ""),
        ("list watch", "endpointslices.discovery.k8s.io", ""),
    ]);
    let allowed: Vec<_> = operator_may(&stage, &lease).into_iter().chain(whole).collect();
    assert_rights(&operator, &allowed, &operator_may_not(&stage)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_listed_namespaces_the_operator_may_touch_no_other_one_and_nothing_of_the_cluster() {
    let stage = Stage::new(Watch::Listed).await;
    let operator = stage.plane.client_of(&stage.system, &stage.operator()).await;
    let lease = format!("leases.coordination.k8s.io:{}", stage.operator());
    let elsewhere = ["", &stage.other, &stage.system];
    let reads = KINDS.into_iter().chain(["secrets"]).map(|kind| ("get list watch", kind));
    let writes =
        STATUSES.into_iter().map(|kind| ("patch", kind)).chain([("create patch", "events.events.k8s.io")]);
    let unseen = reads.chain(writes).flat_map(|(verbs, kind)| elsewhere.map(|place| (verbs, kind, place)));
    let seen = ["services", "endpointslices.discovery.k8s.io"];
    let unseen =
        unseen.chain(seen.into_iter().flat_map(|kind| elsewhere.map(|place| ("list watch", kind, place))));
    let unseen = unseen.chain([("get list watch", "namespaces", "")]);
    let refused: Vec<_> = operator_may_not(&stage).into_iter().chain(unseen).collect();
    assert_rights(&operator, &operator_may(&stage, &lease), &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_may_read_its_plan_and_write_reports_and_nothing_else_in_either_mode() {
    for watch in [Watch::Cluster, Watch::Listed] {
        let stage = Stage::new(watch).await;
        let sidecar = stage.plane.client_of(&stage.auth, "logto").await;
        let (auth, shop) = (stage.auth.as_str(), stage.shop.as_str());
        let allowed = [
            ("get watch", "secrets:tidings-plan-logto", auth),
            ("get watch", "secrets:tidings-shard-0-logto", auth),
            ("get watch", "secrets:tidings-shard-31-logto", auth),
            ("create get patch update delete", "deliveryreports.tidings.dev", auth),
        ];
        let refused = [
            ("get list watch create update patch delete deletecollection", "secrets", auth),
            ("list create update patch delete", "secrets:tidings-plan-logto", auth),
            ("get watch", "secrets:tidings-shard-32-logto", auth),
            ("get watch", "secrets:logto-hook", auth),
            ("get watch", "secrets:tidings-plan-logto", shop),
            ("list watch deletecollection", "deliveryreports.tidings.dev", auth),
            ("create get patch update delete", "deliveryreports.tidings.dev", shop),
            ("get list watch create update patch delete", "webhooks.tidings.dev", auth),
            ("get list watch create update patch delete", "authservers.tidings.dev", auth),
            ("get list watch create update patch delete", "webhookreplays.tidings.dev", auth),
            ("update patch", "webhooks.tidings.dev/status", shop),
            ("update patch", "authservers.tidings.dev/status", auth),
            ("get list watch create update patch delete", "pods", auth),
            ("create get", "pods/exec", auth),
            ("create get", "pods/portforward", auth),
            ("create", "serviceaccounts/token", auth),
            ("get list watch create update patch delete", "configmaps", auth),
            ("get create update", "leases.coordination.k8s.io", auth),
            ("create patch", "events.events.k8s.io", auth),
            ("create bind escalate", "roles.rbac.authorization.k8s.io", auth),
            ("get list watch", "namespaces", ""),
            ("get list", "nodes", ""),
            ("*", "*", auth),
        ];
        assert_rights(&sidecar, &allowed, &refused).await;
    }
}

/// The operator as its pod would run it, with its `ServiceAccount`'s token.
async fn operator(stage: &Stage, watch: Watch) -> Child {
    let mut command = Command::new(binary("tidings-operator"));
    command
        .args(["--admin-listen", "127.0.0.1:0", "--lease-name", &stage.operator()])
        .env("POD_NAMESPACE", &stage.system)
        .env("KUBECONFIG", stage.plane.kubeconfig_of(&stage.system, &stage.operator()).await);
    if watch == Watch::Listed {
        command.arg(format!("--namespaces={},{}", stage.auth, stage.shop));
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// With these rights and no other a plan is published, and the Webhook's status is written.
async fn works(watch: Watch) {
    let stage = Stage::new(watch).await;
    let _operator = operator(&stage, watch).await;
    let (auth, shop) = (&stage.auth, &stage.shop);
    apply(&format!(
        r#"
{{apiVersion: tidings.dev/v1alpha1, kind: AuthServer, metadata: {{name: logto, namespace: {auth}}},
  spec: {{provider: Logto, podSelector: {{matchLabels: {{app: logto}}}}, allowedNamespaces: {{from: All}}}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: keys, namespace: {shop}}}, stringData: {{signingKey: {KEY}}}}}
---
{{apiVersion: tidings.dev/v1alpha1, kind: Webhook, metadata: {{name: mail, namespace: {shop}}},
  spec: {{authServerRef: {{name: logto, namespace: {auth}}}, events: ["*"], secretRef: {{name: keys}},
         endpoint: {{url: "https://mail.example.com"}}}}}}
"#,
        KEY = tidings_tests::plan::KEY
    ))
    .await;
    let secrets: Api<Secret> = Api::namespaced(stage.plane.admin.clone(), auth);
    until("the plan is published", async || secrets.get_opt("tidings-plan-logto").await.unwrap()).await;
    let webhooks: Api<tidings_crds::Webhook> = Api::namespaced(stage.plane.admin.clone(), shop);
    until("the Webhook has a status", async || webhooks.get("mail").await.unwrap().status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_works_with_the_rights_of_the_whole_cluster() {
    works(Watch::Cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_works_with_the_rights_of_listed_namespaces() {
    works(Watch::Listed).await;
}
