//! The statuses as they should be.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tidings_crds::{
    Attempt, AuthServerStatus, CircuitState, Condition as Written, ConditionStatus, EventTally,
    FailedAttempt, SidecarTally, SourceTally, WebhookReport, WebhookStatus, WebhookTally,
};
use tidings_plan::ObjectName;

use super::change::{Kind, Unreadable};
use super::sidecars::Sidecar;
use super::{Server, World};
use crate::reason::Place;
use crate::status::{self, Condition, Health, Programming};
use crate::{Finding, Reason};

/// A status that should be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The object's kind.
    pub kind: Kind,
    /// The object.
    pub name: ObjectName,
    /// Its UID.
    pub uid: String,
    /// The version on which this is based.
    pub resource_version: String,
    /// The status as it is; null where the object does not fit the types, and so cannot be read.
    pub before: StatusText,
    /// The status as it should be.
    pub status: StatusText,
    /// A condition changed: to be written at once.
    pub urgent: bool,
    /// It is about to change again, as while a plan is on its way to the sidecars.
    pub settling: bool,
}

/// A status as JSON text: of ten thousand Webhooks all may wait, and a tree takes four times the memory.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusText(Box<str>);

// === impl StatusText ===

impl StatusText {
    /// Of a status.
    pub fn of(status: &impl Serialize) -> Self {
        // A status has no part without a JSON form.
        Self(serde_json::to_string(status).unwrap_or_default().into())
    }

    /// As a tree.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

// === impl Desired ===

impl Desired {
    /// Whether the object does not fit the types.
    pub fn is_of_unreadable(&self) -> bool {
        &*self.before.0 == "null"
    }
}

// === impl World ===

impl World {
    /// The status of an object, where it is not as it should be.
    pub(super) fn desired(&mut self, kind: Kind, name: &ObjectName, now: Timestamp) -> Option<Desired> {
        if !matches!(kind, Kind::Webhook | Kind::AuthServer | Kind::Replay) {
            return None;
        }
        if let Some(unreadable) = self.unreadable.get(&(kind, name.clone())) {
            return Some(of_unreadable(kind, unreadable, now));
        }
        match kind {
            Kind::Webhook => self.of_webhook(name, now),
            Kind::AuthServer => self.of_server(name, now),
            Kind::Replay => self.of_replay(name, now),
            _ => None,
        }
    }

    fn of_webhook(&mut self, name: &ObjectName, now: Timestamp) -> Option<Desired> {
        let webhook = self.objects.webhooks.get(name)?.clone();
        let before = webhook.status.clone().unwrap_or_default();
        let sources = self.sources(&webhook, &before);
        let entry = self.webhooks.get(name)?;
        let judged = &entry.judged()?;
        if entry.in_plan().is_some() && self.is_starting(&entry.server) {
            return None;
        }
        let uid = webhook.metadata.uid.clone().unwrap_or_default();
        let reports = self.reports.of(name, &uid, &entry.server);
        let generation = webhook.metadata.generation;
        let programming = self.kept(name, self.programming(name), &before.conditions, generation);
        let mut status = tallied(&before, &reports, sources);
        let health = (!reports.is_empty()).then(|| health(&status, &reports));
        let conditions = status::conditions(judged, &programming, health.as_ref());
        status.conditions = written(&conditions, &before.conditions, generation, now);
        status.observed_generation = generation;
        status.endpoint_host.clone_from(&judged.endpoint_host);
        let settling = judged.is_ready() && matches!(programming, Programming::Waits(_));
        let urgent = news(&before.conditions, &status.conditions);
        desired(Kind::Webhook, name, &webhook.metadata, &before, &status, urgent, settling)
    }

    /// Whether it is not known yet what is published for a server that can be used. Until then nothing is
    /// said of what runs: all that could be said is that it does not, of thousands of Webhooks, most of
    /// which run since before this process began.
    fn is_starting(&self, server: &ObjectName) -> bool {
        self.servers.get(server).is_some_and(|state| {
            let is_usable = state.judged.as_ref().is_some_and(|judged| judged.findings().is_empty());
            is_usable && state.generation.is_none() && state.failed.is_none()
        })
    }

    /// Whether every ready sidecar runs a Webhook as it is now.
    pub(super) fn programming(&self, name: &ObjectName) -> Programming {
        let Some(entry) = self.webhooks.get(name) else {
            return Programming::Waits("it was not judged yet".into());
        };
        let Some(server) = self.servers.get(&entry.server) else {
            return Programming::NoSidecar("there is no such AuthServer".into());
        };
        let ready: Vec<_> = server.sidecars.iter().filter(|sidecar| sidecar.ready).collect();
        if let Some(failed) = &server.failed {
            return Programming::Waits(format!("the plan could not be published: {}", failed.message));
        }
        if server.without_room.contains(name) {
            return Programming::NoRoom(format!(
                "the plan of AuthServer {} has no room for it: what ran before runs on",
                entry.server
            ));
        }
        let Some(since) = entry.since else {
            return Programming::Waits("the plan is being published".into());
        };
        if ready.is_empty() {
            return Programming::NoSidecar(format!("no sidecar of AuthServer {} is ready", entry.server));
        }
        // A number beyond ours is of a plan that was lost since, and counted anew.
        let ours = since..=server.generation.unwrap_or(since);
        let behind =
            ready.iter().find(|sidecar| !sidecar.generation.is_some_and(|runs| ours.contains(&runs)));
        if let Some(sidecar) = behind {
            let runs = sidecar
                .generation
                .map_or_else(|| "has not reported".into(), |runs| format!("runs plan {runs}"));
            return Programming::Waits(format!("pod {} {runs}, this came with plan {since}", sidecar.pod));
        }
        let rejected = ready.iter().find_map(|sidecar| Some((sidecar, sidecar.rejected.get(name)?)));
        rejected.map_or(Programming::Runs, |(sidecar, message)| {
            Programming::Rejected(format!("pod {}: {message}", sidecar.pod))
        })
    }

    fn of_server(&self, name: &ObjectName, now: Timestamp) -> Option<Desired> {
        let server = self.objects.auth_servers.get(name)?;
        let state = self.servers.get(name)?;
        let judged = state.judged.as_ref()?;
        if self.is_starting(name) {
            return None;
        }
        let before = server.status.clone().unwrap_or_default();
        let generation = server.metadata.generation;
        let [accepted, resolved] = server_judged(judged.findings(), server.spec.ingest.is_some());
        let programmed = server_programmed(name, state, &before.conditions, generation);
        let ready = status::ready([&accepted, &resolved, &programmed], "every ready sidecar runs the plan");
        let receiving = receiving(name, &state.sidecars);
        let stalled = status::stalled(&ready);
        let conditions = [accepted, resolved, programmed, ready, receiving];
        let conditions: Vec<_> = conditions.into_iter().chain(stalled).collect();
        let in_plan = state.webhooks.iter().filter(|name| self.is_in_plan(name)).count();
        let runs = |sidecar: &&Sidecar| sidecar.ready && sidecar.generation == state.generation;
        let status = AuthServerStatus {
            observed_generation: generation,
            conditions: written(&conditions, &before.conditions, generation, now),
            sidecars: SidecarTally {
                ready: count(state.sidecars.iter().filter(runs).count()),
                total: count(state.sidecars.len()),
            },
            webhooks: WebhookTally {
                accepted: count(in_plan),
                rejected: count(state.webhooks.len() - in_plan),
            },
            events: EventTally {
                received: state.sidecars.iter().map(|sidecar| sidecar.received).sum(),
                unmatched: state.sidecars.iter().map(|sidecar| sidecar.unmatched).sum(),
            },
        };
        let urgent = news(&before.conditions, &status.conditions) || before.sidecars != status.sidecars;
        let is_behind = |sidecar: &Sidecar| sidecar.ready && sidecar.generation != state.generation;
        let settling = state.failed.is_none() && state.sidecars.iter().any(is_behind);
        desired(Kind::AuthServer, name, &server.metadata, &before, &status, urgent, settling)
    }

    pub(super) fn is_in_plan(&self, webhook: &ObjectName) -> bool {
        self.webhooks.get(webhook).is_some_and(|entry| {
            let has_room = |server: &Server| !server.without_room.contains(webhook);
            entry.in_plan().is_some() && self.servers.get(&entry.server).is_none_or(has_room)
        })
    }
}

/// An object that does not fit the types can be told so all the same.
fn of_unreadable(kind: Kind, unreadable: &Unreadable, now: Timestamp) -> Desired {
    let Unreadable { name, uid, resource_version, generation, error } = unreadable;
    let message = format!(
        "the object does not fit the schema of this version: {error}; apply it again as it should be"
    );
    let conditions = [("Accepted", false), ("Ready", false), ("Stalled", true)]
        .map(|(kind, is)| Condition::new(kind, Some(is), Reason::InvalidSchema, message.clone()));
    let conditions = written(&conditions, &[], Some(*generation), now);
    let status = serde_json::json!({ "observedGeneration": generation, "conditions": conditions });
    Desired {
        kind,
        name: name.clone(),
        uid: uid.clone(),
        resource_version: resource_version.clone(),
        before: StatusText::of(&Value::Null),
        status: StatusText::of(&status),
        urgent: true,
        settling: false,
    }
}

/// The numbers of a status, summed over the sidecars.
fn tallied(before: &WebhookStatus, reports: &[&WebhookReport], sources: Vec<SourceTally>) -> WebhookStatus {
    let newest = |a: &Option<String>, b: Option<&str>| b.is_some_and(|b| a.as_deref().is_none_or(|a| a < b));
    let mut status = WebhookStatus {
        delivered: sources.iter().map(|source| source.delivered).sum(),
        failed: sources.iter().map(|source| source.failed).sum(),
        dead_lettered: sources.iter().map(|source| source.dead_lettered).sum(),
        expired: sources.iter().map(|source| source.expired).sum(),
        dropped: sources.iter().map(|source| source.dropped).sum(),
        sources,
        last_success: before.last_success.clone(),
        last_failure: before.last_failure.clone(),
        ..WebhookStatus::default()
    };
    for report in reports {
        status.pending += report.pending;
        status.consecutive_failures += report.consecutive_failures;
        status.oldest_pending_time = earlier(status.oldest_pending_time, report.oldest_pending_time.as_ref());
        status.next_attempt_time = earlier(status.next_attempt_time, report.next_attempt_time.as_ref());
        status.failing_since = earlier(status.failing_since, report.failing_since.as_ref());
        let time = |attempt: &Option<Attempt>| attempt.as_ref().map(|attempt| attempt.time.clone());
        if newest(&time(&status.last_success), time(&report.last_success).as_deref()) {
            status.last_success.clone_from(&report.last_success);
        }
        let time = |attempt: &Option<FailedAttempt>| attempt.as_ref().map(|attempt| attempt.time.clone());
        if newest(&time(&status.last_failure), time(&report.last_failure).as_deref()) {
            status.last_failure.clone_from(&report.last_failure);
        }
    }
    status
}

/// The earlier of two times, where there is one.
fn earlier(a: Option<String>, b: Option<&String>) -> Option<String> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a <= *b { a } else { b.clone() }),
        (a, b) => a.or_else(|| b.cloned()),
    }
}

fn health(status: &WebhookStatus, reports: &[&WebhookReport]) -> Health {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let rank = |circuit: &CircuitState| match circuit {
        CircuitState::Closed => 0,
        CircuitState::Suspended => 1,
        CircuitState::Probing => 2,
        CircuitState::Open => 3,
        CircuitState::Gone => 4,
    };
    Health {
        delivered: unsigned(status.delivered),
        consecutive_failures: unsigned(status.consecutive_failures),
        failing_since: status.failing_since.clone(),
        circuit: reports.iter().map(|report| report.circuit).max_by_key(rank).unwrap_or_default(),
        last_failure: status.last_failure.as_ref().map(sentence),
        pending: unsigned(status.pending),
        next_attempt: status.next_attempt_time.clone(),
        filter_failing: (reports.iter())
            .filter_map(|report| report.filter_failing.as_ref())
            .max_by(|one, other| one.time.cmp(&other.time))
            .cloned(),
    }
}

/// The failure with how far it came, how long it took and how long it might have.
fn sentence(failure: &FailedAttempt) -> String {
    let FailedAttempt {
        event, reason, phase, duration_milliseconds, timeout_seconds, attempt, message, ..
    } = failure;
    let phase = phase.as_ref().map(|phase| format!(" in phase {phase}")).unwrap_or_default();
    format!(
        "{reason}{phase}: {message} (event {event}, attempt {attempt}, {duration_milliseconds} ms of at most {timeout_seconds} s)"
    )
}

/// `Accepted` and `ResolvedRefs` of an `AuthServer`.
fn server_judged(findings: &[Finding], is_signed: bool) -> [Condition; 2] {
    let in_order = if is_signed { "the spec is in order".to_owned() } else { unsigned() };
    let of_refs = |finding: &&Finding| finding.reason.stands_in(Place::ResolvedRefs);
    let first = |finding: Option<&Finding>| finding.cloned().map_or(Ok(()), Err);
    let accepted = first(findings.iter().find(|finding| !of_refs(finding)));
    let resolved = first(findings.iter().find(of_refs));
    [
        status::of_result("Accepted", &accepted, Reason::Accepted, &in_order),
        status::of_result(
            "ResolvedRefs",
            &resolved,
            Reason::ResolvedRefs,
            "everything it refers to is there",
        ),
    ]
}

/// A warning where people look; nothing is kept from working.
fn unsigned() -> String {
    format!(
        "the spec is in order; {}: spec.ingest: whoever reaches the events port can forge events: name the auth server's signing key in spec.ingest.signingKeyRef",
        Reason::IngestUnsigned
    )
}

fn server_programmed(
    name: &ObjectName,
    state: &Server,
    before: &[Written],
    spec_generation: Option<i64>,
) -> Condition {
    let not = |reason, message: String| Condition::new("Programmed", Some(false), reason, message);
    let runs = |generation: u64| {
        let message = format!("every ready sidecar runs plan {generation}");
        Condition::new("Programmed", Some(true), Reason::Programmed, message)
    };
    if let Some(Finding { reason, message, .. }) = &state.failed {
        return not(*reason, message.clone());
    }
    let Some(generation) = state.generation else {
        return not(Reason::Pending, "the plan is not published yet".into());
    };
    if !state.sidecars.iter().any(|sidecar| sidecar.ready) {
        let ran = before.iter().any(|one| {
            one.type_ == "Programmed"
                && one.status == ConditionStatus::True
                && one.observed_generation == spec_generation
        });
        if ran && state.counts_as_running(generation) {
            return runs(generation);
        }
        let message = format!("no sidecar of AuthServer {name} is ready: add it to the auth server's pods");
        return not(Reason::NoSidecar, message);
    }
    let behind = |sidecar: &&Sidecar| sidecar.ready && sidecar.generation != Some(generation);
    match state.sidecars.iter().find(behind) {
        Some(sidecar) => {
            let cause = if sidecar.problem.is_some() { ": see Receiving" } else { "" };
            not(Reason::Pending, format!("pod {} does not run plan {generation} yet{cause}", sidecar.pod))
        }
        None => runs(generation),
    }
}

/// Whether every sidecar takes events. It does not count for `Ready`: that is of the configuration.
fn receiving(name: &ObjectName, sidecars: &[Sidecar]) -> Condition {
    let with_problem = |sidecar: &&Sidecar| sidecar.problem.is_some();
    let mut troubled = sidecars.iter().filter(with_problem);
    let (first, more) = (troubled.next(), troubled.count());
    if let Some((sidecar, problem)) = first.and_then(|one| Some((one, one.problem.as_ref()?))) {
        let others = if more > 0 { format!(" (and {more} more pods)") } else { String::new() };
        let message =
            format!("pod {}{others} refuses events: {}: {}", sidecar.pod, problem.reason, problem.message);
        return Condition::new("Receiving", Some(false), Reason::StoreUnavailable, message);
    }
    if !sidecars.iter().any(|sidecar| sidecar.ready) {
        let message = format!("no sidecar of AuthServer {name} is ready");
        return Condition::new("Receiving", None, Reason::NoSidecar, message);
    }
    Condition::new("Receiving", Some(true), Reason::Receiving, "every sidecar takes events")
}

/// Conditions as they are written: one that keeps its status keeps the time of its transition.
pub(super) fn written(
    conditions: &[Condition],
    before: &[Written],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Written> {
    let one = |condition: &Condition| {
        let status = match condition.status {
            Some(true) => ConditionStatus::True,
            Some(false) => ConditionStatus::False,
            None => ConditionStatus::Unknown,
        };
        let same = before.iter().find(|before| before.type_ == condition.kind && before.status == status);
        Written {
            type_: condition.kind.to_owned(),
            status,
            reason: condition.reason.to_string(),
            message: bounded(&condition.message),
            last_transition_time: same.map_or_else(|| seconds(now), |same| same.last_transition_time.clone()),
            observed_generation: generation,
        }
    };
    conditions.iter().map(one).collect()
}

/// A time as Kubernetes writes it, in whole seconds.
pub(super) fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// A message within the schema's bound.
fn bounded(message: &str) -> String {
    message.chars().take(2000).collect()
}

/// Whether a condition's status or reason changed, or the generation that they speak of.
pub(super) fn news(before: &[Written], after: &[Written]) -> bool {
    let told = |conditions: &[Written]| -> Vec<_> {
        let told =
            |one: &Written| (one.type_.clone(), one.status, one.reason.clone(), one.observed_generation);
        conditions.iter().map(told).collect()
    };
    told(before) != told(after)
}

pub(super) fn desired<S: Serialize + PartialEq>(
    kind: Kind,
    name: &ObjectName,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    before: &S,
    status: &S,
    urgent: bool,
    settling: bool,
) -> Option<Desired> {
    (before != status).then(|| Desired {
        kind,
        name: name.clone(),
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        before: StatusText::of(before),
        status: StatusText::of(status),
        urgent,
        settling,
    })
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
