//! Reads what stands in the Secrets that objects refer to, by name and no others.
//!
//! In: names and keys. Out: the texts under these keys, as changes of the model. Each Secret is read by itself,
//! and what is not asked for is dropped at once, so the operator holds no more than is in use. A name that is
//! asked for while it is being read is read once more.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tidings_plan::ObjectName;
use tokio::sync::{Semaphore, mpsc};

use crate::objects::texts;
use crate::surface::Problems;
use crate::world::change::{Change, SecretContent};

/// How many are read at once.
const AT_ONCE: usize = 16;

/// How long after a failure a Secret is asked for again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Reads Secrets.
#[derive(Clone)]
pub struct SecretReader {
    client: Client,
    changes: mpsc::Sender<Change>,
    problems: Problems,
    under_way: Arc<Mutex<HashSet<ObjectName>>>,
    permits: Arc<Semaphore>,
}

// === impl SecretReader ===

impl SecretReader {
    /// Reads for a model.
    pub fn new(client: Client, changes: mpsc::Sender<Change>, problems: Problems) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { client, changes, problems, under_way: Arc::default(), permits }
    }

    /// Reads what stands under these keys of a Secret, in the background.
    pub fn read(&self, name: ObjectName, keys: BTreeSet<String>) {
        if !self.lock().insert(name.clone()) {
            return;
        }
        let reader = self.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let permit = reader.permits.acquire().await;
            // A request's state is large: in a box that is made now, and not in each of ten thousand that wait.
            let content = Box::pin(reader.content(&name, &keys)).await;
            drop(permit);
            // Before the model is told: it may ask again at once.
            reader.lock().remove(&name);
            // A model that is gone needs nothing.
            let _ = reader.changes.send(Change::SecretRead(name, content)).await;
        });
    }

    /// The content; for what is forbidden, the same as if it were not there. Other failures are tried
    /// again until they are none: a Secret that cannot be read for a moment is no Secret that is gone.
    async fn content(&self, name: &ObjectName, keys: &BTreeSet<String>) -> Option<SecretContent> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.namespace);
        let place = format!("Secret {name}");
        loop {
            match api.get_opt(&name.name).await {
                Ok(secret) => {
                    self.problems.solved(&place);
                    return secret.map(|secret| SecretContent {
                        version: secret.metadata.resource_version.clone().unwrap_or_default(),
                        texts: texts(secret, |key| keys.contains(key)),
                        keys: keys.clone(),
                    });
                }
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    self.problems.tell(&place, "forbidden: the operator's role lacks get on Secrets here");
                    return None;
                }
                Err(error) => {
                    self.problems.tell(&place, &error.to_string());
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<ObjectName>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
