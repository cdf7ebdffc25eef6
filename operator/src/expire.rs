//! Deletes replays that are complete for long enough, with a leader's permit alone.
//!
//! In: names and UIDs, one at a time; what does not fit into the queue comes again at the next look. Out:
//! deletions of these very objects: one that was made anew under the name has another UID and stays.

use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};
use tidings_crds::WebhookReplay;
use tidings_election::Lead;
use tidings_plan::ObjectName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::surface::Problems;

/// How many wait to be deleted.
const WAITING: usize = 64;

/// Deletes replays.
#[derive(Debug, Clone)]
pub struct Expiry(mpsc::Sender<(ObjectName, String)>);

// === impl Expiry ===

impl Expiry {
    /// Starts the task that deletes.
    pub fn start(
        client: &Client,
        lead: watch::Receiver<Option<Lead>>,
        problems: Problems,
        metrics: Metrics,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (sender, waiting) = mpsc::channel(WAITING);
        tasks.spawn(delete_all(client.clone(), lead, problems, metrics, waiting));
        Self(sender)
    }

    /// Deletes these, as far as there is room for them.
    pub fn delete(&self, replays: impl Iterator<Item = (ObjectName, String)>) {
        for replay in replays {
            if self.0.try_send(replay).is_err() {
                return;
            }
        }
    }
}

async fn delete_all(
    client: Client,
    lead: watch::Receiver<Option<Lead>>,
    problems: Problems,
    metrics: Metrics,
    mut waiting: mpsc::Receiver<(ObjectName, String)>,
) {
    while let Some((name, uid)) = waiting.recv().await {
        let Some(lead) = lead.borrow().clone() else { continue };
        let Ok(_permit) = lead.permit() else { continue };
        let api: Api<WebhookReplay> = Api::namespaced(client.clone(), &name.namespace);
        let this_one = Preconditions { uid: Some(uid), resource_version: None };
        let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
        metrics.wrote("webhookreplays");
        let place = format!("finished replays in namespace {}", name.namespace);
        match api.delete(&name.name, &params).await {
            Ok(_) => problems.solved(&place),
            // It is gone, or another one by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => problems.tell(&place, &format!("they could not be deleted: {error}")),
        }
    }
}
