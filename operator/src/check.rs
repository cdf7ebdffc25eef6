//! Judges a Webhook's spec: a chain of small policies, of which the first that objects is the reason.
//!
//! In: the spec, what its `AuthServer` gives, what it refers to. Out: in order or not, and what is worth
//! knowing. A rule that the schema states is judged here again, since objects may be older than it.

use http::{HeaderName, HeaderValue};
use tidings_crds::{Webhook, WebhookSpec};
use tidings_plan::{EventPattern, Filter, ObjectName, Pointer, SecretText};
use tidings_signature::SigningKey;

use crate::endpoint::{field, url_of};
use crate::named;
use crate::resolve::{Frame, Resolved};
use crate::{Finding, Reason};

/// The events that Logto is known to send: `hookEvents` in its `packages/schemas`, 31 names.
const KNOWN_EVENTS: &[&str] = &[
    "PostRegister",
    "PostSignIn",
    "PostSignInAdaptiveMfaTriggered",
    "PostResetPassword",
    "User.Created",
    "User.Deleted",
    "User.Data.Updated",
    "User.SuspensionStatus.Updated",
    "TrustedDevice.Created",
    "TrustedDevice.Deleted",
    "Role.Created",
    "Role.Deleted",
    "Role.Data.Updated",
    "Role.Scopes.Updated",
    "Scope.Created",
    "Scope.Deleted",
    "Scope.Data.Updated",
    "Organization.Created",
    "Organization.Deleted",
    "Organization.Data.Updated",
    "Organization.Membership.Updated",
    "OrganizationRole.Created",
    "OrganizationRole.Deleted",
    "OrganizationRole.Data.Updated",
    "OrganizationRole.Scopes.Updated",
    "OrganizationScope.Created",
    "OrganizationScope.Deleted",
    "OrganizationScope.Data.Updated",
    "Identifier.Lockout",
    "Message.RateLimited",
    "Grant.LimitExceeded",
];

/// What was found.
pub(crate) struct Checked {
    pub(crate) result: Result<(), Finding>,
    pub(crate) warnings: Vec<Finding>,
}

/// What the policies look at.
struct Subject<'a> {
    namespace: &'a str,
    spec: &'a WebhookSpec,
    frame: Option<&'a Frame>,
    resolved: Option<&'a Resolved>,
}

type Policy = for<'a> fn(&Subject<'a>) -> Result<(), Finding>;

const POLICIES: [Policy; 9] =
    [auth_server, named, events, filter, ordering_key, delivery, endpoint, headers, signing_keys];

/// Judges a Webhook.
pub(crate) fn webhook(
    name: &ObjectName,
    webhook: &Webhook,
    frame: Option<&Frame>,
    resolved: Option<&Resolved>,
) -> Checked {
    let subject = Subject { namespace: &name.namespace, spec: &webhook.spec, frame, resolved };
    subject.judge(&POLICIES)
}

/// Judges what needs no `AuthServer`.
pub(crate) fn webhook_alone(name: &ObjectName, webhook: &Webhook, resolved: Option<&Resolved>) -> Checked {
    let subject = Subject { namespace: &name.namespace, spec: &webhook.spec, frame: None, resolved };
    let [_auth_server, policies @ ..] = &POLICIES;
    subject.judge(policies)
}

// === impl Subject ===

impl Subject<'_> {
    fn judge(&self, policies: &[Policy]) -> Checked {
        let subject = self;
        let result = policies.iter().try_for_each(|policy| policy(subject));
        Checked { result, warnings: [unknown_events(subject), weak_keys(subject)].concat() }
    }
}

fn auth_server(subject: &Subject<'_>) -> Result<(), Finding> {
    if subject.frame.is_some() {
        return Ok(());
    }
    let message = "the AuthServer itself cannot be used: its own status tells why";
    Err(Finding::new(Reason::AuthServerInvalid, "spec.authServerRef", message))
}

fn named(subject: &Subject<'_>) -> Result<(), Finding> {
    named::of_webhook(subject.spec)
}

fn events(subject: &Subject<'_>) -> Result<(), Finding> {
    if subject.spec.events.is_empty() {
        return Err(Finding::new(Reason::InvalidEvents, "spec.events", "select at least one event"));
    }
    for (at, text) in subject.spec.events.iter().enumerate() {
        EventPattern::parse(text).map_err(|error| {
            Finding::new(Reason::InvalidEvents, format!("spec.events[{at}]"), error.to_string())
        })?;
    }
    Ok(())
}

fn filter(subject: &Subject<'_>) -> Result<(), Finding> {
    let Some(text) = &subject.spec.filter else { return Ok(()) };
    Filter::compile(text)
        .map(|_| ())
        .map_err(|error| Finding::new(Reason::InvalidFilter, "spec.filter", error.to_string()))
}

fn ordering_key(subject: &Subject<'_>) -> Result<(), Finding> {
    let delivery = subject.spec.delivery.clone().unwrap_or_default();
    for (at, text) in delivery.ordering_key.unwrap_or_default().iter().enumerate() {
        let field = format!("spec.delivery.orderingKey[{at}]");
        Pointer::parse(text)
            .map_err(|error| Finding::new(Reason::InvalidOrderingKey, field, error.to_string()))?;
    }
    Ok(())
}

fn delivery(subject: &Subject<'_>) -> Result<(), Finding> {
    let Some(frame) = subject.frame else { return Ok(()) };
    let delivery = crate::render::delivery(subject.spec.delivery.as_ref(), &frame.defaults);
    if delivery.retry.initial_backoff_seconds <= delivery.retry.max_backoff_seconds {
        return Ok(());
    }
    let message = format!(
        "with the AuthServer's defaults, initialBackoffSeconds is {} and maxBackoffSeconds {}: the first may not be more",
        delivery.retry.initial_backoff_seconds, delivery.retry.max_backoff_seconds
    );
    Err(Finding::new(Reason::InvalidDelivery, "spec.delivery.retry", message))
}

fn endpoint(subject: &Subject<'_>) -> Result<(), Finding> {
    let endpoint = &subject.spec.endpoint;
    let secret = subject.resolved.and_then(|resolved| resolved.url.as_ref());
    let url = url_of(subject.namespace, endpoint, secret)?;
    let (Some(frame), Some(url)) = (subject.frame, url) else { return Ok(()) };
    let in_cluster = endpoint.service_ref.is_some();
    let mut addresses =
        subject.resolved.and_then(|resolved| resolved.addresses.clone()).unwrap_or_default().into_iter();
    frame
        .egress
        .judge_url(&url, in_cluster)
        .and_then(|()| addresses.try_for_each(|address| frame.egress.judge(address, in_cluster)))
        .map_err(|blocked| Finding::new(Reason::AddressBlocked, field(endpoint), blocked.to_string()))
}

/// What a sidecar would refuse to send, told before it comes there.
fn headers(subject: &Subject<'_>) -> Result<(), Finding> {
    let Some(resolved) = subject.resolved else { return Ok(()) };
    for (at, header) in subject.spec.endpoint.headers.iter().enumerate() {
        let refused = |part: &str, message: &str| {
            Finding::new(Reason::InvalidHeader, format!("spec.endpoint.headers[{at}].{part}"), message)
        };
        let name = HeaderName::try_from(&header.name)
            .map_err(|_| refused("name", "this is no header's name: write letters, digits and dashes"))?;
        if tidings_plan::header::is_reserved(name.as_str()) {
            return Err(refused(
                "name",
                "this header is written by Tidings or by HTTP itself: take another name",
            ));
        }
        let value = resolved.headers.get(name.as_str()).map(SecretText::reveal).unwrap_or_default();
        let part = if header.value_from.is_some() { "valueFrom" } else { "value" };
        HeaderValue::try_from(value).map_err(|_| {
            refused(part, "the value holds a line break or another control character: take it out")
        })?;
    }
    Ok(())
}

fn signing_keys(subject: &Subject<'_>) -> Result<(), Finding> {
    for key in subject.resolved.iter().flat_map(|resolved| &resolved.signing_keys) {
        SigningKey::new(key.reveal())
            .map_err(|error| Finding::new(Reason::InvalidSigningKey, "spec.secretRef", error.to_string()))?;
    }
    Ok(())
}

fn unknown_events(subject: &Subject<'_>) -> Vec<Finding> {
    let is_unknown = |text: &String| match EventPattern::parse(text) {
        Ok(pattern) => !KNOWN_EVENTS.iter().any(|known| pattern.selects(known)),
        Err(_) => false,
    };
    (subject.spec.events.iter().enumerate())
        .filter(|(_, text)| is_unknown(text))
        .map(|(at, text)| {
            let message =
                format!("no event {text:?} is known yet; should the auth server send it, it is delivered");
            Finding::new(Reason::UnknownEvent, format!("spec.events[{at}]"), message)
        })
        .collect()
}

fn weak_keys(subject: &Subject<'_>) -> Vec<Finding> {
    let Some(key) = subject.resolved.and_then(|resolved| resolved.signing_keys.first()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if SigningKey::new(key.reveal()).is_ok_and(|key| key.is_short()) {
        let message =
            "the signing key is shorter than 24 bytes: make a new one, as with `openssl rand -base64 32`";
        found.push(Finding::new(Reason::ShortSigningKey, "spec.secretRef", message));
    }
    if key.reveal().ends_with(['\n', '\r']) {
        let message = "the signing key ends in a line break, which is part of the key: make the Secret without it, or give the receiver the same";
        found.push(Finding::new(Reason::SigningKeyEndsInLineBreak, "spec.secretRef", message));
    }
    found
}
