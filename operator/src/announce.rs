//! What is worth a Kubernetes Event: the difference of two statuses. Pure.

use serde_json::Value;

use crate::Reason;
use crate::world::Desired;
use crate::world::change::Kind;

/// An Event to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// Its reason.
    pub(crate) reason: Reason,
    /// Whether somebody should look.
    pub(crate) warning: bool,
    /// A sentence.
    pub(crate) note: String,
}

/// What a status that was written tells that the one before did not.
pub(crate) fn announcements(written: &Desired) -> Vec<Announcement> {
    if written.kind != Kind::Webhook {
        return Vec::new();
    }
    let (before, after) = (&written.before.value(), &written.status.value());
    let lost = [exhausted(before, after), expired(before, after)];
    [delivering(before, after), blocked(before, after)].into_iter().chain(lost).flatten().collect()
}

/// Another signing key is in use.
pub(crate) fn rotated() -> Announcement {
    let note = "deliveries are signed with the keys that the Secret holds now".to_owned();
    Announcement { reason: Reason::SecretRotated, warning: false, note }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn delivering(before: &Value, after: &Value) -> Option<Announcement> {
    let (old, new) = (condition(before, "Delivering"), condition(after, "Delivering")?);
    let told = |condition: &Value| (condition["status"].clone(), condition["reason"].clone());
    if old.map(told) == Some(told(new)) {
        return None;
    }
    let note = new["message"].as_str().unwrap_or_default().to_owned();
    let warning = |reason| Some(Announcement { reason, warning: true, note: note.clone() });
    let failed_before = old.is_some_and(|old| old["status"] == "False");
    match new["reason"].as_str()? {
        "DeliveryFailing" => warning(Reason::DeliveryFailing),
        "CircuitOpen" => warning(Reason::CircuitOpened),
        "EndpointGone" => warning(Reason::EndpointGone),
        "Delivering" if failed_before => {
            Some(Announcement { reason: Reason::DeliveryRecovered, warning: false, note })
        }
        _ => None,
    }
}

fn exhausted(before: &Value, after: &Value) -> Option<Announcement> {
    let dead = |status: &Value| status["deadLettered"].as_i64().unwrap_or_default();
    let more = dead(after) - dead(before);
    (more > 0).then(|| Announcement {
        reason: Reason::DeliveriesExhausted,
        warning: true,
        note: format!("{more} more events were given up, {} in all: see the dead letters; a WebhookReplay delivers them again", dead(after)),
    })
}

fn expired(before: &Value, after: &Value) -> Option<Announcement> {
    let expired = |status: &Value| status["expired"].as_i64().unwrap_or_default();
    let more = expired(after) - expired(before);
    (more > 0).then(|| Announcement {
        reason: Reason::EventsExpired,
        warning: true,
        note: format!(
            "retention removed {more} more events before they were delivered, {} in all",
            expired(after)
        ),
    })
}

fn blocked(before: &Value, after: &Value) -> Option<Announcement> {
    let is_blocked = |status: &Value| status["lastFailure"]["reason"] == "AddressBlocked";
    (is_blocked(after) && !is_blocked(before)).then(|| Announcement {
        reason: Reason::AddressBlocked,
        warning: true,
        note: after["lastFailure"]["message"].as_str().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_plan::ObjectName;

    use super::*;
    use crate::reason::Place;
    use crate::world::StatusText;

    #[expect(clippy::needless_pass_by_value, reason = "written at the place of use")]
    fn told(before: Value, after: Value) -> Vec<(Reason, bool)> {
        let written = Desired {
            kind: Kind::Webhook,
            name: ObjectName::new("shop", "mail"),
            uid: String::new(),
            resource_version: String::new(),
            before: StatusText::of(&before),
            status: StatusText::of(&after),
            urgent: true,
            settling: false,
        };
        let told = announcements(&written);
        assert!(told.iter().all(|one| one.reason.stands_in(Place::Event)));
        told.into_iter().map(|one| (one.reason, one.warning)).collect()
    }

    fn delivering(status: &str, reason: &str) -> Value {
        json!({ "conditions": [{ "type": "Delivering", "status": status, "reason": reason, "message": "m" }] })
    }

    #[test]
    fn a_failure_and_the_recovery_are_told_once_each() {
        let (good, bad) = (delivering("True", "Delivering"), delivering("False", "DeliveryFailing"));
        let open = delivering("False", "CircuitOpen");
        assert_eq!(told(good.clone(), bad.clone()), [(Reason::DeliveryFailing, true)]);
        assert_eq!(told(bad.clone(), bad.clone()), []);
        assert_eq!(told(bad, open.clone()), [(Reason::CircuitOpened, true)]);
        assert_eq!(told(open, good.clone()), [(Reason::DeliveryRecovered, false)]);
        assert_eq!(told(json!({}), good), [], "the first delivery is no recovery");
    }

    #[test]
    fn what_retention_took_is_told() {
        assert_eq!(told(json!({}), json!({ "expired": 1788 })), [(Reason::EventsExpired, true)]);
        assert_eq!(told(json!({ "expired": 1788 }), json!({ "expired": 1788 })), []);
    }

    #[test]
    fn dead_letters_and_a_blocked_address_are_told() {
        assert_eq!(
            told(json!({ "deadLettered": 1 }), json!({ "deadLettered": 3 })),
            [(Reason::DeliveriesExhausted, true)]
        );
        let blocked = json!({ "lastFailure": { "reason": "AddressBlocked", "message": "m" } });
        assert_eq!(told(json!({}), blocked.clone()), [(Reason::AddressBlocked, true)]);
        assert_eq!(told(blocked.clone(), blocked), []);
    }
}
