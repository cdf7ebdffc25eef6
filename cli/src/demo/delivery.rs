//! A delivery as a receiver reads it: who sent it is asked of the official library, the rest of the body.

use http::HeaderMap;
use serde_json::Value;
use standardwebhooks::Webhook;

use super::events::Mark;

/// What the key of a receiver begins with when it is in Standard Webhooks' own form.
const PREFIX: &str = "whsec_";

/// One delivery.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Whether the signature is right.
    pub(crate) verified: bool,
    /// The event's name.
    pub(crate) event: String,
    /// Which delivery it is, over all attempts.
    pub(crate) webhook_id: String,
    /// Which event of the demo it is.
    pub(crate) mark: Option<Mark>,
    /// When the event was made, in milliseconds since 1970.
    pub(crate) made_at: Option<i64>,
}

// === impl Delivery ===

impl Delivery {
    /// Reads one.
    pub(crate) fn read(key: &str, headers: &HeaderMap, body: &[u8]) -> Self {
        let whole: Value = serde_json::from_slice(body).unwrap_or_default();
        // In a CloudEvent the auth server's body is its data.
        let body_of_event = whole.get("data").filter(|_| whole.get("specversion").is_some());
        let of_event = body_of_event.unwrap_or(&whole);
        let mark = serde_json::from_value::<Mark>(of_event["demo"].clone()).ok();
        let created_at = of_event["createdAt"].as_str().and_then(|time| time.parse().ok());
        let webhook_id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        Self {
            verified: webhook(key).is_ok_and(|webhook| webhook.verify(body, headers).is_ok()),
            event: of_event["event"].as_str().unwrap_or("?").to_owned(),
            webhook_id: webhook_id.to_owned(),
            made_at: mark
                .as_ref()
                .map(|mark| mark.made_at)
                .or(created_at.map(jiff::Timestamp::as_millisecond)),
            mark,
        }
    }
}

/// Any key but one with the prefix is used as its bytes, which the library calls raw.
fn webhook(key: &str) -> Result<Webhook, standardwebhooks::WebhookError> {
    if key.starts_with(PREFIX) { Webhook::new(key) } else { Webhook::from_bytes(key.as_bytes().to_vec()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str =
        r#"{"event":"PostSignIn","createdAt":"2026-11-24T10:00:00.250Z","demo":{"id":"a","madeAt":7}}"#;

    fn signed(key: &str, body: &str) -> HeaderMap {
        let now = jiff::Timestamp::now().as_second();
        let signature = webhook(key).unwrap().sign("msg_1", now, body.as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &now.to_string()),
            ("webhook-signature", &signature),
        ] {
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_of_either_form_verifies_and_another_one_does_not() {
        for key in ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "plain-old-key-of-enough-bytes"] {
            let delivery = Delivery::read(key, &signed(key, BODY), BODY.as_bytes());
            assert!(delivery.verified);
            assert!(
                !Delivery::read("another-key-of-enough-bytes", &signed(key, BODY), BODY.as_bytes()).verified
            );
        }
    }

    #[test]
    fn the_event_and_its_mark_are_found_in_both_formats() {
        let cloud_event = format!(r#"{{"specversion":"1.0","id":"msg_1","data":{BODY}}}"#);
        for body in [BODY, &cloud_event] {
            let Delivery { event, mark, made_at, .. } =
                Delivery::read("k", &HeaderMap::new(), body.as_bytes());
            assert_eq!((event.as_str(), mark.unwrap().id.as_str(), made_at), ("PostSignIn", "a", Some(7)));
        }
        let of_logto = BODY.replace(r#","demo":{"id":"a","madeAt":7}"#, "");
        let delivery = Delivery::read("k", &HeaderMap::new(), of_logto.as_bytes());
        assert_eq!((delivery.mark, delivery.made_at), (None, Some(1_795_514_400_250)));
    }
}
