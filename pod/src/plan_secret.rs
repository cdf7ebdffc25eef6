//! Follows the plan in its Secrets: the head is watched by name, and the shards that it names are read.
//!
//! In: the Secrets of one AuthServer. Out: plans to run, each of them whole.
//!
//! A watch is asked for without a place to begin at, so that it begins with the head as it is: whatever
//! goes wrong, the way on is another watch. A shard that is not the one that the head names means that a
//! newer plan is being published, and is looked at again in the same way. What cannot be read changes
//! nothing, and the plan before runs on. It must never run a part of a plan, and never log one.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client};
use tidings_plan::ObjectName;
use tidings_plan::shards::{self, ADMIN_KEY, HEAD_KEY, Head, SHARD_KEY, ShardError, ShardRef};
use tidings_sidecar::engine::Applied;
use tidings_sidecar::sidecar::Applier;
use tidings_signature::question::AdminKey;

use crate::Signs;
use crate::backoff::Backoff;
use crate::cluster::{Trouble, ask};

/// The API server ends a watch after this long, in seconds; a connection that died without a word is
/// then noticed [`WATCH_GRACE`] later.
const WATCH_SECONDS: u32 = 60;
const WATCH_GRACE: Duration = Duration::from_secs(15);

/// How soon it is asked again after a failure, at first and at the most.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The plan's Secrets, followed.
pub struct PlanSecret {
    secrets: Api<Secret>,
    auth_server: ObjectName,
    /// The pod's name, which the operator's questions name.
    pod: String,
    applier: Applier,
    signs: Arc<Signs>,
    /// The shards of the last head, by the digest of their bytes.
    shards: BTreeMap<String, Vec<u8>>,
    running: Arc<Applied>,
    said_ready: bool,
    told: Option<String>,
    backoff: Backoff,
}

/// Why the Secrets gave no plan.
#[derive(Debug, thiserror::Error)]
enum Setback {
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error("Secret {object} has no key {key}")]
    NoKey { object: String, key: &'static str },
    #[error("{0}")]
    Plan(#[from] ShardError),
    #[error("the plan is that of AuthServer {0}: two AuthServers' Secrets have the same name")]
    OfAnother(ObjectName),
}

// === impl PlanSecret ===

impl PlanSecret {
    /// To follow an AuthServer's plan. The plan that runs already, the last good one, is said to be ready.
    pub fn new(
        client: Client,
        auth_server: ObjectName,
        pod: String,
        applier: Applier,
        signs: Arc<Signs>,
    ) -> Self {
        let running = applier.engine().applied();
        let said_ready = !running.digest.is_empty();
        let secrets = Api::namespaced(client, &auth_server.namespace);
        signs.waits(format!("the API server was not asked for the plan of AuthServer {auth_server} yet"));
        if said_ready {
            applier.say_ready();
        }
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let shards = BTreeMap::new();
        Self { secrets, auth_server, pod, applier, signs, shards, running, said_ready, told: None, backoff }
    }

    /// Follows it for ever.
    pub async fn follow(mut self) {
        loop {
            match self.watch().await {
                Ok(()) => self.backoff.reset(),
                Err(setback) => self.meet(&setback),
            }
            tokio::time::sleep(self.backoff.next(rand::random())).await;
        }
    }

    /// One watch, until it ends or fails.
    async fn watch(&mut self) -> Result<(), Setback> {
        let name = shards::head_name(&self.auth_server);
        let object = self.named(&name);
        let only = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS);
        let secrets = self.secrets.clone();
        let events = ask("watch", &object, secrets.watch(&only, "")).await?;
        let mut events = pin!(events);
        self.signs.waits(format!("{object} is waited for; the operator writes it"));
        let longest = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_GRACE;
        loop {
            let next = tokio::time::timeout(longest, events.try_next()).await;
            let Ok(next) = next else { return Err(silent().into()) };
            match next.map_err(|error| Trouble::of("watch", &object, error))? {
                Some(event) => self.heard(&object, event).await?,
                None => return Ok(()),
            }
        }
    }

    async fn heard(&mut self, object: &str, event: WatchEvent<Secret>) -> Result<(), Setback> {
        match event {
            WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                match self.consider(object, secret).await {
                    Err(setback) if setback.stays() => {
                        self.tell(setback.to_string());
                        Ok(())
                    }
                    other => other,
                }
            }
            WatchEvent::Deleted(_) => {
                self.tell(format!("{object} was deleted"));
                Ok(())
            }
            WatchEvent::Bookmark(_) => Ok(()),
            WatchEvent::Error(status) => Err(Trouble::of("watch", object, kube::Error::Api(status)).into()),
        }
    }

    /// Runs the plan that a head names, unless it runs already.
    async fn consider(&mut self, object: &str, secret: Secret) -> Result<(), Setback> {
        let admin_key = secret.data.as_ref().and_then(|data| data.get(ADMIN_KEY));
        let admin_key = admin_key.and_then(|bytes| AdminKey::new(&bytes.0));
        let head = Head::from_json(&value(object, secret, HEAD_KEY)?)?;
        let frame = head.frame().map_err(ShardError::from)?;
        if frame.auth_server != self.auth_server {
            return Err(Setback::OfAnother(frame.auth_server));
        }
        self.applier.admit(admin_key, &self.pod);
        if (head.generation, &head.digest) != (self.running.generation, &self.running.digest) {
            self.fetch(&head).await?;
            let pieces: Vec<_> =
                head.shards.iter().filter_map(|named| self.shards.get(&named.digest).cloned()).collect();
            let plan = shards::join(&head, &pieces)?;
            self.running = self.applier.apply_published(&plan).await;
        }
        self.went_well();
        Ok(())
    }

    /// Reads the shards that the head names and that are not here already.
    async fn fetch(&mut self, head: &Head) -> Result<(), Setback> {
        self.shards.retain(|digest, _| head.shards.iter().any(|named| named.digest == *digest));
        for (number, named) in head.shards.iter().enumerate() {
            if !self.shards.contains_key(&named.digest) {
                let bytes = self.read(number, named).await?;
                self.shards.insert(named.digest.clone(), bytes);
            }
        }
        Ok(())
    }

    async fn read(&self, number: usize, named: &ShardRef) -> Result<Vec<u8>, Setback> {
        let name = shards::slot_name(&self.auth_server, named.slot);
        let object = self.named(&name);
        let secret = ask("get", &object, self.secrets.get(&name)).await?;
        let bytes = value(&object, secret, SHARD_KEY)?;
        if shards::digest(&bytes) == named.digest {
            Ok(bytes)
        } else {
            Err(ShardError::Changed { number }.into())
        }
    }

    fn went_well(&mut self) {
        self.backoff.reset();
        if self.told.take().is_some() {
            tracing::info!(plan = self.running.digest, "the plan is followed again");
        }
        if !self.said_ready {
            self.said_ready = true;
            self.applier.say_ready();
        }
    }

    fn meet(&mut self, setback: &Setback) {
        if matches!(setback, Setback::Trouble(_)) {
            self.signs.watch_failed();
        }
        self.tell(setback.to_string());
    }

    /// Tells what is wrong once, until it is something else.
    fn tell(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            tracing::warn!("no newer plan: {what}; what runs goes on");
            self.signs.waits(what.clone());
            self.told = Some(what);
        }
    }

    fn named(&self, name: &str) -> String {
        format!("Secret {}/{name}", self.auth_server.namespace)
    }
}

// === impl Setback ===

impl Setback {
    /// Nothing but another head can change it: there is no use in asking for this one again.
    fn stays(&self) -> bool {
        match self {
            Self::Trouble(_) | Self::Plan(ShardError::Changed { .. }) => false,
            Self::NoKey { .. } | Self::Plan(_) | Self::OfAnother(_) => true,
        }
    }
}

fn silent() -> Trouble {
    Trouble::Unreachable("the watch fell silent".to_owned())
}

fn value(object: &str, secret: Secret, key: &'static str) -> Result<Vec<u8>, Setback> {
    let mut data = secret.data.unwrap_or_default();
    let no_key = || Setback::NoKey { object: object.to_owned(), key };
    data.remove(key).map(|bytes| bytes.0).ok_or_else(no_key)
}
