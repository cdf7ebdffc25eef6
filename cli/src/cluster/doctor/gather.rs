//! Looks at everything once. A look that is refused is evidence too; only an API server that cannot be
//! asked at all ends it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::ListParams;
use tidings_crds::{AuthServer, GROUP, VERSION, Webhook};
use tidings_operator::Objects;
use tidings_operator::objects::Texts;
use tidings_plan::ObjectName;
use tidings_plan::shards::head_name;

use super::evidence::{Evidence, Look, Operator, Patient, Server};
use crate::cluster::connect::{Ask, Cluster, Failure, TIDINGS};
use crate::cluster::sidecars::reports;

/// The operator's Lease, and by custom its Deployment.
pub(in crate::cluster) const OPERATOR: &str = "tidings-operator";

/// How long a Lease lasts where it does not say.
const LEASE_SECONDS: i32 = 15;

/// Which Webhooks are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    One(ObjectName),
    Namespace(String),
    All,
}

/// Looks at everything.
pub(super) async fn gather(
    cluster: &Cluster,
    scope: Scope,
    operator_namespace: Option<&str>,
    now: Timestamp,
) -> Result<Evidence, Failure> {
    let definitions = definitions(cluster).await?;
    let operator = operator(cluster, operator_namespace, OPERATOR).await?;
    let words = match &scope {
        Scope::One(name) => format!("namespace {}", name.namespace),
        Scope::Namespace(namespace) => format!("namespace {namespace}"),
        Scope::All => "any namespace".to_owned(),
    };
    let mut evidence = Evidence {
        now,
        scope: words,
        definitions,
        operator,
        webhooks: Look::Seen(Vec::new()),
        servers: BTreeMap::new(),
    };
    if matches!(evidence.definitions, Look::Missing) {
        return Ok(evidence);
    }
    evidence.webhooks = match found(cluster, scope).await? {
        Look::Seen(found) => {
            let mut patients = Vec::new();
            for (name, webhook) in found {
                patients.push(patient(cluster, name, webhook).await?);
            }
            Look::Seen(patients)
        }
        Look::Missing => Look::Missing,
        Look::Barred(why) => Look::Barred(why),
    };
    if let Look::Seen(patients) = &evidence.webhooks {
        let named = patients.iter().filter_map(|patient| match &patient.webhook {
            Look::Seen(webhook) => Some(tidings_operator::names(webhook, &patient.name)),
            _ => None,
        });
        for name in named.collect::<BTreeSet<_>>() {
            let server = server(cluster, &name).await?;
            evidence.servers.insert(name, server);
        }
    }
    Ok(evidence)
}

/// What a question's answer is as evidence.
pub(in crate::cluster) fn look<T>(ask: Ask, answer: kube::Result<Option<T>>) -> Result<Look<T>, Failure> {
    match answer.map_err(|error| ask.failed(error)) {
        Ok(Some(found)) => Ok(Look::Seen(found)),
        Ok(None) | Err(Failure::Missing(_) | Failure::NoDefinition(_)) => Ok(Look::Missing),
        Err(failure @ (Failure::Unreachable(_) | Failure::Unauthenticated)) => Err(failure),
        Err(other) => Ok(Look::Barred(other.to_string())),
    }
}

/// By discovery, which everybody may ask.
async fn definitions(cluster: &Cluster) -> Result<Look<BTreeSet<String>>, Failure> {
    let served = cluster.client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await;
    let served = served.map(|list| {
        let whole = list.resources.into_iter().map(|resource| resource.name);
        Some(whole.filter(|name| !name.contains('/')).collect())
    });
    look(Ask::new("get", TIDINGS, "resources"), served)
}

/// The Lease of this name, and the Deployment.
pub(in crate::cluster) async fn operator(
    cluster: &Cluster,
    namespace: Option<&str>,
    name: &str,
) -> Result<Look<Operator>, Failure> {
    let client = cluster.client.clone();
    let lease = if let Some(namespace) = namespace {
        let leases: Api<Lease> = Api::namespaced(client, namespace);
        let ask = Ask::new("get", "coordination.k8s.io", "leases").within(namespace).of(name);
        look(ask, leases.get_opt(name).await)?
    } else {
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = Api::<Lease>::all(client).list(&named).await;
        look(Ask::new("list", "coordination.k8s.io", "leases"), found.map(|list| newest(list.items)))?
    };
    match lease {
        Look::Seen(lease) => of_lease(cluster, lease, name).await.map(Look::Seen),
        Look::Missing => Ok(Look::Missing),
        Look::Barred(why) if namespace.is_none() => {
            Ok(Look::Barred(format!("{why}, or name the operator's namespace with --operator-namespace")))
        }
        Look::Barred(why) => Ok(Look::Barred(why)),
    }
}

/// Where there are several, the one that was renewed last.
fn newest(leases: Vec<Lease>) -> Option<Lease> {
    leases.into_iter().max_by_key(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0))
}

async fn of_lease(cluster: &Cluster, lease: Lease, name: &str) -> Result<Operator, Failure> {
    let namespace = lease.metadata.namespace.unwrap_or_default();
    let spec = lease.spec.unwrap_or_default();
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace);
    let ask = Ask::new("get", "apps", "deployments").within(&namespace).of(name);
    let replicas = match look(ask, deployments.get_opt(name).await)? {
        Look::Seen(deployment) => Some(ready_of(&deployment)),
        // It may have another name, or be none of this user's business: the Lease tells enough.
        Look::Missing | Look::Barred(_) => None,
    };
    Ok(Operator {
        namespace,
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        renewed: spec.renew_time.map(|time| time.0),
        lease_seconds: spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS),
        replicas,
    })
}

/// How many replicas of the Deployment as it is now are ready, and how many are wanted.
fn ready_of(deployment: &Deployment) -> (i32, i32) {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let Some(status) = &deployment.status else { return (0, wanted) };
    if status.observed_generation < deployment.metadata.generation {
        return (0, wanted);
    }
    let ready = status.ready_replicas.unwrap_or(0).min(status.updated_replicas.unwrap_or(0));
    (ready, wanted)
}

type Named = (ObjectName, Look<Webhook>);

async fn found(cluster: &Cluster, scope: Scope) -> Result<Look<Vec<Named>>, Failure> {
    let client = cluster.client.clone();
    let (webhooks, ask): (Api<Webhook>, Ask) = match scope {
        Scope::One(name) => {
            let webhooks: Api<Webhook> = Api::namespaced(client, &name.namespace);
            let ask = Ask::new("get", TIDINGS, "webhooks").within(&name.namespace).of(&name.name);
            let webhook = look(ask, webhooks.get_opt(&name.name).await)?;
            return Ok(Look::Seen(vec![(name, webhook)]));
        }
        Scope::Namespace(namespace) => {
            let ask = Ask::new("list", TIDINGS, "webhooks").within(&namespace);
            (Api::namespaced(client, &namespace), ask)
        }
        Scope::All => (Api::all(client), Ask::new("list", TIDINGS, "webhooks")),
    };
    let listed = webhooks.list(&ListParams::default()).await;
    let named = |webhook: Webhook| {
        let metadata = webhook.metadata.clone();
        let name = ObjectName::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
        (name, Look::Seen(webhook))
    };
    look(ask, listed.map(|list| Some(list.items.into_iter().map(named).collect())))
}

async fn patient(cluster: &Cluster, name: ObjectName, webhook: Look<Webhook>) -> Result<Patient, Failure> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let ask = Ask::new("get", "", "namespaces").of(&name.namespace);
    let labels = namespaces.get_metadata_opt(&name.namespace).await;
    let labels = labels.map(|found| found.map(|found| found.metadata.labels.unwrap_or_default()));
    let namespace = look(ask, labels)?;
    let mut secrets = BTreeMap::new();
    if let Look::Seen(webhook) = &webhook {
        for secret in secrets_of(webhook) {
            secrets.insert(secret.to_owned(), self::secret(cluster, &name.namespace, secret).await?);
        }
    }
    Ok(Patient { name, webhook, namespace, secrets })
}

/// The Secrets that a Webhook refers to.
fn secrets_of(webhook: &Webhook) -> BTreeSet<&str> {
    let spec = &webhook.spec;
    let headers = spec.endpoint.headers.iter().filter_map(|header| header.value_from.as_ref());
    let tls = spec.endpoint.tls.as_ref();
    std::iter::once(spec.secret_ref.name.as_str())
        .chain(headers.map(|from| from.secret_key_ref.name.as_str()))
        .chain(tls.and_then(|tls| Some(tls.ca_secret_ref.as_ref()?.name.as_str())))
        .chain(tls.and_then(|tls| Some(tls.client_cert_secret_ref.as_ref()?.name.as_str())))
        .collect()
}

async fn secret(cluster: &Cluster, namespace: &str, name: &str) -> Result<Look<Texts>, Failure> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let found = secrets.get_opt(name).await.map(|found| {
        // The operator's own reading of it, in which no value can be printed.
        let mut objects = Objects::default();
        let whole = ObjectName::new(namespace, name);
        objects.add_secret(whole.clone(), found?);
        objects.secrets.remove(&whole)
    });
    look(Ask::new("get", "", "secrets").within(namespace).of(name), found)
}

async fn server(cluster: &Cluster, name: &ObjectName) -> Result<Server, Failure> {
    let client = cluster.client.clone();
    let servers: Api<AuthServer> = Api::namespaced(client.clone(), &name.namespace);
    let ask = Ask::new("get", TIDINGS, "authservers").within(&name.namespace).of(&name.name);
    let object = look(ask, servers.get_opt(&name.name).await)?;
    let (secrets, head): (Api<Secret>, _) = (Api::namespaced(client, &name.namespace), head_name(name));
    let ask = Ask::new("get", "", "secrets").within(&name.namespace).of(&head);
    let plan = secrets.get_metadata_opt(&head).await.map(|found| found.map(|_| ()));
    let reports = match reports(cluster, name).await {
        Ok(reports) => Look::Seen(reports),
        Err(failure @ (Failure::Unreachable(_) | Failure::Unauthenticated)) => return Err(failure),
        Err(failure) => Look::Barred(failure.to_string()),
    };
    Ok(Server { object, plan: look(ask, plan)?, reports })
}
