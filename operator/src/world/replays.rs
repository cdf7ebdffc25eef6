//! Replays: which ones a plan holds, and how far they are.

use jiff::Timestamp;
use tidings_crds::{ReplayOnly, ReplayReport, WebhookReplay, WebhookReplayStatus};
use tidings_plan::{EventPattern, ObjectName, ReplayPlan};

use super::change::Kind;
use super::queue::{Open, Queue};
use super::statuses::{self, Desired};
use super::{World, name_of};
use crate::status::{Condition, of_result};
use crate::{Finding, Reason};

// === impl World ===

impl World {
    pub(super) fn put_replay(&mut self, replay: WebhookReplay) {
        let name = name_of(&replay.metadata);
        self.unreadable.remove(&(Kind::Replay, name.clone()));
        let webhook = webhook_of(&name, &replay);
        let before = self.replays.insert(name.clone(), replay);
        let was_complete = before.as_ref().map(is_complete);
        if was_complete != Some(is_complete(&self.replays[&name])) {
            self.plan_of(&webhook);
        }
        self.dirty.statuses.insert((Kind::Replay, name));
    }

    pub(super) fn replay_gone(&mut self, name: &ObjectName) {
        if let Some(replay) = self.replays.remove(name) {
            self.plan_of(&webhook_of(name, &replay));
        }
    }

    /// The replays of a Webhook may stand otherwise now.
    pub(super) fn replays_of(&mut self, webhook: &ObjectName) {
        let names = self.replays_in(&webhook.namespace);
        let of_it = names.filter(|(name, replay)| webhook_of(name, replay) == *webhook);
        let keys: Vec<_> = of_it.map(|(name, _)| (Kind::Replay, name.clone())).collect();
        self.dirty.statuses.extend(keys);
    }

    /// The replays of all of a server's Webhooks may stand otherwise now.
    pub(super) fn replay_statuses(&mut self, server: &ObjectName) {
        let keys: Vec<_> = self.replays.keys().map(|name| (Kind::Replay, name.clone())).collect();
        let of_server = |name: &ObjectName| self.server_of_replay(name).is_some_and(|of| of == *server);
        let keys: Vec<_> = keys.into_iter().filter(|(_, name)| of_server(name)).collect();
        self.dirty.statuses.extend(keys);
    }

    /// The replays of a server's plan, by UID: accepted, not complete, and at their turn.
    pub(super) fn replay_plans(&mut self, server: &ObjectName) -> Vec<ReplayPlan> {
        let queue = Queue::of(self.open_replays(server));
        let Some(state) = self.servers.get_mut(server) else { return Vec::new() };
        if state.queue != queue {
            state.queue = queue;
            self.replay_statuses(server);
        }
        let mut plans: Vec<_> = self.servers[server].queue.running.values().cloned().collect();
        plans.sort_by(|a, b| a.uid.cmp(&b.uid));
        plans
    }

    fn open_replays(&self, server: &ObjectName) -> Vec<Open> {
        let before = self.servers.get(server).map(|state| &state.queue);
        let open = self.replays.iter().filter(|(_, replay)| !is_complete(replay));
        let of_server = open.filter(|(name, _)| self.server_of_replay(name).is_some_and(|of| of == *server));
        let one = |(name, replay): (&ObjectName, &WebhookReplay)| {
            let runs =
                says_that_it_runs(replay) || before.is_some_and(|queue| queue.running.contains_key(name));
            let created = replay.metadata.creation_timestamp.clone();
            Some(Open { name: name.clone(), created, plan: self.judge_replay(name, replay).ok()?, runs })
        };
        of_server.filter_map(one).collect()
    }

    /// The replays that are complete for long enough, each with its UID.
    pub fn expired_replays(&self, now: Timestamp) -> impl Iterator<Item = (ObjectName, String)> {
        let expired = self.replays.iter().filter(move |(_, replay)| is_expired(replay, now));
        expired.map(|(name, replay)| (name.clone(), replay.metadata.uid.clone().unwrap_or_default()))
    }

    pub(super) fn of_replay(&self, name: &ObjectName, now: Timestamp) -> Option<Desired> {
        let replay = self.replays.get(name)?;
        let before = replay.status.clone().unwrap_or_default();
        if is_complete(replay) {
            // It ran; whatever becomes of its Webhook later changes nothing of that.
            return None;
        }
        let judged = self.judge_replay(name, replay);
        let reports = judged.as_ref().map(|plan| self.progress(plan)).unwrap_or_default();
        let accepted =
            of_result("Accepted", &judged.map(|_| ()), Reason::Accepted, "it is in the plan of the sidecars");
        let complete = match self.place_of_replay(name) {
            Some(place) => queued(place),
            None => complete(&reports, replay.spec.dry_run),
        };
        let generation = replay.metadata.generation;
        let is_done = complete.status == Some(true);
        let stalled = crate::status::stalled(&accepted);
        let conditions: Vec<_> = [accepted, complete].into_iter().chain(stalled).collect();
        let reported = || reports.iter().flatten();
        let status = WebhookReplayStatus {
            observed_generation: generation,
            conditions: statuses::written(&conditions, &before.conditions, generation, now),
            matched: before.matched.max(reported().map(|report| report.matched).sum()),
            replayed: before.replayed.max(reported().map(|report| report.replayed).sum()),
            oldest_available_time: reported()
                .filter_map(|report| report.oldest_available_time.clone())
                .max()
                .or_else(|| before.oldest_available_time.clone()),
            completion_time: is_done.then(|| statuses::seconds(now)),
        };
        let urgent = statuses::news(&before.conditions, &status.conditions);
        statuses::desired(Kind::Replay, name, &replay.metadata, &before, &status, urgent, false)
    }

    fn replays_in(&self, namespace: &str) -> impl Iterator<Item = (&ObjectName, &WebhookReplay)> {
        let namespace = namespace.to_owned();
        let all = self.replays.range(ObjectName::new(&namespace, "")..);
        all.take_while(move |(name, _)| name.namespace == namespace)
    }

    fn plan_of(&mut self, webhook: &ObjectName) {
        if let Some(entry) = self.webhooks.get(webhook) {
            self.dirty.plans.insert(entry.server.clone());
        }
    }

    /// The place in the queue, where it waits.
    fn place_of_replay(&self, name: &ObjectName) -> Option<usize> {
        self.servers.get(&self.server_of_replay(name)?)?.queue.waiting.get(name).copied()
    }

    fn server_of_replay(&self, name: &ObjectName) -> Option<ObjectName> {
        let webhook = webhook_of(name, self.replays.get(name)?);
        Some(self.webhooks.get(&webhook)?.server.clone())
    }

    /// Each ready sidecar's word on a replay; `None` where it has not said one.
    fn progress(&self, plan: &ReplayPlan) -> Vec<Option<ReplayReport>> {
        let server = self.webhooks.get(&plan.webhook).and_then(|entry| self.servers.get(&entry.server));
        let sidecars = server.into_iter().flat_map(|server| &server.sidecars).filter(|sidecar| sidecar.ready);
        sidecars
            .map(|sidecar| sidecar.replays.iter().find(|report| report.uid == plan.uid).cloned())
            .collect()
    }

    fn judge_replay(&self, name: &ObjectName, replay: &WebhookReplay) -> Result<ReplayPlan, Finding> {
        let spec = &replay.spec;
        let webhook = webhook_of(name, replay);
        if !self.webhooks.contains_key(&webhook) {
            let message =
                format!("there is no Webhook {webhook}: a replay stands in its Webhook's namespace");
            return Err(Finding::new(Reason::WebhookNotFound, "spec.webhookRef", message));
        }
        if !self.is_in_plan(&webhook) {
            let message = format!("Webhook {webhook} is not in order: its own status tells why");
            return Err(Finding::new(Reason::WebhookNotReady, "spec.webhookRef", message));
        }
        let (from_ms, to_ms) = window(replay)?;
        let pattern = |(at, text): (usize, &String)| {
            EventPattern::parse(text).map_err(|error| {
                Finding::new(Reason::InvalidEvents, format!("spec.events[{at}]"), error.to_string())
            })
        };
        Ok(ReplayPlan {
            uid: replay.metadata.uid.clone().unwrap_or_default(),
            webhook,
            from_ms,
            to_ms,
            events: spec.events.iter().enumerate().map(pattern).collect::<Result<_, _>>()?,
            only_failed: spec.only == ReplayOnly::Failed,
            dry_run: spec.dry_run,
            rate_per_second: u32::try_from(spec.rate_per_second).unwrap_or(1).max(1),
        })
    }
}

/// The Webhook of a replay, which stands in its namespace.
pub(crate) fn webhook_of(name: &ObjectName, replay: &WebhookReplay) -> ObjectName {
    ObjectName::new(&name.namespace, &replay.spec.webhook_ref.name)
}

/// The window of a replay, in milliseconds since 1970: from its first time on, and before its second.
pub(crate) fn window(replay: &WebhookReplay) -> Result<(i64, i64), Finding> {
    let WebhookReplay { metadata, spec, .. } = replay;
    let from_ms = time("spec.from", &spec.from)?;
    let created = metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_millisecond());
    let to_ms = spec.to.as_ref().map_or(Ok(created), |to| time("spec.to", to))?;
    if from_ms < to_ms {
        return Ok((from_ms, to_ms));
    }
    let message = "the window is empty: from must be before to, and to before now";
    Err(Finding::new(Reason::InvalidWindow, "spec.from", message))
}

fn is_complete(replay: &WebhookReplay) -> bool {
    replay.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

/// Whether its status tells that it is in the plan.
fn says_that_it_runs(replay: &WebhookReplay) -> bool {
    let conditions = || replay.status.iter().flat_map(|status| &status.conditions);
    let says = |kind: &str, reason: Reason| {
        conditions().any(|one| one.type_ == kind && one.reason == reason.as_str())
    };
    says("Accepted", Reason::Accepted) && says("Complete", Reason::Replaying)
}

fn is_expired(replay: &WebhookReplay, now: Timestamp) -> bool {
    let completed = replay.status.as_ref().and_then(|status| status.completion_time.as_ref());
    let completed = completed.and_then(|time| time.parse::<Timestamp>().ok());
    let kept = i64::from(replay.spec.ttl_seconds_after_finished);
    completed.is_some_and(|completed| now.as_second() - completed.as_second() >= kept)
}

fn queued(place: usize) -> Condition {
    let message =
        format!("as many replays run as may run at once; place {place} in the queue of its namespace");
    Condition::new("Complete", Some(false), Reason::Queued, message)
}

fn time(field: &str, text: &str) -> Result<i64, Finding> {
    text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|error| {
        let message = format!("{text:?} is no time: write it as in 2026-01-31T12:00:00Z ({error})");
        Finding::new(Reason::InvalidWindow, field, message)
    })
}

/// Complete once every ready sidecar went through the window; one that has none of it is soon through.
fn complete(reports: &[Option<ReplayReport>], dry_run: bool) -> Condition {
    let done = reports.iter().filter(|report| report.as_ref().is_some_and(|report| report.complete)).count();
    let of = reports.len();
    if done == of && of > 0 {
        let what = if dry_run { "counted; nothing was sent, since this is a dry run" } else { "put in line" };
        return Condition::new(
            "Complete",
            Some(true),
            Reason::Complete,
            format!("the whole window was {what}"),
        );
    }
    let message = if of == 0 {
        "no sidecar is ready to replay".to_owned()
    } else {
        format!("{done} of {of} sidecars have gone through the window")
    };
    Condition::new("Complete", Some(false), Reason::Replaying, message)
}
