//! What the operator counts, in the Prometheus text form. Labels come from variants and fixed words.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tidings_plan::ObjectName;

/// The upper bounds of durations, in seconds.
const SECONDS: [f64; 10] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The operator's numbers; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Numbers>);

#[derive(Debug)]
struct Numbers {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    reconcile_seconds: Histogram,
    requests: Family<MethodLabel, Counter>,
    writes: Family<ResourceLabel, Counter>,
    publications: Family<ResultLabel, Counter>,
    plan_webhooks: Family<ServerLabel, Gauge>,
    plan_generation: Family<ServerLabel, Gauge>,
    status_writes: Family<ResultLabel, Counter>,
    status_dropped: Counter,
    status_saved: Gauge<u64, AtomicU64>,
    queue: Gauge,
    leads: Gauge,
    events_dropped: Counter,
    questions: Family<OutcomeLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabel {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabel {
    namespace: String,
    auth_server: String,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        let mut numbers = Numbers {
            registry: Registry::with_prefix("tidings_operator"),
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(SECONDS),
            requests: Family::default(),
            writes: Family::default(),
            publications: Family::default(),
            plan_webhooks: Family::default(),
            plan_generation: Family::default(),
            status_writes: Family::default(),
            status_dropped: Counter::default(),
            status_saved: Gauge::default(),
            queue: Gauge::default(),
            leads: Gauge::default(),
            events_dropped: Counter::default(),
            questions: Family::default(),
        };
        numbers.register();
        Self(Arc::new(numbers))
    }
}

impl Numbers {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "reconciles",
            "Rounds in which changes were judged, by result",
            self.reconciles.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Duration of such a round",
            self.reconcile_seconds.clone(),
        );
        registry.register("api_requests", "Requests to the API server, by method", self.requests.clone());
        registry.register("api_writes", "Writes to the API server, by resource", self.writes.clone());
        registry.register(
            "plan_publications",
            "Plans that were compared, and published where they differ",
            self.publications.clone(),
        );
        registry.register("plan_webhooks", "Webhooks of the published plan", self.plan_webhooks.clone());
        registry.register(
            "plan_generation",
            "The number of the published plan",
            self.plan_generation.clone(),
        );
        registry.register("status_writes", "Statuses sent, by result", self.status_writes.clone());
        registry.register(
            "status_writes_dropped",
            "Statuses dropped for want of leadership",
            self.status_dropped.clone(),
        );
        registry.register(
            "status_writes_saved",
            "Statuses that a newer one overtook before they were sent",
            self.status_saved.clone(),
        );
        registry.register("status_queue", "Statuses that wait", self.queue.clone());
        registry.register("leader", "1 while this process leads", self.leads.clone());
        registry.register(
            "events_dropped",
            "Kubernetes Events dropped since too many waited",
            self.events_dropped.clone(),
        );
        registry.register(
            "access_questions",
            "Questions to the API for teams, by what became of them",
            self.questions.clone(),
        );
    }
}

impl Metrics {
    /// A question to the API for teams: `Answered`, or why it was refused.
    pub(crate) fn asked(&self, outcome: &'static str) {
        self.0.questions.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// A round in which changes were judged.
    pub fn reconciled(&self, took: Duration, changes: usize) {
        let result = if changes > 0 { "changed" } else { "unchanged" };
        self.0.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.0.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// A request to the API server.
    pub fn requested(&self, method: &str) {
        self.0.requests.get_or_create(&MethodLabel { method: method.to_owned() }).inc();
    }

    /// A write to the API server.
    pub fn wrote(&self, resource: &str) {
        self.0.writes.get_or_create(&ResourceLabel { resource: resource.to_owned() }).inc();
    }

    /// A plan was published, or not.
    pub fn published(&self, worked: bool) {
        self.0.publications.get_or_create(&result(worked)).inc();
    }

    /// The plan that is published.
    pub fn plan(&self, server: &ObjectName, webhooks: usize, generation: u64) {
        let label = ServerLabel { namespace: server.namespace.clone(), auth_server: server.name.clone() };
        self.0.plan_webhooks.get_or_create(&label).set(i64::try_from(webhooks).unwrap_or(i64::MAX));
        self.0.plan_generation.get_or_create(&label).set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    /// There is no plan any more.
    pub fn no_plan(&self, server: &ObjectName) {
        let label = ServerLabel { namespace: server.namespace.clone(), auth_server: server.name.clone() };
        self.0.plan_webhooks.remove(&label);
        self.0.plan_generation.remove(&label);
    }

    /// A status was sent.
    pub fn status_written(&self, worked: bool) {
        self.0.status_writes.get_or_create(&result(worked)).inc();
    }

    /// A status was dropped, since another one leads.
    pub fn dropped(&self) {
        self.0.status_dropped.inc();
    }

    /// An Event was dropped, since too many waited.
    pub fn event_dropped(&self) {
        self.0.events_dropped.inc();
    }

    /// The queue as it is.
    pub fn queue(&self, waiting: usize, saved: u64) {
        self.0.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.0.status_saved.set(saved);
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.0.leads.set(i64::from(leads));
    }

    /// The text of one scrape.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

fn result(worked: bool) -> ResultLabel {
    ResultLabel { result: if worked { "success" } else { "error" } }
}
