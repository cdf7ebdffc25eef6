//! What is wrong with one Webhook. Its spec is judged by the operator's own code, so that it is right even
//! where no operator runs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tidings_crds::{
    AuthServer, CircuitState, Condition, ConditionStatus, DeliveryReport, From, Webhook, WebhookReport,
};
use tidings_operator::{Judged, Objects, Reason, reconcile};
use tidings_plan::ObjectName;

use super::{About, Finding, behind, first_false, in_short, sentence};
use crate::cluster::doctor::evidence::{Look, Patient, Server};
use crate::moment::age_of;
use crate::program;

/// Every finding of one Webhook.
pub(super) fn judge(
    patient: &Patient,
    servers: &BTreeMap<ObjectName, Server>,
    now: Timestamp,
) -> Vec<Finding> {
    let about = format!("webhook {}", patient.name);
    let about = About(&about);
    let webhook = match &patient.webhook {
        Look::Seen(webhook) => webhook,
        Look::Missing => {
            let way_out =
                format!("`kubectl get webhooks -n {}` lists those that there are", patient.name.namespace);
            return vec![about.problem("exists", "there is none of this name").solved_by(way_out)];
        }
        Look::Barred(why) => return vec![about.unseen("exists", why)],
    };
    let server_name = tidings_operator::names(webhook, &patient.name);
    let server = servers.get(&server_name);
    let mut findings = match server.map(|server| &server.object) {
        Some(Look::Seen(object)) => spec(&about, patient, webhook, &server_name, object),
        Some(Look::Missing) => vec![
            about
                .problem("spec", format!("it names AuthServer {server_name}, which is not there"))
                .solved_by("see above"),
        ],
        _ => vec![about.unseen(
            "spec",
            &format!("it is judged beside AuthServer {server_name}, which could not be looked at"),
        )],
    };
    findings.extend(secrets(&about, patient));
    findings.extend(conditions(&about, webhook));
    match server.map(|server| &server.reports) {
        Some(Look::Seen(reports)) => findings.extend(endpoint(&about, &patient.name, webhook, reports, now)),
        // Then the operator's word for it is all there is.
        _ => findings.extend(delivering(&about, webhook)),
    }
    findings
}

/// Whether the spec is in order, and the `AuthServer` allows it.
fn spec(
    about: &About<'_>,
    patient: &Patient,
    webhook: &Webhook,
    server_name: &ObjectName,
    server: &AuthServer,
) -> Vec<Finding> {
    let Some(Judged { accepted, resolved_refs, warnings, endpoint_host: _ }) =
        judged(patient, webhook, server_name, server)
    else {
        return vec![about.unseen("spec", "the AuthServer cannot be used; its own findings stand above")];
    };
    let by_labels =
        server.spec.allowed_namespaces.as_ref().is_some_and(|allowed| allowed.from == From::Selector);
    let mut findings = vec![match accepted {
        Ok(()) => about.ok("spec", format!("the spec is in order, and AuthServer {server_name} allows it")),
        Err(found) => match &patient.namespace {
            Look::Barred(why) if by_labels && found.reason == Reason::NotAllowedByAuthServer => about.unseen(
                "spec",
                &format!("AuthServer {server_name} allows namespaces by their labels, and {why}"),
            ),
            _ => about.problem("spec", in_words(&found)),
        },
    }];
    let all_seen = patient.secrets.values().all(|secret| matches!(secret, Look::Seen(_)));
    // A Secret that is missing, or was not looked at, is told by its own line.
    if let (Err(found), true) = (resolved_refs, all_seen) {
        findings.push(about.problem("secrets", in_words(&found)));
    }
    findings.extend(warnings.iter().map(|found| about.ok("note", in_words(found))));
    findings
}

/// The operator's judgement of this Webhook alone.
fn judged(
    patient: &Patient,
    webhook: &Webhook,
    server_name: &ObjectName,
    server: &AuthServer,
) -> Option<Judged> {
    let mut objects = Objects::default();
    // Its own Secret plays no part in whether the Webhook is in order, and few may read it.
    let mut server = server.clone();
    server.spec.ingest = None;
    objects.auth_servers.insert(server_name.clone(), server);
    objects.webhooks.insert(patient.name.clone(), webhook.clone());
    for (name, secret) in &patient.secrets {
        if let Look::Seen(secret) = secret {
            objects.secrets.insert(ObjectName::new(&patient.name.namespace, name), secret.clone());
        }
    }
    if let Look::Seen(labels) = &patient.namespace {
        objects.namespaces.insert(patient.name.namespace.clone(), labels.clone());
    }
    let mut outcome = reconcile(&objects, server_name);
    outcome.auth_server.is_empty().then(|| outcome.webhooks.remove(&patient.name))?
}

fn in_words(found: &tidings_operator::Finding) -> String {
    format!("{}: {}: {}", found.field, found.reason, found.message)
}

fn secrets(about: &About<'_>, patient: &Patient) -> Vec<Finding> {
    let namespace = &patient.name.namespace;
    patient
        .secrets
        .iter()
        .map(|(name, secret)| match secret {
            Look::Seen(_) => about.ok("secrets", format!("Secret {name} is there")),
            Look::Missing => about
                .problem("secrets", format!("there is no Secret {namespace}/{name}"))
                .solved_by(format!("create it, as with `kubectl create secret generic {name} -n {namespace} --from-literal=signingKey=\"$(openssl rand -base64 32)\"`")),
            Look::Barred(why) => about.unseen("secrets", &format!("{why}; the condition ResolvedRefs tells what the operator found")),
        })
        .collect()
}

fn conditions(about: &About<'_>, webhook: &Webhook) -> Vec<Finding> {
    let status = webhook.status.clone().unwrap_or_default();
    if let Some(behind) = behind(about, webhook.metadata.generation, status.observed_generation) {
        return vec![behind];
    }
    // Ready is the sum of the others: the first of them is the reason.
    match first_false(&status.conditions, &["Accepted", "ResolvedRefs", "Programmed", "Ready"]) {
        Some(condition) => {
            let finding = about.problem("conditions", sentence(condition));
            let is_pending = condition.reason == Reason::Pending.as_str();
            vec![if is_pending {
                finding.solved_by("see the sidecars above: each has to run the newest plan")
            } else {
                finding
            }]
        }
        None => vec![about.ok("conditions", "Accepted, ResolvedRefs, Programmed and Ready")],
    }
}

fn delivering(about: &About<'_>, webhook: &Webhook) -> Option<Finding> {
    let status = webhook.status.as_ref()?;
    let condition: &Condition = status.conditions.iter().find(|condition| condition.type_ == "Delivering")?;
    Some(match condition.status {
        ConditionStatus::False => about.problem("endpoint", sentence(condition)),
        ConditionStatus::True | ConditionStatus::Unknown => about.ok("endpoint", condition.message.clone()),
    })
}

/// What the sidecars say of the endpoint.
fn endpoint(
    about: &About<'_>,
    name: &ObjectName,
    webhook: &Webhook,
    reports: &[DeliveryReport],
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for DeliveryReport { spec, .. } in reports {
        let is_it = |namespace: &str, other: &str| namespace == name.namespace && other == name.name;
        for rejected in spec.rejected.iter().filter(|found| is_it(&found.namespace, &found.name)) {
            findings
                .push(about.problem("endpoint", format!("{} cannot run it: {}", spec.pod, rejected.message)));
        }
        let uid = webhook.metadata.uid.as_deref().unwrap_or_default();
        for report in spec.webhooks.iter().filter(|found| is_it(&found.namespace, &found.name)) {
            if report.uid == uid || uid.is_empty() {
                findings.extend(of_sidecar(about, name, &spec.pod, report, now));
            }
        }
    }
    if findings.is_empty() && !reports.is_empty() {
        let way_out = format!("`{} test {} -n {}` sends a test event", program(), name.name, name.namespace);
        findings.push(about.ok("endpoint", "nothing was sent to it yet").solved_by(way_out));
    }
    findings
}

fn of_sidecar(
    about: &About<'_>,
    name: &ObjectName,
    pod: &str,
    report: &WebhookReport,
    now: Timestamp,
) -> Vec<Finding> {
    let WebhookReport { delivered, dead_lettered, circuit, consecutive_failures, .. } = report;
    let tail = waiting(report, now);
    let test = format!(
        "`{} test {} -n {}` tries the endpoint now, and says what its answer means",
        program(),
        name.name,
        name.namespace
    );
    let failing = |what: String| {
        about
            .problem("endpoint", format!("{pod}: {what}{}; {tail}", last_failure(report, now)))
            .solved_by(test.clone())
    };
    let mut findings = vec![match circuit {
        CircuitState::Gone => about
            .problem("endpoint", format!("{pod}: the endpoint answered 410 Gone, so nothing is sent until the Webhook is changed; {tail}"))
            .solved_by("correct spec.endpoint, or delete the Webhook"),
        CircuitState::Suspended => about.ok("endpoint", format!("{pod}: suspended, its events are kept; {tail}")),
        CircuitState::Open | CircuitState::Probing => {
            failing(format!("{consecutive_failures} failures in a row, so probes alone are sent"))
        }
        CircuitState::Closed if *consecutive_failures > 0 => failing(format!("{consecutive_failures} failures in a row")),
        CircuitState::Closed if *delivered == 0 => about.ok("endpoint", format!("{pod}: nothing was delivered yet; {tail}")),
        CircuitState::Closed => about.ok("endpoint", format!("{pod}: it takes what is sent, {delivered} until now; {tail}")),
    }];
    if *dead_lettered > 0 {
        let way_out = format!(
            "`{} deadletters {} -n {}` lists them, `{} replay` delivers them again",
            program(),
            name.name,
            name.namespace,
            program()
        );
        findings.push(
            about.ok("note", format!("{pod}: {dead_lettered} events were given up")).solved_by(way_out),
        );
    }
    findings
}

fn last_failure(report: &WebhookReport, now: Timestamp) -> String {
    report.last_failure.as_ref().map_or_else(String::new, |failure| {
        let ago = age_of(&failure.time, now).map_or_else(String::new, |age| format!(" {} ago", seconds(age)));
        format!(", the last{ago}: {}: {}", failure.reason, failure.message)
    })
}

fn waiting(report: &WebhookReport, now: Timestamp) -> String {
    let WebhookReport { pending, oldest_pending_time, next_attempt_time, .. } = report;
    if *pending == 0 {
        return "nothing waits".to_owned();
    }
    let oldest = oldest_pending_time.as_ref().and_then(|time| age_of(time, now));
    let oldest = oldest.map_or_else(String::new, |age| format!(", the oldest for {}", seconds(age)));
    let next =
        next_attempt_time.as_ref().map_or_else(String::new, |time| format!(", the next attempt at {time}"));
    format!("{pending} events wait{oldest}{next}")
}

fn seconds(age: std::time::Duration) -> String {
    in_short(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}
