//! Which headers a user may not set: Tidings or HTTP itself writes them.
//!
//! The operator refuses them, and so does the sidecar, since a plan may be older than the rule. The schema of
//! the Webhook has the same rule in CEL.

/// The reserved headers, in lower case, besides those that begin with `webhook-`.
const RESERVED: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "user-agent",
    "traceparent",
    "tracestate",
    "logto-signature-sha-256",
];

/// Whether a header of this name is written by Tidings or by HTTP itself.
///
/// ```
/// assert!(tidings_plan::header::is_reserved("Webhook-Signature"));
/// assert!(!tidings_plan::header::is_reserved("authorization"));
/// ```
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("webhook-") || RESERVED.contains(&name.as_str())
}
