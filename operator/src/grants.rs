//! Which events a namespace may select: the grants of an `AuthServer`.
//!
//! In: the grants, and what a Webhook selects. Out: allowed, or the first selection that no grant covers.

use tidings_crds::{AllowedNamespaces, Grant};
use tidings_plan::{EventPattern, ObjectName};

use crate::{Finding, Reason};

/// Validates the grants themselves.
pub(crate) fn check(allowed: &AllowedNamespaces) -> Result<(), Finding> {
    for (at, Grant { namespaces: _, events }) in allowed.grants.iter().enumerate() {
        for (number, text) in events.iter().enumerate() {
            EventPattern::parse(text).map_err(|error| {
                let field = format!("spec.allowedNamespaces.grants[{at}].events[{number}]");
                Finding::new(Reason::InvalidEvents, field, error.to_string())
            })?;
        }
    }
    Ok(())
}

/// Whether each selection of a Webhook is covered by the grants for its namespace. What is no selection is
/// told elsewhere.
pub(crate) fn allow(
    allowed: &AllowedNamespaces,
    server: &ObjectName,
    webhook: &ObjectName,
    events: &[String],
) -> Result<(), Finding> {
    if allowed.grants.is_empty() {
        return Ok(());
    }
    let is_for =
        |grant: &&Grant| grant.namespaces.is_empty() || grant.namespaces.contains(&webhook.namespace);
    let granted: Vec<_> = allowed.grants.iter().filter(is_for).flat_map(|grant| &grant.events).collect();
    let patterns: Vec<_> = granted.iter().filter_map(|text| EventPattern::parse(text).ok()).collect();
    let is_covered = |text: &String| match EventPattern::parse(text) {
        Ok(wanted) => patterns.iter().any(|pattern| pattern.covers(&wanted)),
        Err(_) => true,
    };
    let Some(at) = events.iter().position(|text| !is_covered(text)) else { return Ok(()) };
    let shown: Vec<_> = granted.iter().take(16).map(|text| text.as_str()).collect();
    let shown = if shown.is_empty() { "no events".to_owned() } else { shown.join(", ") };
    let message = format!(
        "AuthServer {server} grants namespace {} {shown}: select no more than that, or have the platform team add {:?} to its spec.allowedNamespaces.grants",
        webhook.namespace, events[at]
    );
    Err(Finding::new(Reason::EventsNotAllowed, format!("spec.events[{at}]"), message))
}
