//! Writes statuses and Kubernetes Events, with a leader's permit alone.
//!
//! In: the outbox. Out: server-side applies of the `status` subresource under our own field manager,
//! guarded by the version on which the status is based; then the Events that follow from what was
//! written. A status that lost the race is judged again from the newer object.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::{Value, json};
use tidings_crds::{AuthServer, Webhook, WebhookReplay};
use tidings_election::Lead;
use tidings_plan::ObjectName;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::announce::{Announcement, announcements, rotated};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::world::Desired;
use crate::world::change::{Change, Kind};

/// Who writes, as `managedFields` shows it.
pub const FIELD_MANAGER: &str = "tidings-operator";

/// How many statuses are written at once.
const WRITERS: usize = 8;

/// How many Events wait; what is more is dropped and counted. An Event is news for people: a thousand of
/// them at once are none.
const EVENTS: usize = 256;

/// How long a status waits after the API server could not take it.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Where statuses are left to be written.
#[derive(Debug, Clone, Default)]
pub struct Statuses {
    outbox: Arc<Mutex<Outbox>>,
    news: Arc<Notify>,
}

/// Writes statuses and Events.
#[derive(Clone)]
pub struct StatusWriter {
    client: Client,
    lead: watch::Receiver<Option<Lead>>,
    changes: mpsc::Sender<Change>,
    statuses: Statuses,
    events: mpsc::Sender<(ObjectReference, Announcement)>,
    metrics: Metrics,
}

// === impl Statuses ===

impl Statuses {
    /// The queue.
    pub fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves what should be written, and takes back what need not be.
    pub fn leave(&self, statuses: Vec<(Kind, ObjectName, Option<Desired>)>) {
        let now = Instant::now();
        let mut outbox = self.lock();
        for (kind, name, desired) in statuses {
            match desired {
                Some(desired) => outbox.put(desired, now),
                None => outbox.settled(kind, &name),
            }
        }
        drop(outbox);
        self.news.notify_waiters();
    }

    async fn next(&self) -> Desired {
        loop {
            let news = self.news.notified();
            let due = {
                let mut outbox = self.lock();
                if let Some(desired) = outbox.take(Instant::now()) {
                    return desired;
                }
                outbox.next_due()
            };
            let wait = async {
                match due {
                    Some(due) => {
                        tokio::time::sleep_until(due.max(Instant::now() + SHORTEST_WAIT).into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = news => {}
                () = wait => {}
            }
        }
    }
}

/// Several writers look at one queue: who finds another was faster looks again no sooner than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

// === impl StatusWriter ===

impl StatusWriter {
    /// Starts the writers.
    pub fn start(
        client: &Client,
        identity: &str,
        lead: watch::Receiver<Option<Lead>>,
        changes: mpsc::Sender<Change>,
        metrics: Metrics,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (events, waiting) = mpsc::channel(EVENTS);
        let statuses = Statuses::default();
        let writer = Self { client: client.clone(), lead, changes, statuses, events, metrics };
        let reporter =
            Reporter { controller: "tidings.dev/operator".into(), instance: Some(identity.into()) };
        tasks.spawn(writer.clone().send_events(Recorder::new(client.clone(), reporter), waiting));
        for _ in 0..WRITERS {
            tasks.spawn(writer.clone().run());
        }
        writer
    }

    /// Where statuses are left.
    pub fn statuses(&self) -> &Statuses {
        &self.statuses
    }

    /// Tells of Webhooks whose keys were replaced.
    pub fn tell_rotated(&self, webhooks: BTreeSet<(ObjectName, String)>) {
        for (name, uid) in webhooks {
            self.tell(&reference(Kind::Webhook, &name, &uid), rotated());
        }
    }

    async fn run(self) {
        loop {
            let desired = self.statuses.next().await;
            let (kind, name) = (desired.kind, desired.name.clone());
            let retry = self.write(desired).await;
            self.statuses.lock().done(kind, &name);
            if let Some(wait) = retry {
                let changes = self.changes.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    let _ = changes.send(Change::Conflict(kind, name)).await;
                });
            }
        }
    }

    /// Writes one status; after how long it is to be looked at again, where it was not taken.
    async fn write(&self, desired: Desired) -> Option<Duration> {
        let Some(lead) = self.lead.borrow().clone() else {
            self.metrics.dropped();
            return None;
        };
        let Ok(permit) = lead.permit() else {
            self.metrics.dropped();
            return None;
        };
        let result = self.patch(&desired).await;
        drop(permit);
        match result {
            Ok(version) => {
                for announcement in announcements(&desired) {
                    self.tell(&reference(desired.kind, &desired.name, &desired.uid), announcement);
                }
                let _ = self.changes.send(Change::Written(desired.kind, desired.name, version)).await;
                None
            }
            // Gone: nobody is left to be told.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            // A newer object is on its way to the model, or there already.
            Err(kube::Error::Api(status)) if status.code == 409 => Some(Duration::from_millis(50)),
            // An API server that validates what did not change: asking again changes nothing.
            Err(kube::Error::Api(status)) if status.code == 422 && desired.is_of_unreadable() => {
                tracing::warn!(object = %desired.name, error = status.message, "it cannot be told that it does not fit the schema");
                None
            }
            Err(error) => {
                tracing::warn!(object = %desired.name, %error, "a status could not be written, it is tried again");
                Some(TRY_AGAIN)
            }
        }
    }

    async fn patch(&self, desired: &Desired) -> Result<String, kube::Error> {
        let Desired { kind, name, uid, resource_version, status, .. } = desired;
        let resource = resource(*kind);
        let mut metadata = json!({ "name": name.name, "namespace": name.namespace });
        for (field, value) in [("uid", uid), ("resourceVersion", resource_version)] {
            if !value.is_empty() {
                metadata[field] = json!(value);
            }
        }
        let body = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata,
            "status": without_nulls(&status.value()),
        });
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &name.namespace, &resource);
        // Nothing can be applied to an object that does not fit the schema: the API server cannot tell whose
        // its fields are.
        let (params, patch) = if desired.is_of_unreadable() {
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            (params, Patch::Merge(&body))
        } else {
            (PatchParams::apply(FIELD_MANAGER).force(), Patch::Apply(&body))
        };
        self.metrics.wrote(&resource.plural);
        let written = api.patch_status(&name.name, &params, &patch).await;
        self.metrics.status_written(written.is_ok());
        Ok(written?.metadata.resource_version.unwrap_or_default())
    }

    fn tell(&self, object: &ObjectReference, announcement: Announcement) {
        if self.events.try_send((object.clone(), announcement)).is_err() {
            self.metrics.event_dropped();
        }
    }

    async fn send_events(
        self,
        recorder: Recorder,
        mut waiting: mpsc::Receiver<(ObjectReference, Announcement)>,
    ) {
        while let Some((object, Announcement { reason, warning, note })) = waiting.recv().await {
            let Some(lead) = self.lead.borrow().clone() else { continue };
            let Ok(_permit) = lead.permit() else { continue };
            let event = Event {
                type_: if warning { EventType::Warning } else { EventType::Normal },
                reason: reason.to_string(),
                note: Some(note.chars().take(1000).collect()),
                action: "Deliver".to_owned(),
                secondary: None,
            };
            self.metrics.wrote("events");
            if let Err(error) = recorder.publish(&event, &object).await {
                tracing::warn!(%error, %reason, "an Event could not be written");
            }
        }
    }
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::AuthServer => ApiResource::erase::<AuthServer>(&()),
        Kind::Replay => ApiResource::erase::<WebhookReplay>(&()),
        _ => ApiResource::erase::<Webhook>(&()),
    }
}

fn reference(kind: Kind, name: &ObjectName, uid: &str) -> ObjectReference {
    let resource = resource(kind);
    ObjectReference {
        api_version: Some(resource.api_version),
        kind: Some(resource.kind),
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// A field that is not known is left out, and so removed from the object.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(known.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}
