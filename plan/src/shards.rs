//! A plan in pieces that fit into Secrets: a head that names its shards, and the shards.
//!
//! ```text
//! Plan -> split -> Head + shards -> Secrets -> Head, then each shard that it names -> join -> Plan
//! ```
//!
//! A Webhook's shard follows from its name alone, so an edit of one changes one shard and the head,
//! however many there are. Each shard lies in a *slot*, of which there is a fixed number with fixed names,
//! so that a role can list them. A new shard goes into a slot that the current head does not name, and
//! then the head is replaced: at any moment the head names shards that are there and whole. Whoever reads
//! a shard compares its digest with the head's, and begins again with the head where they differ.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{ObjectName, PLAN_VERSION, Plan, WebhookPlan};

/// The most bytes of one shard.
pub const MAX_SHARD_BYTES: usize = 512 << 10;

/// The most shards of a plan.
pub const MAX_SHARDS: usize = 16;

/// How many slots there are: twice the shards, so that a whole new plan fits beside the current one.
pub const SLOTS: usize = 2 * MAX_SHARDS;

/// What the names of a plan's Secrets begin with: the head's, and a shard's.
const HEAD_PREFIX: &str = "tidings-plan-";
const SLOT_PREFIX: &str = "tidings-shard-";

/// The head's key in its Secret.
pub const HEAD_KEY: &str = "head.json";

/// A shard's key in its Secret.
pub const SHARD_KEY: &str = "shard.json.gz";

/// Shards grow in number before they are larger than this, and fall back below a quarter of it.
const FULL_SHARD_BYTES: usize = 384 << 10;

/// A shard unpacks to at most this, in bytes: what is larger was not made by [`split`].
const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// What a plan's Secret holds: everything but the Webhooks, and where those are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Each published plan has the next number; 1 is the first.
    pub generation: u64,
    /// The plan's [`Plan::digest`].
    pub digest: String,
    /// The plan without its Webhooks.
    pub frame: Plan,
    /// The shards, in the order of their numbers.
    pub shards: Vec<ShardRef>,
}

/// Where a shard is, and what it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardRef {
    /// Its slot, below [`SLOTS`].
    pub slot: usize,
    /// The digest of its bytes.
    pub digest: String,
}

/// One shard's bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Shard {
    /// What goes into the Secret.
    pub bytes: Vec<u8>,
    /// The digest of the bytes.
    pub digest: String,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The Webhooks do not fit.
    #[error(
        "the plan has {webhooks} Webhooks, which do not fit into {MAX_SHARDS} Secrets of {MAX_SHARD_BYTES} bytes: spread them over more than one AuthServer, or share large TLS certificates less"
    )]
    TooLarge {
        /// How many Webhooks there are.
        webhooks: usize,
    },
    /// The head is none. The parser's own words could quote a key.
    #[error("the plan's head is not readable, at byte {}", .0.column())]
    Head(serde_json::Error),
    /// A shape that this program does not know.
    #[error(
        "the plan has version {found}, this sidecar runs version {PLAN_VERSION}: upgrade the older of operator and sidecar"
    )]
    Version {
        /// The plan's version.
        found: u32,
    },
    /// A shard's bytes are not those that the head names: another plan is being published.
    #[error("shard {number} is not the one that the head names: a newer plan is being published")]
    Changed {
        /// Its number.
        number: usize,
    },
    /// A shard cannot be unpacked.
    #[error("shard {number} is not readable: {reason}")]
    Shard {
        /// Its number.
        number: usize,
        /// Why.
        reason: String,
    },
    /// The pieces fit, and the whole is not what the head says.
    #[error("the plan's pieces are whole, but together they are not plan {expected}")]
    Digest {
        /// The head's digest.
        expected: String,
    },
}

/// The Secret of a plan's head.
pub fn head_name(auth_server: &ObjectName) -> String {
    format!("{HEAD_PREFIX}{}", auth_server.name)
}

/// The Secret of a slot. The number stands first: `logto-1`'s head and a slot of `logto` would share a name.
pub fn slot_name(auth_server: &ObjectName, slot: usize) -> String {
    format!("{SLOT_PREFIX}{slot}-{}", auth_server.name)
}

/// Whether a Secret is a part of some plan, by its name.
pub fn is_part_of_a_plan(secret: &str) -> bool {
    secret.starts_with(HEAD_PREFIX) || secret.starts_with(SLOT_PREFIX)
}

/// Splits a plan's Webhooks. `before`: how many shards there were, kept as long as it serves.
pub fn split(plan: &Plan, before: usize) -> Result<Vec<Shard>, ShardError> {
    let mut count = before.clamp(1, MAX_SHARDS).next_power_of_two();
    let mut shards = pack(&plan.webhooks, count);
    while largest(&shards) > FULL_SHARD_BYTES && count < MAX_SHARDS {
        count *= 2;
        shards = pack(&plan.webhooks, count);
    }
    while count > 1 && largest(&shards) < FULL_SHARD_BYTES / 4 {
        count /= 2;
        shards = pack(&plan.webhooks, count);
    }
    if largest(&shards) > MAX_SHARD_BYTES {
        return Err(ShardError::TooLarge { webhooks: plan.webhooks.len() });
    }
    Ok(shards)
}

/// Puts a plan together again, and checks it.
pub fn join(head: &Head, shards: &[Vec<u8>]) -> Result<Plan, ShardError> {
    let mut plan = head.frame.clone();
    for (number, (named, bytes)) in head.shards.iter().zip(shards).enumerate() {
        if digest(bytes) != named.digest {
            return Err(ShardError::Changed { number });
        }
        plan.webhooks.extend(unpack(number, bytes)?);
    }
    plan.webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    if shards.len() != head.shards.len() || plan.digest() != head.digest {
        return Err(ShardError::Digest { expected: head.digest.clone() });
    }
    Ok(plan)
}

/// The digest of some bytes, as heads name it.
pub fn digest(bytes: &[u8]) -> String {
    crate::hex(&Sha256::digest(bytes)[..16])
}

fn largest(shards: &[Shard]) -> usize {
    shards.iter().map(|shard| shard.bytes.len()).max().unwrap_or_default()
}

fn pack(webhooks: &[WebhookPlan], count: usize) -> Vec<Shard> {
    let mut parts = vec![Vec::new(); count];
    for webhook in webhooks {
        parts[number_of(&webhook.webhook, count)].push(webhook);
    }
    parts.iter().map(|part| Shard::pack(part)).collect()
}

/// The shard of a Webhook, when there are so many.
fn number_of(webhook: &ObjectName, count: usize) -> usize {
    usize::from(Sha256::digest(webhook.to_string())[0]) % count
}

fn unpack(number: usize, bytes: &[u8]) -> Result<Vec<WebhookPlan>, ShardError> {
    let unreadable = |reason: String| ShardError::Shard { number, reason };
    let mut json = Vec::new();
    let unpacked = GzDecoder::new(bytes).take(MAX_UNPACKED_BYTES).read_to_end(&mut json);
    unpacked.map_err(|error| unreadable(error.to_string()))?;
    // The parser's own words could quote a key.
    serde_json::from_slice(&json)
        .map_err(|error| unreadable(format!("it is no list of Webhooks, at byte {}", error.column())))
}

// === impl Head ===

impl Head {
    /// The head of a plan whose shards lie in these slots.
    pub fn new(generation: u64, plan: &Plan, shards: Vec<ShardRef>) -> Self {
        let frame = Plan { webhooks: Vec::new(), ..plan.clone() };
        Self { generation, digest: plan.digest(), frame, shards }
    }

    /// Its JSON: the same head gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a head from its JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ShardError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Shape {
            frame: Frame,
        }
        #[derive(Deserialize)]
        struct Frame {
            version: u32,
        }
        let Shape { frame: Frame { version: found } } =
            serde_json::from_slice(bytes).map_err(ShardError::Head)?;
        if found != PLAN_VERSION {
            return Err(ShardError::Version { found });
        }
        serde_json::from_slice(bytes).map_err(ShardError::Head)
    }

    /// The slots that it does not name, lowest first.
    pub fn free_slots(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SLOTS).filter(|slot| !self.shards.iter().any(|shard| shard.slot == *slot))
    }
}

// === impl Shard ===

impl Shard {
    fn pack(webhooks: &[&WebhookPlan]) -> Self {
        let json = serde_json::to_vec(webhooks).unwrap_or_default();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing into memory does not fail.
        let _ = packed.write_all(&json);
        let bytes = packed.finish().unwrap_or_default();
        Self { digest: digest(&bytes), bytes }
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard({}, {} bytes)", self.digest, self.bytes.len())
    }
}

#[cfg(test)]
mod tests;
