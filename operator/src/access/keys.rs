//! The keys by which questions to sidecars are signed: one for each `AuthServer`, in its plan's Secret.
//!
//! In: the `AuthServer`. Out: its key, as it was read at most [`KEPT`] ago. Of the Secret nothing else is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tidings_plan::ObjectName;
use tidings_plan::shards::{self, ADMIN_KEY};
use tidings_signature::question::AdminKey;

use super::refusal::Refusal;

/// How long a key is used without another look.
const KEPT: Duration = Duration::from_secs(10);

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads keys.
pub(super) struct Keys {
    client: Client,
    kept: Mutex<HashMap<ObjectName, (Instant, AdminKey)>>,
}

// === impl Keys ===

impl Keys {
    pub(super) fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    /// The key of an `AuthServer`.
    pub(super) async fn of(&self, auth_server: &ObjectName) -> Result<AdminKey, Refusal> {
        if let Some(key) = self.kept(auth_server) {
            return Ok(key);
        }
        let key = self.read(auth_server).await.ok_or_else(|| Refusal::NoKey(auth_server.clone()))?;
        let (mut kept, now) = (self.kept.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        kept.retain(|_, (until, _)| now < *until);
        kept.insert(auth_server.clone(), (now + KEPT, key.clone()));
        Ok(key)
    }

    fn kept(&self, auth_server: &ObjectName) -> Option<AdminKey> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(auth_server).filter(|(until, _)| Instant::now() < *until).map(|(_, key)| key.clone())
    }

    async fn read(&self, auth_server: &ObjectName) -> Option<AdminKey> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &auth_server.namespace);
        let name = shards::head_name(auth_server);
        let secret = tokio::time::timeout(PATIENCE, secrets.get_opt(&name)).await.ok()?.ok()??;
        AdminKey::new(&secret.data?.get(ADMIN_KEY)?.0)
    }
}
