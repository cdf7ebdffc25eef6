use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidings_plan::{Plan, SecretText};

use super::change::SecretContent;
use super::*;

mod bounds;
mod reports;
mod standing;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The objects as the API server has them, and a model that is told of each change.
struct Cluster {
    world: World,
    version: u64,
    objects: BTreeMap<(Kind, ObjectName), Value>,
    secrets: BTreeMap<ObjectName, (String, String)>,
    published: u64,
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

impl Cluster {
    fn new() -> Self {
        let lists = [Kind::AuthServer, Kind::Webhook, Kind::Report, Kind::Replay, Kind::Secret];
        let world = World::waiting_for(lists.map(|kind| (kind, None)));
        let mut cluster =
            Self { world, version: 0, objects: BTreeMap::new(), secrets: BTreeMap::new(), published: 0 };
        for kind in lists {
            cluster.list(kind);
        }
        cluster
    }

    /// A cluster in which one Webhook runs in one sidecar.
    fn with_a_webhook() -> Self {
        let mut cluster = Self::new();
        cluster.secret("shop/signing", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        cluster.server("auth/logto", &json!({ "allowedNamespaces": { "from": "All" } }));
        cluster.webhook("shop/mail", &json!({}));
        cluster.settle();
        cluster.report(1, &json!({}));
        cluster
    }

    fn put(&mut self, kind: Kind, of: &str, spec: &Value) {
        self.version += 1;
        let key = (kind, name(of));
        let before = self.objects.get(&key).cloned().unwrap_or_else(|| json!({}));
        let same = before["spec"] == *spec;
        let generation = before["metadata"]["generation"].as_i64().unwrap_or(0) + i64::from(!same);
        let uid =
            before["metadata"]["uid"].as_str().map_or_else(|| format!("uid-{}", self.version), str::to_owned);
        let object = json!({
            "apiVersion": "tidings.dev/v1alpha1",
            "kind": "X",
            "metadata": {
                "name": key.1.name, "namespace": key.1.namespace, "uid": uid,
                "generation": generation, "resourceVersion": self.version.to_string(),
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": spec,
        });
        self.objects.insert(key, object.clone());
        self.world.apply(Change::Put(typed(kind, object)));
    }

    fn server(&mut self, of: &str, spec: &Value) {
        self.put(Kind::AuthServer, of, spec);
    }

    fn webhook(&mut self, of: &str, change: &Value) {
        let mut spec = json!({
            "authServerRef": { "name": "logto", "namespace": "auth" },
            "events": ["PostSignIn"],
            "endpoint": { "url": "https://example.com/hook" },
            "secretRef": { "name": "signing" },
        });
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.put(Kind::Webhook, of, &spec);
    }

    fn report(&mut self, generation: u64, change: &Value) {
        let mut webhook = json!({
            "namespace": "shop", "name": "mail", "uid": self.uid("shop/mail"), "generation": 1, "delivered": 1,
            "failed": 0, "pending": 0, "deadLettered": 0, "consecutiveFailures": 0, "circuit": "Closed",
        });
        for (key, value) in change.as_object().unwrap() {
            webhook[key] = value.clone();
        }
        let spec = json!({
            "authServerRef": { "name": "logto" }, "pod": "logto-0", "store": "store-a",
            "plan": { "generation": generation, "digest": "d" }, "time": "2026-01-01T00:00:00Z",
            "events": { "received": 1, "unmatched": 0 }, "webhooks": [webhook],
        });
        self.put(Kind::Report, "auth/logto-0", &spec);
    }

    fn uid(&self, of: &str) -> String {
        self.objects[&(Kind::Webhook, name(of))]["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    fn secret(&mut self, of: &str, key: &str) {
        self.version += 1;
        self.secrets.insert(name(of), (self.version.to_string(), key.to_owned()));
        self.world.apply(Change::Put(Object::Secret(name(of), self.version.to_string())));
    }

    fn delete(&mut self, kind: Kind, of: &str) {
        self.version += 1;
        if kind == Kind::Secret {
            self.secrets.remove(&name(of));
        }
        self.objects.remove(&(kind, name(of)));
        self.world.apply(Change::Gone(kind, name(of)));
    }

    /// The watch of a kind begins anew.
    fn list(&mut self, kind: Kind) {
        let mut names: BTreeSet<_> =
            self.objects.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect();
        if kind == Kind::Secret {
            names = self.secrets.keys().cloned().collect();
        }
        for ((of, _), object) in &self.objects {
            if *of == kind {
                self.world.apply(Change::Put(typed(kind, object.clone())));
            }
        }
        if kind == Kind::Secret {
            for (name, (version, _)) in &self.secrets {
                self.world.apply(Change::Put(Object::Secret(name.clone(), version.clone())));
            }
        }
        self.world.apply(Change::Listed(kind, None, names));
    }

    /// Reads the Secrets that are asked for, once.
    fn read_secrets(&mut self) -> bool {
        let asked = self.world.take_secrets_to_read();
        for (name, keys) in &asked {
            let content = self.secrets.get(name).map(|(version, key)| SecretContent {
                version: version.clone(),
                keys: keys.clone(),
                texts: [("signingKey".to_owned(), SecretText::new(key.clone()).into())].into(),
                is_labelled: false,
            });
            self.world.apply(Change::SecretRead(name.clone(), content));
        }
        !asked.is_empty()
    }

    /// Publishes what is to be published.
    fn publish(&mut self) -> Vec<Arc<Plan>> {
        let plans = self.world.take_plans();
        for plan in &plans {
            self.published += 1;
            self.world.apply(Change::Published(Arc::clone(plan), self.published));
        }
        plans
    }

    fn settle(&mut self) -> Vec<Arc<Plan>> {
        let mut plans = Vec::new();
        while self.read_secrets() {}
        plans.extend(self.publish());
        plans
    }

    fn desired(&mut self, kind: Kind, of: &str) -> Option<Desired> {
        self.world.desired(kind, &name(of), NOW)
    }

    /// The conditions of an object as they should be: status and reason by type.
    fn conditions(&mut self, kind: Kind, of: &str) -> BTreeMap<String, String> {
        self.world.look_at_everything();
        let all = self.world.take_statuses(NOW);
        let found = all.into_iter().find(|(k, n, _)| *k == kind && *n == name(of));
        let status = found
            .and_then(|(_, _, desired)| desired)
            .map(|desired| desired.status.value())
            .unwrap_or_default();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        conditions
            .iter()
            .map(|one| (text(&one["type"]), format!("{} {}", text(&one["status"]), text(&one["reason"]))))
            .collect()
    }

    fn ready(&mut self, of: &str) -> String {
        self.conditions(Kind::Webhook, of)["Ready"].clone()
    }
}

fn typed(kind: Kind, object: Value) -> Object {
    match kind {
        Kind::AuthServer => Object::AuthServer(serde_json::from_value(object).unwrap()),
        Kind::Webhook => Object::Webhook(serde_json::from_value(object).unwrap()),
        Kind::Report => Object::Report(serde_json::from_value(object).unwrap()),
        Kind::Replay => Object::Replay(serde_json::from_value(object).unwrap()),
        _ => unreachable!("these have no object"),
    }
}

#[test]
fn a_webhook_is_ready_once_a_sidecar_runs_the_plan_that_it_came_with() {
    let mut cluster = Cluster::new();
    cluster.secret("shop/signing", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    cluster.server("auth/logto", &json!({ "allowedNamespaces": { "from": "All" } }));
    cluster.webhook("shop/mail", &json!({}));
    assert!(cluster.world.take_plans().is_empty(), "its Secret is not read yet");
    assert_eq!(cluster.settle().len(), 1);
    assert_eq!(cluster.ready("shop/mail"), "False NoSidecar");
    cluster.report(1, &json!({}));
    assert_eq!(cluster.ready("shop/mail"), "True Ready");
    cluster.webhook("shop/mail", &json!({ "events": ["User.*"] }));
    assert_eq!(cluster.ready("shop/mail"), "False Pending");
    cluster.settle();
    assert_eq!(cluster.ready("shop/mail"), "False Pending", "the sidecar still runs the plan before");
    cluster.report(2, &json!({}));
    assert_eq!(cluster.ready("shop/mail"), "True Ready");
}

#[test]
fn nothing_is_said_of_what_runs_before_it_is_known_what_is_published() {
    let mut cluster = Cluster::new();
    cluster.secret("shop/signing", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    cluster.server("auth/logto", &json!({ "allowedNamespaces": { "from": "All" } }));
    cluster.webhook("shop/mail", &json!({}));
    cluster.webhook("crm/broken", &json!({ "filter": "nonsense(" }));
    while cluster.read_secrets() {}
    let plan = cluster.world.take_plans();
    assert_eq!(cluster.conditions(Kind::Webhook, "shop/mail"), BTreeMap::new());
    assert_eq!(cluster.conditions(Kind::AuthServer, "auth/logto"), BTreeMap::new());
    assert_eq!(cluster.ready("crm/broken"), "False InvalidFilter", "a mistake is told at once");
    let finding = Finding::new(crate::Reason::PublishingFailed, "", "forbidden");
    cluster.world.apply(Change::PublishFailed(name("auth/logto"), finding));
    let told = cluster.world.take_statuses(NOW);
    assert!(told.iter().any(|(_, of, desired)| *of == name("shop/mail") && desired.is_some()));
    assert_eq!(cluster.ready("shop/mail"), "False Pending");
    cluster.world.apply(Change::Published(Arc::clone(&plan[0]), 1));
    assert_eq!(cluster.ready("shop/mail"), "False NoSidecar");
}

#[test]
fn another_webhook_that_is_broken_or_changed_does_not_make_this_one_unready() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.webhook("shop/other", &json!({ "secretRef": { "name": "nowhere" } }));
    cluster.webhook("crm/other", &json!({ "filter": "nonsense(" }));
    cluster.settle();
    assert_eq!(cluster.ready("shop/mail"), "True Ready");
    assert_eq!(cluster.ready("shop/other"), "False SecretNotFound");
    let plans = {
        cluster.world.look_at_everything();
        cluster.settle()
    };
    assert_eq!(
        plans[0].webhooks.iter().map(|one| one.webhook.to_string()).collect::<Vec<_>>(),
        ["shop/mail"]
    );
}

#[test]
fn while_a_rotated_secret_is_read_the_old_plan_stays_and_then_the_rotation_is_told() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.secret("shop/signing", "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldw==");
    assert!(cluster.publish().is_empty(), "nothing is known of the new key yet");
    assert!(cluster.read_secrets());
    let plans = cluster.publish();
    assert!(plans[0].webhooks[0].signing_keys[0].reveal().starts_with("whsec_bmV3"));
    assert_eq!(cluster.world.take_rotated().into_iter().collect::<Vec<_>>(), [name("shop/mail")]);
}

#[test]
fn every_ready_pod_must_run_the_plan_and_a_pod_that_is_not_ready_is_not_waited_for() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.server(
        "auth/logto",
        &json!({ "allowedNamespaces": { "from": "All" }, "podSelector": { "matchLabels": { "app": "logto" } } }),
    );
    cluster.settle();
    let pods = |pods: &[(&str, bool)]| {
        let pods =
            pods.iter().map(|(pod, ready)| ((*pod).to_owned(), Pod { ready: *ready, admin: None })).collect();
        Change::Pods(name("auth/logto"), pods)
    };
    cluster.world.apply(pods(&[("logto-0", true), ("logto-1", false)]));
    assert_eq!(cluster.ready("shop/mail"), "True Ready");
    cluster.world.apply(pods(&[("logto-0", true), ("logto-1", true)]));
    assert_eq!(cluster.ready("shop/mail"), "False Pending");
    cluster.world.apply(pods(&[("logto-1", true)]));
    assert_eq!(cluster.ready("shop/mail"), "False Pending", "a report without its pod speaks for nobody");
    cluster.world.apply(pods(&[("logto-0", false)]));
    assert_eq!(cluster.ready("shop/mail"), "False NoSidecar");
}

#[test]
fn what_a_sidecar_delivered_is_not_lost_with_it_and_not_counted_twice() {
    let mut cluster = Cluster::with_a_webhook();
    let delivered = |cluster: &mut Cluster| {
        let desired = cluster.desired(Kind::Webhook, "shop/mail").unwrap();
        // What is written comes back by the watch.
        let mut object = cluster.objects[&(Kind::Webhook, name("shop/mail"))].clone();
        object["status"] = desired.status.value();
        cluster.objects.insert((Kind::Webhook, name("shop/mail")), object.clone());
        cluster.world.apply(Change::Put(typed(Kind::Webhook, object)));
        desired.status.value()["delivered"].as_i64().unwrap()
    };
    cluster.report(1, &json!({ "delivered": 7 }));
    assert_eq!(delivered(&mut cluster), 7);
    cluster.report(1, &json!({ "delivered": 9 }));
    cluster.delete(Kind::Report, "auth/logto-0");
    assert_eq!(delivered(&mut cluster), 9, "also what was told after the last write");
    cluster.report(1, &json!({ "delivered": 12 }));
    assert_eq!(delivered(&mut cluster), 12, "the same store goes on");
    for store in 0..40 {
        let mut object = cluster.objects[&(Kind::Report, name("auth/logto-0"))].clone();
        object["spec"]["store"] = json!(format!("other-{store}"));
        object["spec"]["webhooks"][0]["delivered"] = json!(1);
        cluster.world.apply(Change::Put(typed(Kind::Report, object)));
        assert_eq!(delivered(&mut cluster), 13 + store);
    }
    let status = &cluster.objects[&(Kind::Webhook, name("shop/mail"))]["status"];
    assert!(status["sources"].as_array().unwrap().len() < 20, "{status:#}");
}

#[test]
fn a_filter_that_cannot_be_evaluated_is_told_where_the_deliveries_are() {
    let mut cluster = Cluster::with_a_webhook();
    let failing =
        json!({ "events": 3, "class": "TooCostly", "event": "User.Created", "time": "2026-01-01T00:00:00Z" });
    cluster.report(1, &json!({ "delivered": 5, "filterFailing": failing }));
    assert_eq!(cluster.conditions(Kind::Webhook, "shop/mail")["Delivering"], "True FilterFailing");
    let status = cluster.desired(Kind::Webhook, "shop/mail").unwrap().status.value().to_string();
    assert!(
        status.contains("over 3 events, which were delivered") && status.contains("TooCostly"),
        "{status}"
    );
    cluster.report(1, &json!({ "delivered": 6 }));
    assert_eq!(cluster.conditions(Kind::Webhook, "shop/mail")["Delivering"], "True Delivering");
}

#[test]
fn a_single_failure_among_successes_is_no_news_and_three_in_a_row_are() {
    let mut cluster = Cluster::with_a_webhook();
    let told = |cluster: &mut Cluster, failures: u64| {
        cluster.report(1, &json!({ "delivered": 5, "failed": failures, "consecutiveFailures": failures }));
        cluster.conditions(Kind::Webhook, "shop/mail")["Delivering"].clone()
    };
    assert_eq!(told(&mut cluster, 1), "True Delivering");
    assert_eq!(told(&mut cluster, 3), "False DeliveryFailing");
    cluster.report(1, &json!({ "circuit": "Gone", "consecutiveFailures": 1 }));
    assert_eq!(cluster.conditions(Kind::Webhook, "shop/mail")["Delivering"], "False EndpointGone");
    assert_eq!(cluster.ready("shop/mail"), "True Ready", "Ready speaks of configuration alone");
}

#[test]
fn an_object_that_does_not_fit_the_types_is_told_so_and_hurts_no_other() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.webhook("shop/old", &json!({}));
    cluster.settle();
    let unreadable = Unreadable {
        name: name("shop/old"),
        uid: "uid".to_owned(),
        resource_version: "99".to_owned(),
        generation: 4,
        error: "missing field `endpoint`".to_owned(),
    };
    cluster.world.apply(Change::Put(Object::Unreadable(Kind::Webhook, unreadable.clone())));
    let plans = cluster.settle();
    assert_eq!(plans[0].webhooks.len(), 1);
    assert_eq!(cluster.conditions(Kind::Webhook, "shop/old")["Accepted"], "False InvalidSchema");
    let echo = Unreadable { resource_version: "100".to_owned(), ..unreadable };
    cluster.world.apply(Change::Put(Object::Unreadable(Kind::Webhook, echo)));
    assert_eq!(cluster.world.take_statuses(NOW), [], "its own status is no news");
    cluster.webhook("shop/old", &json!({ "suspend": true }));
    assert_eq!(cluster.settle()[0].webhooks.len(), 2);
}

#[test]
fn a_replay_is_in_the_plan_until_every_sidecar_is_through() {
    let mut cluster = Cluster::with_a_webhook();
    let spec =
        json!({ "webhookRef": { "name": "mail" }, "from": "2025-12-31T00:00:00Z", "ratePerSecond": 5 });
    cluster.put(Kind::Replay, "shop/again", &spec);
    let plans = cluster.settle();
    assert_eq!(
        (plans[0].replays.len(), plans[0].replays[0].to_ms - plans[0].replays[0].from_ms),
        (1, 86_400_000)
    );
    let uid = plans[0].replays[0].uid.clone();
    assert_eq!(cluster.conditions(Kind::Replay, "shop/again")["Complete"], "False Replaying");
    let mut object = cluster.objects[&(Kind::Report, name("auth/logto-0"))].clone();
    object["spec"]["replays"] = json!([{ "uid": uid, "matched": 4, "replayed": 3, "complete": true }]);
    cluster.world.apply(Change::Put(typed(Kind::Report, object)));
    let desired = cluster.desired(Kind::Replay, "shop/again").unwrap();
    let status = desired.status.value();
    assert_eq!((&status["matched"], &status["replayed"]), (&json!(4), &json!(3)));
    let mut object = cluster.objects[&(Kind::Replay, name("shop/again"))].clone();
    object["status"] = status;
    cluster.world.apply(Change::Put(typed(Kind::Replay, object)));
    assert_eq!(cluster.settle()[0].replays.len(), 0, "complete: it leaves the plan");
    assert_eq!(cluster.desired(Kind::Replay, "shop/again"), None);
    cluster.put(
        Kind::Replay,
        "shop/nobody",
        &json!({ "webhookRef": { "name": "x" }, "from": "2025-12-31T00:00:00Z" }),
    );
    assert_eq!(cluster.conditions(Kind::Replay, "shop/nobody")["Accepted"], "False WebhookNotFound");
}

/// What can happen to a cluster.
#[derive(Debug, Clone)]
enum Step {
    Server(bool),
    DeleteServer,
    Webhook(usize, usize),
    DeleteWebhook(usize),
    Secret(usize, usize),
    DeleteSecret(usize),
    List(usize),
    ReadSecrets,
    Publish,
    Statuses,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<bool>().prop_map(Step::Server),
        Just(Step::DeleteServer),
        (0usize..4, 0usize..5).prop_map(|(at, variant)| Step::Webhook(at, variant)),
        (0usize..4).prop_map(Step::DeleteWebhook),
        (0usize..3, 0usize..3).prop_map(|(at, variant)| Step::Secret(at, variant)),
        (0usize..3).prop_map(Step::DeleteSecret),
        (0usize..3).prop_map(Step::List),
        Just(Step::ReadSecrets),
        Just(Step::Publish),
        Just(Step::Statuses),
    ];
    proptest::collection::vec(step, 1..60)
}

const KEYS: [&str; 3] = ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "a-key-of-raw-bytes-that-is-long", ""];

impl Cluster {
    fn step(&mut self, step: &Step) {
        let hook = |at: usize| format!("{}/hook-{at}", ["shop", "crm"][at % 2]);
        let signing = |at: usize| format!("{}/signing-{}", ["shop", "crm"][at % 2], at / 2);
        match *step {
            Step::Server(open) => {
                let from = if open { "All" } else { "Same" };
                self.server("auth/logto", &json!({ "allowedNamespaces": { "from": from } }));
            }
            Step::DeleteServer => self.delete(Kind::AuthServer, "auth/logto"),
            Step::Webhook(at, variant) => {
                let change = [
                    json!({}),
                    json!({ "secretRef": { "name": "signing-1" } }),
                    json!({ "filter": "broken(" }),
                    json!({ "events": ["User.*"], "secretRef": { "name": "signing-0" } }),
                    json!({ "authServerRef": { "name": "other", "namespace": "auth" } }),
                ][variant]
                    .clone();
                let mut change = change;
                if change["secretRef"].is_null() {
                    change["secretRef"] = json!({ "name": "signing-0" });
                }
                self.webhook(&hook(at), &change);
            }
            Step::DeleteWebhook(at) => self.delete(Kind::Webhook, &hook(at)),
            Step::Secret(at, variant) => self.secret(&signing(at), KEYS[variant]),
            Step::DeleteSecret(at) => self.delete(Kind::Secret, &signing(at)),
            Step::List(at) => self.list([Kind::AuthServer, Kind::Webhook, Kind::Secret][at]),
            Step::ReadSecrets => drop(self.read_secrets()),
            Step::Publish => drop(self.publish()),
            Step::Statuses => drop(self.world.take_statuses(NOW)),
        }
    }

    /// The plan, and each Webhook's conditions that speak of configuration alone.
    fn outcome(&mut self) -> (Vec<Plan>, BTreeMap<ObjectName, Vec<Value>>) {
        self.settle();
        self.world.look_at_everything();
        let plans = self.world.take_plans().iter().map(|plan| (**plan).clone()).collect();
        self.world.look_at_everything();
        let statuses = self.world.take_statuses(NOW).into_iter();
        let webhooks = statuses.filter(|(kind, ..)| *kind == Kind::Webhook);
        let conditions = webhooks.filter_map(|(_, name, desired)| {
            Some((name, desired?.status.value()["conditions"].as_array()?[..2].to_vec()))
        });
        (plans, conditions.collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_happened_the_end_is_what_a_fresh_start_would_give(steps in steps()) {
        let mut lived = Cluster::new();
        for step in &steps {
            lived.step(step);
        }
        let mut fresh = Cluster::new();
        fresh.objects.clone_from(&lived.objects);
        fresh.secrets.clone_from(&lived.secrets);
        for kind in [Kind::Webhook, Kind::Secret, Kind::AuthServer] {
            fresh.list(kind);
        }
        prop_assert_eq!(lived.outcome(), fresh.outcome());
    }
}

#[test]
fn an_auth_server_whose_sidecar_cannot_open_its_store_says_which_pod_why_and_what_to_do() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.settle();
    let condition = |cluster: &mut Cluster, kind: &str| {
        let status = cluster.desired(Kind::AuthServer, "auth/logto").unwrap().status.value();
        let all = status["conditions"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["type"] == kind).unwrap()
    };
    assert_eq!(condition(&mut cluster, "Receiving")["status"], "True");
    let told = "the store's file tidings.db is damaged: x. Restore it; then restart the sidecar";
    let spec = json!({
        "authServerRef": { "name": "logto" }, "pod": "logto-0", "store": "unknown",
        "storeProblem": { "reason": "StoreDamaged", "message": told },
        "plan": { "generation": 0, "digest": "" }, "time": "2026-01-01T00:00:00Z",
        "events": { "received": 0, "unmatched": 0 },
    });
    cluster.put(Kind::Report, "auth/logto-0", &spec);
    cluster.settle();
    let receiving = condition(&mut cluster, "Receiving");
    assert_eq!((&receiving["status"], &receiving["reason"]), (&json!("False"), &json!("StoreUnavailable")));
    let message = receiving["message"].as_str().unwrap();
    assert!(message.contains("pod logto-0") && message.contains("StoreDamaged") && message.contains(told));
    let programmed = condition(&mut cluster, "Programmed");
    assert!(programmed["message"].as_str().unwrap().ends_with("see Receiving"), "{programmed}");
    cluster.report(1, &json!({}));
    cluster.settle();
    assert_eq!(condition(&mut cluster, "Receiving")["status"], "True");
}
