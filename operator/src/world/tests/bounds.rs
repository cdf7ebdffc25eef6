//! What is bounded: a namespace's share of the plan, the plan itself, open replays, and how long finished ones
//! are kept.

use super::*;

fn with_header(bytes: usize) -> Value {
    let header = json!({ "name": "x-large", "value": "v".repeat(bytes) });
    json!({ "endpoint": { "url": "https://example.com/hook", "headers": [header] } })
}

fn in_plan(plan: &Plan) -> Vec<String> {
    plan.webhooks.iter().map(|webhook| webhook.webhook.to_string()).collect()
}

impl Cluster {
    fn secrets_of(&mut self, namespaces: &[&str]) {
        for namespace in namespaces {
            self.secret(&format!("{namespace}/signing"), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        }
    }

    fn replay(&mut self, of: &str) {
        let spec = json!({ "webhookRef": { "name": "mail" }, "from": "2025-12-31T00:00:00Z" });
        self.put(Kind::Replay, of, &spec);
    }

    /// A status that should be is written, and comes back by the watch.
    fn write(&mut self, kind: Kind, of: &str) {
        let Some(desired) = self.desired(kind, of) else { return };
        let key = (kind, name(of));
        let object = self.objects.get_mut(&key).unwrap();
        object["status"] = desired.status.value();
        let object = object.clone();
        self.world.apply(Change::Put(typed(kind, object)));
    }
}

#[test]
fn a_namespace_beyond_its_share_keeps_its_oldest_webhooks_and_gets_the_next_in_when_one_goes() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.secrets_of(&["crm"]);
    for at in 0..6 {
        cluster.webhook(&format!("crm/hook-{at}"), &with_header(60_000));
    }
    let plan = cluster.settle().pop().unwrap();
    assert_eq!(in_plan(&plan), ["crm/hook-0", "crm/hook-1", "crm/hook-2", "crm/hook-3", "shop/mail"]);
    assert_eq!(cluster.ready("crm/hook-4"), "False NamespaceTooLarge");
    assert_eq!(cluster.ready("shop/mail"), "True Ready", "nobody else notices");
    let desired = cluster.desired(Kind::Webhook, "crm/hook-5").unwrap().status.value();
    let message = desired["conditions"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("spec.endpoint.headers[0]: ") && message.contains("262144"), "{message}");
    cluster.delete(Kind::Webhook, "crm/hook-1");
    let plan = cluster.settle().pop().unwrap();
    assert_eq!(in_plan(&plan), ["crm/hook-0", "crm/hook-2", "crm/hook-3", "crm/hook-4", "shop/mail"]);
}

#[test]
fn the_platform_team_sets_other_bounds_and_they_count_at_once() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.secrets_of(&["crm"]);
    for at in 0..6 {
        cluster.webhook(&format!("crm/hook-{at}"), &with_header(60_000));
    }
    cluster.settle();
    let with = |limits: Value| json!({ "allowedNamespaces": { "from": "All" }, "limits": limits });
    cluster.server("auth/logto", &with(json!({ "namespaceBytes": 1_000_000 })));
    assert_eq!(cluster.settle().pop().unwrap().webhooks.len(), 7);
    cluster.server("auth/logto", &with(json!({ "webhookBytes": 4096 })));
    assert_eq!(in_plan(&cluster.settle().pop().unwrap()), ["shop/mail"]);
    assert_eq!(cluster.ready("crm/hook-0"), "False TooLarge");
}

#[test]
fn a_webhook_for_which_the_plan_has_no_room_is_told_so_and_the_others_are_ready() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.webhook("shop/new", &json!({}));
    while cluster.read_secrets() {}
    let plan = cluster.world.take_plans().pop().unwrap();
    let out = BTreeSet::from([name("shop/new")]);
    let mut published = (*plan).clone();
    published.webhooks.retain(|webhook| !out.contains(&webhook.webhook));
    cluster.world.apply(Change::NoRoom(name("auth/logto"), out));
    cluster.world.apply(Change::Published(Arc::new(published), 2));
    cluster.report(2, &json!({}));
    assert_eq!(cluster.ready("shop/new"), "False PlanTooLarge");
    assert_eq!(cluster.ready("shop/mail"), "True Ready");
    let server = cluster.desired(Kind::AuthServer, "auth/logto").unwrap().status.value();
    assert_eq!(server["webhooks"], json!({ "accepted": 1, "rejected": 1 }));
    cluster.world.apply(Change::NoRoom(name("auth/logto"), BTreeSet::new()));
    cluster.world.apply(Change::Published(plan, 3));
    cluster.report(3, &json!({}));
    assert_eq!(cluster.ready("shop/new"), "True Ready", "there is room again");
}

#[test]
fn replays_of_one_webhook_wait_for_their_turn_and_are_told_their_place() {
    let mut cluster = Cluster::with_a_webhook();
    for at in 0..4 {
        cluster.replay(&format!("shop/again-{at}"));
    }
    let plan = cluster.settle().pop().unwrap();
    assert_eq!(plan.replays.len(), 2);
    for at in 0..4 {
        cluster.write(Kind::Replay, &format!("shop/again-{at}"));
    }
    let condition = |cluster: &Cluster, of: &str| {
        let status = &cluster.objects[&(Kind::Replay, name(of))]["status"];
        status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Complete").unwrap().clone()
    };
    assert_eq!(condition(&cluster, "shop/again-1")["reason"], "Replaying");
    let waiting = condition(&cluster, "shop/again-3");
    assert_eq!((&waiting["status"], &waiting["reason"]), (&json!("False"), &json!("Queued")));
    assert!(waiting["message"].as_str().unwrap().contains("place 2"), "{waiting}");

    // A leader that begins anew reads from the statuses which ones run; an older one in order only now waits.
    cluster.world.look_at_everything();
    assert_eq!(cluster.world.take_plans().pop().unwrap().replays, plan.replays);

    cluster.delete(Kind::Replay, "shop/again-0");
    assert_eq!(cluster.settle().pop().unwrap().replays.len(), 2);
    cluster.write(Kind::Replay, "shop/again-2");
    assert_eq!(condition(&cluster, "shop/again-2")["reason"], "Replaying", "its turn");
}

#[test]
fn a_finished_replay_is_deleted_after_its_time_and_not_before() {
    let mut cluster = Cluster::with_a_webhook();
    cluster.replay("shop/again");
    cluster.settle();
    let mut object = cluster.objects[&(Kind::Replay, name("shop/again"))].clone();
    object["status"] = json!({ "completionTime": "2026-01-01T00:00:00Z" });
    cluster.world.apply(Change::Put(typed(Kind::Replay, object)));
    let expired = |time: &str| {
        let now = time.parse().unwrap();
        cluster.world.expired_replays(now).map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(expired("2026-01-07T23:59:59Z"), Vec::<String>::new());
    assert_eq!(expired("2026-01-08T00:00:00Z"), ["shop/again"]);
}

#[test]
fn of_a_secret_nothing_is_held_but_the_keys_that_are_referred_to() {
    let mut cluster = Cluster::with_a_webhook();
    let held = |cluster: &Cluster| -> Vec<String> {
        let texts = cluster.world.objects.secrets.get(&name("shop/signing"));
        texts.into_iter().flat_map(BTreeMap::keys).cloned().collect()
    };
    let read = |cluster: &mut Cluster| {
        let asked = cluster.world.take_secrets_to_read();
        for (secret, keys) in &asked {
            // Whoever reads may bring more than was asked for.
            let texts = keys.iter().map(String::as_str).chain(["unasked"]);
            let texts = texts
                .map(|key| (key.to_owned(), SecretText::new("a-text-of-many-bytes-that-is-long").into()));
            let version = cluster.secrets[secret].0.clone();
            let content =
                SecretContent { version, keys: keys.clone(), texts: texts.collect(), is_labelled: false };
            cluster.world.apply(Change::SecretRead(secret.clone(), Some(content)));
        }
        asked.into_iter().flat_map(|(_, keys)| keys).collect::<Vec<_>>()
    };
    cluster.secret("shop/signing", "another");
    assert_eq!(read(&mut cluster), ["previousSigningKey", "signingKey"]);
    assert_eq!(held(&cluster), ["previousSigningKey", "signingKey"]);
    let from = json!({ "secretKeyRef": { "name": "signing", "key": "token" } });
    let headers = json!([{ "name": "x-token", "valueFrom": from }]);
    let endpoint = json!({ "url": "https://example.com/hook", "headers": headers });
    cluster.webhook("shop/other", &json!({ "endpoint": endpoint }));
    assert_eq!(read(&mut cluster).len(), 3, "a further key of the same version is read");
    cluster.settle();
    assert_eq!(cluster.ready("shop/other"), "False Pending");
    cluster.delete(Kind::Webhook, "shop/other");
    assert_eq!(held(&cluster), ["previousSigningKey", "signingKey"], "nobody refers to the token any more");
    cluster.delete(Kind::Webhook, "shop/mail");
    assert_eq!(held(&cluster), Vec::<String>::new());
}
