//! Which open replays run, and which wait for their turn.
//!
//! In: the open replays of an auth server that are in order. Out: those that run, which stand in the head of
//! the plan, and for each other one its place in the queue of its namespace. One that runs goes on until it is
//! complete: a sidecar forgets a replay that the plan no longer holds. After these the oldest come first.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tidings_plan::{ObjectName, ReplayPlan};

/// How many run at once of one Webhook, of one namespace, and of one auth server.
const OF_WEBHOOK: usize = 2;
const OF_NAMESPACE: usize = 8;
const OF_SERVER: usize = 64;

/// How many bytes those that run take of the plan's head, which is one Secret.
const BYTES: usize = 256 << 10;

/// An open replay.
pub(super) struct Open {
    pub(super) name: ObjectName,
    pub(super) created: Option<Time>,
    pub(super) plan: ReplayPlan,
    /// Whether it ran before.
    pub(super) runs: bool,
}

/// The replays of an auth server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) running: BTreeMap<ObjectName, ReplayPlan>,
    /// The places, from 1.
    pub(super) waiting: BTreeMap<ObjectName, usize>,
}

/// What is taken by those that run.
#[derive(Default)]
struct Taken {
    webhooks: BTreeMap<ObjectName, usize>,
    namespaces: BTreeMap<String, usize>,
    replays: usize,
    bytes: usize,
    /// Somebody waits for what all share: nobody passes it.
    is_full: bool,
}

// === impl Queue ===

impl Queue {
    pub(super) fn of(mut open: Vec<Open>) -> Self {
        open.sort_by(|a, b| (!a.runs, &a.created, &a.name).cmp(&(!b.runs, &b.created, &b.name)));
        let (mut queue, mut taken) = (Self::default(), Taken::default());
        let mut places = BTreeMap::<String, usize>::new();
        for Open { name, plan, .. } in open {
            if taken.take(&plan) {
                queue.running.insert(name, plan);
            } else {
                let place = places.entry(name.namespace.clone()).or_default();
                *place += 1;
                queue.waiting.insert(name, *place);
            }
        }
        queue
    }
}

// === impl Taken ===

impl Taken {
    /// Takes a place, where there is one.
    fn take(&mut self, plan: &ReplayPlan) -> bool {
        let bytes = serde_json::to_vec(plan).map_or(BYTES, |json| json.len());
        let of_webhook = self.webhooks.entry(plan.webhook.clone()).or_default();
        let of_namespace = self.namespaces.entry(plan.webhook.namespace.clone()).or_default();
        if *of_webhook >= OF_WEBHOOK || *of_namespace >= OF_NAMESPACE {
            return false;
        }
        self.is_full |= self.replays >= OF_SERVER || self.bytes + bytes > BYTES;
        if self.is_full {
            return false;
        }
        *of_webhook += 1;
        *of_namespace += 1;
        self.replays += 1;
        self.bytes += bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tidings_plan::EventPattern;

    use super::*;

    fn open(namespace: &str, webhook: &str, at: usize) -> Open {
        let name = ObjectName::new(namespace, format!("replay-{at:04}"));
        let created = Timestamp::from_second(i64::try_from(at).unwrap()).unwrap();
        let plan = ReplayPlan {
            uid: name.to_string(),
            webhook: ObjectName::new(namespace, webhook),
            from_ms: 0,
            to_ms: 1,
            events: vec![],
            only_failed: true,
            dry_run: false,
            rate_per_second: 100,
        };
        Open { name, created: Some(Time(created)), plan, runs: false }
    }

    fn names(queue: &Queue) -> Vec<&str> {
        queue.running.keys().map(|name| name.name.as_str()).collect()
    }

    #[test]
    fn of_one_webhook_the_two_oldest_run_and_the_others_have_their_place() {
        let queue = Queue::of((0..5).rev().map(|at| open("shop", "mail", at)).collect());
        assert_eq!(names(&queue), ["replay-0000", "replay-0001"]);
        assert_eq!(queue.waiting.values().copied().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_namespace_that_opens_hundreds_leaves_room_for_the_others() {
        let flood = (0..500).map(|at| open("flood", &format!("hook-{at}"), at));
        let queue = Queue::of(flood.chain([open("shop", "mail", 900)]).collect());
        assert_eq!(queue.running.len(), 9);
        assert!(names(&queue).contains(&"replay-0900"));
    }

    #[test]
    fn one_that_runs_is_not_put_back_by_an_older_one_that_is_in_order_only_now() {
        let mut running = open("shop", "mail", 8);
        running.runs = true;
        let queue = Queue::of(vec![open("shop", "mail", 1), open("shop", "mail", 2), running]);
        assert_eq!(names(&queue), ["replay-0001", "replay-0008"]);
    }

    #[test]
    fn the_largest_replays_of_many_teams_stay_within_the_head() {
        let large = |at: usize| {
            let mut one = open(&format!("team-{at}"), "mail", at);
            let name = |nth: usize| EventPattern::parse(&format!("{nth:0>250}")).unwrap();
            one.plan.events = (0..64).map(name).collect();
            one
        };
        let queue = Queue::of((0..100).map(large).chain([open("late", "mail", 200)]).collect());
        let bytes: usize = queue.running.values().map(|plan| serde_json::to_vec(plan).unwrap().len()).sum();
        assert!(bytes <= BYTES && bytes > BYTES / 2, "{bytes}");
        assert!(!names(&queue).contains(&"replay-0200"), "nobody passes those that wait for what all share");
    }
}
