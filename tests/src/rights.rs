//! Tables of rights: what a client may do and what it must be refused, asked of the API server itself.
//!
//! In: a client with a token, and a table of verbs, a resource and a namespace. Out: each line that is not so.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

/// Verbs with blanks between them, a resource, and a namespace; an empty one is the whole cluster. A resource
/// is written `secrets`, `webhooks.tidings.dev/status`, or with an object's name, `secrets:tidings-plan-logto`.
pub type Line<'a> = (&'a str, &'a str, &'a str);

/// Whether the client may do this.
pub async fn may(client: &Client, verb: &str, resource: &str, namespace: &str) -> bool {
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes(verb, resource, namespace)),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.unwrap();
    answer.status.unwrap().allowed
}

/// Fails with every line of the two tables that is not so.
pub async fn assert_rights(client: &Client, allowed: &[Line<'_>], refused: &[Line<'_>]) {
    let mut wrong = Vec::new();
    for (table, expected) in [(allowed, true), (refused, false)] {
        for (verbs, resource, namespace) in table {
            for verb in verbs.split(' ') {
                if may(client, verb, resource, namespace).await != expected {
                    wrong.push(format!("{verb} {resource} in {namespace:?} is not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

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
