//! One Webhook of the plan, compiled: what can fail has failed here, before anything runs.

use tidings_plan::{Filter, FilterError, ObjectName, WebhookPlan};
use tidings_signature::{KeyError, SigningKey};
use tidings_store::Event;

use crate::dial::{DialError, Dialer, EndpointClient};
use crate::extract;

/// A Webhook that can run.
#[derive(Debug)]
pub struct Spec {
    /// As it stands in the plan.
    pub plan: WebhookPlan,
    /// The auth server, the source of its `CloudEvents`.
    pub source: ObjectName,
    /// Its signing keys, never empty.
    pub keys: Vec<SigningKey>,
    /// Its filter.
    pub filter: Option<Filter>,
    /// Its way to the endpoint.
    pub client: EndpointClient,
}

/// Why a Webhook of the plan is left out; the others run.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A signing key cannot be used.
    #[error("signing key: {0}")]
    Key(#[from] KeyError),
    /// There is no signing key.
    #[error("the Webhook has no signing key")]
    NoKey,
    /// The filter does not compile.
    #[error("filter: {0}")]
    Filter(#[from] FilterError),
    /// The endpoint cannot be used.
    #[error("endpoint: {0}")]
    Endpoint(#[from] DialError),
}

/// Whether an event is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It is delivered.
    Yes,
    /// It is dropped.
    No,
    /// The filter could not be evaluated over it, for this class of reason. It is delivered: a receiver can
    /// pass over an event, and cannot get back one that was dropped.
    Unknown(&'static str),
}

// === impl Spec ===

impl Spec {
    /// Compiles a Webhook of the plan.
    pub fn compile(plan: WebhookPlan, source: ObjectName, dialer: &Dialer) -> Result<Self, SpecError> {
        let keys = plan
            .signing_keys
            .iter()
            .map(|key| SigningKey::new(key.reveal()))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(SpecError::NoKey);
        }
        let filter = plan.filter.as_deref().map(Filter::compile).transpose()?;
        let client = dialer.client_for(&plan.webhook.namespace, &plan.endpoint)?;
        Ok(Self { plan, source, keys, filter, client })
    }

    /// Whether this Webhook of this auth server compiles to the same.
    pub fn is_of(&self, plan: &WebhookPlan, source: &ObjectName) -> bool {
        self.plan == *plan && self.source == *source
    }

    /// Whether the Webhook selects events of this name.
    pub fn selects(&self, name: &str) -> bool {
        self.plan.events.iter().any(|pattern| pattern.selects(name))
    }

    /// Whether the Webhook wants this event: by name and by filter.
    pub fn wants(&self, event: &Event) -> Wanted {
        if !self.selects(&event.name) {
            return Wanted::No;
        }
        match self.filter.as_ref().map(|filter| filter.accepts(&event.body)) {
            None | Some(Ok(true)) => Wanted::Yes,
            Some(Ok(false)) => Wanted::No,
            Some(Err(error)) => Wanted::Unknown(error.class()),
        }
    }

    /// The hash of the event's ordering key; 0 without one.
    pub fn ordering_key(&self, event: &Event) -> u64 {
        use sha2::{Digest, Sha256};
        if self.plan.delivery.ordering_key.is_empty() {
            return 0;
        }
        extract::first_present(&event.body, &self.plan.delivery.ordering_key).map_or(0, |key| {
            let digest = Sha256::digest(key.as_bytes());
            // 0 means "no key": the one key in 2^64 that hashes to it is moved aside.
            digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte)).max(1)
        })
    }

    /// The most attempts under way at once.
    pub fn concurrency(&self) -> usize {
        self.plan.delivery.concurrency.max(1) as usize
    }
}
