//! The test event: one marked request to a Webhook's endpoint, made when somebody asks for it.
//!
//! In: a Webhook as it runs. Out: what came of one attempt. It goes the way of every delivery (its
//! envelope, its keys, its policy, its TLS, its deadline), and that is its worth. It is not stored, not
//! tried again and counted in no tally, and neither the circuit nor `suspend` holds it up: whoever asks
//! wants to know about the endpoint now. It must never put a body, a path or a query into its result.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::json;
use tidings_plan::ObjectName;
use tidings_store::{Event, Seq, now_ms, wall_ms};
use tokio::sync::Semaphore;
use url::Url;
use uuid::Uuid;

use crate::dial::{Attempt, Outcome};
use crate::envelope;
use crate::lane::spec::Spec;
use crate::rate::Bucket;

/// The name of the event.
const EVENT: &str = "Tidings.Test";

/// By which a receiver tells it from an event of the auth server.
const TEST: HeaderName = HeaderName::from_static("tidings-test");

/// How many are under way at once at the most, over all Webhooks.
const AT_ONCE: usize = 4;

/// How many begin in a second at the most: a person asks for less, and nobody may load an endpoint by them.
const PER_SECOND: u32 = 4;

/// Sends test events, a few at once.
#[derive(Debug)]
pub(crate) struct Tester {
    slots: Semaphore,
    bucket: Mutex<Bucket>,
}

/// There are too many at the moment.
#[derive(Debug)]
pub(crate) struct Busy;

/// What came of a test event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tested {
    webhook: String,
    event: &'static str,
    webhook_id: String,
    /// The host that it went to, with its port where one is written.
    endpoint_host: Option<String>,
    /// `Delivered`, `HttpStatus`, or why there was no answer.
    outcome: &'static str,
    status_code: Option<u16>,
    phase: Option<&'static str>,
    message: String,
    duration_milliseconds: u64,
    timeout_seconds: u64,
}

// === impl Tester ===

impl Default for Tester {
    fn default() -> Self {
        Self { slots: Semaphore::new(AT_ONCE), bucket: Mutex::new(Bucket::new(Some(PER_SECOND), now_ms())) }
    }
}

impl Tester {
    /// Sends one, and waits for what comes of it.
    pub(crate) async fn send(&self, spec: &Spec) -> Result<Tested, Busy> {
        let _slot = self.slots.try_acquire().map_err(|_| Busy)?;
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now_ms()).map_err(|_| Busy)?;
        let event = event(&spec.plan.webhook);
        let mut envelope =
            envelope::build(&event, &spec.plan, &spec.keys, &spec.source, event.received_ms.div_euclid(1000));
        envelope.headers.insert(TEST, HeaderValue::from_static("true"));
        let deadline = Duration::from_secs(u64::from(spec.plan.delivery.timeout_seconds.max(1)));
        let attempt = spec.client.send(envelope, deadline).await;
        let tested = Tested::of(spec, &event, attempt);
        tracing::info!(
            webhook = tested.webhook,
            outcome = tested.outcome,
            "a test event was asked for and sent"
        );
        Ok(tested)
    }
}

fn event(webhook: &ObjectName) -> Event {
    let now = wall_ms();
    let body = json!({
        "event": EVENT,
        "createdAt": jiff::Timestamp::from_millisecond(now).unwrap_or_default().to_string(),
        "test": true,
        "webhook": webhook.to_string(),
    });
    Event {
        // It has no place in the log.
        seq: Seq(0),
        id: Uuid::now_v7(),
        name: EVENT.into(),
        received_ms: now,
        body: Bytes::from(body.to_string()),
    }
}

// === impl Tested ===

impl Tested {
    fn of(spec: &Spec, event: &Event, attempt: Attempt) -> Self {
        let Attempt { outcome, duration, deadline, reused_connection: _ } = attempt;
        let (outcome, status_code, phase, message) = match outcome {
            Outcome::Status { code, retry_after: _ } => {
                let outcome = if (200..300).contains(&code) { "Delivered" } else { "HttpStatus" };
                (outcome, Some(code), None, format!("the endpoint answered {code}"))
            }
            Outcome::Failed { phase, reason, message } => {
                (reason.as_str(), None, Some(phase.as_str()), message)
            }
        };
        Self {
            webhook: spec.plan.webhook.to_string(),
            event: EVENT,
            webhook_id: envelope::webhook_id(event.id, &spec.plan.webhook),
            endpoint_host: host(&spec.plan.endpoint.url),
            outcome,
            status_code,
            phase,
            message,
            duration_milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            timeout_seconds: deadline.as_secs(),
        }
    }
}

fn host(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_event_says_what_it_is_and_for_whom() {
        let event = event(&ObjectName::new("shop", "mail"));
        let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!((&body["event"], &body["test"]), (&json!("Tidings.Test"), &json!(true)));
        assert_eq!(body["webhook"], "shop/mail");
        assert!(body["createdAt"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn of_an_endpoint_only_its_host_is_told() {
        assert_eq!(host("https://mail.example.com/hook?token=x").as_deref(), Some("mail.example.com"));
        assert_eq!(host("http://10.0.0.1:8080/hook").as_deref(), Some("10.0.0.1:8080"));
    }
}
