//! Why a question is refused: one variant for each reason, with the status and the fix.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tidings_plan::ObjectName;

use super::question::Question;
use crate::world::NotLocated;

/// Why a question is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "there are GET /v1/namespaces/NAMESPACE/webhooks/NAME/deliveries, GET …/deadletters and POST …/test"
    )]
    NotFound,
    #[error(
        "the namespace or the Webhook's name is not valid: write lower-case letters, digits, dashes and dots"
    )]
    InvalidName,
    #[error("use {0} for this page")]
    MethodNotAllowed(Method),
    #[error("a browser's page is not answered: use kubectl tidings")]
    OriginRefused,
    #[error(
        "there is no token: send it as `Tidings-Authorization: Bearer TOKEN`, since the API server's proxy drops Authorization"
    )]
    NoToken,
    #[error("the header Tidings-Authorization is not `Bearer TOKEN`")]
    InvalidToken,
    #[error("the API server does not accept the token: renew the credentials of the kubeconfig's user")]
    Unauthenticated,
    #[error(
        "forbidden: the verb {verb} on webhooks/{subresource} (API group tidings.dev) of {webhook} is missing: have it granted in namespace {}",
        .webhook.namespace
    )]
    Forbidden { verb: &'static str, subresource: &'static str, webhook: ObjectName },
    #[error("the API server did not answer in time whether this is allowed: try again")]
    ReviewUnavailable,
    #[error("too many questions at once: wait for those under way, and ask again")]
    Busy,
    #[error(transparent)]
    NotLocated(#[from] NotLocated),
    #[error(
        "the key of AuthServer {0} cannot be read: the operator writes admin.key into its plan's Secret within seconds, and needs its rights to Secrets there"
    )]
    NoKey(ObjectName),
    #[error("no sidecar answered: {0}")]
    NoSidecarAnswered(String),
    /// What a sidecar said, in its own words.
    #[error("{message}")]
    Sidecar { status: StatusCode, reason: String, message: String },
}

// === impl Refusal ===

impl Refusal {
    /// The right that is missing.
    pub(super) fn forbidden(question: &Question) -> Self {
        let Question { webhook, page } = question;
        Self::Forbidden { verb: page.verb(), subresource: page.subresource(), webhook: webhook.clone() }
    }

    /// The word, for metrics and programs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::InvalidName => "InvalidName",
            Self::MethodNotAllowed(_) => "MethodNotAllowed",
            Self::OriginRefused => "OriginRefused",
            Self::NoToken => "NoToken",
            Self::InvalidToken => "InvalidToken",
            Self::Unauthenticated => "Unauthenticated",
            Self::Forbidden { .. } => "Forbidden",
            Self::ReviewUnavailable => "ReviewUnavailable",
            Self::Busy => "Busy",
            Self::NotLocated(NotLocated::NoWebhook(_)) => "NoWebhook",
            Self::NotLocated(NotLocated::NotAccepted(..)) => "NotAccepted",
            Self::NotLocated(NotLocated::NoSidecar(_)) => "NoSidecar",
            Self::NoKey(_) => "NoKey",
            Self::NoSidecarAnswered(_) => "NoSidecarAnswered",
            Self::Sidecar { .. } => "RefusedBySidecar",
        }
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::NotLocated(_) => StatusCode::NOT_FOUND,
            Self::InvalidName => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoToken | Self::InvalidToken | Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::OriginRefused | Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::ReviewUnavailable | Self::NoKey(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSidecarAnswered(_) => StatusCode::BAD_GATEWAY,
            Self::Sidecar { status, .. } => *status,
        }
    }

    /// The answer's body. A sidecar's own reason is passed on.
    pub(super) fn body(&self) -> Value {
        let reason = match self {
            Self::Sidecar { reason, .. } => reason.as_str(),
            other => other.reason(),
        };
        json!({ "reason": reason, "message": self.to_string() })
    }
}
