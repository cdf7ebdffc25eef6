//! A plan as a sidecar reads it from a file or a Secret, and the head of its shards.
//!
//! Whatever is read is written as it was read; split and joined it is the same plan.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_plan::Plan;
use tidings_plan::shards::{Head, ShardRef, join, split};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(head) = Head::from_json(bytes) {
        assert!(Head::from_json(&head.to_json()).is_ok_and(|again| again == head));
        let _ = join(&head, &[bytes.to_vec()]);
        let _ = head.free_slots().count();
    }
    let Ok(mut plan) = Plan::from_json(bytes) else { return };
    assert!(Plan::from_json(&plan.to_json()).is_ok_and(|again| again == plan));
    // The operator renders them in this order, each once.
    plan.webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
    plan.webhooks.dedup_by(|a, b| a.webhook == b.webhook);
    let shards = split(&plan, 2).expect("a plan of few bytes fits");
    let named =
        shards.iter().enumerate().map(|(slot, shard)| ShardRef { slot, digest: shard.digest.clone() });
    let head = Head::new(1, &plan, named.collect());
    let bytes: Vec<_> = shards.into_iter().map(|shard| shard.bytes).collect();
    assert!(join(&head, &bytes).is_ok_and(|joined| joined.plan == plan));
});
