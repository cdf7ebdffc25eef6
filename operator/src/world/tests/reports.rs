//! What sidecars report, and for whom it counts.

use super::*;

impl Cluster {
    /// A report of some sidecar, which speaks of one Webhook.
    fn report_of(&mut self, report: &str, server: &str, store: &str, said: &Value) {
        let spec = json!({
            "authServerRef": { "name": server }, "pod": name(report).name, "store": store,
            "plan": { "generation": 1, "digest": "d" }, "time": "2026-01-01T00:00:00Z",
            "events": { "received": 1, "unmatched": 0 }, "webhooks": [said],
        });
        self.put(Kind::Report, report, &spec);
    }

    fn said_of_mail(&self, delivered: u64) -> Value {
        json!({
            "namespace": "shop", "name": "mail", "uid": self.uid("shop/mail"), "generation": 1,
            "delivered": delivered, "failed": 7, "pending": 7, "deadLettered": 7, "consecutiveFailures": 7,
            "circuit": "Open",
        })
    }

    /// Writes the status of the Webhook as it should be, until it is; what it says then.
    fn written(&mut self) -> Value {
        let key = (Kind::Webhook, name("shop/mail"));
        while let Some(desired) = self.desired(Kind::Webhook, "shop/mail") {
            let sources = desired.status.value()["sources"].as_array().map_or(0, Vec::len);
            assert!(sources <= tidings_crds::MAX_SOURCES, "the API server would refuse {sources} sources");
            let mut object = self.objects[&key].clone();
            object["status"] = desired.status.value();
            self.objects.insert(key.clone(), object.clone());
            self.world.apply(Change::Put(typed(Kind::Webhook, object)));
        }
        self.objects[&key]["status"].clone()
    }
}

#[test]
fn a_report_counts_for_the_webhooks_of_its_own_auth_server_alone() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.server("evil/logto", &json!({}));
    cluster.server("auth/other", &json!({}));
    cluster.settle();
    let before = cluster.written();
    let said = cluster.said_of_mail(1_000);
    cluster.report_of("evil/pod", "logto", "store-evil", &said);
    cluster.report_of("auth/pod", "other", "store-other", &said);
    assert_eq!(cluster.written(), before, "neither its namespace nor its name makes it ours");
    cluster.report_of("auth/pod", "logto", "store-own", &said);
    assert_eq!(cluster.written()["delivered"], 1_001);
}

#[test]
fn a_report_that_was_there_before_the_operator_counts_and_one_of_another_auth_server_does_not() {
    let mut before = Cluster::with_a_webhook();
    let said = before.said_of_mail(1_000);
    before.server("evil/logto", &json!({}));
    before.report_of("evil/pod", "logto", "store-evil", &said);
    let lists = [Kind::Report, Kind::AuthServer, Kind::Webhook, Kind::Replay, Kind::Secret];
    let mut fresh = Cluster { world: World::waiting_for(lists.map(|kind| (kind, None))), ..Cluster::new() };
    fresh.objects = before.objects;
    fresh.secrets = before.secrets;
    for kind in lists {
        fresh.list(kind);
    }
    fresh.settle();
    assert_eq!(fresh.written()["delivered"], 1);
}

#[test]
fn uids_that_no_webhook_has_are_not_remembered() {
    let mut cluster = Cluster::with_a_webhook();
    let before = cluster.world.reports.held();
    for number in 0..100 {
        let mut said = cluster.said_of_mail(1);
        said["uid"] = json!(format!("random-{number}"));
        cluster.report_of("auth/pod", "logto", "store-b", &said);
        said["name"] = json!(format!("random-{number}"));
        cluster.report_of("auth/pod", "logto", &format!("store-{number}"), &said);
    }
    assert_eq!(cluster.world.reports.held(), before);
    cluster.delete(Kind::Webhook, "shop/mail");
    assert_eq!(cluster.world.reports.held(), 0, "with a Webhook goes what was said of it");
}

#[test]
fn a_rollout_of_many_replicas_keeps_the_sources_within_their_bound_and_the_sums_do_not_fall() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.delete(Kind::Report, "auth/logto-0");
    let (mut total, mut last) = (1, 0);
    for rollout in 0..4 {
        for pod in 0..120 {
            let said = cluster.said_of_mail(10);
            let store = format!("store-{rollout}-{pod}");
            cluster.report_of(&format!("auth/pod-{rollout}-{pod}"), "logto", &store, &said);
        }
        total += 1_200;
        for pod in 0..120 {
            if rollout > 0 {
                cluster.delete(Kind::Report, &format!("auth/pod-{}-{pod}", rollout - 1));
            }
        }
        let delivered = cluster.written()["delivered"].as_i64().unwrap();
        assert!(delivered >= last, "{delivered} after {last}");
        last = delivered;
    }
    assert_eq!(last, total);
}
