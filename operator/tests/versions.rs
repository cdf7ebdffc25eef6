//! What this operator publishes, as the sidecars of each released version read it: they know the fields of
//! their own time and ignore others, so each of those must still be there, with the value that it had.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidings_operator::{manifests, reconcile};
use tidings_plan::ObjectName;
use tidings_plan::shards::{Head, split};

fn versions() -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/versions");
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())
}

fn unpacked(bytes: &[u8]) -> Value {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Where `ours` lacks something of `theirs`, or has another value.
fn missing(at: &str, theirs: &Value, ours: &Value) -> Vec<String> {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => theirs
            .iter()
            .flat_map(|(name, value)| match ours.get(name) {
                Some(ours) => missing(&format!("{at}.{name}"), value, ours),
                None => vec![format!("{at}.{name} is gone")],
            })
            .collect(),
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            let pairs = theirs.iter().zip(ours).enumerate();
            pairs
                .flat_map(|(index, (theirs, ours))| missing(&format!("{at}[{index}]"), theirs, ours))
                .collect()
        }
        _ if theirs == ours => Vec::new(),
        _ => vec![format!("{at} was {theirs}, is {ours}")],
    }
}

#[test]
fn a_sidecar_of_each_released_version_finds_all_that_it_knows_in_the_plan_of_the_same_objects() {
    let mut seen = 0;
    for version in versions() {
        let loaded = manifests::load(&[version.join("manifests.yaml")]);
        let plan = reconcile(&loaded.objects, &ObjectName::new("auth", "logto")).plan.unwrap();
        let shards = split(&plan, 1).unwrap();
        let ours: Value = serde_json::from_slice(&Head::new(41, &plan, Vec::new()).to_json()).unwrap();
        let theirs: Value = serde_json::from_slice(&fs::read(version.join("head.json")).unwrap()).unwrap();
        assert_eq!(missing("frame", &theirs["frame"], &ours["frame"]), [""; 0], "{}", version.display());
        let theirs = unpacked(&fs::read(version.join("shard-0.json.gz")).unwrap());
        let ours = unpacked(&shards[0].bytes);
        assert_eq!(missing("webhooks", &theirs, &ours), [""; 0], "{}", version.display());
        seen += 1;
    }
    assert!(seen > 0);
}
