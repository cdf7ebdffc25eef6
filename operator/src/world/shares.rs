//! Who is in the plan of those that are in order: each namespace has a share, and the plan has an end.

use std::collections::BTreeSet;

use tidings_plan::{ObjectName, WebhookPlan};

use super::change::Kind;
use super::{Entry, World};
use crate::{Finding, Judged, beyond_shares};

// === impl Entry ===

impl Entry {
    /// What stands in the plan.
    pub(super) fn in_plan(&self) -> Option<&WebhookPlan> {
        self.plan.as_ref().filter(|_| self.share.is_ok())
    }

    /// What was judged of it, its namespace's share included.
    pub(super) fn judged(&self) -> Option<Judged> {
        let mut judged = self.judged.clone()?;
        judged.accepted = judged.accepted.and(self.share.clone());
        Some(judged)
    }
}

// === impl World ===

impl World {
    /// Shares a plan out among the Webhooks of one namespace. It follows from these alone.
    pub(super) fn share_out(&mut self, server: &ObjectName, namespace: &str) {
        let Some(state) = self.servers.get(server) else { return };
        let from = ObjectName::new(namespace, "");
        let all = state.webhooks.range(from..).take_while(|webhook| webhook.namespace == namespace);
        let names: Vec<_> = all.cloned().collect();
        let plans = names.iter().filter_map(|name| self.webhooks.get(name)?.plan.as_ref());
        let mut beyond = beyond_shares(&self.objects, state.judged.as_ref(), plans);
        for name in names {
            let share = beyond.remove(&name).map_or(Ok(()), Err);
            self.put_share(server, name, share);
        }
    }

    fn put_share(&mut self, server: &ObjectName, name: ObjectName, share: Result<(), Finding>) {
        let Some(entry) = self.webhooks.get_mut(&name).filter(|entry| entry.share != share) else { return };
        if entry.share.is_ok() != share.is_ok() {
            entry.since = None;
            self.dirty.plans.insert(server.clone());
            self.dirty.statuses.insert((Kind::AuthServer, server.clone()));
        }
        entry.share = share;
        self.replays_of(&name);
        self.dirty.statuses.insert((Kind::Webhook, name));
    }

    /// The plan that is published has no room for these.
    pub(super) fn no_room(&mut self, server: &ObjectName, webhooks: BTreeSet<ObjectName>) {
        let Some(state) = self.servers.get_mut(server) else { return };
        let before = std::mem::replace(&mut state.without_room, webhooks);
        let changed: Vec<_> = before.symmetric_difference(&state.without_room).cloned().collect();
        if changed.is_empty() {
            return;
        }
        for name in changed {
            self.replays_of(&name);
            self.dirty.statuses.insert((Kind::Webhook, name));
        }
        self.dirty.plans.insert(server.clone());
        self.server_status(server);
    }
}
