//! What an object names, as it could stand in one that is older than the schema: a name is a name, and never
//! a piece of a URL, of a path or of a selector.

use super::*;

fn service(change: &Value) -> Value {
    let mut service = json!({ "name": "mailer", "port": 8080 });
    for (key, value) in change.as_object().unwrap() {
        service[key] = value.clone();
    }
    json!({ "endpoint": { "serviceRef": service } })
}

#[test]
fn a_service_ref_names_a_service_of_its_own_namespace_and_nothing_else() {
    let long = "a".repeat(64);
    let cases = [
        (json!({ "name": "10.99.0.1:9999/v1/admin?" }), "name"),
        (json!({ "name": "mailer.auth.svc/" }), "name"),
        (json!({ "name": "mailer.auth" }), "name"),
        (json!({ "name": "mailer@example.com#" }), "name"),
        (json!({ "name": "Mailer" }), "name"),
        (json!({ "name": "mailer-" }), "name"),
        (json!({ "name": "mailer\n" }), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": long }), "name"),
        (json!({ "port": 0 }), "port"),
        (json!({ "port": -80 }), "port"),
        (json!({ "port": 65536 }), "port"),
        (json!({ "path": "hook" }), "path"),
        (json!({ "path": "" }), "path"),
        (json!({ "path": "@example.com/" }), "path"),
        (json!({ "path": "/hook#part" }), "path"),
        (json!({ "path": "/hook\\x" }), "path"),
        (json!({ "path": "/hook x" }), "path"),
        (json!({ "path": "/hook\r\nx: y" }), "path"),
    ];
    for (change, field) in cases {
        let judged = changed(&service(&change));
        let finding = judged.accepted.unwrap_err();
        let expected = format!("spec.endpoint.serviceRef.{field}");
        assert_eq!(
            (finding.reason, finding.field.as_str()),
            (Reason::InvalidEndpoint, &*expected),
            "{change}"
        );
        assert_eq!(judged.endpoint_host, None, "no host is shown that is none: {change}");
    }
}

#[test]
fn whatever_a_path_holds_the_host_is_the_services() {
    for (path, expected) in [
        ("/hook?a=1&b=//example.com", "/hook?a=1&b=//example.com"),
        ("//example.com/hook", "//example.com/hook"),
        ("/../../hook", "/hook"),
        ("/@example.com:80/", "/@example.com:80/"),
        ("/%2e%2e/höök", "/h%C3%B6%C3%B6k"),
    ] {
        let mut world = World::new();
        world.webhook("shop/mail", &service(&json!({ "path": path, "scheme": "https" })));
        let url = world.reconcile().plan.unwrap().webhooks[0].endpoint.url.clone();
        assert_eq!(url, format!("https://mailer.shop.svc:8080{expected}"));
    }
}

#[test]
fn a_name_of_a_secret_is_no_path() {
    let traversal = "../../auth/secrets/logto-hook";
    let header =
        json!([{ "name": "x-team", "valueFrom": { "secretKeyRef": { "name": traversal, "key": "a" } } }]);
    let key =
        json!([{ "name": "x-team", "valueFrom": { "secretKeyRef": { "name": "signing", "key": "a/b" } } }]);
    let url = "https://example.com";
    let cases = [
        (json!({ "secretRef": { "name": traversal } }), "spec.secretRef.name"),
        (json!({ "secretRef": { "name": "signing?watch=1" } }), "spec.secretRef.name"),
        (json!({ "secretRef": { "name": "signing", "key": "../x" } }), "spec.secretRef.key"),
        (
            json!({ "endpoint": { "url": url, "headers": header } }),
            "spec.endpoint.headers[0].valueFrom.secretKeyRef.name",
        ),
        (
            json!({ "endpoint": { "url": url, "headers": key } }),
            "spec.endpoint.headers[0].valueFrom.secretKeyRef.key",
        ),
        (
            json!({ "endpoint": { "url": url, "tls": { "caSecretRef": { "name": "a/b", "key": "ca.crt" } } } }),
            "spec.endpoint.tls.caSecretRef.name",
        ),
        (
            json!({ "endpoint": { "url": url, "tls": { "clientCertSecretRef": { "name": "a/b" } } } }),
            "spec.endpoint.tls.clientCertSecretRef.name",
        ),
        (
            json!({ "endpoint": { "url": url, "tls": { "serverName": "example.com/x" } } }),
            "spec.endpoint.tls.serverName",
        ),
    ];
    for (change, field) in cases {
        let finding = changed(&change).accepted.unwrap_err();
        assert_eq!((finding.reason, finding.field.as_str()), (Reason::InvalidName, field), "{change}");
    }
}

#[test]
fn a_header_that_tidings_or_http_itself_writes_is_nobodys_own() {
    for name in ["Webhook-Signature", "webhook-anything", "Host", "content-length", "traceparent"] {
        let headers = json!([{ "name": name, "value": "x" }]);
        let finding = changed(&json!({ "endpoint": { "url": "https://example.com", "headers": headers } }))
            .accepted
            .unwrap_err();
        assert_eq!(
            (finding.reason, finding.field.as_str()),
            (Reason::InvalidHeader, "spec.endpoint.headers[0].name"),
            "{name}"
        );
    }
}

#[test]
fn a_host_that_no_status_could_hold_is_told_instead_of_written() {
    let url = format!("https://{}.example.com/", vec!["a"; 130].join("."));
    let judged = changed(&json!({ "endpoint": { "url": url } }));
    assert_eq!(judged.accepted.unwrap_err().reason, Reason::InvalidEndpoint);
    assert_eq!(judged.endpoint_host, None);
}

#[test]
fn an_auth_servers_selector_is_one_and_its_name_leaves_room_for_its_plan() {
    let mut world = World::new();
    for (selector, field) in [
        (json!({ "matchLabels": { "app": "logto,tier=db" } }), "spec.podSelector.matchLabels"),
        (json!({ "matchLabels": { "a b": "logto" } }), "spec.podSelector.matchLabels"),
        (
            json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": [] }] }),
            "spec.podSelector.matchExpressions[0]",
        ),
        (
            json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["x)"] }] }),
            "spec.podSelector.matchExpressions[0]",
        ),
    ] {
        world.server(&json!({ "podSelector": selector }));
        let findings = world.reconcile().auth_server;
        let found: Vec<_> = findings.iter().map(|one| (one.reason, one.field.as_str())).collect();
        assert_eq!(found, [(Reason::InvalidName, field)], "{selector}");
    }
    let long = ObjectName::new("auth", "l".repeat(220));
    let server = world.0.auth_servers[&name("auth/logto")].clone();
    let spec = tidings_crds::AuthServerSpec { pod_selector: None, ..server.spec };
    world.0.auth_servers.insert(long.clone(), AuthServer { spec, ..server });
    let findings = reconcile(&world.0, &long).auth_server;
    assert_eq!((findings[0].reason, findings[0].field.as_str()), (Reason::InvalidName, "metadata.name"));
}
