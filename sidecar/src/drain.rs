//! The end of a sidecar: what changed is saved, and where the volume goes with its pod what waits is delivered
//! before.
//!
//! In: an engine that takes no event any more, and a deadline. Out: deliveries, a word on what is left, and a
//! store that is closed, or the reason why not. It must never wait longer than its time for a disk.
//! An endpoint that fails keeps nobody waiting longer than its next attempt is away: when nothing can go on
//! before the deadline, it is over.

use std::time::Duration;

use tidings_store::{Store, now_ms};
use tokio::time::Instant;

use crate::engine::Engine;
use crate::sidecar::SidecarError;
use crate::tally::Snapshot;

/// How often is looked whether something waits yet.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long the last save may take at least, where deliveries used up all the time.
const LAST_SAVE: Duration = Duration::from_secs(2);

/// How many Webhooks are named with what they lose.
const MOST_NAMED: usize = 20;

/// What a sidecar that is told to end waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Drain {
    /// Attempts under way. What waits is on the volume, and delivered by the next process.
    #[default]
    UnderWay,
    /// Until everything that can be delivered is: the volume goes with the pod.
    Delivered,
}

/// Delivers what waits until nothing can go on before the deadline, and tells what is left.
pub(crate) async fn deliver_what_waits<S: Store>(engine: &Engine<S>, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let deadline_ms = now_ms() + i64::try_from(left.as_millis()).unwrap_or(0);
    engine.hurry();
    while Instant::now() < deadline && engine.goes_on_before(deadline_ms) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tell_what_is_left(&engine.snapshots());
}

/// Stops the engine, saves what changed and closes the store, by the deadline or little later: on a disk that
/// is full, or does not answer, a save waits for ever.
pub(crate) async fn finish<S: Store>(engine: &Engine<S>, deadline: Instant) -> Result<(), SidecarError> {
    engine.stop(deadline).await;
    let saving = async {
        engine.save().await?;
        engine.store().close().await
    };
    let by = deadline.max(Instant::now() + LAST_SAVE);
    match tokio::time::timeout_at(by, saving).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(SidecarError::NotSaved { why: why_not_saved(engine) }),
    }
}

fn why_not_saved<S: Store>(engine: &Engine<S>) -> String {
    let why = engine.store().writable().err().map(|error| error.to_string());
    why.unwrap_or_else(|| "the disk is full, or the volume does not answer: look after both".to_owned())
}

fn tell_what_is_left(webhooks: &[Snapshot]) {
    let waiting: Vec<_> = webhooks.iter().filter(|webhook| webhook.pending > 0).collect();
    for Snapshot { webhook, pending, circuit, .. } in waiting.iter().take(MOST_NAMED) {
        tracing::error!(
            webhook,
            pending,
            circuit,
            "not delivered before the end: lost unless the volume stays"
        );
    }
    let deliveries: u64 = waiting.iter().map(|webhook| webhook.pending).sum();
    if deliveries > 0 {
        tracing::error!(webhooks = waiting.len(), deliveries, "what waits goes with the volume");
    } else {
        tracing::info!("everything is delivered");
    }
}
