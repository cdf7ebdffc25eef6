//! From what was seen to what is wrong. Pure: no network, no clock.
//!
//! Each check is a small function that gives findings; a check whose ground is missing is not made, since
//! its problem would be another one's shadow.

mod webhook;

use std::collections::BTreeSet;

use jiff::Timestamp;
use tidings_crds::{AuthServer, Condition, ConditionStatus, DeliveryReport};
use tidings_plan::ObjectName;

use super::evidence::{Evidence, Look, Operator, Server};
use super::gather::OPERATOR;
use crate::moment::{age, age_of};

/// The kinds that must be served.
const DEFINITIONS: [&str; 4] = ["authservers", "webhooks", "deliveryreports", "webhookreplays"];

/// A Lease is renewed several times within its duration. Beyond so many of them nobody renews it; clocks
/// may be apart by the minute below.
const STALE_LEASES: i64 = 3;
const CLOCKS_APART_SECONDS: i64 = 60;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cluster) enum Verdict {
    Ok,
    Problem,
    /// It could not be looked at.
    Unseen,
}

/// One check's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cluster) struct Finding {
    /// The cluster, or an object.
    pub(in crate::cluster) about: String,
    pub(in crate::cluster) check: &'static str,
    pub(in crate::cluster) verdict: Verdict,
    pub(in crate::cluster) message: String,
    pub(in crate::cluster) way_out: Option<String>,
}

/// Every finding: the cluster's first, then each `AuthServer`'s, then each Webhook's.
pub(super) fn judge(evidence: &Evidence) -> Vec<Finding> {
    let Evidence { now, scope, definitions, operator, webhooks, servers } = evidence;
    let cluster = About("cluster");
    let mut findings = vec![definitions_are_served(&cluster, definitions)];
    findings.push(operator_runs(&cluster, OPERATOR, operator, *now));
    if matches!(definitions, Look::Missing) {
        return findings;
    }
    for (name, server) in servers {
        findings.extend(auth_server(name, server, *now));
    }
    match webhooks {
        Look::Seen(patients) if patients.is_empty() => {
            findings.push(cluster.ok("webhooks", format!("there is no Webhook in {scope}")));
        }
        Look::Seen(patients) => {
            findings.extend(patients.iter().flat_map(|patient| webhook::judge(patient, servers, *now)));
        }
        Look::Missing => {}
        Look::Barred(why) => findings.push(cluster.unseen("webhooks", why)),
    }
    findings
}

fn definitions_are_served(about: &About<'_>, served: &Look<BTreeSet<String>>) -> Finding {
    let check = "definitions";
    let install = "install them: the chart does, or `kubectl apply -f crds`";
    let served = match served {
        Look::Seen(served) => served,
        Look::Missing => {
            let message =
                "the API server knows nothing of tidings.dev/v1alpha1: the definitions are not installed";
            return about.problem(check, message).solved_by(install);
        }
        Look::Barred(why) => return about.unseen(check, why),
    };
    let missing: Vec<_> = DEFINITIONS.into_iter().filter(|kind| !served.contains(*kind)).collect();
    if missing.is_empty() {
        return about.ok(check, "the definitions of tidings.dev/v1alpha1 are installed");
    }
    about.problem(check, format!("not installed: {}", missing.join(", "))).solved_by(install)
}

pub(in crate::cluster) fn operator_runs(
    about: &About<'_>,
    name: &str,
    operator: &Look<Operator>,
    now: Timestamp,
) -> Finding {
    let check = "operator";
    let Operator { namespace, holder, renewed, lease_seconds, replicas } = match operator {
        Look::Seen(operator) => operator,
        Look::Missing => {
            return about
                .problem(check, format!("the operator is not running, and never did: there is no Lease {name}"))
                .solved_by("install the chart; if the operator runs elsewhere, name its namespace with --operator-namespace");
        }
        Look::Barred(why) => return about.unseen(check, why),
    };
    let pods = match replicas {
        Some((ready, wanted)) => format!(", {ready} of {wanted} replicas are ready"),
        None => String::new(),
    };
    let way_out = format!("kubectl get deployments,pods -n {namespace}; the operator's log tells why");
    let Some(holder) = holder else {
        let message = format!("the operator is not running: nobody holds the Lease {namespace}/{name}{pods}");
        return about.problem(check, message).solved_by(way_out);
    };
    let since = renewed.map_or(i64::MAX, |renewed| now.duration_since(renewed).as_secs());
    let stale = i64::from(*lease_seconds) * STALE_LEASES + CLOCKS_APART_SECONDS;
    let renewed = if since == i64::MAX { "never".to_owned() } else { format!("{} ago", in_short(since)) };
    if since > stale {
        let message = format!(
            "the operator is not running: {holder} holds the Lease in {namespace}, and renewed it {renewed}{pods}"
        );
        return about.problem(check, message).solved_by(way_out);
    }
    about.ok(check, format!("{holder} in {namespace}, renewed its Lease {renewed}{pods}"))
}

fn auth_server(name: &ObjectName, server: &Server, now: Timestamp) -> Vec<Finding> {
    let Server { object, plan, reports } = server;
    let about = format!("authserver {name}");
    let about = About(&about);
    let object = match object {
        Look::Seen(object) => object,
        Look::Missing => {
            let message = "there is none of this name";
            let way_out = format!(
                "have the platform team make it, or correct spec.authServerRef; `kubectl get authservers -n {}` lists those that there are",
                name.namespace
            );
            return vec![about.problem("exists", message).solved_by(way_out)];
        }
        Look::Barred(why) => return vec![about.unseen("exists", why)],
    };
    let mut findings = of_status(&about, object);
    findings.push(plan_is_there(&about, name, plan));
    findings.extend(sidecars_report(&about, name, reports, now));
    findings
}

pub(in crate::cluster) fn of_status(about: &About<'_>, object: &AuthServer) -> Vec<Finding> {
    let status = object.status.clone().unwrap_or_default();
    if let Some(behind) = behind(about, object.metadata.generation, status.observed_generation) {
        return vec![behind];
    }
    let wrong = first_false(&status.conditions, &["Accepted", "ResolvedRefs", "Programmed", "Ready"]);
    match wrong {
        Some(condition) => vec![about.problem("conditions", sentence(condition))],
        None => vec![about.ok("conditions", "the operator finds nothing wrong with it")],
    }
}

fn plan_is_there(about: &About<'_>, name: &ObjectName, plan: &Look<()>) -> Finding {
    let head = tidings_plan::shards::head_name(name);
    match plan {
        Look::Seen(()) => about.ok("plan", format!("a plan is published (Secret {head})")),
        Look::Missing => about
            .problem(
                "plan",
                format!("no plan was published: there is no Secret {head} in {}", name.namespace),
            )
            .solved_by("the operator writes it: see above whether it runs, and its log"),
        Look::Barred(why) => about.unseen("plan", why),
    }
}

fn sidecars_report(
    about: &About<'_>,
    name: &ObjectName,
    reports: &Look<Vec<DeliveryReport>>,
    now: Timestamp,
) -> Vec<Finding> {
    let check = "sidecars";
    let reports = match reports {
        Look::Seen(reports) => reports,
        Look::Missing => &Vec::new(),
        Look::Barred(why) => return vec![about.unseen(check, why)],
    };
    let newest = reports.iter().map(|report| report.spec.plan.generation).max();
    let Some(newest) = newest else {
        let way_out = format!(
            "the auth server's pods carry the sidecar: kubectl get pods -n {}; its log tells whether it may write its report",
            name.namespace
        );
        return vec![
            about
                .problem(check, "no sidecar has reported: nothing is received or delivered")
                .solved_by(way_out),
        ];
    };
    // A sidecar with many Webhooks reports in parts.
    let first_parts = reports.iter().filter(|report| report.spec.part == 0);
    first_parts.map(|report| sidecar(about, report, newest, now)).collect()
}

fn sidecar(about: &About<'_>, report: &DeliveryReport, newest: i64, now: Timestamp) -> Finding {
    let spec = &report.spec;
    let generation = spec.plan.generation;
    let written = age_of(&spec.time, now).map_or_else(
        || "at an unknown time".to_owned(),
        |age| format!("{} ago", in_short(age.as_secs().try_into().unwrap_or(i64::MAX))),
    );
    let pod = &spec.pod;
    if generation == 0 {
        return about
            .problem("sidecars", format!("{pod} runs no plan yet; it reported {written}"))
            .solved_by("its log tells whether it may read the plan's Secrets");
    }
    if generation < newest {
        return about
            .problem(
                "sidecars",
                format!(
                    "{pod} runs plan {generation}, another one runs {newest}; it last reported {written}"
                ),
            )
            .solved_by("its log tells why it does not take the newer plan; is the pod still alive?");
    }
    about.ok("sidecars", format!("{pod} runs plan {generation}; its report last changed {written}"))
}

/// The operator has not seen the spec as it is now.
fn behind(about: &About<'_>, generation: Option<i64>, observed: Option<i64>) -> Option<Finding> {
    let generation = generation.unwrap_or(0);
    // A status that nobody wrote yet speaks of generation -1.
    let message = match observed.filter(|observed| *observed >= 0) {
        Some(observed) if observed >= generation => return None,
        Some(observed) => format!("its status speaks of generation {observed}, its spec is at {generation}"),
        None => "it has no status: the operator has not seen it".to_owned(),
    };
    Some(
        about
            .problem("conditions", message)
            .solved_by("is the operator running? See above; it takes a second when it is"),
    )
}

/// The first of these conditions that is not true.
fn first_false<'a>(conditions: &'a [Condition], kinds: &[&str]) -> Option<&'a Condition> {
    kinds
        .iter()
        .filter_map(|kind| conditions.iter().find(|condition| condition.type_ == *kind))
        .find(|condition| condition.status != ConditionStatus::True)
}

fn sentence(condition: &Condition) -> String {
    let Condition { type_, status, reason, message, .. } = condition;
    format!("{type_} is {status:?}: {reason}: {message}")
}

/// An age in seconds; what lies a little ahead is a clock that is apart.
fn in_short(seconds: i64) -> String {
    age(u64::try_from(seconds).unwrap_or(0))
}

/// What findings are about.
pub(in crate::cluster) struct About<'a>(pub(in crate::cluster) &'a str);

// === impl About ===

impl About<'_> {
    fn finding(&self, check: &'static str, verdict: Verdict, message: impl Into<String>) -> Finding {
        Finding { about: self.0.to_owned(), check, verdict, message: message.into(), way_out: None }
    }

    pub(in crate::cluster) fn ok(&self, check: &'static str, message: impl Into<String>) -> Finding {
        self.finding(check, Verdict::Ok, message)
    }

    pub(in crate::cluster) fn problem(&self, check: &'static str, message: impl Into<String>) -> Finding {
        self.finding(check, Verdict::Problem, message)
    }

    pub(in crate::cluster) fn unseen(&self, check: &'static str, why: &str) -> Finding {
        self.finding(check, Verdict::Unseen, format!("not looked at: {why}"))
    }
}

// === impl Finding ===

impl Finding {
    pub(in crate::cluster) fn solved_by(mut self, way_out: impl Into<String>) -> Self {
        self.way_out = Some(way_out.into());
        self
    }
}

// === impl Verdict ===

impl Verdict {
    pub(in crate::cluster) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Problem => "problem",
            Self::Unseen => "unseen",
        }
    }
}

#[cfg(test)]
mod tests;
