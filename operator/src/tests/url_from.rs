//! URLs that are secrets themselves.

use super::*;

const URL: &str = "https://hooks.example.com/services/T0/hush";

fn chat(url: &str) -> World {
    let mut world = World::new();
    world.secret("shop/chat", &[("url", url)]);
    let from = json!({ "secretKeyRef": { "name": "chat", "key": "url" } });
    world.webhook("shop/mail", &json!({ "endpoint": { "urlFrom": from } }));
    world
}

#[test]
fn a_url_from_a_secret_is_in_the_plan_and_shown_nowhere() {
    let world = chat(&format!("{URL}\n"));
    let plan = world.reconcile().plan.unwrap();
    assert_eq!(plan.webhooks[0].endpoint.url, URL);
    let judged = world.judged();
    assert_eq!(judged.endpoint_host.as_deref(), Some("(from Secret chat)"));
    assert!(!format!("{judged:?}{plan:?}").contains("hush"), "not in a log either");
}

#[test]
fn a_url_from_a_secret_is_checked_as_any_other_and_the_findings_do_not_quote_it() {
    for (url, reason) in [
        ("no url, hush", Reason::InvalidEndpoint),
        ("http://hooks.example.com/hush", Reason::AddressBlocked),
        ("https://169.254.169.254/hush", Reason::AddressBlocked),
        ("https://hush:hush@hooks.example.com/", Reason::AddressBlocked),
        ("file:///hush", Reason::InvalidEndpoint),
        ("hush:password", Reason::InvalidEndpoint),
    ] {
        let world = chat(url);
        let finding = world.judged().accepted.unwrap_err();
        assert_eq!((finding.reason, finding.field.as_str()), (reason, "spec.endpoint.urlFrom"), "{url}");
        assert!(!finding.message.contains("hush"), "{}", finding.message);
        assert!(world.reconcile().plan.unwrap().webhooks.is_empty());
    }
}

#[test]
fn exactly_one_of_url_url_from_and_service_ref_is_written() {
    let from = json!({ "secretKeyRef": { "name": "signing", "key": "signingKey" } });
    let service = json!({ "name": "mailer", "port": 80 });
    for endpoint in [
        json!({ "url": URL, "urlFrom": from }),
        json!({ "urlFrom": from, "serviceRef": service }),
        json!({ "url": URL, "urlFrom": from, "serviceRef": service }),
    ] {
        let finding = changed(&json!({ "endpoint": endpoint })).accepted.unwrap_err();
        assert_eq!((finding.reason, finding.field.as_str()), (Reason::InvalidEndpoint, "spec.endpoint"));
    }
}

#[test]
fn a_url_whose_secret_is_not_there_yet_waits_for_it() {
    let mut world = chat(URL);
    world.0.secrets.remove(&name("shop/chat"));
    let judged = world.judged();
    assert_eq!(judged.resolved_refs.unwrap_err().reason, Reason::SecretNotFound);
    assert!(world.reconcile().plan.unwrap().webhooks.is_empty());
}
