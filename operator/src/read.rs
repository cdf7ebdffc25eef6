//! Reads what stands in the Secrets that objects refer to, by name and no others.
//!
//! In: names and keys. Out: the texts under these keys, as changes of the model. Each Secret is read by itself,
//! and what is not asked for is dropped at once, so the operator holds no more than is in use. A name that is
//! asked for while it is being read is read once more.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tidings_plan::ObjectName;
use tokio::sync::{Semaphore, mpsc};

use crate::backoff;
use crate::objects::{is_labelled, texts};
use crate::surface::Problems;
use crate::world::change::{Change, SecretContent};

/// How many are read at once.
const AT_ONCE: usize = 16;

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

    /// Reads what stands under these keys of a Secret, in the background, and tries again until it is read or
    /// nobody wants it any more: a Secret that cannot be read for a moment is no Secret that is gone.
    pub fn read(&self, name: ObjectName, keys: BTreeSet<String>) {
        if !self.lock().insert(name.clone()) {
            return;
        }
        let reader = self.clone();
        tokio::spawn(async move {
            let mut failures = 0;
            while reader.lock().contains(&name) {
                // A request's state is large: in a box that is made now, and not in each of ten thousand that wait.
                if Box::pin(reader.attempt(&name, &keys)).await.is_ok() {
                    return;
                }
                failures += 1;
                tokio::time::sleep(backoff::wait(failures, rand::random())).await;
            }
        });
    }

    /// Goes on with those alone that somebody wants.
    pub fn keep(&self, is_wanted: impl Fn(&ObjectName) -> bool) {
        self.lock().retain(is_wanted);
    }

    /// Reads a Secret once and passes on what is known of it then; an error is worth another attempt.
    async fn attempt(&self, name: &ObjectName, keys: &BTreeSet<String>) -> Result<(), ()> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.namespace);
        let place = format!("Secret {name}");
        // The semaphore is never closed. Whoever waits to try again holds no permit.
        let permit = self.permits.acquire().await;
        let answer = api.get_opt(&name.name).await;
        drop(permit);
        let (change, result) = match answer {
            Ok(secret) => {
                self.problems.solved(&place);
                // Before the model is told: it may ask again at once.
                self.lock().remove(name);
                (Change::SecretRead(name.clone(), secret.map(|secret| content(secret, keys))), Ok(()))
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                self.problems.tell(&place, "forbidden: the operator's role lacks get on Secrets here");
                (Change::SecretForbidden(name.clone()), Err(()))
            }
            Err(error) => {
                self.problems.tell(&place, &error.to_string());
                return Err(());
            }
        };
        // A model that is gone needs nothing.
        let _ = self.changes.send(change).await;
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<ObjectName>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn content(secret: Secret, keys: &BTreeSet<String>) -> SecretContent {
    SecretContent {
        version: secret.metadata.resource_version.clone().unwrap_or_default(),
        is_labelled: is_labelled(&secret),
        texts: texts(secret, |key| keys.contains(key)),
        keys: keys.clone(),
    }
}
