//! The way to the API server, and its refusals in words that name the way out.

use std::error::Error as _;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config};

use super::ClusterArguments;

/// What a Tidings object's definition belongs to.
pub(super) const TIDINGS: &str = "tidings.dev";

/// The API server, and the namespace that is meant where none is named.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) namespace: String,
}

/// One question to the API server, in the words of its access rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) verb: &'static str,
    pub(super) resource: &'static str,
    /// The API group; empty for the core.
    pub(super) group: &'static str,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

/// Why a command cannot do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(
        "no cluster can be reached from here: {0}; name a kubeconfig with --kubeconfig or $KUBECONFIG, and a context in it with --context"
    )]
    Unconfigured(String),
    #[error("the API server does not answer: {0}; `kubectl cluster-info` tells where it is looked for")]
    Unreachable(String),
    #[error("the API server does not know you: renew the credentials of the kubeconfig's user")]
    Unauthenticated,
    #[error("you may not {} {}: have an administrator grant you {} on {}", .0.verb, .0.object(), .0.verbs(), .0.rule())]
    Forbidden(Ask),
    #[error("the API server has no {}.{}: install Tidings' definitions first (the chart does, or `kubectl apply -f crds`)", .0.resource, .0.group)]
    NoDefinition(Ask),
    #[error("there is no {}: `kubectl get {}` lists those that there are", .0.object(), .0.listing())]
    Missing(Ask),
    #[error("{0}")]
    Other(String),
}

// === impl Ask ===

impl Ask {
    pub(super) fn new(verb: &'static str, group: &'static str, resource: &'static str) -> Self {
        Self { verb, resource, group, namespace: None, name: None }
    }

    pub(super) fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    pub(super) fn of(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// `webhooks.tidings.dev mail in namespace shop`.
    fn object(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let name = self.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("{}{group}{name}{}", self.resource, self.place())
    }

    /// `the verb list`.
    fn verbs(&self) -> String {
        format!("the {} {}", if self.verb.contains(' ') { "verbs" } else { "verb" }, self.verb)
    }

    /// `webhooks (API group tidings.dev) in namespace shop`.
    fn rule(&self) -> String {
        let group = if self.group.is_empty() { "\"\"" } else { self.group };
        format!("{} (API group {group}){}", self.resource, self.place())
    }

    fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(
            || " in the whole cluster".to_owned(),
            |namespace| format!(" in namespace {namespace}"),
        )
    }

    /// What kubectl's `get` takes.
    fn listing(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let namespace =
            self.namespace.as_ref().map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
        format!("{}{group}{namespace}", self.resource)
    }

    /// What the API server's refusal means for this question.
    pub(super) fn failed(self, error: kube::Error) -> Failure {
        match error {
            kube::Error::Api(status) => self.refused(&status),
            kube::Error::HyperError(error) => Failure::Unreachable(innermost(&error)),
            kube::Error::Service(error) => Failure::Unreachable(innermost(error.as_ref())),
            kube::Error::Auth(error) => {
                Failure::Other(format!("the kubeconfig's credentials cannot be had: {}", innermost(&error)))
            }
            other => Failure::Other(format!("{} {}: {other}", self.verb, self.object())),
        }
    }

    fn refused(self, status: &Status) -> Failure {
        // Of an object that is missing, the answer names it; of a definition that is missing, nothing.
        let names_it = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
        match status.code {
            401 => Failure::Unauthenticated,
            403 => Failure::Forbidden(self),
            404 if names_it && self.name.is_some() => Failure::Missing(self),
            404 if !names_it && !self.group.is_empty() => Failure::NoDefinition(self),
            code => Failure::Other(format!(
                "the API server refused to {} {} ({code}): {}",
                self.verb,
                self.object(),
                status.message
            )),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// Finds the API server as kubectl does; nothing is asked yet.
    pub(super) async fn connect(arguments: &ClusterArguments) -> Result<Self, Failure> {
        let ClusterArguments { namespace, context, kubeconfig: _ } = arguments;
        let mut config = configure(arguments).await?;
        if let (None, Some(context)) = (namespace, context) {
            tracing::debug!(
                context,
                namespace = config.default_namespace,
                "the context's namespace is meant"
            );
        }
        if let Some(namespace) = namespace {
            config.default_namespace.clone_from(namespace);
        }
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| Failure::Unconfigured(innermost(&error)))?;
        Ok(Self { client, namespace })
    }

    /// What the kubeconfig says, with the namespace that is meant.
    pub(super) async fn config(arguments: &ClusterArguments) -> Result<Config, Failure> {
        let mut config = configure(arguments).await?;
        if let Some(namespace) = &arguments.namespace {
            config.default_namespace.clone_from(namespace);
        }
        Ok(config)
    }

    /// The namespace that is meant where none is named; `None` without a kubeconfig.
    pub(super) async fn default_namespace(arguments: &ClusterArguments) -> Option<String> {
        match &arguments.namespace {
            Some(namespace) => Some(namespace.clone()),
            None => configure(arguments).await.ok().map(|config| config.default_namespace),
        }
    }
}

async fn configure(arguments: &ClusterArguments) -> Result<Config, Failure> {
    let ClusterArguments { namespace: _, context, kubeconfig } = arguments;
    let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    let unconfigured = |error: KubeconfigError| Failure::Unconfigured(error.to_string());
    match (kubeconfig, context) {
        (Some(path), _) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(unconfigured)?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unconfigured)
        }
        (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(unconfigured),
        (None, None) => Config::infer().await.map_err(|error| {
            // Inside of a pod there is no kubeconfig; everywhere else its absence is the mistake.
            Failure::Unconfigured(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        }),
    }
}

/// The last cause, in its own words.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    fn ask() -> Ask {
        Ask::new("get", TIDINGS, "webhooks").within("shop").of("mail")
    }

    fn answer(code: u16, name: &str) -> kube::Error {
        let details: StatusDetails =
            serde_json::from_value(serde_json::json!({ "name": name })).expect("a name is enough");
        kube::Error::Api(Status::failure("no", "").with_code(code).with_details(details).boxed())
    }

    #[test]
    fn a_refusal_names_what_failed_and_the_way_out() {
        let cases = [
            (
                ask().failed(answer(404, "mail")),
                "there is no webhooks.tidings.dev mail in namespace shop: `kubectl get webhooks.tidings.dev -n shop` lists",
            ),
            (ask().failed(answer(404, "")), "no webhooks.tidings.dev: install Tidings' definitions"),
            (
                ask().failed(answer(403, "mail")),
                "you may not get webhooks.tidings.dev mail in namespace shop: have an administrator grant you the verb get on webhooks (API group tidings.dev) in namespace shop",
            ),
            (
                Ask::new("list", "", "pods").failed(answer(403, "")),
                "the verb list on pods (API group \"\") in the whole cluster",
            ),
            (ask().failed(answer(401, "")), "renew the credentials"),
            (
                ask().failed(answer(500, "")),
                "refused to get webhooks.tidings.dev mail in namespace shop (500): no",
            ),
        ];
        for (failure, expected) in cases {
            assert!(failure.to_string().contains(expected), "{failure}");
        }
    }
}
