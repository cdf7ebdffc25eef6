//! What the sidecar counts, in the Prometheus text form.
//!
//! Numbers for one Webhook come from the lanes' own tallies at the time of the scrape, so that nobody
//! keeps two books; what is counted here is for all of them together. Labels come from variants.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::dial::FailureReason;
use crate::schedule::Verdict;
use crate::tally::Snapshot;

/// The upper bounds of the latency histograms, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.004, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    outcome: &'static str,
}

/// What is counted over all deliveries.
#[derive(Debug)]
pub struct Deliveries {
    attempts: Family<OutcomeLabel, Counter>,
    attempt_seconds: Histogram,
    event_to_delivery_seconds: Histogram,
    reused_connections: AtomicU64,
    new_connections: AtomicU64,
    matched: AtomicU64,
    unmatched: AtomicU64,
    replayed: AtomicU64,
}

/// What the rest of the sidecar contributes to a scrape.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Plain counters: name without `tidings_` and `_total`, help, value.
    pub counters: Vec<(&'static str, &'static str, u64)>,
    /// Counters of seconds: name without `tidings_` and `_total`, help, value.
    pub seconds: Vec<(&'static str, &'static str, f64)>,
    /// Plain gauges: name without `tidings_`, help, value.
    pub gauges: Vec<(&'static str, &'static str, f64)>,
    /// Refused requests by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// The Webhooks.
    pub webhooks: Vec<Snapshot>,
    /// The time of the scrape, in milliseconds since 1970.
    pub now_ms: i64,
}

#[derive(Debug)]
struct ScrapeCollector(Mutex<Scrape>);

// === impl Deliveries ===

impl Default for Deliveries {
    fn default() -> Self {
        let attempts = Family::<OutcomeLabel, Counter>::default();
        // A series that began with its first failure would hide that one from a rate.
        for outcome in
            FailureReason::ALL.iter().map(|reason| reason.as_str()).chain(["Delivered", "HttpStatus"])
        {
            drop(attempts.get_or_create(&OutcomeLabel { outcome }));
        }
        Self {
            attempts,
            attempt_seconds: Histogram::new(SECONDS),
            event_to_delivery_seconds: Histogram::new(SECONDS),
            reused_connections: AtomicU64::new(0),
            new_connections: AtomicU64::new(0),
            matched: AtomicU64::new(0),
            unmatched: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
        }
    }
}

impl Deliveries {
    /// Counts an attempt. `since_received_ms`: since the event was received; `None` for a replay.
    pub(crate) fn attempted(
        &self,
        outcome: &'static str,
        duration: Duration,
        reused: Option<bool>,
        since_received_ms: Option<i64>,
        verdict: Verdict,
    ) {
        self.attempts.get_or_create(&OutcomeLabel { outcome }).inc();
        self.attempt_seconds.observe(duration.as_secs_f64());
        if let Some(since_received_ms) = since_received_ms.filter(|_| verdict == Verdict::Taken) {
            let millis = u32::try_from(since_received_ms.max(0)).unwrap_or(u32::MAX);
            self.event_to_delivery_seconds.observe(f64::from(millis) / 1000.0);
        }
        match reused {
            Some(true) => self.reused_connections.fetch_add(1, Ordering::Relaxed),
            Some(false) => self.new_connections.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
    }

    /// Counts an event that was handed to the lanes that select it, if any.
    pub(crate) fn dispatched(&self, matched: bool) {
        if matched { &self.matched } else { &self.unmatched }.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts events that a replay put in line.
    pub(crate) fn replayed(&self, events: u64) {
        self.replayed.fetch_add(events, Ordering::Relaxed);
    }

    /// Events that no Webhook selected.
    pub fn unmatched(&self) -> u64 {
        self.unmatched.load(Ordering::Relaxed)
    }

    /// The text of one scrape.
    pub fn encode(&self, scrape: Scrape) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("tidings");
        registry.register("attempts", "Attempts by outcome", self.attempts.clone());
        registry.register_with_unit(
            "attempt_duration",
            "Duration of one attempt",
            Unit::Seconds,
            self.attempt_seconds.clone(),
        );
        registry.register_with_unit(
            "event_to_delivery",
            "From an event's arrival to its delivery",
            Unit::Seconds,
            self.event_to_delivery_seconds.clone(),
        );
        let mut scrape = scrape;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        scrape.counters.extend([
            (
                "connections_reused",
                "Attempts on a connection that was open already",
                read(&self.reused_connections),
            ),
            ("connections_opened", "Attempts that opened a connection", read(&self.new_connections)),
            ("events_matched", "Events that some Webhook selects", read(&self.matched)),
            ("events_unmatched", "Events that no Webhook selects", read(&self.unmatched)),
            ("events_replayed", "Events that replays put in line again", read(&self.replayed)),
        ]);
        registry.register_collector(Box::new(ScrapeCollector(Mutex::new(scrape))));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

// === impl ScrapeCollector ===

impl Collector for ScrapeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(scrape) = self.0.lock() else { return Err(fmt::Error) };
        for (name, help, value) in &scrape.counters {
            let metric = ConstCounter::new(*value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, value) in &scrape.seconds {
            let metric = ConstCounter::new(*value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, value) in &scrape.gauges {
            let metric = ConstGauge::new(*value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        refused(&scrape, &mut encoder)?;
        webhooks(&scrape, &mut encoder)
    }
}

fn refused(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Requests refused, by reason";
    let mut family = encoder.encode_descriptor("events_refused", help, None, MetricType::Counter)?;
    for (reason, value) in &scrape.refused {
        ConstCounter::new(*value).encode(family.encode_family(&[("reason", *reason)])?)?;
    }
    Ok(())
}

type Read = fn(&Snapshot, i64) -> Option<f64>;

#[expect(clippy::cast_precision_loss, reason = "Prometheus holds every number as f64")]
const WEBHOOK_METRICS: [(&str, &str, MetricType, Read); 10] = [
    ("webhook_delivered", "Events delivered", MetricType::Counter, |w, _| Some(w.tally.delivered as f64)),
    ("webhook_failed_attempts", "Attempts that failed", MetricType::Counter, |w, _| {
        Some(w.tally.failed as f64)
    }),
    ("webhook_dead_letters", "Events given up", MetricType::Counter, |w, _| {
        Some(w.tally.dead_lettered as f64)
    }),
    ("webhook_expired", "Events that retention took undelivered", MetricType::Counter, |w, _| {
        Some(w.tally.expired as f64)
    }),
    (
        "webhook_filter_errors",
        "Events delivered since the filter could not be evaluated",
        MetricType::Counter,
        |w, _| Some(w.tally.filter_errors as f64),
    ),
    ("webhook_dropped", "Events dropped by filter or change", MetricType::Counter, |w, _| {
        Some(w.tally.dropped as f64)
    }),
    ("webhook_pending", "Events that wait", MetricType::Gauge, |w, _| Some(w.pending as f64)),
    ("webhook_circuit_open", "1 while nothing is sent", MetricType::Gauge, |w, _| {
        Some(if w.circuit == "Closed" { 0.0 } else { 1.0 })
    }),
    (
        "webhook_oldest_pending_age_seconds",
        "Age of the oldest event that waits",
        MetricType::Gauge,
        |w, now| Some(w.oldest_pending_ms.map_or(0.0, |ms| (now - ms).max(0) as f64 / 1000.0)),
    ),
    ("webhook_since_last_success_seconds", "Time since the last success", MetricType::Gauge, |w, now| {
        w.tally.last_success.as_ref().map(|success| (now - success.time_ms).max(0) as f64 / 1000.0)
    }),
];

fn webhooks(scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for (name, help, kind, read) in WEBHOOK_METRICS {
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for webhook in &scrape.webhooks {
            let Some(value) = read(webhook, scrape.now_ms) else { continue };
            let (namespace, name) = webhook.webhook.split_once('/').unwrap_or(("", &webhook.webhook));
            let labels = [("namespace", namespace), ("webhook", name)];
            let encoder = family.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
                _ => ConstGauge::new(value).encode(encoder)?,
            }
        }
    }
    Ok(())
}
