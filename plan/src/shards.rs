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
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::published::{self, Malformed, Published};
use crate::{ObjectName, Plan, PlanError, WebhookPlan};

mod fit;

pub use fit::{bytes, without_room};

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

/// The key, beside the head, by which the operator's questions to a sidecar's admin port are signed. It is no part of
/// the plan: an operator that does not know it drops it, and the next one that does makes another.
pub const ADMIN_KEY: &str = "admin.key";

/// A shard's key in its Secret.
pub const SHARD_KEY: &str = "shard.json.gz";

/// Shards grow in number before they are larger than this, and fall back below a quarter of it.
const FULL_SHARD_BYTES: usize = 384 << 10;

/// A shard unpacks to at most this, in bytes: what is larger was not made by [`split`].
const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// What [`split`] puts into one shard is at most this, in bytes before it is packed: a sidecar holds all of it.
const FULL_UNPACKED_BYTES: usize = 4 << 20;

/// What a plan's Secret holds: everything but the Webhooks, and where those are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Each published plan has the next number; 1 is the first.
    pub generation: u64,
    /// The plan's [`Plan::digest`], its name: computed by the operator that published it, and compared with
    /// nothing that another version computes.
    pub digest: String,
    /// The plan without its Webhooks, as it was published. It holds keys.
    frame: Box<RawValue>,
    /// The shards, in the order of their numbers.
    pub shards: Vec<ShardRef>,
    /// The digest of the frame's bytes and the shards' digests; heads of 0.1.0-dev.1 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
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
    /// How many bytes it unpacks to.
    pub unpacked: usize,
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
    /// The head is none.
    #[error("the plan's head is not readable: {0}")]
    Head(Malformed),
    /// This program cannot run what the pieces hold.
    #[error(transparent)]
    Plan(#[from] PlanError),
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
    /// The head was changed after it was published.
    #[error("the plan's head is not as it was published: the checksum of plan {digest} does not match")]
    Checksum {
        /// The head's digest.
        digest: String,
    },
    /// There are not as many shards as the head names.
    #[error("the plan has {found} shards, its head names {named}")]
    Missing {
        /// How many there are.
        found: usize,
        /// How many the head names.
        named: usize,
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
    while !shards.iter().all(|shard| shard.is_within(1)) && count < MAX_SHARDS {
        count *= 2;
        shards = pack(&plan.webhooks, count);
    }
    while count > 1 && shards.iter().all(|shard| shard.is_within(4)) {
        count /= 2;
        shards = pack(&plan.webhooks, count);
    }
    if !shards.iter().all(Shard::fits) {
        return Err(ShardError::TooLarge { webhooks: plan.webhooks.len() });
    }
    Ok(shards)
}

/// Puts a plan together again, and checks that its bytes are those that were published.
pub fn join(head: &Head, shards: &[Vec<u8>]) -> Result<Published, ShardError> {
    if shards.len() != head.shards.len() {
        return Err(ShardError::Missing { found: shards.len(), named: head.shards.len() });
    }
    let mut webhooks = Vec::new();
    for (number, (named, bytes)) in head.shards.iter().zip(shards).enumerate() {
        if digest(bytes) != named.digest {
            return Err(ShardError::Changed { number });
        }
        webhooks.extend(unpack(number, bytes)?);
    }
    Ok(Published::join(&head.frame, &webhooks, head.generation, &head.digest)?)
}

/// The digest of some bytes, as heads name it.
pub fn digest(bytes: &[u8]) -> String {
    crate::hex(&Sha256::digest(bytes)[..16])
}

fn checksum(frame: &RawValue, shards: &[ShardRef]) -> String {
    let shards = shards.iter().map(|shard| shard.digest.as_str());
    digest(std::iter::once(frame.get()).chain(shards).collect::<Vec<_>>().join("\n").as_bytes())
}

/// Whether these can be one shard.
fn fits(part: &[&WebhookPlan]) -> bool {
    Shard::pack(part).fits()
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

fn unpack(number: usize, bytes: &[u8]) -> Result<Vec<Box<RawValue>>, ShardError> {
    let unreadable = |reason: String| ShardError::Shard { number, reason };
    let mut json = Vec::new();
    let unpacked = GzDecoder::new(bytes).take(MAX_UNPACKED_BYTES).read_to_end(&mut json);
    unpacked.map_err(|error| unreadable(error.to_string()))?;
    published::read_raw(&json).map_err(|error| unreadable(error.to_string()))
}

// === impl Head ===

impl Head {
    /// The head of a plan whose shards lie in these slots.
    pub fn new(generation: u64, plan: &Plan, shards: Vec<ShardRef>) -> Self {
        let frame = published::raw(&Plan { webhooks: Vec::new(), ..plan.clone() });
        let checksum = Some(checksum(&frame, &shards));
        Self { generation, digest: plan.digest(), frame, shards, checksum }
    }

    /// What takes the place of a head that cannot be read: nothing of it is used again but its number, where
    /// that can be read, so that the next plan has a higher one.
    pub fn in_place_of(unreadable: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Number {
            generation: u64,
        }
        let generation = published::read(unreadable).map_or(0, |Number { generation }| generation);
        let (digest, frame) = (String::new(), RawValue::NULL.to_owned());
        Self { generation, digest, frame, shards: Vec::new(), checksum: None }
    }

    /// Its JSON: the same head gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a head from its JSON, of whatever version the plan is, and checks that it is as it was published.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ShardError> {
        let head: Self = published::read_raw(bytes).map_err(ShardError::Head)?;
        match &head.checksum {
            Some(published) if *published != checksum(&head.frame, &head.shards) => {
                Err(ShardError::Checksum { digest: head.digest })
            }
            _ => Ok(head),
        }
    }

    /// The plan without its Webhooks.
    pub fn frame(&self) -> Result<Plan, PlanError> {
        Plan::from_json(self.frame.get().as_bytes())
    }

    /// The slots that it does not name, lowest first.
    pub fn free_slots(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SLOTS).filter(|slot| !self.shards.iter().any(|shard| shard.slot == *slot))
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { generation, digest, frame: _, shards, checksum: _ } = self;
        write!(f, "Head({generation}, {digest}, {shards:?})")
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl Eq for Head {}

// === impl Shard ===

impl Shard {
    fn pack(webhooks: &[&WebhookPlan]) -> Self {
        let json = serde_json::to_vec(webhooks).unwrap_or_default();
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        // Writing into memory does not fail.
        let _ = packed.write_all(&json);
        let bytes = packed.finish().unwrap_or_default();
        Self { digest: digest(&bytes), bytes, unpacked: json.len() }
    }

    /// Whether it takes at most such a part of what it may grow to before there are more shards.
    fn is_within(&self, part: usize) -> bool {
        self.bytes.len() <= FULL_SHARD_BYTES / part && self.unpacked <= FULL_UNPACKED_BYTES / part
    }

    fn fits(&self) -> bool {
        self.bytes.len() <= MAX_SHARD_BYTES && self.unpacked <= FULL_UNPACKED_BYTES
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard({}, {} bytes)", self.digest, self.bytes.len())
    }
}

#[cfg(test)]
mod tests;
