//! Policies of the network: what they close, and what stays open.

use serde_json::{Value, json};
use tidings_tests::charts::{helm, objects, template};

const SERVER: &str = "authServers[0].namespace=auth,authServers[0].name=logto";

/// The policy of the auth server's pods.
fn policy(arguments: &[&str]) -> Option<Value> {
    let objects = objects(&template(&[&["--set", SERVER], arguments].concat()));
    let named = |object: &Value| {
        object["kind"] == "NetworkPolicy" && object["metadata"]["name"] == "tidings-sidecar-logto"
    };
    objects.into_iter().find(named)
}

fn with(policy: &Value) -> String {
    format!("authServers[0].networkPolicy={policy}")
}

#[test]
fn the_admin_port_is_for_the_operator_and_prometheus_and_the_auth_server_s_own_ports_stay_open() {
    let prometheus =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}});
    let set = with(&json!({"enabled": true, "ports": [3001, "console"], "scrapeFrom": [prometheus]}));
    let policy = policy(&["--set-json", &set]).unwrap();
    assert_eq!(policy["metadata"]["namespace"], "auth");
    let spec = &policy["spec"];
    assert_eq!(spec["podSelector"], json!({"matchLabels": {"tidings.dev/auth-server": "logto"}}));
    assert_eq!(spec["policyTypes"], json!(["Ingress"]), "what the pods reach is not its business");
    let [open, admin] = spec["ingress"].as_array().unwrap().as_slice() else { panic!("{spec}") };
    let tcp = |port: Value| json!({"port": port, "protocol": "TCP"});
    assert_eq!(open, &json!({"ports": [tcp(3001.into()), tcp("console".into())]}), "for everyone");
    assert_eq!(admin["ports"], json!([tcp(8788.into())]));
    let operator = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tidings-system"}},
        "podSelector": {"matchLabels": {
            "app.kubernetes.io/name": "tidings",
            "app.kubernetes.io/instance": "tidings",
            "app.kubernetes.io/component": "operator",
        }},
    });
    assert_eq!(admin["from"], json!([operator, prometheus]));
}

#[test]
fn the_policy_finds_the_operator_s_and_the_sidecar_s_pods_as_they_are() {
    let set = with(&json!({"enabled": true, "ports": [3001]}));
    let objects =
        objects(&template(&["--set", SERVER, "--set", "injection.enabled=true", "--set-json", &set]));
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let admin = &of_kind("NetworkPolicy")["spec"]["ingress"][1];
    let selected = admin["from"][0]["podSelector"]["matchLabels"].as_object().unwrap();
    let labels = &of_kind("Deployment")["spec"]["template"]["metadata"]["labels"];
    assert!(selected.iter().all(|(key, value)| labels[key] == *value), "{labels}");
    let injected = of_kind("MutatingAdmissionPolicy")["spec"].to_string();
    assert!(injected.contains(&format!("containerPort: {}", admin["ports"][0]["port"])), "{injected}");
}

#[test]
fn no_policy_is_made_where_none_is_asked_for_and_a_selector_of_the_user_s_is_taken() {
    assert!(policy(&[]).is_none());
    assert!(policy(&["--set-json", &with(&json!({"enabled": false, "ports": []}))]).is_none());
    let selector = json!({"matchLabels": {"app": "logto"}});
    let set = with(&json!({"enabled": true, "ports": [], "podSelector": selector}));
    let spec = policy(&["--set-json", &set]).unwrap()["spec"].clone();
    assert_eq!(spec["podSelector"], selector);
    assert_eq!(spec["ingress"].as_array().unwrap().len(), 1, "another policy opens the auth server's ports");
}

#[test]
fn a_policy_that_would_cut_off_the_auth_server_or_prometheus_or_open_the_admin_port_is_refused() {
    let refusal = |policy: Value, more: &[&str]| {
        let set = with(&policy);
        let chart = ["template", "tidings", "charts/tidings", "--set", SERVER, "--set-json", &set];
        let said = helm(&[&chart, more].concat());
        assert!(!said.worked, "{policy} was taken");
        said.err
    };
    let monitors = ["--set", "monitoring.podMonitors.enabled=true"];
    let said = refusal(json!({"enabled": true, "ports": [3001]}), &monitors);
    assert!(said.contains("of auth/logto would keep Prometheus") && said.contains("scrapeFrom"), "{said}");
    let said = refusal(json!({"enabled": true}), &[]);
    assert!(said.contains("/authServers/0/networkPolicy") && said.contains("ports"), "{said}");
    for port in [json!(8788), json!("tidings-admin"), json!(0)] {
        let said = refusal(json!({"enabled": true, "ports": [port]}), &[]);
        assert!(said.contains("/authServers/0/networkPolicy/ports/0"), "{said}");
    }
    let said = refusal(json!({"enabled": true, "ports": [], "scrapefrom": []}), &[]);
    assert!(said.contains("'scrapefrom' not allowed"), "{said}");
}
