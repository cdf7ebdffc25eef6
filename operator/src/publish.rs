//! Publishes plans: shards into free slots, then the head, then the old slots are cleared.
//!
//! ```text
//! Plan -> split -> slots that the head does not name -> head (guarded by its version) -> clear old slots
//! ```
//!
//! At every moment the head names shards that are there and whole; a crash between any two steps leaves
//! the plan before, or the new one, and at worst slots that the next plan uses again. A plan that is
//! published already costs nothing. Every write needs a [`Permit`], which a leader alone has.

mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource as _};
use tidings_crds::AuthServer;
use tidings_election::{Lead, LeadershipLost, Permit};
use tidings_plan::shards::{self, ADMIN_KEY, HEAD_KEY, Head, SHARD_KEY, Shard, ShardError, ShardRef};
use tidings_plan::{ObjectName, Plan, WebhookPlan};
use tidings_signature::question::KEY_BYTES;
use tokio::sync::{mpsc, watch};

use crate::metrics::Metrics;
use crate::world::change::Change;
use crate::{Finding, Reason};
use turns::Turns;

/// What a publisher is asked for.
#[derive(Debug)]
pub enum Request {
    /// This plan should be published; the UID is its `AuthServer`'s, which owns it.
    Plan(Arc<Plan>, String),
    /// A plan's Secret has this version now, or is gone: is it still as we left it?
    Touched(ObjectName, Option<String>),
    /// An `AuthServer` is gone; its plan goes by itself.
    Gone(ObjectName),
}

/// Publishes plans, one after another.
pub struct Publisher {
    client: Client,
    lead: watch::Receiver<Option<Lead>>,
    changes: mpsc::Sender<Change>,
    metrics: Metrics,
    known: HashMap<ObjectName, Known>,
    turns: Turns,
}

/// A plan as it is published.
struct Known {
    head: Head,
    owner: String,
    version: String,
    /// The versions of the shards that it names, each of which was read or written whole.
    slots: BTreeMap<usize, String>,
    /// The Webhooks for which it had no room.
    without_room: BTreeSet<ObjectName>,
    /// By which questions to the sidecars are signed; `None` where an older operator dropped it.
    admin_key: Option<Vec<u8>>,
}

/// A plan as it can be published: its shards, and who is not in it.
struct Packed {
    plan: Arc<Plan>,
    shards: Vec<Shard>,
    without_room: BTreeSet<ObjectName>,
}

/// What is published now.
struct Published {
    plan: Arc<Plan>,
    generation: u64,
    without_room: BTreeSet<ObjectName>,
}

/// Why a plan was not published.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Leadership(#[from] LeadershipLost),
    #[error(transparent)]
    Shards(#[from] ShardError),
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("there is no free slot for a shard")]
    NoSlot,
}

// === impl PublishError ===

impl PublishError {
    /// Somebody else wrote what we based this on.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }

    fn reason(&self) -> Reason {
        if matches!(self, Self::Shards(_)) { Reason::PlanTooLarge } else { Reason::PublishingFailed }
    }
}

// === impl Publisher ===

impl Publisher {
    /// A publisher that tells the model what it published.
    pub fn new(
        client: Client,
        lead: watch::Receiver<Option<Lead>>,
        changes: mpsc::Sender<Change>,
        metrics: Metrics,
    ) -> Self {
        Self { client, lead, changes, metrics, known: HashMap::new(), turns: Turns::default() }
    }

    /// Works until nobody asks any more.
    pub async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            let due = self.turns.due();
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => self.take(request),
                    None => return,
                },
                () = sleep_until(due) => self.publish_next().await,
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Plan(plan, owner) => self.turns.put(plan, owner, Instant::now()),
            Request::Gone(name) => {
                self.turns.remove(&name);
                self.known.remove(&name);
                self.metrics.no_plan(&name);
            }
            Request::Touched(secret, version) => self.touched(&secret, version.as_deref()),
        }
    }

    /// A Secret of ours that is not as we left it makes us forget what we know, and look again.
    fn touched(&mut self, secret: &ObjectName, version: Option<&str>) {
        let mut forgotten = Vec::new();
        self.known.retain(|server, known| {
            let in_namespace = server.namespace == secret.namespace;
            let is_head = in_namespace && shards::head_name(server) == secret.name;
            let mut slots = known.slots.iter().filter(|_| in_namespace);
            let slot = slots.find(|(slot, _)| shards::slot_name(server, **slot) == secret.name);
            let left = if is_head { Some(&known.version) } else { slot.map(|(_, version)| version) };
            let keep = left.is_none_or(|left| version == Some(left.as_str()));
            if !keep {
                forgotten.push(server.clone());
            }
            keep
        });
        for server in forgotten {
            // The model hands the plan over again when it is told of it.
            let _ = self.changes.try_send(Change::PlanLost(server));
        }
    }

    async fn publish_next(&mut self) {
        let Some((plan, owner)) = self.turns.next(Instant::now()) else { return };
        let name = plan.auth_server.clone();
        let Some(lead) = self.lead.borrow().clone() else {
            // Who leads next is handed every plan anew.
            self.turns = Turns::default();
            self.known.clear();
            return;
        };
        let result = self.publish(&lead, &plan, &owner).await;
        self.metrics.published(result.is_ok());
        match result {
            Ok(Published { plan, generation, without_room }) => {
                self.turns.remove(&name);
                self.metrics.plan(&name, plan.webhooks.len(), generation);
                // Before the model is told of the plan: these are not in it, and it is known why.
                let _ = self.changes.send(Change::NoRoom(name, without_room)).await;
                let _ = self.changes.send(Change::Published(plan, generation)).await;
            }
            Err(error) => self.failed(&name, &error).await,
        }
    }

    async fn failed(&mut self, name: &ObjectName, error: &PublishError) {
        self.known.remove(name);
        if matches!(error, PublishError::Leadership(_)) {
            self.turns.remove(name);
            return;
        }
        self.turns.failed(name, error.is_conflict(), Instant::now(), rand::random());
        if error.is_conflict() {
            return;
        }
        tracing::warn!(auth_server = %name, %error, "the plan could not be published, the one before stays");
        let finding = Finding::new(error.reason(), "", error.to_string());
        let _ = self.changes.send(Change::PublishFailed(name.clone(), finding)).await;
    }

    /// Publishes a plan where it is not published yet.
    async fn publish(
        &mut self,
        lead: &Lead,
        plan: &Arc<Plan>,
        owner: &str,
    ) -> Result<Published, PublishError> {
        let name = &plan.auth_server;
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.namespace);
        if !self.known.contains_key(name)
            && let Some(known) = read(&api, name).await?
        {
            self.known.insert(name.clone(), known);
        }
        let writer = Writer { api: api.clone(), lead, name, owner, metrics: &self.metrics };
        if let Some(known) = self.known.get_mut(name).filter(|known| known.owner == owner) {
            writer.add_admin_key(known).await?;
        }
        let known = self.known.get(name);
        let pool = known.filter(|known| known.owner == owner);
        if let Some(known) = pool.filter(|known| known.head.digest == plan.digest()) {
            return Ok(known.published(plan));
        }
        let packed = pack(&api, plan, known).await?;
        if let Some(known) = pool.filter(|known| known.head.digest == packed.plan.digest()) {
            let without_room = packed.without_room;
            return Ok(Published { without_room, ..known.published(&packed.plan) });
        }
        let plan = Arc::clone(&packed.plan);
        let published = writer.write(packed, known, pool).await?;
        let Published { plan, generation, without_room } = published.published(&plan);
        self.known.insert(name.clone(), published);
        tracing::info!(auth_server = %name, generation, webhooks = plan.webhooks.len(), "the plan is published");
        if !without_room.is_empty() {
            tracing::warn!(auth_server = %name, webhooks = without_room.len(), "the plan has no room for some Webhooks");
        }
        Ok(Published { plan, generation, without_room })
    }
}

// === impl Known ===

impl Known {
    fn published(&self, plan: &Arc<Plan>) -> Published {
        let without_room = self.without_room.clone();
        Published { plan: Arc::clone(plan), generation: self.head.generation, without_room }
    }
}

/// Packs a plan; where not all of it fits, without those for which there is no room beside those that run.
async fn pack(api: &Api<Secret>, plan: &Arc<Plan>, known: Option<&Known>) -> Result<Packed, PublishError> {
    let before = known.map_or(1, |known| known.head.shards.len());
    match split(plan, before).await {
        Err(ShardError::TooLarge { .. }) => {}
        shards => {
            return Ok(Packed { plan: Arc::clone(plan), shards: shards?, without_room: BTreeSet::new() });
        }
    }
    let running = match known {
        Some(known) => running(api, &plan.auth_server, known).await?,
        None => Vec::new(),
    };
    let (fitted, without_room) = fit(plan, running).await?;
    let shards = split(&fitted, before).await?;
    Ok(Packed { plan: fitted, shards, without_room })
}

/// The Webhooks of the plan that is published; none where it cannot be read.
async fn running(
    api: &Api<Secret>,
    name: &ObjectName,
    known: &Known,
) -> Result<Vec<WebhookPlan>, kube::Error> {
    let mut shards = Vec::with_capacity(known.head.shards.len());
    for shard in &known.head.shards {
        let secret = api.get_opt(&shards::slot_name(name, shard.slot)).await?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        shards.push(data.get(SHARD_KEY).map(|bytes| bytes.0.clone()).unwrap_or_default());
    }
    Ok(shards::join(&known.head, &shards).map(|published| published.plan.webhooks).unwrap_or_default())
}

async fn fit(
    plan: &Arc<Plan>,
    running: Vec<WebhookPlan>,
) -> Result<(Arc<Plan>, BTreeSet<ObjectName>), PublishError> {
    let (whole, count) = (Arc::clone(plan), plan.webhooks.len());
    let fitted = tokio::task::spawn_blocking(move || {
        let out = shards::without_room(&whole.webhooks, &running);
        let mut plan = (*whole).clone();
        plan.webhooks.retain(|webhook| !out.contains(&webhook.webhook));
        (Arc::new(plan), out)
    });
    fitted.await.map_err(|_| ShardError::TooLarge { webhooks: count }.into())
}

/// The plan as it is published; `None` where there is none, or none that can be read.
async fn read(api: &Api<Secret>, name: &ObjectName) -> Result<Option<Known>, kube::Error> {
    let Some(secret) = api.get_opt(&shards::head_name(name)).await? else { return Ok(None) };
    let bytes = secret.data.as_ref().and_then(|data| data.get(HEAD_KEY));
    let head = bytes.and_then(|bytes| Head::from_json(&bytes.0).ok());
    let owners = secret.metadata.owner_references.unwrap_or_default();
    let version = secret.metadata.resource_version.unwrap_or_default();
    let owner = owners.first().map(|owner| owner.uid.clone()).unwrap_or_default();
    let admin_key = secret.data.as_ref().and_then(|data| data.get(ADMIN_KEY));
    let admin_key = admin_key.map(|key| key.0.clone()).filter(|key| key.len() >= KEY_BYTES);
    let Some(head) = head else {
        // Written anew, over what is there.
        let head = Head::in_place_of(bytes.map_or(&[], |bytes| &bytes.0));
        return Ok(Some(Known {
            head,
            owner: String::new(),
            version,
            slots: BTreeMap::new(),
            without_room: BTreeSet::new(),
            admin_key,
        }));
    };
    let slots = whole_slots(api, name, &head).await?;
    // A shard is missing, or is not the one that was published: nothing of this plan is used again.
    let owner = if slots.len() == head.shards.len() { owner } else { String::new() };
    Ok(Some(Known { head, owner, version, slots, without_room: BTreeSet::new(), admin_key }))
}

/// The versions of those shards that are what the head says.
async fn whole_slots(
    api: &Api<Secret>,
    name: &ObjectName,
    head: &Head,
) -> Result<BTreeMap<usize, String>, kube::Error> {
    let mut slots = BTreeMap::new();
    for shard in &head.shards {
        let Some(secret) = api.get_opt(&shards::slot_name(name, shard.slot)).await? else { continue };
        let bytes = secret.data.as_ref().and_then(|data| data.get(SHARD_KEY));
        if bytes.is_some_and(|bytes| shards::digest(&bytes.0) == shard.digest) {
            slots.insert(shard.slot, secret.metadata.resource_version.unwrap_or_default());
        }
    }
    Ok(slots)
}

/// Writes one plan.
struct Writer<'a> {
    api: Api<Secret>,
    lead: &'a Lead,
    name: &'a ObjectName,
    owner: &'a str,
    metrics: &'a Metrics,
}

// === impl Writer ===

impl Writer<'_> {
    /// `before`: the head that is replaced. `pool`: the same, where its shards may be used again.
    async fn write(
        &self,
        packed: Packed,
        before: Option<&Known>,
        pool: Option<&Known>,
    ) -> Result<Known, PublishError> {
        let Packed { plan, shards: packed, without_room } = packed;
        let mut refs = Vec::with_capacity(packed.len());
        let mut free: Vec<_> = match before {
            Some(known) => known.head.free_slots().collect(),
            None => (0..shards::SLOTS).collect(),
        };
        free.reverse();
        let mut slots = BTreeMap::new();
        for shard in packed {
            let same = |known: &&ShardRef| known.digest == shard.digest;
            let again = pool.and_then(|known| Some((known, known.head.shards.iter().find(same)?)));
            let (named, version) = match again {
                Some((known, again)) => (again.clone(), known.slots.get(&again.slot).cloned()),
                None => self.put_shard(free.pop().ok_or(PublishError::NoSlot)?, shard).await?,
            };
            slots.insert(named.slot, version.unwrap_or_default());
            refs.push(named);
        }
        let head = Head::new(before.map_or(0, |known| known.head.generation) + 1, &plan, refs);
        let key = pool.and_then(|known| known.admin_key.clone()).unwrap_or_else(new_admin_key);
        let version = self.put_head(&head, key.clone(), before).await?;
        let owner = self.owner.to_owned();
        let known = Known { head, owner, version, slots, without_room, admin_key: Some(key) };
        self.clear(before, &known.head).await?;
        Ok(known)
    }

    async fn put_shard(&self, slot: usize, shard: Shard) -> Result<(ShardRef, Option<String>), PublishError> {
        let Shard { bytes, digest, unpacked: _ } = shard;
        let secret = self.secret(shards::slot_name(self.name, slot), SHARD_KEY, bytes);
        let permit = self.lead.permit()?;
        let written = match self.create(&permit, &secret).await {
            // Left over by a leader that ended between two steps.
            Err(kube::Error::Api(status)) if status.code == 409 => self.replace(&permit, &secret).await?,
            result => result?,
        };
        Ok((ShardRef { slot, digest }, written.metadata.resource_version))
    }

    /// Gives the plan as it is published the key that it lacks; its number stays.
    async fn add_admin_key(&self, known: &mut Known) -> Result<(), PublishError> {
        if known.admin_key.is_none() {
            let key = new_admin_key();
            known.version = self.put_head(&known.head, key.clone(), Some(known)).await?;
            known.admin_key = Some(key);
        }
        Ok(())
    }

    async fn put_head(
        &self,
        head: &Head,
        admin_key: Vec<u8>,
        before: Option<&Known>,
    ) -> Result<String, PublishError> {
        let mut secret = self.secret(shards::head_name(self.name), HEAD_KEY, head.to_json());
        secret.data.get_or_insert_default().insert(ADMIN_KEY.to_owned(), ByteString(admin_key));
        let permit = self.lead.permit()?;
        let written = match before {
            Some(known) => {
                secret.metadata.resource_version = Some(known.version.clone());
                self.replace(&permit, &secret).await?
            }
            None => self.create(&permit, &secret).await?,
        };
        Ok(written.metadata.resource_version.unwrap_or_default())
    }

    /// Removes the shards that the head no longer names: they hold keys that may be out of use.
    async fn clear(&self, before: Option<&Known>, head: &Head) -> Result<(), PublishError> {
        let old = before.into_iter().flat_map(|known| &known.head.shards);
        for shard in old.filter(|old| !head.shards.iter().any(|shard| shard.slot == old.slot)) {
            let permit = self.lead.permit()?;
            self.delete(&permit, &shards::slot_name(self.name, shard.slot)).await?;
        }
        Ok(())
    }

    async fn create(&self, _: &Permit<'_>, secret: &Secret) -> Result<Secret, kube::Error> {
        self.metrics.wrote("secrets");
        self.api.create(&PostParams::default(), secret).await
    }

    async fn replace(&self, _: &Permit<'_>, secret: &Secret) -> Result<Secret, kube::Error> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        self.metrics.wrote("secrets");
        self.api.replace(name, &PostParams::default(), secret).await
    }

    async fn delete(&self, _: &Permit<'_>, name: &str) -> Result<(), kube::Error> {
        self.metrics.wrote("secrets");
        match self.api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop),
        }
    }

    fn secret(&self, name: String, key: &str, bytes: Vec<u8>) -> Secret {
        let owner = OwnerReference {
            api_version: AuthServer::api_version(&()).into_owned(),
            kind: AuthServer::kind(&()).into_owned(),
            name: self.name.name.clone(),
            uid: self.owner.to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let labels = [
            ("app.kubernetes.io/managed-by".to_owned(), "tidings-operator".to_owned()),
            ("tidings.dev/auth-server".to_owned(), label_value(&self.name.name)),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(self.name.namespace.clone()),
                labels: Some(labels.into()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            data: Some([(key.to_owned(), ByteString(bytes))].into()),
            type_: Some("tidings.dev/plan".to_owned()),
            ..Secret::default()
        }
    }
}

/// From the system's randomness.
fn new_admin_key() -> Vec<u8> {
    rand::random::<[u8; KEY_BYTES]>().to_vec()
}

/// As much of a name as a label's value holds; a name may have a dash or a dot where that ends, a label not.
fn label_value(name: &str) -> String {
    let start: String = name.chars().take(63).collect();
    start.trim_end_matches(['-', '.']).to_owned()
}

/// Packing some thousand Webhooks takes a while: off the threads that serve everything else.
async fn split(plan: &Arc<Plan>, before: usize) -> Result<Vec<Shard>, ShardError> {
    let (plan, count) = (Arc::clone(plan), plan.webhooks.len());
    let packed = tokio::task::spawn_blocking(move || shards::split(&plan, before)).await;
    packed.unwrap_or(Err(ShardError::TooLarge { webhooks: count }))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
