//! What conditions say while an auth server restarts, and of what a person must change.

use jiff::ToSpan as _;

use super::*;

fn pods(pods: &[(&str, bool)]) -> Change {
    let pods =
        pods.iter().map(|(pod, ready)| ((*pod).to_owned(), Pod { ready: *ready, admin: None })).collect();
    Change::Pods(name("auth/logto"), pods)
}

impl Cluster {
    /// A Webhook that runs in the only pod of its auth server, with its status written.
    fn with_one_pod() -> Self {
        let mut cluster = Self::with_a_webhook();
        let spec = json!({
            "allowedNamespaces": { "from": "All" }, "podSelector": { "matchLabels": { "app": "logto" } },
        });
        cluster.server("auth/logto", &spec);
        cluster.settle();
        cluster.report(cluster.published, &json!({}));
        cluster.world.apply(pods(&[("logto-0", true)]));
        cluster.write_all(NOW);
        cluster
    }

    /// Writes every status that should be; which ones, and which of them at once.
    fn write_all(&mut self, now: Timestamp) -> Vec<(String, bool)> {
        let mut written = Vec::new();
        for (kind, of, desired) in self.world.take_statuses(now) {
            let Some(desired) = desired else { continue };
            written.push((of.to_string(), desired.urgent));
            let object = self.objects.get_mut(&(kind, of)).unwrap();
            object["status"] = desired.status.value();
            let object = object.clone();
            self.world.apply(Change::Put(typed(kind, object)));
        }
        written
    }

    fn said(&self, kind: Kind, of: &str, condition: &str) -> Option<String> {
        let conditions = self.objects[&(kind, name(of))]["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|one| one["type"] == condition)?;
        Some(format!("{} {}", found["status"].as_str()?, found["reason"].as_str()?))
    }
}

#[test]
fn a_restart_of_the_only_pod_changes_no_condition_and_one_that_stays_away_does() {
    let mut cluster = Cluster::with_one_pod();
    let ready = |cluster: &Cluster| {
        let (webhook, server) = (Kind::Webhook, Kind::AuthServer);
        [cluster.said(webhook, "shop/mail", "Ready"), cluster.said(server, "auth/logto", "Ready")]
            .map(Option::unwrap)
    };
    assert_eq!(ready(&cluster), ["True Ready", "True Ready"]);
    cluster.world.apply(pods(&[]));
    let server_alone = [("auth/logto".to_owned(), true)];
    assert_eq!(cluster.write_all(NOW + 1.second()), server_alone, "the number of its sidecars");
    cluster.world.apply(pods(&[("logto-0", false)]));
    assert_eq!(cluster.write_all(NOW + 60.seconds()), server_alone);
    assert_eq!(cluster.write_all(NOW + 61.seconds()), []);
    assert_eq!(ready(&cluster), ["True Ready", "True Ready"]);
    cluster.world.apply(pods(&[("logto-0", true)]));
    cluster.write_all(NOW + 90.seconds());
    assert_eq!(ready(&cluster), ["True Ready", "True Ready"]);

    cluster.world.apply(pods(&[]));
    cluster.write_all(NOW + 100.seconds());
    cluster.write_all(NOW + 219.seconds());
    assert_eq!(ready(&cluster), ["True Ready", "True Ready"]);
    cluster.write_all(NOW + 220.seconds());
    assert_eq!(ready(&cluster), ["False NoSidecar", "False NoSidecar"]);
}

#[test]
fn what_changes_while_no_pod_is_ready_is_not_said_to_run() {
    let mut cluster = Cluster::with_one_pod();
    cluster.world.apply(pods(&[]));
    cluster.write_all(NOW);
    // A rotated Secret changes the plan, and not the Webhook's generation.
    cluster.secret("shop/signing", "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldw==");
    cluster.settle();
    cluster.write_all(NOW);
    assert_eq!(cluster.said(Kind::Webhook, "shop/mail", "Ready").unwrap(), "False NoSidecar");
    cluster.webhook("shop/new", &json!({}));
    cluster.settle();
    cluster.write_all(NOW);
    assert_eq!(cluster.said(Kind::Webhook, "shop/new", "Ready").unwrap(), "False NoSidecar");
}

#[test]
fn an_operator_that_starts_while_the_only_pod_restarts_changes_no_condition() {
    let before = Cluster::with_one_pod();
    let mut fresh = Cluster::new();
    fresh.objects = before.objects;
    fresh.secrets = before.secrets;
    fresh.published = before.published - 1;
    fresh.world.apply(pods(&[]));
    for kind in [Kind::AuthServer, Kind::Webhook, Kind::Secret, Kind::Report] {
        fresh.list(kind);
    }
    fresh.world.apply(pods(&[]));
    fresh.settle();
    fresh.write_all(NOW);
    assert_eq!(fresh.said(Kind::Webhook, "shop/mail", "Ready").unwrap(), "True Ready");
}

#[test]
fn what_a_person_must_change_is_stalled_and_what_may_yet_come_is_not() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.webhook("shop/mistake", &json!({ "filter": "nonsense(" }));
    cluster.webhook("shop/early", &json!({ "secretRef": { "name": "of-the-same-commit" } }));
    cluster.webhook("shop/lost", &json!({ "authServerRef": { "name": "of-the-same-commit" } }));
    cluster.settle();
    cluster.write_all(NOW);
    let stalled = |cluster: &Cluster, of: &str| cluster.said(Kind::Webhook, of, "Stalled");
    assert_eq!(stalled(&cluster, "shop/mistake").as_deref(), Some("True InvalidFilter"));
    for of in ["shop/mail", "shop/early", "shop/lost"] {
        assert_eq!(stalled(&cluster, of), None, "{of}");
    }
    cluster.webhook("shop/mistake", &json!({}));
    cluster.settle();
    cluster.write_all(NOW);
    assert_eq!(stalled(&cluster, "shop/mistake"), None, "it is corrected");
    cluster.server("auth/other", &json!({ "egress": { "allow": ["10.0.0.0"] } }));
    let window = json!({ "webhookRef": { "name": "mail" }, "from": "2027-01-01T00:00:00Z" });
    cluster.put(Kind::Replay, "shop/later", &window);
    cluster.settle();
    cluster.write_all(NOW);
    assert_eq!(cluster.said(Kind::AuthServer, "auth/other", "Stalled").unwrap(), "True InvalidCidr");
    assert_eq!(cluster.said(Kind::Replay, "shop/later", "Stalled").unwrap(), "True InvalidWindow");
}

#[test]
fn an_auth_servers_missing_secret_stands_in_resolved_refs_and_its_mistakes_in_accepted() {
    let mut cluster = Cluster::new();
    let ingest = json!({ "signingKeyRef": { "name": "nowhere", "key": "signingKey" } });
    cluster.server("auth/logto", &json!({ "ingest": ingest }));
    cluster.settle();
    cluster.write_all(NOW);
    let said = |cluster: &Cluster| {
        ["Accepted", "ResolvedRefs", "Ready"]
            .map(|one| cluster.said(Kind::AuthServer, "auth/logto", one).unwrap())
    };
    assert_eq!(said(&cluster), ["True Accepted", "False SecretNotFound", "False SecretNotFound"]);
    cluster.server("auth/logto", &json!({ "egress": { "allow": ["10.0.0.0"] } }));
    cluster.settle();
    cluster.write_all(NOW);
    assert_eq!(said(&cluster), ["False InvalidCidr", "True ResolvedRefs", "False InvalidCidr"]);
}

#[test]
fn an_auth_server_whose_events_are_not_signed_carries_a_warning_with_the_fix() {
    let message = |spec: &Value| {
        let mut cluster = Cluster::with_a_webhook();
        cluster.server("auth/logto", spec);
        cluster.settle();
        cluster.world.look_at_everything();
        let statuses = cluster.world.take_statuses(NOW);
        let of_server = statuses.into_iter().find(|(kind, ..)| *kind == Kind::AuthServer).unwrap();
        let status = of_server.2.unwrap().status.value();
        let accepted =
            status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Accepted").unwrap();
        assert_ne!(accepted["reason"], "IngestUnsigned", "a warning keeps nothing from working");
        accepted["message"].as_str().unwrap().to_owned()
    };
    let without = message(&json!({ "allowedNamespaces": { "from": "All" } }));
    assert!(without.contains("IngestUnsigned: spec.ingest: whoever reaches the events port"), "{without}");
    assert!(without.contains("name the auth server's signing key"), "{without}");
    let signed = json!({
        "allowedNamespaces": { "from": "All" }, "ingest": { "signingKeyRef": { "name": "hook", "key": "k" } },
    });
    assert!(!message(&signed).contains("IngestUnsigned"));
}
