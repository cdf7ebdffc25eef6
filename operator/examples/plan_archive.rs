//! Writes the plan of a folder's `manifests.yaml` beside it, as it is published, `head.json` and the
//! shards, and as a sidecar keeps it, `last-good-plan.json`.
//!
//! `cargo run -p tidings-operator --example plan_archive -- tests/fixtures/versions/VERSION`, once for each
//! version that is released; `operator/tests/versions.rs` reads them all.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use tidings_operator::{manifests, reconcile};
use tidings_plan::ObjectName;
use tidings_plan::shards::{Head, ShardRef, join, split};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("name the folder of a version")?);
    let loaded = manifests::load(&[folder.join("manifests.yaml")]);
    let outcome = reconcile(&loaded.objects, &ObjectName::new("auth", "logto"));
    let plan =
        outcome.plan.ok_or_else(|| format!("no plan: {:?} {:?}", loaded.findings, outcome.auth_server))?;
    let (mut named, mut bytes) = (Vec::new(), Vec::new());
    for (slot, shard) in split(&plan, 1)?.into_iter().enumerate() {
        fs::write(folder.join(format!("shard-{slot}.json.gz")), &shard.bytes)?;
        named.push(ShardRef { slot, digest: shard.digest });
        bytes.push(shard.bytes);
    }
    let head = Head::new(41, &plan, named);
    fs::write(folder.join("head.json"), head.to_json())?;
    // What a sidecar of this version keeps for its next start.
    fs::write(folder.join("last-good-plan.json"), join(&head, &bytes)?.document())?;
    println!("{} Webhooks in {}", plan.webhooks.len(), folder.display());
    Ok(())
}
