//! Where a Webhook's sidecars are: for a question about its deliveries.

use std::net::SocketAddr;

use tidings_plan::ObjectName;

use super::World;
use crate::Reason;

/// The sidecars that deliver for a Webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its `AuthServer`.
    pub auth_server: ObjectName,
    /// One for each sidecar, those that are ready first.
    pub places: Vec<Place>,
}

/// One sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its pod's name.
    pub pod: String,
    /// Where its admin port is; `None` while that is not known, as without `spec.podSelector`.
    pub admin: Option<SocketAddr>,
}

/// Why a Webhook has no sidecars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLocated {
    /// There is no such Webhook.
    #[error("there is no Webhook {0}, or the operator does not watch its namespace")]
    NoWebhook(ObjectName),
    /// Its `AuthServer` has no business with it.
    #[error("Webhook {0} belongs to no AuthServer: {1}")]
    NotAccepted(ObjectName, String),
    /// Nobody carries a sidecar.
    #[error("no sidecar of AuthServer {0} is there: add the sidecar to the auth server's pods")]
    NoSidecar(ObjectName),
}

// === impl World ===

impl World {
    /// Where the sidecars of a Webhook are.
    pub fn locate(&self, webhook: &ObjectName) -> Result<Location, NotLocated> {
        let entry = self.webhooks.get(webhook).ok_or_else(|| NotLocated::NoWebhook(webhook.clone()))?;
        // Of an AuthServer that does not want it a Webhook's owner learns nothing, the names of its pods included.
        if let Some(Err(finding)) = entry.judged.as_ref().map(|judged| &judged.accepted)
            && matches!(finding.reason, Reason::NotAllowedByAuthServer | Reason::AuthServerNotFound)
        {
            return Err(NotLocated::NotAccepted(webhook.clone(), finding.message.clone()));
        }
        let auth_server = entry.server.clone();
        let known = self.servers.get(&auth_server);
        let mut sidecars: Vec<_> = known.into_iter().flat_map(|server| &server.sidecars).collect();
        sidecars.sort_by_key(|sidecar| !sidecar.ready);
        let pods = self.pods.get(&auth_server);
        let admin = |pod: &str| pods.and_then(|pods| pods.get(pod)).and_then(|pod| pod.admin);
        let places: Vec<_> = sidecars
            .into_iter()
            .map(|sidecar| Place { pod: sidecar.pod.clone(), admin: admin(&sidecar.pod) })
            .collect();
        if places.is_empty() {
            return Err(NotLocated::NoSidecar(auth_server));
        }
        Ok(Location { auth_server, places })
    }
}
