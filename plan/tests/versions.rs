//! Plans of other versions: those of every released operator (`tests/fixtures/versions`), and those of later
//! ones, which have fields, words and features that this program does not know.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tidings_plan::shards::{Head, ShardError, digest, join};
use tidings_plan::{ObjectName, PlanError, Published};

fn versions() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/versions");
    let folders: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!folders.is_empty());
    folders
}

/// The head and the Webhooks as an operator of that version published them.
fn archived(version: &Path) -> (Value, Value) {
    let head = fs::read(version.join("head.json")).unwrap();
    let mut webhooks = String::new();
    let packed = fs::read(version.join("shard-0.json.gz")).unwrap();
    GzDecoder::new(&packed[..]).read_to_string(&mut webhooks).unwrap();
    (serde_json::from_slice(&head).unwrap(), serde_json::from_str(&webhooks).unwrap())
}

/// Publishes a head and its Webhooks without a checksum.
fn publish(mut head: Value, webhooks: &Value) -> Result<Published, ShardError> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(webhooks.to_string().as_bytes()).unwrap();
    let shard = packed.finish().unwrap();
    head["shards"] = json!([{"slot": 0, "digest": digest(&shard)}]);
    head["checksum"] = Value::Null;
    join(&Head::from_json(head.to_string().as_bytes())?, &[shard])
}

/// Adds a field to each object, as a later version might; headers have the names that users give them.
fn add_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.iter_mut().filter(|(name, _)| *name != "headers").for_each(|(_, value)| add_fields(value));
            fields.insert("ofALaterVersion".to_owned(), json!({"with": ["whatever"]}));
        }
        Value::Array(items) => items.iter_mut().for_each(add_fields),
        _ => {}
    }
}

fn latest() -> (Value, Value) {
    archived(&versions().pop().unwrap())
}

#[test]
fn the_plan_of_each_released_operator_runs_whole() {
    for version in versions() {
        let head = Head::from_json(&fs::read(version.join("head.json")).unwrap()).unwrap();
        let plan = join(&head, &[fs::read(version.join("shard-0.json.gz")).unwrap()]).unwrap();
        assert_eq!((plan.generation, plan.plan.webhooks.len()), (41, 2), "{}", version.display());
        assert_eq!(plan.left_out, []);
        let kept = Published::from_json(&fs::read(version.join("last-good-plan.json")).unwrap()).unwrap();
        assert_eq!((kept.plan, kept.generation), (plan.plan, 41), "what a sidecar kept is the same plan");
    }
}

#[test]
fn a_plan_with_fields_of_a_later_version_runs_whole_under_the_name_that_its_operator_gave_it() {
    let (mut head, mut webhooks) = latest();
    let known = publish(head.clone(), &webhooks).unwrap();
    add_fields(&mut head["frame"]);
    add_fields(&mut webhooks);
    head["digest"] = json!("of-the-operator");
    let later = publish(head, &webhooks).unwrap();
    assert_eq!((later.plan, later.left_out.len()), (known.plan, 0));
    assert_eq!((later.generation, later.digest.as_str()), (41, "of-the-operator"));
}

#[test]
fn what_a_later_version_added_is_still_there_after_the_plan_was_kept_and_read_again() {
    let (mut head, mut webhooks) = latest();
    add_fields(&mut head["frame"]);
    webhooks[1]["ofALaterVersion"] = json!("of one Webhook");
    let kept = Published::from_json(publish(head, &webhooks).unwrap().document()).unwrap();
    let document: Value = serde_json::from_slice(kept.document()).unwrap();
    assert_eq!(document["webhooks"][1]["ofALaterVersion"], "of one Webhook");
    assert_eq!(document["ingest"]["ofALaterVersion"]["with"][0], "whatever");
}

#[test]
fn a_webhook_that_this_program_cannot_read_is_left_out_by_name_and_the_others_run() {
    let (head, mut webhooks) = latest();
    webhooks[0]["format"] = json!("whsec_of_a_later_version");
    let plan = publish(head, &webhooks).unwrap();
    assert_eq!(plan.plan.webhooks.len(), 1);
    let [left_out] = &plan.left_out[..] else { panic!("{:?}", plan.left_out) };
    assert_eq!(left_out.webhook, ObjectName::new("shop", "mail"));
    assert!(left_out.reason.contains("`format`") && left_out.reason.contains("upgrade the sidecar"));
    assert!(!left_out.reason.contains("whsec"), "no value is quoted: {}", left_out.reason);
}

#[test]
fn a_webhook_that_requires_what_this_program_does_not_have_is_left_out_and_the_feature_is_named() {
    let (head, mut webhooks) = latest();
    webhooks[1]["requires"] = json!(["quota-of-a-later-version"]);
    let plan = publish(head, &webhooks).unwrap();
    assert_eq!(plan.left_out[0].webhook, ObjectName::new("shop", "sync"));
    assert!(plan.left_out[0].reason.contains("\"quota-of-a-later-version\""), "{}", plan.left_out[0].reason);
}

#[test]
fn a_plan_that_requires_as_a_whole_what_this_program_does_not_have_is_refused_with_the_fix() {
    let (mut head, webhooks) = latest();
    head["frame"]["requires"] = json!(["egress-by-name"]);
    let refused = publish(head, &webhooks).unwrap_err();
    assert!(
        matches!(&refused, ShardError::Plan(PlanError::Requires { feature }) if feature == "egress-by-name")
    );
    assert!(refused.to_string().contains("upgrade the sidecar"), "{refused}");
}

#[test]
fn a_replay_of_a_later_shape_is_not_begun_and_stops_no_webhook() {
    let (mut head, webhooks) = latest();
    head["frame"]["replays"] = json!([{"uid": "1", "window": "of-a-later-version"}]);
    let plan = publish(head, &webhooks).unwrap();
    assert_eq!((plan.plan.replays.len(), plan.plan.webhooks.len()), (0, 2));
}
