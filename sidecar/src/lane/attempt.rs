//! One attempt at the endpoint: the event is fetched where it is not at hand, signed and sent.
//!
//! In: an event's place, or the event. Out: what the attempt ended in. It must never change the book.

use std::sync::Arc;
use std::time::Duration;

use tidings_store::{Event, Lookup, Seq, Store, StoreError, wall_ms};

use super::book::Row;
use super::spec::{Spec, Wanted};
use crate::dial::Attempt;
use crate::envelope;

/// An attempt that ended, or could not be made.
pub(super) struct Done {
    pub(super) seq: Seq,
    pub(super) row: Row,
    pub(super) probe: bool,
    pub(super) spec: Arc<Spec>,
    pub(super) end: End,
}

pub(super) enum End {
    Attempted {
        event: Arc<Event>,
        webhook_id: String,
        attempt: Attempt,
    },
    /// The current spec does not want the event.
    Dropped,
    /// Retention took the event.
    Expired,
    /// The event cannot be read; with its name, where that can.
    Damaged(Option<Box<str>>),
    Failed(StoreError),
}

async fn fetch<S: Store>(store: Arc<S>, seq: Seq) -> Result<Lookup, StoreError> {
    tokio::task::spawn_blocking(move || store.get(seq)).await.unwrap_or(Err(StoreError::Closed))
}

pub(super) async fn attempt<S: Store>(
    spec: &Spec,
    store: &Arc<S>,
    seq: Seq,
    event: Option<Arc<Event>>,
) -> End {
    let event = match event {
        // The lane has asked already whether the Webhook wants it.
        Some(event) => event,
        None => match fetch(Arc::clone(store), seq).await {
            Ok(Lookup::Found(event)) if spec.wants(&event) != Wanted::No => event,
            Ok(Lookup::Found(_)) => return End::Dropped,
            Ok(Lookup::Removed) => return End::Expired,
            Ok(Lookup::Damaged { name }) => return End::Damaged(name),
            Err(error) => return End::Failed(error),
        },
    };
    let webhook_id = envelope::webhook_id(event.id, &spec.plan.webhook);
    // A receiver compares it with its own clock.
    let stamp = wall_ms().div_euclid(1000);
    let envelope = envelope::build(&event, &spec.plan, &spec.keys, &spec.source, stamp);
    let deadline = Duration::from_secs(u64::from(spec.plan.delivery.timeout_seconds.max(1)));
    let attempt = spec.client.send(envelope, deadline).await;
    End::Attempted { event, webhook_id, attempt }
}
