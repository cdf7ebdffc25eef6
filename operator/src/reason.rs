//! Every reason that a condition, an event or a finding can have: written here once, and nowhere else. With
//! each stands where it appears and what a person does about it; `docs/reference.md` is made of this list.

use std::fmt;

/// Where a reason stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The condition of this type.
    Accepted,
    /// The condition of this type.
    ResolvedRefs,
    /// The condition of this type.
    Programmed,
    /// The condition of this type.
    Ready,
    /// The condition of this type.
    Receiving,
    /// The condition of this type.
    Stalled,
    /// The condition of this type.
    Delivering,
    /// The condition of this type.
    Complete,
    /// The message of an `Accepted` that is true: worth knowing, and nothing is kept from working.
    Warning,
    /// A Kubernetes Event of a Webhook.
    Event,
    /// A finding of `tidings lint` and `tidings dev`.
    Lint,
}

/// A reason, and all that is to be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// The reason.
    pub reason: Reason,
    /// What it means, one sentence.
    pub meaning: &'static str,
    /// Where it stands.
    pub places: &'static [Place],
    /// What a person does about it, one sentence.
    pub way_out: &'static str,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident in [$($place:ident),+]: $way_out:literal,)+) => {
        /// Why a condition is as it is. The word is the condition's `reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &[Explained] = &[$(Explained {
                reason: Reason::$name,
                meaning: concat!($($doc),+).trim_ascii(),
                places: &[$(Place::$place),+],
                way_out: $way_out,
            },)+];

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
    Accepted in [Accepted]:
        "Nothing to do.",
    /// Everything that the spec refers to is there.
    ResolvedRefs in [ResolvedRefs]:
        "Nothing to do.",
    /// Every ready sidecar runs this generation.
    Programmed in [Programmed]:
        "Nothing to do.",
    /// Accepted, resolved and programmed.
    Ready in [Ready]:
        "Nothing to do.",
    /// The endpoint takes what is sent.
    Delivering in [Delivering]:
        "Nothing to do.",
    /// The endpoint takes what is sent, events among it that the filter could not be evaluated over.
    FilterFailing in [Delivering]:
        "Have the filter ask has(event.key) before it reads a key, compare values of one type, and nest fewer loops; such events are delivered until then.",
    /// Every sidecar takes events.
    Receiving in [Receiving]:
        "Nothing to do.",
    /// The store of a sidecar takes no events: it is damaged, locked or full, or cannot be read. What the auth server sends to that pod meanwhile is refused with 503; people sign in all the same.
    StoreUnavailable in [Receiving]:
        "Do what the message names: free space or enlarge the volume, end the process that holds it, give the volume to the sidecar's user, or replace damaged files and restart the pod.",
    /// Nothing has been sent yet.
    NothingSent in [Delivering]:
        "Nothing to do: the first event that the Webhook selects changes it; where events should have come, look whether the auth server's hook points at the sidecar.",
    /// The endpoint fails.
    DeliveryFailing in [Delivering, Event]:
        "Mend the receiver as the last failure in the message tells; what waits is sent again by itself.",
    /// The endpoint fails, and nothing is sent but a probe from time to time.
    CircuitOpen in [Delivering]:
        "Mend the receiver as the last failure in the message tells; a probe at least once a minute notices, and then what waits is sent.",
    /// The endpoint answered 410: nothing is sent until the Webhook is changed.
    EndpointGone in [Delivering, Event]:
        "Have the receiver answer otherwise or name another endpoint, and change the Webhook's spec: its new generation is sent what waits.",
    /// The Webhook is suspended: its events are kept.
    Suspended in [Delivering]:
        "Set spec.suspend to false before retention takes what is kept.",
    /// A sidecar does not run this generation yet.
    Pending in [Programmed, Ready]:
        "Wait some seconds; where it stays, look at the log and /readyz of the sidecar in the pod that the message names.",
    /// No sidecar is ready.
    NoSidecar in [Programmed, Ready, Receiving]:
        "Add the sidecar to the auth server's pods, see that spec.podSelector of the AuthServer selects them, and that they get ready.",
    /// A sidecar could not run the Webhook: its message tells why.
    RejectedBySidecar in [Programmed, Ready]:
        "Mend what the message names; a sidecar that is older than the operator is upgraded.",
    /// It is not in the plan: another condition tells why.
    NotInPlan in [Programmed]:
        "Read Accepted and ResolvedRefs.",
    /// The Webhook is larger than one may be, or a value of a Secret that it refers to is.
    TooLarge in [Accepted, ResolvedRefs, Ready, Lint, Stalled]:
        "Make the field that the message names smaller; of the Webhook as a whole the platform team can raise spec.limits.webhookBytes of the AuthServer.",
    /// The Webhooks of the namespace take more of the plan than a namespace may.
    NamespaceTooLarge in [Accepted, Ready, Lint, Stalled]:
        "Make the field that the message names smaller, delete Webhooks of the namespace, or have the platform team raise spec.limits.namespaceBytes of the AuthServer; the oldest Webhooks run on.",
    /// The plan has no room for the Webhook; those that run already run on.
    PlanTooLarge in [Programmed, Ready, Stalled]:
        "Spread the Webhooks over more than one AuthServer, make headers and TLS certificates smaller, or lower spec.limits.namespaceBytes of the AuthServer so that no namespace takes so much.",
    /// The plan could not be written.
    PublishingFailed in [Programmed, Ready]:
        "Give the operator its rights to Secrets in the AuthServer's namespace, or wait for the API server, as the message tells; it is tried again by itself, and the plan before runs on.",
    /// The endpoint takes what is sent again.
    DeliveryRecovered in [Event]:
        "Nothing to do.",
    /// After failures in a row nothing is sent but probes, until one succeeds.
    CircuitOpened in [Event]:
        "As for CircuitOpen.",
    /// An event was given up; it is among the dead letters and can be replayed.
    DeliveriesExhausted in [Event]:
        "Mend the receiver, then apply a WebhookReplay with only: Failed; the sidecar's /deadletters lists what was given up.",
    /// The sidecar's retention removed events before they were delivered: they are lost for this Webhook.
    EventsExpired in [Event]:
        "Fix the receiver as Delivering tells, or resume or delete the Webhook; to gain time, have the platform team raise the sidecar's --max-bytes and --max-age-seconds.",
    /// Another signing key is in use.
    SecretRotated in [Event]:
        "Nothing to do where you changed the Secret; a receiver that refuses signatures now needs the new key, and the old one as previousSigningKey gives it time.",
    /// The Webhook of a replay is not there.
    WebhookNotFound in [Accepted, Lint]:
        "Apply the Webhook in the replay's namespace, or create a replay that names another. In lint it is a warning: give lint the Webhook's manifest too.",
    /// The Webhook of a replay is not in order: its own status tells why.
    WebhookNotReady in [Accepted]:
        "Mend the Webhook; the replay then begins by itself.",
    /// A time of a replay cannot be read, or its window is empty.
    InvalidWindow in [Accepted, Stalled, Lint]:
        "Create another replay, its times written as 2026-01-31T12:00:00Z and from before to.",
    /// The replay waits until another one is complete.
    Queued in [Complete]:
        "Wait, or delete replays that are no longer wanted; the message tells its place in the queue of its namespace.",
    /// The replay goes on.
    Replaying in [Complete]:
        "Wait; the message tells how many sidecars are through.",
    /// The whole window was gone through.
    Complete in [Complete]:
        "Nothing to do.",
    /// The manifest does not fit the schema.
    InvalidSchema in [Accepted, Ready, Lint, Stalled]:
        "Write the field that the message names as the tables of fields below have it.",
    /// The manifest cannot be read.
    InvalidManifest in [Lint]:
        "Mend the YAML at the line that is named, or the apiVersion and kind.",
    /// Two manifests have the same kind, namespace and name.
    DuplicateObject in [Lint]:
        "Keep one of the two.",
    /// The AuthServer is not there.
    AuthServerNotFound in [Accepted, Ready, Lint]:
        "Name the AuthServer with its namespace in spec.authServerRef; where there is none, the platform team applies one. In lint it is a warning: give lint the AuthServer's manifest too, and what it allows is validated.",
    /// The AuthServer does not allow Webhooks of this namespace.
    NotAllowedByAuthServer in [Accepted, Ready, Lint]:
        "Have the platform team widen spec.allowedNamespaces of the AuthServer.",
    /// The AuthServer does not grant the Webhook's namespace all of the events that the Webhook selects.
    EventsNotAllowed in [Accepted, Ready, Lint]:
        "Select the events that the message lists, or have the platform team add to spec.allowedNamespaces.grants of the AuthServer.",
    /// The AuthServer itself cannot be used.
    AuthServerInvalid in [Accepted, Ready, Lint]:
        "Have the platform team mend the AuthServer; its own status tells what is wrong.",
    /// A CIDR of the AuthServer's egress cannot be read.
    InvalidCidr in [Accepted, Ready, Lint, Stalled]:
        "Write an address and a prefix, as in 10.0.0.0/8.",
    /// An entry of events is no event selection.
    InvalidEvents in [Accepted, Ready, Lint, Stalled]:
        "Write names such as PostSignIn, prefixes such as User.*, or *.",
    /// The filter is no CEL expression, or could cost too much.
    InvalidFilter in [Accepted, Ready, Lint, Stalled]:
        "Write a CEL expression over event that gives true or false, as the message tells.",
    /// A name in the spec is not one that an object can have.
    InvalidName in [Accepted, Ready, Lint, Stalled]:
        "Write the name as the object has it, without a path, a port or anything else around it, as the message tells.",
    /// The endpoint's URL cannot be used.
    InvalidEndpoint in [Accepted, Ready, Lint, Stalled]:
        "Write exactly one of url, as in https://HOST/PATH, urlFrom and serviceRef, the parts as the message tells.",
    /// The endpoint's address is not one that deliveries may go to.
    AddressBlocked in [Accepted, Ready, Event, Lint, Stalled]:
        "Name a public https endpoint or a serviceRef of the own namespace, or have the platform team open the CIDR in the AuthServer's spec.egress.allow.",
    /// A header cannot be sent.
    InvalidHeader in [Accepted, Ready, Lint, Stalled]:
        "Take line breaks and control characters out of the header's value, in the manifest or in the Secret.",
    /// The ordering key is no JSON pointer.
    InvalidOrderingKey in [Accepted, Ready, Lint, Stalled]:
        "Write pointers such as /data/id.",
    /// The delivery's numbers do not fit each other.
    InvalidDelivery in [Accepted, Ready, Lint, Stalled]:
        "Make retry.initialBackoffSeconds no more than retry.maxBackoffSeconds, the AuthServer's defaults included.",
    /// A Secret is not there.
    SecretNotFound in [Accepted, ResolvedRefs, Ready, Lint]:
        "Create the Secret in the object's own namespace, or name another; where Secrets do not stand beside the manifests, lint with --external-secrets.",
    /// The operator may not read a Secret.
    SecretForbidden in [Accepted, ResolvedRefs, Ready, Lint]:
        "Give the operator's role get on Secrets in the namespace, as the chart does where it looks at the namespace; it is tried again by itself, at least once a minute.",
    /// A Secret is not for Webhooks: it holds a plan, or lacks the label that the AuthServer asks for.
    SecretNotAllowed in [Accepted, ResolvedRefs, Ready, Lint]:
        "Have whoever owns the Secret label it tidings.dev/webhooks: allowed, or name another; a Secret whose name begins with tidings-plan- or tidings-shard- is never used.",
    /// A Secret lacks the key.
    SecretKeyNotFound in [Accepted, ResolvedRefs, Ready, Lint]:
        "Put the key that the message names into the Secret, or name another key.",
    /// The Service is not there.
    ServiceNotFound in [ResolvedRefs, Ready, Lint]:
        "Create the Service in the Webhook's own namespace, or name another; the Webhook follows by itself.",
    /// The Service does not have the port.
    ServicePortNotFound in [ResolvedRefs, Ready, Lint]:
        "Name one of the Service's TCP ports in spec.endpoint.serviceRef.port; the message lists them.",
    /// The Service stands for addresses that somebody chose, not for Pods of its namespace.
    ServiceNotAllowed in [ResolvedRefs, Ready, Lint, Stalled]:
        "Give the Service a selector and delete EndpointSlices of one's own making, as the message tells, or write the address in spec.endpoint.url, which the AuthServer's egress rules govern.",
    /// The signing key cannot be used.
    InvalidSigningKey in [Accepted, Ready, Lint, Stalled]:
        "Put a new key into the Secret, as from openssl rand -base64 32; what follows whsec_ must be base64.",
    /// The signing key is shorter than the 24 bytes that Standard Webhooks asks for.
    ShortSigningKey in [Warning, Lint]:
        "Rotate to a longer key, as from openssl rand -base64 32, the old one as previousSigningKey meanwhile.",
    /// The signing key ends in a line break, which is part of the key.
    SigningKeyEndsInLineBreak in [Warning, Lint]:
        "Make the Secret without the line break, or give the receiver the key with it.",
    /// The AuthServer has no spec.ingest: whoever reaches the events port can forge events.
    IngestUnsigned in [Warning]:
        "Name the auth server's own signing key in spec.ingest.signingKeyRef; then events without its signature are refused.",
    /// No auth server that we know of sends an event of this name.
    UnknownEvent in [Warning, Lint]:
        "Look whether the name is spelt right; where the auth server is newer than this operator, nothing is to be done.",
}

// === impl Reason ===

impl Reason {
    /// What is to be said of it.
    pub fn explained(self) -> &'static Explained {
        &Self::ALL[self as usize]
    }

    /// Whether the list has it stand there.
    pub fn stands_in(self, place: Place) -> bool {
        self.explained().places.contains(&place)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Place ===

impl Place {
    /// Every place, in the order in which one looks.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Accepted,
        Self::ResolvedRefs,
        Self::Programmed,
        Self::Receiving,
        Self::Stalled,
        Self::Delivering,
        Self::Complete,
        Self::Warning,
        Self::Event,
        Self::Lint,
    ];

    /// The word: a condition's type, or what else it is.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::Receiving => "Receiving",
            Self::Stalled => "Stalled",
            Self::Delivering => "Delivering",
            Self::Complete => "Complete",
            Self::Warning => "warning",
            Self::Event => "Event",
            Self::Lint => "lint",
        }
    }

    /// The condition of a type.
    pub fn of_condition(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.as_str() == kind)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The text of all sources below a folder but for this list and the tests.
    fn sources(folder: &Path) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text += &sources(&path);
            } else if !path.ends_with("reason.rs") && !path.ends_with("tests.rs") {
                text +=
                    std::fs::read_to_string(&path).unwrap().split("#[cfg(test)]\nmod tests").next().unwrap();
            }
        }
        text
    }

    #[test]
    fn every_reason_is_used_somewhere() {
        let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
        let is_used = |reason: Reason| {
            let word = format!("Reason::{reason}");
            // A longer name that begins with this one is another reason.
            sources.split(&word).skip(1).any(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        let dead: Vec<_> = Reason::ALL.iter().map(|one| one.reason).filter(|one| !is_used(*one)).collect();
        assert_eq!(dead, [], "use them or take them out");
    }

    #[test]
    fn a_reason_is_explained_by_its_own_entry_and_each_sentence_ends() {
        for one in Reason::ALL {
            assert_eq!(one.reason.explained(), one);
            assert!(one.meaning.ends_with('.') && one.way_out.ends_with('.'), "{}", one.reason);
        }
    }
}
