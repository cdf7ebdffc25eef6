use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Delivery, Egress, Endpoint, EventPattern, Format, Ingest, PLAN_VERSION, SecretText, Tls};

pub(super) fn webhook(at: usize) -> WebhookPlan {
    WebhookPlan {
        webhook: ObjectName::new(format!("team-{}", at % 7), format!("hook-{at}")),
        uid: format!("uid-{at}"),
        generation: 1,
        events: vec![EventPattern::All],
        endpoint: Endpoint {
            url: format!("https://example.com/{at}"),
            in_cluster: false,
            addresses: None,
            headers: BTreeMap::new(),
            tls: Tls::default(),
        },
        // A text that does not pack well, as keys do not.
        signing_keys: vec![SecretText::new(digest(&at.to_le_bytes()))],
        filter: None,
        format: Format::Native,
        delivery: Delivery::default(),
        suspend: false,
    }
}

fn plan(count: usize) -> Plan {
    let mut webhooks: Vec<_> = (0..count).map(webhook).collect();
    webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    let auth_server = ObjectName::new("auth", "logto");
    let (ingest, egress) = (Ingest::default(), Egress::default());
    Plan { version: PLAN_VERSION, auth_server, ingest, egress, webhooks, replays: vec![] }
}

fn published(plan: &Plan, before: usize) -> (Head, Vec<Vec<u8>>) {
    let shards = split(plan, before).unwrap();
    let named =
        shards.iter().enumerate().map(|(slot, shard)| ShardRef { slot, digest: shard.digest.clone() });
    (Head::new(1, plan, named.collect()), shards.into_iter().map(|shard| shard.bytes).collect())
}

#[test]
fn an_edit_of_one_webhook_changes_one_shard() {
    let mut plan = plan(2_000);
    let before = split(&plan, 8).unwrap();
    plan.webhooks[77].generation = 2;
    let after = split(&plan, before.len()).unwrap();
    assert_eq!(before.iter().zip(&after).filter(|(a, b)| a.digest != b.digest).count(), 1);
}

#[test]
fn ten_thousand_webhooks_fit_and_every_shard_is_within_its_bound() {
    let (head, shards) = published(&plan(10_000), 1);
    assert!(shards.iter().all(|shard| shard.len() <= MAX_SHARD_BYTES), "{:?}", head.shards);
    assert_eq!(join(&head, &shards).unwrap().plan, plan(10_000));
}

#[test]
fn a_shard_of_another_plan_is_noticed_and_so_is_a_missing_one() {
    let (head, mut shards) = published(&plan(3_000), 4);
    let (_, others) = published(&plan(3_001), 4);
    shards.clone_from_slice(&others);
    assert!(matches!(join(&head, &shards), Err(ShardError::Changed { .. })));
    let (head, shards) = published(&plan(3_000), 4);
    if shards.len() > 1 {
        assert!(matches!(join(&head, &shards[1..]), Err(ShardError::Missing { .. })));
    }
    assert!(join(&head, &[]).is_err());
}

#[test]
fn there_are_always_free_slots_for_a_whole_new_plan() {
    let named = (0..MAX_SHARDS).map(|slot| ShardRef { slot: slot * 2, digest: String::new() });
    let head = Head::new(1, &plan(0), named.collect());
    assert!(head.free_slots().count() >= MAX_SHARDS);
}

#[test]
fn no_auth_servers_names_meet_in_one_secret() {
    let servers = ["logto", "logto-1", "1-logto", "logto-1-1", "plan-logto", "1"]
        .map(|name| ObjectName::new("auth", name));
    let all = servers.iter().flat_map(|server| {
        let slots = (0..SLOTS).map(|slot| slot_name(server, slot));
        slots.chain([head_name(server)]).collect::<Vec<_>>()
    });
    let names: Vec<_> = all.collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    assert!(names.iter().all(|name| is_part_of_a_plan(name)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn what_was_split_is_joined_to_the_same_plan(count in 0usize..400, before in 0usize..40) {
        let plan = plan(count);
        let (head, shards) = published(&plan, before);
        let head = Head::from_json(&head.to_json()).unwrap();
        prop_assert_eq!(join(&head, &shards).unwrap().plan, plan);
    }

    #[test]
    fn no_bytes_make_joining_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Head::from_json(&bytes);
        let (mut head, _) = published(&plan(1), 1);
        head.shards[0].digest = digest(&bytes);
        prop_assert!(join(&head, &[bytes]).is_err());
    }
}

#[test]
fn a_head_of_another_version_is_refused_by_its_number() {
    let head = Head::new(1, &Plan { version: PLAN_VERSION + 1, ..plan(1) }, vec![]);
    let refused = Head::from_json(&head.to_json()).unwrap().frame().unwrap_err();
    assert!(matches!(refused, PlanError::Version { found } if found == PLAN_VERSION + 1));
}

#[test]
fn neither_a_head_nor_a_shard_that_is_not_readable_quotes_its_keys() {
    let with_key = Ingest { signing_keys: vec![SecretText::new("whsec_secret")], ..Ingest::default() };
    let (head, shards) = published(&Plan { ingest: with_key, ..plan(1) }, 1);
    let mut json: serde_json::Value = serde_json::from_slice(&head.to_json()).unwrap();
    json["frame"]["ingest"]["signingKeys"] = "whsec_secret".into();
    json["checksum"] = serde_json::Value::Null;
    let head = Head::from_json(json.to_string().as_bytes()).unwrap();
    for refused in [head.frame().unwrap_err().to_string(), join(&head, &shards).unwrap_err().to_string()] {
        assert!(refused.contains("`ingest.signingKeys`") && !refused.contains("whsec"), "{refused}");
    }
    json["shards"] = "whsec_secret".into();
    let refused = Head::from_json(json.to_string().as_bytes()).unwrap_err();
    let refused = format!("{refused} {refused:?}");
    assert!(refused.contains("not readable") && !refused.contains("whsec"), "{refused}");
}

#[test]
fn a_head_that_was_changed_after_it_was_published_is_noticed_and_its_number_is_not_used_again() {
    let (head, _) = published(&plan(3), 1);
    let text = String::from_utf8(head.to_json()).unwrap();
    let changed = text.replace("/createdAt", "/changedAt");
    assert_ne!(changed, text);
    assert!(matches!(Head::from_json(changed.as_bytes()), Err(ShardError::Checksum { .. })));
    assert_eq!(Head::in_place_of(changed.as_bytes()).generation, 1);
    assert_eq!(Head::in_place_of(b"nothing of it").generation, 0);
}
