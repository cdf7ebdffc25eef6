//! Publishes plans as the operator does: new shards into free slots, and then the head.

use std::collections::BTreeMap;
use std::io::Write as _;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use serde_json::Value;
use tidings_plan::shards::{self, HEAD_KEY, Head, SHARD_KEY, Shard, ShardRef};
use tidings_plan::{Ingest, ObjectName, Plan};

/// The operator's hand in a test.
pub(crate) struct Publisher {
    secrets: Api<Secret>,
    auth_server: ObjectName,
    head: Option<Head>,
}

/// A plan in pieces that are not written yet.
pub(crate) struct Prepared {
    pub(crate) head: Head,
    shards: Vec<Shard>,
}

// === impl Publisher ===

impl Publisher {
    pub(crate) fn new(client: Client, auth_server: ObjectName) -> Self {
        Self { secrets: Api::namespaced(client, &auth_server.namespace), auth_server, head: None }
    }

    /// Publishes a plan under the next number, which is returned.
    pub(crate) async fn publish(&mut self, plan: Plan) -> u64 {
        let prepared = self.prepare(plan);
        self.put_shards(&prepared).await;
        self.put_head(&prepared).await
    }

    /// Publishes a plan of one shard whose Webhooks were changed as no operator of this version would.
    pub(crate) async fn publish_changed(&mut self, plan: Plan, change: impl FnOnce(&mut Value)) -> u64 {
        let mut prepared = self.prepare(plan);
        let mut webhooks = serde_json::from_reader(GzDecoder::new(&prepared.shards[0].bytes[..])).unwrap();
        change(&mut webhooks);
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(webhooks.to_string().as_bytes()).unwrap();
        prepared.shards[0].bytes = packed.finish().unwrap();
        prepared.head.shards[0].digest = shards::digest(&prepared.shards[0].bytes);
        let mut head: Value = serde_json::from_slice(&prepared.head.to_json()).unwrap();
        head["checksum"] = Value::Null;
        prepared.head = Head::from_json(head.to_string().as_bytes()).unwrap();
        self.put_shards(&prepared).await;
        self.put_head(&prepared).await
    }

    /// Takes a plan apart for slots that are free. It takes events that are not signed.
    pub(crate) fn prepare(&self, plan: Plan) -> Prepared {
        let plan = Plan { auth_server: self.auth_server.clone(), ingest: Ingest::default(), ..plan };
        let shards = shards::split(&plan, 1).unwrap();
        let free: Vec<_> = match &self.head {
            Some(head) => head.free_slots().collect(),
            None => (0..shards::SLOTS).collect(),
        };
        let named = free.iter().zip(&shards);
        let named =
            named.map(|(slot, shard)| ShardRef { slot: *slot, digest: shard.digest.clone() }).collect();
        let generation = self.head.as_ref().map_or(1, |head| head.generation + 1);
        Prepared { head: Head::new(generation, &plan, named), shards }
    }

    pub(crate) async fn put_shards(&self, prepared: &Prepared) {
        for (named, shard) in prepared.head.shards.iter().zip(&prepared.shards) {
            self.put_bytes(named.slot, &shard.bytes).await;
        }
    }

    /// Puts bytes into a slot.
    pub(crate) async fn put_bytes(&self, slot: usize, bytes: &[u8]) {
        self.put(shards::slot_name(&self.auth_server, slot), SHARD_KEY, bytes).await;
    }

    pub(crate) async fn put_head(&mut self, prepared: &Prepared) -> u64 {
        self.put_head_bytes(&prepared.head.to_json()).await;
        self.head = Some(prepared.head.clone());
        prepared.head.generation
    }

    /// Puts bytes where the head is.
    pub(crate) async fn put_head_bytes(&self, bytes: &[u8]) {
        self.put(shards::head_name(&self.auth_server), HEAD_KEY, bytes).await;
    }

    async fn put(&self, name: String, key: &str, bytes: &[u8]) {
        let secret = Secret {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(key.to_owned(), ByteString(bytes.to_vec()))])),
            ..Secret::default()
        };
        self.secrets
            .patch(&name, &PatchParams::apply("test-operator"), &Patch::Apply(&secret))
            .await
            .unwrap();
    }
}
