//! Every reason that a condition, an event or a finding can have: written here once, and nowhere else.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why a condition is as it is. The word is the condition's `reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason with what it means, in order.
            pub const ALL: &[(Reason, &str)] = &[$((Reason::$name, concat!($($doc),+)),)+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// The spec is in order.
    Accepted,
    /// Everything that the spec refers to is there.
    ResolvedRefs,
    /// Every ready sidecar runs this generation.
    Programmed,
    /// Accepted, resolved and programmed.
    Ready,
    /// The endpoint takes what is sent.
    Delivering,
    /// Nothing has been sent yet.
    NothingSent,
    /// The endpoint fails.
    DeliveryFailing,
    /// The endpoint fails, and nothing is sent but a probe from time to time.
    CircuitOpen,
    /// The endpoint answered 410: nothing is sent until the Webhook is changed.
    EndpointGone,
    /// The Webhook is suspended: its events are kept.
    Suspended,
    /// A sidecar does not run this generation yet.
    Pending,
    /// No sidecar has reported yet.
    NoSidecar,
    /// A sidecar could not run the Webhook: its message tells why.
    RejectedBySidecar,
    /// It is not in the plan: another condition tells why.
    NotInPlan,
    /// The Webhooks do not fit into one plan.
    PlanTooLarge,
    /// The plan could not be written.
    PublishingFailed,
    /// The endpoint takes what is sent again.
    DeliveryRecovered,
    /// After failures in a row nothing is sent but probes, until one succeeds.
    CircuitOpened,
    /// An event was given up; it is among the dead letters and can be replayed.
    DeliveriesExhausted,
    /// Another signing key is in use.
    SecretRotated,
    /// The Webhook of a replay is not there.
    WebhookNotFound,
    /// The Webhook of a replay is not in order: its own status tells why.
    WebhookNotReady,
    /// A time is none, or the window is empty.
    InvalidWindow,
    /// The replay goes on.
    Replaying,
    /// The whole window was gone through.
    Complete,
    /// The manifest does not fit the schema.
    InvalidSchema,
    /// The manifest cannot be read.
    InvalidManifest,
    /// Two manifests have the same kind, namespace and name.
    DuplicateObject,
    /// The AuthServer is not there.
    AuthServerNotFound,
    /// The AuthServer does not allow Webhooks of this namespace.
    NotAllowedByAuthServer,
    /// The AuthServer itself cannot be used.
    AuthServerInvalid,
    /// A CIDR is none.
    InvalidCidr,
    /// An event selection is none.
    InvalidEvents,
    /// The filter is no CEL expression, or could cost too much.
    InvalidFilter,
    /// The endpoint's URL cannot be used.
    InvalidEndpoint,
    /// The endpoint's address is not one that deliveries may go to.
    AddressBlocked,
    /// A header cannot be sent.
    InvalidHeader,
    /// The ordering key is no JSON pointer.
    InvalidOrderingKey,
    /// The delivery's numbers do not fit each other.
    InvalidDelivery,
    /// A Secret is not there.
    SecretNotFound,
    /// A Secret lacks the key.
    SecretKeyNotFound,
    /// The signing key cannot be used.
    InvalidSigningKey,
    /// The signing key is shorter than the 24 bytes that Standard Webhooks asks for.
    ShortSigningKey,
    /// The signing key ends in a line break, which is part of the key.
    SigningKeyEndsInLineBreak,
    /// No auth server that we know of sends an event of this name.
    UnknownEvent,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
