//! What the operator may do, and what it may not: config/operator/rbac.yaml and its part of
//! config/sidecar/rbac.yaml.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::stage::{Scope, Stage};

/// `webhooks.tidings.dev/status:name` in a namespace; an empty one is the whole cluster.
fn attributes(verb: &str, resource: &str, namespace: &str) -> ResourceAttributes {
    let (resource, name) =
        resource.split_once(':').map_or((resource, None), |(kind, name)| (kind, Some(name)));
    let (resource, subresource) =
        resource.split_once('/').map_or((resource, None), |(kind, sub)| (kind, Some(sub)));
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    ResourceAttributes {
        verb: Some(verb.to_owned()),
        resource: Some(plural.to_owned()),
        group: Some(group.to_owned()),
        subresource: subresource.map(str::to_owned),
        name: name.map(str::to_owned),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    }
}

async fn may(client: &Client, verb: &str, resource: &str, namespace: &str) -> bool {
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes(verb, resource, namespace)),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}

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
        ("list watch get", "secrets", ""),
        ("list watch", "namespaces", ""),
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
        ("create update patch delete", "webhookreplays.tidings.dev", shop),
        ("create update patch delete", "deliveryreports.tidings.dev", auth),
        ("update", "webhooks.tidings.dev/status", shop),
        ("create update patch delete", "secrets", shop),
        ("create update patch delete", "secrets", system),
        ("patch deletecollection", "secrets", auth),
        ("update delete", "secrets:logto-hook", auth),
        ("update delete", "secrets:tidings-shard-32-logto", auth),
        ("update delete", "secrets:tidings-plan-logto", shop),
        ("create update patch delete", "namespaces", ""),
        ("create update patch delete get", "pods", auth),
        ("list watch", "pods", shop),
        ("create", "pods/exec", auth),
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
    let mut wrong = Vec::new();
    for (table, expected) in [(&allowed[..], true), (&refused[..], false)] {
        for (verbs, resource, namespace) in table {
            for verb in verbs.split(' ') {
                if may(&client, verb, resource, namespace).await != expected {
                    wrong.push(format!("{verb} {resource} in {namespace:?} is not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
