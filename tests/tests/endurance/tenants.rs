//! Six teams' Webhooks and their receivers, the plan that they are in, and what each receiver must have got.

use std::collections::{HashMap, HashSet};

use tidings_plan::{ObjectName, Plan, ReplayPlan};
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::receiver::{Received, Receiver, Reply};

use crate::load::KEYS;

pub(crate) struct Tenants {
    /// Takes everything.
    steady: Receiver,
    /// Answers 503 to one request in five.
    flaky: Receiver,
    /// The same, for a Webhook that asks for order.
    ordered: Receiver,
    /// Answers 500 to each fiftieth event, for ever.
    poisoned: Receiver,
    /// Answers 404 to each seventh event, for ever.
    refusing: Receiver,
    /// Does not answer until it recovers.
    hanging: Receiver,
    /// Takes everything; its Webhook leaves the plan and comes back.
    fickle: Receiver,
    fickle_is_there: bool,
    edits: i64,
    replays: Vec<ReplayPlan>,
}

fn number_of(received: &Received) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    body["number"].as_u64().unwrap()
}

fn flaky(nth: usize) -> Reply {
    Reply::Status(if nth.is_multiple_of(5) { 503 } else { 200 })
}

/// Refuses each event whose number this divides.
async fn refusing_each(divisor: u64, status: u16) -> Receiver {
    Receiver::answering(move |_, received| {
        Reply::Status(if number_of(received).is_multiple_of(divisor) { status } else { 200 })
    })
    .await
}

// === impl Tenants ===

impl Tenants {
    /// The Webhooks that select every event, by name.
    pub(crate) const NAMES: [&str; 7] =
        ["steady", "ordered", "flaky", "poisoned", "refusing", "hanging", "fickle"];

    pub(crate) async fn start() -> Self {
        Self {
            steady: Receiver::start().await,
            flaky: Receiver::answering(|nth, _| flaky(nth)).await,
            ordered: Receiver::answering(|nth, _| flaky(nth)).await,
            poisoned: refusing_each(50, 500).await,
            refusing: refusing_each(7, 404).await,
            hanging: Receiver::answering(|_, _| Reply::Never).await,
            fickle: Receiver::start().await,
            fickle_is_there: true,
            edits: 1,
            replays: Vec::new(),
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        let mut steady = webhook("steady", &self.steady).filtered("event.number % 3 != 0");
        steady.generation = self.edits;
        let ordered = webhook("ordered", &self.ordered).retrying_within(1, 1, 36_000).ordered_by("/userId");
        let hanging = webhook("hanging", &self.hanging).retrying_within(1, 1, 36_000);
        let mut webhooks = vec![
            steady,
            ordered,
            webhook("flaky", &self.flaky).retrying_within(1, 1, 36_000),
            webhook("poisoned", &self.poisoned).retrying_within(1, 1, 10),
            webhook("refusing", &self.refusing).retrying_within(1, 1, 5),
            hanging.delivering(|delivery| (delivery.timeout_seconds, delivery.concurrency) = (1, 4)),
        ];
        if self.fickle_is_there {
            webhooks.push(webhook("fickle", &self.fickle));
        }
        Plan { replays: self.replays.clone(), ..plan(webhooks) }
    }

    /// The plan after one more act, drawn by chance.
    pub(crate) fn changed(&mut self, chance: u64) -> Plan {
        match chance % 4 {
            0 | 1 => self.fickle_is_there = !self.fickle_is_there,
            2 => self.edits += 1,
            _ => self.replays = vec![replay_of_flaky(chance)],
        }
        self.plan()
    }

    /// Who hangs answers again, and who left is back.
    pub(crate) fn recovered(&mut self) -> Plan {
        self.hanging.now_answering(|_, _| Reply::Status(200));
        self.fickle_is_there = true;
        self.replays.clear();
        self.plan()
    }

    /// What was acknowledged arrived wherever it was not refused for ever or filtered.
    pub(crate) fn check(&self, acknowledged: &HashSet<u64>) {
        check("steady", &self.steady, acknowledged, |number| !number.is_multiple_of(3));
        check("flaky", &self.flaky, acknowledged, |_| true);
        check("ordered", &self.ordered, acknowledged, |_| true);
        self.check_order();
        check("poisoned", &self.poisoned, acknowledged, |_| true);
        check("refusing", &self.refusing, acknowledged, |_| true);
        check("hanging", &self.hanging, acknowledged, |_| true);
        check("fickle", &self.fickle, acknowledged, |_| true);
    }

    /// Of one key no event was taken for the first time after one that was sent later. A key's events come over
    /// one connection, so their numbers rise.
    fn check_order(&self) {
        let (mut taken, mut newest) = (HashSet::new(), HashMap::new());
        for (nth, received) in self.ordered.received().iter().enumerate() {
            let number = number_of(received);
            if matches!(flaky(nth), Reply::Status(200)) && taken.insert(number) {
                let before = newest.insert(number % KEYS, number);
                assert!(before < Some(number), "{number} was taken after {before:?}, both of one key");
            }
        }
    }
}

fn replay_of_flaky(chance: u64) -> ReplayPlan {
    ReplayPlan {
        uid: format!("replay-{chance}"),
        webhook: ObjectName::new("shop", "flaky"),
        from_ms: 0,
        to_ms: i64::MAX,
        events: vec![],
        only_failed: false,
        dry_run: false,
        rate_per_second: 20,
    }
}

fn check(name: &str, receiver: &Receiver, acknowledged: &HashSet<u64>, wants: impl Fn(u64) -> bool) {
    let mut ids: HashMap<u64, HashSet<String>> = HashMap::new();
    for received in receiver.received() {
        ids.entry(number_of(&received)).or_default().insert(received.header("webhook-id").to_owned());
    }
    let lost: Vec<_> =
        acknowledged.iter().filter(|number| wants(**number) && !ids.contains_key(number)).collect();
    assert!(lost.is_empty(), "{name} lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    let renamed: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(renamed.is_empty(), "{name} got an event under several ids: {renamed:?}");
    assert!(ids.keys().all(|number| wants(*number)), "{name} got what its filter drops");
}
