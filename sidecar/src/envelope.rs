//! What goes out with one attempt: the headers and the body, signed.
//!
//! In: an event of the log and the Webhook as it is now. Out: an [`Envelope`]. In the native format the
//! body is the very bytes that arrived. The `webhook-id` depends on the event and the Webhook alone, so
//! it is the same over all attempts, restarts and replays.

use std::fmt::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sha2::{Digest, Sha256};
use tidings_plan::{Format, ObjectName, WebhookPlan};
use tidings_signature::{SigningKey, sign};
use tidings_store::Event;
use uuid::Uuid;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("Tidings/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const CLOUD_EVENTS_JSON: HeaderValue = HeaderValue::from_static("application/cloudevents+json");

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const LOGTO_SIGNATURE: HeaderName = HeaderName::from_static("logto-signature-sha-256");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A signed request, but for the endpoint's own headers.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The `webhook-id` of an event for a Webhook, as Standard Webhooks names it.
pub fn webhook_id(event: Uuid, webhook: &ObjectName) -> String {
    let digest = Sha256::new().chain_update(event.as_bytes()).chain_update(webhook.to_string()).finalize();
    digest[..16].iter().fold("msg_".to_owned(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Builds one attempt's request. `now_seconds`: Unix time, the `webhook-timestamp`.
pub fn build(
    event: &Event,
    webhook: &WebhookPlan,
    keys: &[SigningKey],
    source: &ObjectName,
    now_seconds: i64,
) -> Envelope {
    let (body, content_type) = match webhook.format {
        Format::Native => (event.body.clone(), JSON),
        Format::CloudEvents => (cloud_event(event, source), CLOUD_EVENTS_JSON),
    };
    let id = webhook_id(event.id, &webhook.webhook);
    let signatures = sign(keys, &id, now_seconds, &body);
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(USER_AGENT, AGENT);
    let made = [
        (WEBHOOK_ID, id),
        (WEBHOOK_TIMESTAMP, now_seconds.to_string()),
        (WEBHOOK_SIGNATURE, signatures.webhook_signature),
        (LOGTO_SIGNATURE, signatures.logto_signature),
        (TRACEPARENT, traceparent(event.id)),
    ];
    for (name, value) in made {
        // Each is plain ASCII by how it was made.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    Envelope { headers, body }
}

/// W3C Trace Context: one trace for an event, one span for an attempt. Not sampled: nothing records a span here,
/// and a receiver that keeps sampled traces would keep one without its root.
fn traceparent(event: Uuid) -> String {
    format!("00-{}-{:016x}-00", event.simple(), rand::random::<u64>().max(1))
}

/// `CloudEvents` 1.0, structured content mode, JSON. `data` is the event's own bytes.
fn cloud_event(event: &Event, source: &ObjectName) -> Bytes {
    let time = jiff::Timestamp::from_millisecond(event.received_ms).unwrap_or_default();
    let attributes = json!({
        "specversion": "1.0",
        "id": event.id.to_string(),
        "source": format!("/authservers/{source}"),
        "type": format!("dev.tidings.{}", event.name),
        "time": time.to_string(),
        "datacontenttype": "application/json",
    })
    .to_string();
    let mut body = BytesMut::with_capacity(attributes.len() + event.body.len() + 10);
    body.put_slice(attributes.trim_end_matches('}').as_bytes());
    body.put_slice(b",\"data\":");
    body.put_slice(&event.body);
    body.put_u8(b'}');
    body.freeze()
}

#[cfg(test)]
mod tests {
    use tidings_store::Seq;

    use super::*;

    fn event() -> Event {
        let body = Bytes::from_static(br#"{"event":"User.Created", "n": 1.50}"#);
        Event {
            seq: Seq(1),
            id: Uuid::from_u128(7),
            name: "User.Created".into(),
            received_ms: 1_700_000_000_123,
            body,
        }
    }

    #[test]
    fn an_id_belongs_to_one_event_and_one_webhook() {
        let (a, b) = (ObjectName::new("shop", "mail"), ObjectName::new("shop", "sync"));
        let id = webhook_id(Uuid::from_u128(1), &a);
        assert_eq!(id, webhook_id(Uuid::from_u128(1), &a));
        assert_ne!(id, webhook_id(Uuid::from_u128(2), &a));
        assert_ne!(id, webhook_id(Uuid::from_u128(1), &b));
        assert_eq!(id.len(), 36);
    }

    #[test]
    fn a_cloud_event_carries_the_event_byte_for_byte_as_its_data() {
        let body = cloud_event(&event(), &ObjectName::new("auth", "logto"));
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["specversion"], "1.0");
        assert_eq!(value["id"], "00000000-0000-0000-0000-000000000007");
        assert_eq!(value["source"], "/authservers/auth/logto");
        assert_eq!(value["type"], "dev.tidings.User.Created");
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["data"]["event"], "User.Created");
        assert!(body.ends_with(b",\"data\":{\"event\":\"User.Created\", \"n\": 1.50}}"));
    }
}
