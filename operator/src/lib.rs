//! The operator's judgement: from the objects that users apply to the plan that a sidecar runs.
//!
//! ```text
//! Objects -> resolve -> check -> render -> bounds -> Plan
//!               |          |
//!               +----------+--> Finding (reason, field, message) -> status
//! manifests: files -> lint -> Objects
//! ```
//!
//! Everything here is pure: no network, no clock, no cluster. `tidings dev`, `tidings lint` and the
//! operator in the cluster call the very same code. It must never let one bad Webhook change another
//! one's plan, and never put a secret into a finding.

pub mod manifests;

pub mod objects;

pub mod services;

mod resolve;

mod grants;

mod check;

mod endpoint;

mod named;

mod render;

pub mod bounds;

pub mod reason;

pub mod lint;

pub mod status;

pub mod run;

pub mod access;

pub mod surface;

pub mod metrics;

pub mod watch;

pub mod world;

pub mod read;

pub mod publish;

mod backoff;

pub mod outbox;

pub mod write;

pub mod expire;

mod announce;

use std::collections::BTreeMap;

use tidings_crds::{SecretPolicy, Webhook};
use tidings_plan::{ObjectName, Plan, ReplayPlan, WebhookPlan};

use bounds::Claim;

pub use objects::Objects;
pub use reason::Reason;

/// What is wrong, or worth knowing, about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The condition's reason.
    pub reason: Reason,
    /// The field's path, `spec.endpoint.url`.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What became of one auth server's objects.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The plan; `None` when the `AuthServer` itself cannot be used.
    pub plan: Option<Plan>,
    /// What is wrong with the `AuthServer`.
    pub auth_server: Vec<Finding>,
    /// The Webhooks that name it.
    pub webhooks: BTreeMap<ObjectName, Judged>,
}

/// What became of one Webhook.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Whether its spec is in order; else the first thing that is wrong.
    pub accepted: Result<(), Finding>,
    /// Whether what it refers to is there.
    pub resolved_refs: Result<(), Finding>,
    /// What is worth knowing all the same.
    pub warnings: Vec<Finding>,
    /// The host that it delivers to, where the spec tells.
    pub endpoint_host: Option<String>,
}

/// What became of an `AuthServer` itself.
#[derive(Debug, Clone)]
pub struct JudgedServer {
    frame: Result<resolve::Frame, Vec<Finding>>,
}

/// Judges every Webhook that names an auth server, and renders the plan of those that are in order.
pub fn reconcile(objects: &Objects, auth_server: &ObjectName) -> Outcome {
    let server = judge_server(objects, auth_server);
    let (mut webhooks, mut plans) = (BTreeMap::new(), Vec::new());
    for (name, webhook) in
        objects.webhooks.iter().filter(|(name, webhook)| names(webhook, name) == *auth_server)
    {
        let (judged, plan) = judge_webhook(objects, name, webhook, server.as_ref());
        webhooks.insert(name.clone(), judged);
        plans.extend(plan);
    }
    for (name, finding) in beyond_shares(objects, server.as_ref(), &plans) {
        plans.retain(|plan| plan.webhook != name);
        if let Some(judged) = webhooks.get_mut(&name) {
            judged.accepted = Err(finding);
        }
    }
    let auth_server_findings = match &server {
        Some(server) => server.findings().to_vec(),
        None => vec![no_server(auth_server)],
    };
    let plan = server.and_then(|server| render_plan(auth_server, &server, plans, Vec::new()));
    Outcome { plan, auth_server: auth_server_findings, webhooks }
}

/// Judges an `AuthServer`; `None` where there is none.
pub fn judge_server(objects: &Objects, name: &ObjectName) -> Option<JudgedServer> {
    let server = objects.auth_servers.get(name)?;
    Some(JudgedServer { frame: resolve::auth_server(objects, name, server) })
}

/// Judges one Webhook, whose `AuthServer` was judged before; renders it where it is in order.
pub fn judge_webhook(
    objects: &Objects,
    name: &ObjectName,
    webhook: &Webhook,
    server: Option<&JudgedServer>,
) -> (Judged, Option<WebhookPlan>) {
    let server_name = names(webhook, name);
    let allowed = match objects.auth_servers.get(&server_name) {
        Some(spec) => resolve::allows(objects, &server_name, spec, name, webhook),
        None => Err(no_server(&server_name)),
    };
    let frame = server.and_then(|server| server.frame.as_ref().ok());
    let policy = frame.map(|frame| frame.secret_policy).unwrap_or_default();
    let resolved = resolve::webhook(objects, name, webhook, policy);
    let checked = check::webhook(name, webhook, frame, resolved.as_ref().ok());
    let mut accepted = allowed.and(checked.result);
    let mut plan = match (&accepted, resolved.as_ref(), frame) {
        (Ok(()), Ok(resolved), Some(frame)) => Some(render::webhook(name, webhook, resolved, frame)),
        _ => None,
    };
    if let (Some(rendered), Some(frame)) = (&plan, frame)
        && let Err(finding) = frame.bounds.webhook(&webhook.spec, rendered)
    {
        (accepted, plan) = (Err(finding), None);
    }
    let endpoint_host = endpoint::host_of(&name.namespace, &webhook.spec.endpoint);
    let resolved_refs = resolved.map(|_| ());
    (Judged { accepted, resolved_refs, warnings: checked.warnings, endpoint_host }, plan)
}

/// Judges what needs no `AuthServer` of a Webhook whose `AuthServer` is not at hand.
pub fn judge_webhook_alone(objects: &Objects, name: &ObjectName, webhook: &Webhook) -> Judged {
    let resolved = resolve::webhook(objects, name, webhook, SecretPolicy::Any);
    let checked = check::webhook_alone(name, webhook, resolved.as_ref().ok());
    let endpoint_host = endpoint::host_of(&name.namespace, &webhook.spec.endpoint);
    let (accepted, resolved_refs) = (checked.result, resolved.map(|_| ()));
    Judged { accepted, resolved_refs, warnings: checked.warnings, endpoint_host }
}

/// The Webhooks that are beyond their namespace's share of the plan. Each namespace's share follows from its own
/// Webhooks alone, so these may be of all namespaces or of one.
pub(crate) fn beyond_shares<'a>(
    objects: &'a Objects,
    server: Option<&JudgedServer>,
    plans: impl IntoIterator<Item = &'a WebhookPlan>,
) -> BTreeMap<ObjectName, Finding> {
    let Some(frame) = server.and_then(|server| server.frame.as_ref().ok()) else { return BTreeMap::new() };
    let mut namespaces = BTreeMap::<&str, Vec<Claim<'_>>>::new();
    for plan in plans {
        let Some(Webhook { metadata, spec, .. }) = objects.webhooks.get(&plan.webhook) else { continue };
        let claim = Claim { created: metadata.creation_timestamp.clone(), spec, plan };
        namespaces.entry(&plan.webhook.namespace).or_default().push(claim);
    }
    namespaces.into_values().flat_map(|claims| frame.bounds.namespace(claims)).collect()
}

/// The plan of an auth server; `None` while the `AuthServer` itself cannot be used.
pub fn render_plan(
    name: &ObjectName,
    server: &JudgedServer,
    webhooks: Vec<WebhookPlan>,
    replays: Vec<ReplayPlan>,
) -> Option<Plan> {
    server.frame.as_ref().ok().map(|frame| render::plan(name, frame, webhooks, replays))
}

fn no_server(name: &ObjectName) -> Finding {
    let message =
        format!("there is no AuthServer {name}: the platform team applies one beside the auth server");
    Finding::new(Reason::AuthServerNotFound, "spec.authServerRef", message)
}

/// The auth server that a Webhook names; in the Webhook's own namespace where it does not say.
pub fn names(webhook: &Webhook, name: &ObjectName) -> ObjectName {
    let reference = &webhook.spec.auth_server_ref;
    ObjectName::new(reference.namespace.as_ref().unwrap_or(&name.namespace), &reference.name)
}

// === impl Finding ===

impl Finding {
    pub(crate) fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), message: message.into() }
    }
}

// === impl JudgedServer ===

impl JudgedServer {
    /// What is wrong with it.
    pub fn findings(&self) -> &[Finding] {
        self.frame.as_ref().err().map(Vec::as_slice).unwrap_or_default()
    }
}

// === impl Judged ===

impl Judged {
    /// Whether it is in the plan.
    pub fn is_ready(&self) -> bool {
        self.accepted.is_ok() && self.resolved_refs.is_ok()
    }

    /// What keeps it out of the plan, and what is worth knowing.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.accepted
            .as_ref()
            .err()
            .into_iter()
            .chain(self.resolved_refs.as_ref().err())
            .chain(&self.warnings)
    }
}

#[cfg(test)]
mod tests;
