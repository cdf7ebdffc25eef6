//! The chart's rights in namespaces of a test's own, under a release of its own.

use tidings_tests::charts::helm_works;
use tidings_tests::cluster::{ControlPlane, apply};

/// Where the operator looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    Cluster,
    Listed,
}

/// A release of the chart: its rights are there, its pods are not waited for.
pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
    /// Its name, from which those of its roles come.
    pub(crate) release: String,
    /// The namespace of the operator.
    pub(crate) system: String,
    /// The namespace of AuthServer `logto`.
    pub(crate) auth: String,
    /// A team's namespace, which the operator looks at.
    pub(crate) shop: String,
    /// A namespace of which the chart knows nothing.
    pub(crate) other: String,
}

// === impl Stage ===

impl Stage {
    pub(crate) async fn new(watch: Watch) -> Self {
        let plane = ControlPlane::shared().await;
        let system = plane.namespace("system").await;
        let auth = plane.namespace("auth").await;
        let shop = plane.namespace("shop").await;
        let other = plane.namespace("other").await;
        // Names in the whole cluster are the release's, and this name is nobody else's.
        let stage = Self { plane, release: system.clone(), system, auth, shop, other };
        apply(&stage.rendered(watch)).await;
        stage
    }

    fn rendered(&self, watch: Watch) -> String {
        let server = format!("authServers[0].namespace={},authServers[0].name=logto", self.auth);
        let listed = format!("watch.namespaces={{{},{}}}", self.auth, self.shop);
        let scope = if watch == Watch::Listed { &listed } else { "rbac.aggregate=true" };
        let values = ["--set", &server, "--set", scope, "--set", "operator.replicas=0"];
        let chart = ["template", &self.release, "charts/tidings", "--namespace", &self.system];
        helm_works(&[&chart[..], &values].concat())
    }

    /// The name of the operator's objects.
    pub(crate) fn operator(&self) -> String {
        format!("{}-operator", self.release)
    }
}
