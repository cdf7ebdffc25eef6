//! What the operator may do, and what it may not: config/operator/rbac.yaml and its part of
//! config/sidecar/rbac.yaml.

use tidings_tests::rights::assert_rights;

use crate::stage::{Scope, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_may_do_what_it_needs_and_nothing_else() {
    // Alone, since the rights are bound in the whole cluster.
    let stage = Stage::alone(Scope::Cluster).await;
    let client = stage.plane.client_of(&stage.system, "tidings-operator").await;
    let (system, auth, shop) = (stage.system.as_str(), stage.auth.as_str(), stage.shop.as_str());
    let allowed = [
        ("list watch get", "webhooks.tidings.dev", ""),
        ("list watch get", "authservers.tidings.dev", ""),
        ("list watch get", "webhookreplays.tidings.dev", ""),
        ("list watch get", "deliveryreports.tidings.dev", ""),
        ("patch", "webhooks.tidings.dev/status", shop),
        ("patch", "authservers.tidings.dev/status", auth),
        ("patch", "webhookreplays.tidings.dev/status", shop),
        ("delete", "webhookreplays.tidings.dev", shop),
        ("list watch get", "secrets", ""),
        ("list watch", "namespaces", ""),
        ("list watch", "services", ""),
        ("list watch", "endpointslices.discovery.k8s.io", ""),
        ("create patch", "events.events.k8s.io", shop),
        ("create", "secrets", auth),
        ("update delete", "secrets:tidings-plan-logto", auth),
        ("update delete", "secrets:tidings-shard-0-logto", auth),
        ("update delete", "secrets:tidings-shard-31-logto", auth),
        ("list watch", "pods", auth),
        ("create", "leases.coordination.k8s.io", system),
        ("get update", "leases.coordination.k8s.io:tidings-operator", system),
    ];
    let refused = [
        ("create update patch delete deletecollection", "webhooks.tidings.dev", shop),
        ("create update patch delete", "authservers.tidings.dev", auth),
        ("create update patch deletecollection", "webhookreplays.tidings.dev", shop),
        ("create update patch delete", "deliveryreports.tidings.dev", auth),
        ("update", "webhooks.tidings.dev/status", shop),
        ("create update patch delete", "secrets", shop),
        ("create update patch delete", "secrets", system),
        ("patch deletecollection", "secrets", auth),
        ("update delete", "secrets:logto-hook", auth),
        ("update delete", "secrets:tidings-shard-32-logto", auth),
        ("update delete", "secrets:tidings-plan-logto", shop),
        ("create update patch delete", "namespaces", ""),
        ("get create update patch delete", "services", shop),
        ("get create update patch delete", "endpointslices.discovery.k8s.io", shop),
        ("create update patch delete get", "pods", auth),
        ("list watch", "pods", shop),
        ("create", "pods/exec", auth),
        ("create get", "services/proxy", system),
        // It asks whether somebody may with that one's own token, and needs no right to review others.
        ("create", "tokenreviews.authentication.k8s.io", ""),
        ("create", "subjectaccessreviews.authorization.k8s.io", ""),
        ("create", "serviceaccounts/token", auth),
        ("create get list", "leases.coordination.k8s.io", auth),
        ("get update", "leases.coordination.k8s.io:another", system),
        ("list watch delete", "leases.coordination.k8s.io", system),
        ("get list", "configmaps", system),
        ("get list create", "deployments.apps", system),
        ("create bind escalate", "roles.rbac.authorization.k8s.io", system),
        ("create bind escalate", "clusterroles.rbac.authorization.k8s.io", ""),
        ("impersonate", "users", ""),
        ("get list update", "customresourcedefinitions.apiextensions.k8s.io", ""),
        ("get list", "nodes", ""),
        ("get list delete", "events.events.k8s.io", shop),
    ];
    assert_rights(&client, &allowed, &refused).await;
}
