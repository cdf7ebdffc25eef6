//! Whatever is applied, deleted, spoilt and made again, in whatever order: the end is what the objects ask for.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use serde_json::json;

use crate::objects::{Change as _, auth_server, secret};
use crate::stage::Stage;

const STEPS: u64 = 25;

/// Numbers that look like chance, the same for the same seed.
pub(crate) struct Chance(u64);

// === impl Chance ===

impl Chance {
    /// From `TIDINGS_SEED`, or from the time; it is printed.
    pub(crate) fn new(test: &str) -> Self {
        let seed = std::env::var("TIDINGS_SEED").map_or_else(
            |_| {
                let mut hasher = DefaultHasher::new();
                (std::time::SystemTime::now(), test).hash(&mut hasher);
                hasher.finish()
            },
            |seed| seed.parse().unwrap(),
        );
        println!("{test}: TIDINGS_SEED={seed}");
        Self(seed)
    }

    /// Another one, which follows from this.
    pub(crate) fn another(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// One step; what was done.
async fn step(stage: &Stage, chance: &mut Chance) -> String {
    let (name, keys) = (format!("hook-{}", chance.below(5)), format!("keys-{}", chance.below(3)));
    let webhook = stage.webhook(&name).with("/spec/secretRef/name", json!(keys));
    let key = |text: String| secret(&stage.shop, &keys, &[("signingKey", &text)]);
    match chance.below(12) {
        0..=3 => {
            let url = format!("http://127.0.0.1:9/{}", chance.below(100));
            stage.put(&webhook.with("/spec/endpoint/url", json!(url))).await;
            format!("put {name} with {keys}")
        }
        4 => {
            stage.delete(&webhook).await;
            format!("delete {name}")
        }
        5 => {
            stage.delete(&webhook).await;
            stage.put(&webhook).await;
            format!("make {name} anew")
        }
        6 => {
            stage.put(&webhook.with("/spec/filter", json!("event.x ==="))).await;
            format!("spoil the filter of {name}")
        }
        7 => {
            stage.put(&webhook.with("/spec/endpoint/url", json!("http://10.0.0.1/"))).await;
            format!("send {name} where it may not")
        }
        8 | 9 => {
            stage.put(&key(format!("a-key-of-more-than-24-bytes-{}", chance.below(100)))).await;
            format!("put {keys}")
        }
        10 => {
            stage.delete(&key(String::new())).await;
            format!("delete {keys}")
        }
        _ => {
            let server = auth_server(&stage.auth);
            if chance.below(2) == 0 {
                stage.delete(&server).await;
            }
            let only_own = json!({ "from": "Same" });
            let is_narrow = chance.below(3) == 0;
            stage
                .put(&if is_narrow { server.with("/spec/allowedNamespaces", only_own) } else { server })
                .await;
            format!("put the AuthServer, narrow: {is_narrow}")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_sequence_of_edits_plan_and_conditions_are_what_a_fresh_operator_gives() {
    let mut chance = Chance::new("after_any_sequence_of_edits");
    let stage = Stage::new().await;
    let operator = stage.operator("operator-0").await;
    for number in 0..STEPS {
        let done = step(&stage, &mut chance).await;
        println!("{number}: {done}");
        if chance.below(4) == 0 {
            stage.wait_settled().await;
        }
    }
    stage.assert_a_fresh_operator_agrees(operator).await;
}
