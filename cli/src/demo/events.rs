//! The demo's events: what a real Logto sent, with the time of now, and with a mark where one is asked for.
//!
//! A mark is a member `demo` at the body's end, by which a receiver of the demo knows which event it has and
//! when it was made.

use serde::{Deserialize, Serialize};

macro_rules! captured {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/logto/", $name, ".body"))
    };
}

/// The event of a user who signed in.
pub(crate) const SIGN_IN: &str = captured!("31-PostSignIn");

/// What a trickle or a load is made of.
pub(crate) const VARIED: [&str; 6] = [
    captured!("30-PostRegister"),
    captured!("29-User.Created"),
    captured!("02-User.Data.Updated"),
    SIGN_IN,
    captured!("14-Organization.Created"),
    captured!("16-Organization.Membership.Updated"),
];

/// What tells one event of the demo from all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Mark {
    /// Unique.
    pub(crate) id: String,
    /// In milliseconds since 1970.
    pub(crate) made_at: i64,
}

// === impl Mark ===

impl Mark {
    /// A new one, made now.
    pub(crate) fn new() -> Self {
        Self { id: uuid::Uuid::now_v7().simple().to_string(), made_at: super::now_milliseconds() }
    }

    /// Writes it into an event's body.
    pub(crate) fn on(&self, body: &str) -> String {
        let Some(open) = body.trim_end().strip_suffix('}') else { return body.to_owned() };
        format!(r#"{open},"demo":{{"id":"{}","madeAt":{}}}}}"#, self.id, self.made_at)
    }
}

/// An event that is sent again is known by its body; a new one has a time of its own.
pub(crate) fn with_time_of_now(body: &str) -> String {
    const FIELD: &str = "\"createdAt\":\"";
    let Some(start) = body.find(FIELD).map(|at| at + FIELD.len()) else { return body.to_owned() };
    let Some(end) = body[start..].find('"').map(|length| start + length) else { return body.to_owned() };
    format!("{}{:.3}{}", &body[..start], jiff::Timestamp::now(), &body[end..])
}

/// The name of a body's event.
pub(crate) fn name_of(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    body["event"].as_str().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_event_is_the_captured_one_with_its_mark_and_a_time_of_its_own() {
        for captured in VARIED {
            let mark = Mark::new();
            let body: serde_json::Value =
                serde_json::from_str(&mark.on(&with_time_of_now(captured))).unwrap();
            assert_eq!(serde_json::from_value::<Mark>(body["demo"].clone()).unwrap(), mark);
            let captured: serde_json::Value = serde_json::from_str(captured).unwrap();
            assert_eq!(body["event"], captured["event"]);
            assert_ne!(body["createdAt"], captured["createdAt"]);
            assert_eq!(body.as_object().unwrap().len(), captured.as_object().unwrap().len() + 1);
        }
    }
}
