//! Which sidecars deliver for a Webhook: those of its `AuthServer`, known by their `DeliveryReports`.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde::de::DeserializeOwned;
use tidings_crds::{DeliveryReport, Webhook};
use tidings_plan::ObjectName;

use super::connect::{Ask, Cluster, Failure, TIDINGS};
use super::exchange::{Sidecar, SidecarFailure};
use super::gateway::Gateway;
use super::{ClusterArguments, SidecarArguments};

/// The label of a report: its `AuthServer`'s name.
const AUTH_SERVER_LABEL: &str = "tidings.dev/auth-server";

/// The most bytes of a label's value.
const MAX_LABEL_BYTES: usize = 63;

/// A Webhook and the way to the sidecars that deliver for it.
pub(super) struct Target {
    pub(super) webhook: ObjectName,
    pub(super) way: Way,
}

/// The way to a Webhook's sidecars.
pub(super) enum Way {
    /// The operator asks them.
    Operator(Box<Gateway>),
    /// They are asked one by one.
    Sidecars(Sidecars),
}

/// Sidecars that are asked one by one.
pub(super) struct Sidecars {
    pub(super) each: Vec<Sidecar>,
    /// Where they were found; nothing where they were named by hand.
    found_in: Option<(Cluster, ObjectName)>,
}

// === impl Target ===

impl Target {
    /// Finds the way to a Webhook's sidecars.
    pub(super) async fn find(text: &str, arguments: &SidecarArguments) -> Result<Self, Failure> {
        let SidecarArguments { cluster: arguments, admin, port_forward, operator } = arguments;
        if !admin.is_empty() {
            let webhook = named_by_hand(text, arguments).await?;
            let each = admin.iter().cloned().map(Sidecar::at).collect();
            return Ok(Self { webhook, way: Way::Sidecars(Sidecars { each, found_in: None }) });
        }
        if !port_forward {
            let config = Cluster::config(arguments).await?;
            let webhook = object_name(text, &config.default_namespace, arguments)?;
            match Gateway::reach(&config, operator).await {
                Ok(gateway) => return Ok(Self { webhook, way: Way::Operator(Box::new(gateway)) }),
                Err(why) => eprintln!(
                    "{}: the operator's API cannot be asked: {why}; a port is forwarded to each sidecar instead",
                    crate::program()
                ),
            }
        }
        Self::forward(text, arguments).await
    }

    /// Finds a Webhook's sidecars, to each of which a port is forwarded. There is at least one.
    async fn forward(text: &str, arguments: &ClusterArguments) -> Result<Self, Failure> {
        let cluster = Cluster::connect(arguments).await?;
        let webhook = object_name(text, &cluster.namespace, arguments)?;
        let server = tidings_operator::names(&get_webhook(&cluster, &webhook).await?, &webhook);
        let each = of_auth_server(&cluster, &server).await?;
        if each.is_empty() {
            return Err(Failure::Other(format!(
                "no sidecar of AuthServer {server} has reported yet: is there a pod with a sidecar in namespace {}? `{} doctor {} -n {}` tells more",
                server.namespace,
                crate::program(),
                webhook.name,
                webhook.namespace
            )));
        }
        Ok(Self { webhook, way: Way::Sidecars(Sidecars { each, found_in: Some((cluster, server)) }) })
    }

    /// Looks for sidecars that came, and forgets those that went. The operator does so by itself.
    pub(super) async fn refresh(&mut self) {
        let Way::Sidecars(Sidecars { each, found_in: Some((cluster, server)) }) = &mut self.way else {
            return;
        };
        let Ok(found) = of_auth_server(cluster, server).await else { return };
        each.retain(|known| found.iter().any(|sidecar| sidecar.name == known.name));
        for sidecar in found {
            if !each.iter().any(|known| known.name == sidecar.name) {
                each.push(sidecar);
            }
        }
    }

    /// Whether they must be told apart; after they were asked.
    pub(super) fn has_many(&self) -> bool {
        match &self.way {
            Way::Operator(gateway) => gateway.sidecars() > 1,
            Way::Sidecars(sidecars) => sidecars.each.len() > 1,
        }
    }

    /// A page of the Webhook, from every sidecar at once.
    pub(super) async fn ask_all<T: DeserializeOwned>(&self, page: &str) -> Vec<Answer<T>> {
        let sidecars = match &self.way {
            Way::Operator(gateway) => return gateway.all(&self.webhook, page).await,
            Way::Sidecars(sidecars) => &sidecars.each,
        };
        let page = self.page(page);
        join_all(sidecars.iter().map(|sidecar| {
            let page = &page;
            async move { Answer { sidecar: sidecar.name.clone(), result: sidecar.get(page).await } }
        }))
        .await
    }

    /// A page's path with the Webhook in its query.
    pub(super) fn page(&self, page: &str) -> String {
        format!("{page}?webhook={}/{}", escape(&self.webhook.namespace), escape(&self.webhook.name))
    }
}

/// For a path or a query. Names of objects hold nothing that must be escaped, but a user may write anything.
pub(super) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            escaped + &char::from(byte).to_string()
        }
        other => escaped + &format!("%{other:02X}"),
    })
}

/// What one sidecar said.
pub(super) struct Answer<T> {
    pub(super) sidecar: String,
    pub(super) result: Result<T, SidecarFailure>,
}

/// What those said that answered. Each failure is told on the standard error; when nobody answered, the
/// first failure is the command's.
pub(super) fn those_that_answered<T>(
    command: &str,
    answers: Vec<Answer<T>>,
) -> Result<(Vec<(String, T)>, bool), Failure> {
    let (mut answered, mut failed) = (Vec::new(), Vec::new());
    for Answer { sidecar, result } in answers {
        match result {
            Ok(value) => answered.push((sidecar, value)),
            Err(failure) => failed.push((sidecar, failure)),
        }
    }
    if answered.is_empty() {
        return Err(failed
            .into_iter()
            .next()
            .map_or_else(|| Failure::Other("no sidecar is there".to_owned()), in_words));
    }
    let complete = failed.is_empty();
    for failure in failed {
        eprintln!("{} {command}: {}", crate::program(), in_words(failure));
    }
    Ok((answered, complete))
}

/// A sidecar's failure as the command's.
pub(super) fn in_words((sidecar, failure): (String, SidecarFailure)) -> Failure {
    match failure {
        SidecarFailure::Cluster(failure @ Failure::Missing(_)) => {
            Failure::Other(format!("sidecar {sidecar} is gone: {failure}"))
        }
        SidecarFailure::Cluster(failure) => failure,
        SidecarFailure::Refused { reason, message } if reason == "UnknownWebhook" => Failure::Other(format!(
            "sidecar {sidecar} does not run this Webhook: {message}. `{} doctor` tells why",
            crate::program()
        )),
        other => Failure::Other(format!("sidecar {sidecar}: {other}")),
    }
}

/// Gets a Webhook.
pub(super) async fn get_webhook(cluster: &Cluster, name: &ObjectName) -> Result<Webhook, Failure> {
    let webhooks: Api<Webhook> = Api::namespaced(cluster.client.clone(), &name.namespace);
    let ask = Ask::new("get", TIDINGS, "webhooks").within(&name.namespace).of(&name.name);
    webhooks.get(&name.name).await.map_err(|error| ask.failed(error))
}

/// The reports of an auth server's sidecars.
pub(super) async fn reports(cluster: &Cluster, server: &ObjectName) -> Result<Vec<DeliveryReport>, Failure> {
    let reports: Api<DeliveryReport> = Api::namespaced(cluster.client.clone(), &server.namespace);
    let mut which = ListParams::default();
    // A longer name has no label: then all are listed.
    if server.name.len() <= MAX_LABEL_BYTES {
        which = which.labels(&format!("{AUTH_SERVER_LABEL}={}", server.name));
    }
    let ask = Ask::new("list", TIDINGS, "deliveryreports").within(&server.namespace);
    let mut found = reports.list(&which).await.map_err(|error| ask.failed(error))?.items;
    found.retain(|report| report.spec.auth_server_ref.name == server.name);
    Ok(found)
}

/// A Webhook's name as it was written: NAME, or NAMESPACE/NAME.
pub(super) fn object_name(
    text: &str,
    default: &str,
    arguments: &ClusterArguments,
) -> Result<ObjectName, Failure> {
    let refused = || Failure::Usage(format!("{text:?} is no Webhook: write NAME or NAMESPACE/NAME"));
    if !text.contains('/') {
        return if text.is_empty() { Err(refused()) } else { Ok(ObjectName::new(default, text)) };
    }
    let name = ObjectName::parse(text).ok_or_else(refused)?;
    match &arguments.namespace {
        Some(other) if *other != name.namespace => {
            Err(Failure::Usage(format!("{text} is of namespace {}, and -n says {other}", name.namespace)))
        }
        _ => Ok(name),
    }
}

async fn named_by_hand(text: &str, arguments: &ClusterArguments) -> Result<ObjectName, Failure> {
    let default = if text.contains('/') { None } else { Cluster::default_namespace(arguments).await };
    if default.is_none() && !text.contains('/') {
        let message =
            format!("in which namespace is Webhook {text}? Write NAMESPACE/{text}, or name it with -n");
        return Err(Failure::Usage(message));
    }
    object_name(text, &default.unwrap_or_default(), arguments)
}

async fn of_auth_server(cluster: &Cluster, server: &ObjectName) -> Result<Vec<Sidecar>, Failure> {
    let pods: BTreeSet<String> =
        reports(cluster, server).await?.into_iter().map(|report| report.spec.pod).collect();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &server.namespace);
    Ok(pods.iter().map(|pod| Sidecar::in_pod(api.clone(), &server.namespace, pod)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(namespace: &str) -> ClusterArguments {
        ClusterArguments { namespace: Some(namespace.to_owned()), ..ClusterArguments::default() }
    }

    #[test]
    fn a_webhook_is_named_with_or_without_its_namespace() {
        let free = ClusterArguments::default();
        assert_eq!(object_name("mail", "shop", &free), Ok(ObjectName::new("shop", "mail")));
        assert_eq!(object_name("crm/mail", "shop", &free), Ok(ObjectName::new("crm", "mail")));
        assert_eq!(object_name("crm/mail", "crm", &within("crm")), Ok(ObjectName::new("crm", "mail")));
        for (text, arguments) in [("", &free), ("a/", &free), ("a/b/c", &free), ("crm/mail", &within("shop"))]
        {
            assert!(matches!(object_name(text, "shop", arguments), Err(Failure::Usage(_))), "{text}");
        }
    }

    #[test]
    fn whoever_answered_is_shown_and_silence_is_a_failure() {
        let silent = || SidecarFailure::Unreachable("refused".to_owned());
        let answers = vec![
            Answer { sidecar: "a".to_owned(), result: Ok(1) },
            Answer { sidecar: "b".to_owned(), result: Err(silent()) },
        ];
        assert_eq!(those_that_answered("deliveries", answers), Ok((vec![("a".to_owned(), 1)], false)));
        let answers: Vec<Answer<u8>> = vec![Answer { sidecar: "b".to_owned(), result: Err(silent()) }];
        let failure = those_that_answered("deliveries", answers).unwrap_err();
        assert_eq!(failure.to_string(), "sidecar b: it cannot be reached: refused");
    }
}
