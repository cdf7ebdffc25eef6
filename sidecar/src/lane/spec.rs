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

    /// Whether the Webhook selects events of this name.
    pub fn selects(&self, name: &str) -> bool {
        self.plan.events.iter().any(|pattern| pattern.selects(name))
    }

    /// Whether the Webhook wants this event: by name and by filter. A filter that cannot be evaluated
    /// over an event does not want it.
    pub fn wants(&self, event: &Event) -> bool {
        self.selects(&event.name)
            && self.filter.as_ref().is_none_or(|filter| filter.accepts(&event.body).unwrap_or(false))
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
