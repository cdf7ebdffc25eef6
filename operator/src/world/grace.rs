//! A restart of an auth server's only pod is no news: for a while what ran before counts.
//!
//! In: the sidecars, the time, and the conditions as they stand. Out: whether `Programmed` keeps what it was. It
//! must never keep a `True` for a plan that no sidecar has run.

use jiff::Timestamp;
use tidings_crds::{Condition as Written, ConditionStatus};
use tidings_plan::ObjectName;

use super::sidecars::Sidecar;
use super::{Server, World};
use crate::Reason;
use crate::status::Programming;

/// How long it is no news that no sidecar of an auth server is ready, in seconds: longer than a pod takes to
/// be replaced, and shorter than anybody would wait before looking.
pub const GRACE_SECONDS: i64 = 120;

/// What an auth server's sidecars ran when one was ready last.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The oldest plan that a ready sidecar ran; `None` before any was seen.
    ran: Option<u64>,
    none_ready_since: Option<Timestamp>,
    is_over: bool,
}

// === impl Standing ===

impl Standing {
    /// Takes note of the sidecars as they are now.
    pub(super) fn see(&mut self, sidecars: &[Sidecar]) {
        let ready = sidecars.iter().filter(|sidecar| sidecar.ready);
        if let Some(oldest) = ready.map(|sidecar| sidecar.generation.unwrap_or_default()).min() {
            *self = Self { ran: Some(oldest), ..Self::default() };
        }
    }

    /// Whether what ran before counts as what runs; of what ran before this process the status alone tells.
    fn ran(&self, plans: std::ops::RangeInclusive<u64>) -> bool {
        !self.is_over && self.ran.is_none_or(|ran| plans.contains(&ran))
    }
}

// === impl World ===

impl World {
    /// Notes where no sidecar is ready any more, and where that has been so for too long.
    pub(super) fn look_at_grace(&mut self, now: Timestamp) {
        let mut over = Vec::new();
        for (name, server) in &mut self.servers {
            let standing = &mut server.standing;
            if standing.is_over || server.sidecars.iter().any(|sidecar| sidecar.ready) {
                continue;
            }
            let since = *standing.none_ready_since.get_or_insert(now);
            if now.as_second() - since.as_second() >= self.grace_seconds {
                standing.is_over = true;
                over.push(name.clone());
            }
        }
        for name in over {
            self.server_status(&name);
            self.webhook_statuses(&name);
        }
    }

    /// Of a Webhook that no ready sidecar runs: what its status says, while that counts.
    pub(super) fn kept(
        &self,
        name: &ObjectName,
        now: Programming,
        before: &[Written],
        generation: Option<i64>,
    ) -> Programming {
        let Programming::NoSidecar(_) = &now else { return now };
        let entry = self.webhooks.get(name);
        let server = entry.and_then(|entry| self.servers.get(&entry.server));
        let (Some(since), Some(server)) = (entry.and_then(|entry| entry.since), server) else { return now };
        let before =
            before.iter().find(|one| one.type_ == "Programmed" && one.observed_generation == generation);
        match before {
            Some(before) if before.status == ConditionStatus::True && server.counts_as_running(since) => {
                Programming::Runs
            }
            Some(before) if before.reason == Reason::Pending.as_str() && !server.standing.is_over => {
                Programming::Waits(before.message.clone())
            }
            _ => now,
        }
    }
}

// === impl Server ===

impl Server {
    /// Whether its sidecars, none of which is ready, count as running the plan as it is from this number on.
    pub(super) fn counts_as_running(&self, since: u64) -> bool {
        let is_any_ready = self.sidecars.iter().any(|sidecar| sidecar.ready);
        !is_any_ready && self.standing.ran(since..=self.generation.unwrap_or(since))
    }
}
