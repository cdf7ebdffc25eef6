//! What a platform team lets a namespace have: which events, and which of its own Secrets.

use super::*;

fn granting(grants: &Value) -> World {
    let mut world = World::new();
    world.server(&json!({ "allowedNamespaces": { "from": "All", "grants": grants } }));
    world
}

fn selecting(world: &mut World, events: &Value) -> Result<(), Finding> {
    world.webhook("shop/mail", &json!({ "events": events }));
    let accepted = world.judged().accepted;
    assert_eq!(world.reconcile().plan.unwrap().webhooks.len(), usize::from(accepted.is_ok()), "{events}");
    accepted
}

#[test]
fn a_namespace_gets_the_events_that_it_was_granted_and_no_sign_ins_beside_them() {
    let mut world = granting(&json!([
        { "namespaces": ["shop", "crm"], "events": ["User.Deleted", "Role.*"] },
        { "namespaces": ["audit"], "events": ["*"] },
        { "events": ["User.Created"] },
    ]));
    for events in [json!(["User.Deleted"]), json!(["Role.Data.Updated", "Role.Data.*", "User.Created"])] {
        assert_eq!(selecting(&mut world, &events), Ok(()));
    }
    for (events, at) in [
        (json!(["PostSignIn"]), 0),
        (json!(["User.Deleted", "User.*"]), 1),
        (json!(["*"]), 0),
        (json!(["RoleX.Created"]), 0),
    ] {
        let finding = selecting(&mut world, &events).unwrap_err();
        assert_eq!((finding.reason, finding.field), (Reason::EventsNotAllowed, format!("spec.events[{at}]")));
        assert!(finding.message.contains("User.Deleted, Role.*, User.Created"), "{}", finding.message);
    }
}

#[test]
fn a_namespace_without_a_grant_gets_nothing_and_the_auth_servers_own_everything() {
    let mut world = granting(&json!([{ "namespaces": ["audit"], "events": ["*"] }]));
    let finding = selecting(&mut world, &json!(["User.Deleted"])).unwrap_err();
    assert!(finding.message.contains("no events"), "{}", finding.message);
    world.secret("auth/signing", &[("signingKey", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]);
    world.webhook("auth/own", &json!({ "events": ["*"] }));
    assert!(world.reconcile().webhooks[&name("auth/own")].is_ready());
}

#[test]
fn a_grant_of_what_is_no_selection_is_the_auth_servers_mistake() {
    let outcome = granting(&json!([{ "events": ["User.Deleted", "Us*er"] }])).reconcile();
    let found: Vec<_> = outcome.auth_server.iter().map(|one| (one.reason, one.field.as_str())).collect();
    assert_eq!(found, [(Reason::InvalidEvents, "spec.allowedNamespaces.grants[0].events[1]")]);
}

#[test]
fn where_labels_are_asked_for_a_webhook_uses_labelled_secrets_alone() {
    let mut world = World::new();
    world.server(&json!({ "allowedNamespaces": { "from": "All" }, "secretPolicy": "Labelled" }));
    world.secret("shop/database", &[("password", "hush")]);
    world.0.labelled_secrets.insert(name("shop/signing"));
    assert!(world.judged().is_ready());
    let from = json!({ "secretKeyRef": { "name": "database", "key": "password" } });
    let headers = json!([{ "name": "x-stolen", "valueFrom": from }]);
    world.webhook("shop/mail", &json!({ "endpoint": { "url": "https://example.com", "headers": headers } }));
    let finding = world.judged().resolved_refs.unwrap_err();
    assert_eq!(finding.reason, Reason::SecretNotAllowed);
    assert_eq!(finding.field, "spec.endpoint.headers[0].valueFrom.secretKeyRef.name");
    assert!(finding.message.contains("tidings.dev/webhooks: allowed"), "{}", finding.message);
    assert!(world.reconcile().plan.unwrap().webhooks.is_empty());
    // Without the policy any Secret of the namespace will do.
    world.server(&json!({ "allowedNamespaces": { "from": "All" } }));
    assert!(world.judged().is_ready());
}

#[test]
fn a_plans_own_secrets_are_nobodys_to_use() {
    let mut world = World::new();
    world.secret("shop/tidings-plan-logto", &[("signingKey", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]);
    world.secret("auth/tidings-shard-0-logto", &[("signingKey", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]);
    world.webhook("shop/mail", &json!({ "secretRef": { "name": "tidings-plan-logto" } }));
    assert_eq!(world.judged().resolved_refs.unwrap_err().reason, Reason::SecretNotAllowed);
    let webhook = &world.0.webhooks[&name("shop/mail")];
    assert!(resolve::secrets_of(&webhook.spec).is_empty(), "nor are they read");
    let key = json!({ "name": "tidings-shard-0-logto", "key": "signingKey" });
    world.server(&json!({ "ingest": { "signingKeyRef": key } }));
    assert_eq!(world.reconcile().auth_server[0].reason, Reason::SecretNotAllowed);
}

#[test]
fn a_secret_that_may_not_be_read_is_not_said_to_be_missing() {
    let mut world = World::new();
    world.0.secrets.clear();
    world.0.forbidden_secrets.insert(name("shop/signing"));
    assert_eq!(world.judged().resolved_refs.unwrap_err().reason, Reason::SecretForbidden);
}
