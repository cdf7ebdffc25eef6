//! What each sidecar's store delivered for a Webhook, within the bound of the status.
//!
//! In: the sources that stand in the object, and what each store told last. Out: the sources as they should
//! stand. A sum never falls: what is folded was written before, and leaves the list and enters the sum of
//! those that are gone in one write.

use std::collections::BTreeSet;

use tidings_crds::{MAX_SOURCES, SourceTally, Webhook, WebhookStatus};

use super::{World, name_of};

/// How many stores that report no more are kept apart, so that one that comes back is not counted twice.
const KEPT_SOURCES: usize = 16;

/// The source that holds what stores delivered that are gone for long.
const GONE: &str = "gone";

// === impl World ===

impl World {
    /// What each store delivered: those that report, those that did, and one for all that are long gone.
    pub(super) fn sources(&self, webhook: &Webhook, before: &WebhookStatus) -> Vec<SourceTally> {
        let uid = webhook.metadata.uid.as_deref().unwrap_or_default();
        let server = crate::names(webhook, &name_of(&webhook.metadata));
        merged(&before.sources, self.reports.tallies(uid), &self.reports.stores(&server))
    }
}

fn merged<'a>(
    before: &[SourceTally],
    told: impl Iterator<Item = &'a SourceTally>,
    live: &BTreeSet<String>,
) -> Vec<SourceTally> {
    let (mut sources, mut new) = (before.to_vec(), Vec::new());
    // A sidecar does not speak for those that are gone, whatever it calls its store.
    for told in told.filter(|told| told.store != GONE) {
        match sources.iter_mut().find(|source| source.store == told.store) {
            Some(source) => source.clone_from(told),
            None => new.push(told.clone()),
        }
    }
    // Only what stands in the object as it was told last is folded: the model forgets a store once the object
    // has it no more, and would lose or count twice what was never written.
    let is_old = |source: &SourceTally| {
        source.store != GONE && !live.contains(&source.store) && before.contains(source)
    };
    let old = |sources: &[SourceTally]| sources.iter().filter(|source| is_old(source)).count();
    while old(&sources) > KEPT_SOURCES || (old(&sources) > 0 && sources.len() + new.len() > MAX_SOURCES) {
        let Some(at) = sources.iter().position(is_old) else { break };
        fold(&mut sources, at);
    }
    // What finds no room is added when the next ones were folded.
    let room = MAX_SOURCES.saturating_sub(sources.len());
    sources.extend(new.into_iter().take(room));
    sources
}

fn fold(sources: &mut Vec<SourceTally>, at: usize) {
    let old = sources.remove(at);
    let known = sources.iter().position(|source| source.store == GONE);
    let gone = known.unwrap_or_else(|| {
        sources.insert(0, SourceTally { store: GONE.to_owned(), ..SourceTally::default() });
        0
    });
    let gone = &mut sources[gone];
    gone.delivered += old.delivered;
    gone.failed += old.failed;
    gone.dead_lettered += old.dead_lettered;
    gone.expired += old.expired;
    gone.dropped += old.dropped;
}
