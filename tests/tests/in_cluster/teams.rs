//! What the members of teams may do: the cluster's own roles cover our objects.

use kube::Client;
use tidings_tests::cluster::kubectl;
use tidings_tests::rights::{assert_rights, may};
use tidings_tests::until;

use crate::stage::{Stage, Watch};

/// A member who is bound to a role in a namespace.
async fn member(stage: &Stage, role: &str, namespace: &str) -> Client {
    let name = role.rsplit('-').next().unwrap();
    let client = stage.plane.client_of(namespace, name).await;
    let subject = format!("--serviceaccount={namespace}:{name}");
    kubectl(&["create", "rolebinding", name, "-n", namespace, &format!("--clusterrole={role}"), &subject])
        .await;
    client
}

/// The controller manager adds our rules to the cluster's own roles a moment later.
async fn until_may(client: &Client, verb: &str, resource: &str, namespace: &str) {
    until("the role has our rules", async || may(client, verb, resource, namespace).await.then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_edit_a_namespace_edits_its_webhooks_and_not_its_auth_servers() {
    let stage = Stage::new(Watch::Cluster).await;
    let shop = stage.shop.as_str();
    let editor = member(&stage, "edit", shop).await;
    until_may(&editor, "create", "webhooks.tidings.dev", shop).await;
    let allowed = [
        ("get list watch create update patch delete", "webhooks.tidings.dev", shop),
        ("get list watch create update patch delete", "webhookreplays.tidings.dev", shop),
        ("get list watch", "deliveryreports.tidings.dev", shop),
        ("get list watch", "authservers.tidings.dev", shop),
        ("get", "webhooks.tidings.dev/deliveries", shop),
        ("create", "webhooks.tidings.dev/test", shop),
    ];
    let refused = [
        ("get", "webhooks.tidings.dev/payload", shop),
        ("get", "webhooks.tidings.dev/deliveries", stage.auth.as_str()),
        ("create", "webhooks.tidings.dev/test", stage.auth.as_str()),
        ("create update patch delete deletecollection", "authservers.tidings.dev", shop),
        ("create update patch delete", "deliveryreports.tidings.dev", shop),
        ("update patch", "webhooks.tidings.dev/status", shop),
        ("update patch", "webhookreplays.tidings.dev/status", shop),
        ("get list create update patch delete", "webhooks.tidings.dev", stage.auth.as_str()),
        ("get list", "deliveryreports.tidings.dev", stage.auth.as_str()),
    ];
    assert_rights(&editor, &allowed, &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_view_a_namespace_sees_our_objects_and_writes_none() {
    let stage = Stage::new(Watch::Cluster).await;
    let shop = stage.shop.as_str();
    let viewer = member(&stage, "view", shop).await;
    until_may(&viewer, "list", "webhooks.tidings.dev", shop).await;
    let kinds = ["webhooks", "webhookreplays", "deliveryreports", "authservers"]
        .map(|kind| format!("{kind}.tidings.dev"));
    let seen = kinds.iter().map(|kind| ("get list watch", kind.as_str(), shop));
    let allowed: Vec<_> = seen.chain([("get", "webhooks.tidings.dev/deliveries", shop)]).collect();
    let written =
        kinds.iter().map(|kind| ("create update patch delete deletecollection", kind.as_str(), shop));
    let further = [
        ("get list", "secrets", shop),
        ("create", "webhooks.tidings.dev/test", shop),
        ("get", "webhooks.tidings.dev/payload", shop),
    ];
    let refused: Vec<_> = written.chain(further).collect();
    assert_rights(&viewer, &allowed, &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_administers_a_namespace_edits_its_auth_servers() {
    let stage = Stage::new(Watch::Cluster).await;
    let auth = stage.auth.as_str();
    let admin = member(&stage, "admin", auth).await;
    until_may(&admin, "create", "authservers.tidings.dev", auth).await;
    let allowed = [("get list watch create update patch delete", "authservers.tidings.dev", auth)];
    let refused = [
        ("update patch", "authservers.tidings.dev/status", auth),
        ("create update patch delete", "deliveryreports.tidings.dev", auth),
    ];
    assert_rights(&admin, &allowed, &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_for_deliveries_reaches_sidecars_pages_and_nothing_else() {
    let stage = Stage::new(Watch::Cluster).await;
    let auth = stage.auth.as_str();
    let reader = member(&stage, &format!("{}-deliveries", stage.release), auth).await;
    let allowed =
        [("get list", "deliveryreports.tidings.dev", auth), ("get create", "pods/portforward", auth)];
    let refused = [
        ("create update patch delete watch", "deliveryreports.tidings.dev", auth),
        ("get list delete", "pods", auth),
        ("create get", "pods/exec", auth),
        ("get", "pods/log", auth),
        ("get list watch", "secrets", auth),
        ("get", "secrets:tidings-plan-logto", auth),
        ("get create", "pods/portforward", stage.shop.as_str()),
    ];
    assert_rights(&reader, &allowed, &refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_authenticated_reaches_the_operators_api_and_no_other_service() {
    let stage = Stage::new(Watch::Cluster).await;
    let anyone = stage.plane.client_of(&stage.shop, "anyone").await;
    let (system, api) =
        (stage.system.as_str(), format!("services/proxy:https:{}-operator:api", stage.release));
    let other = format!("services/proxy:{}-operator", stage.release);
    let allowed = [("get create", api.as_str(), system)];
    let refused = [
        ("update patch delete", api.as_str(), system),
        ("get create", other.as_str(), system),
        ("get create", "services/proxy", system),
        ("get create", api.as_str(), stage.auth.as_str()),
        ("get create", "pods/proxy", system),
        ("get", "webhooks.tidings.dev/deliveries", stage.shop.as_str()),
    ];
    assert_rights(&anyone, &allowed, &refused).await;
}
