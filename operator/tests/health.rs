//! What Argo CD makes of statuses: its own Lua over what the operator writes.
//!
//! The scripts stand in examples/argocd; the conditions are those of the operator itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use k8s_openapi::api::core::v1::ConfigMap;
use mlua::{Lua, LuaSerdeExt as _};
use serde_json::{Value, json};
use tidings_operator::lint::Schemas;
use tidings_operator::status::{Condition, Programming, conditions};
use tidings_operator::{Objects, manifests, reconcile};
use tidings_plan::ObjectName;

/// The health of an object, and the sentence to it.
fn health(object: &Value) -> (String, String) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/argocd/argocd-cm.yaml");
    let map: ConfigMap = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let key = format!("resource.customizations.health.tidings.dev_{}", object["kind"].as_str().unwrap());
    let lua = Lua::new();
    lua.globals().set("obj", lua.to_value(object).unwrap()).unwrap();
    let answer: mlua::Table = lua.load(&map.data.unwrap()[&key]).eval().unwrap();
    (answer.get("status").unwrap(), answer.get::<Option<String>>("message").unwrap().unwrap_or_default())
}

fn object(kind: &str, observed: i64, conditions: &Value) -> Value {
    json!({
        "apiVersion": "tidings.dev/v1alpha1", "kind": kind, "metadata": { "name": "mail", "generation": 2 },
        "spec": {}, "status": { "observedGeneration": observed, "conditions": conditions },
    })
}

fn written(conditions: &[Condition]) -> Value {
    let one = |condition: &Condition| {
        json!({
            "type": condition.kind, "status": condition.status_str(), "reason": condition.reason.as_str(),
            "message": condition.message,
        })
    };
    conditions.iter().map(one).collect()
}

const SERVER: &str = r"
apiVersion: tidings.dev/v1alpha1
kind: AuthServer
metadata: {name: logto, namespace: shop}
spec: {}
---
apiVersion: v1
kind: Secret
metadata: {name: signing, namespace: shop}
stringData: {signingKey: whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD}
---
apiVersion: tidings.dev/v1alpha1
kind: Webhook
metadata: {name: mail, namespace: shop}
spec:
  authServerRef: {name: logto}
  events: [PostSignIn]
  endpoint: {url: https://example.com/hook}
  secretRef: {name: signing}
";

/// The conditions that the operator gives the Webhook of a changed manifest.
fn conditions_of(from: &str, to: &str, programming: &Programming) -> Value {
    let text = SERVER.replace(from, to);
    let objects: Objects = manifests::read(&text, Path::new("x.yaml"), &Schemas::new()).objects;
    let outcome = reconcile(&objects, &ObjectName::new("shop", "logto"));
    written(&conditions(&outcome.webhooks[&ObjectName::new("shop", "mail")], programming, None))
}

#[test]
fn a_webhook_is_progressing_until_it_runs_and_degraded_when_a_person_must_change_it() {
    let waits = Programming::Waits("pod logto-0 runs plan 3".to_owned());
    let runs = conditions_of("-", "-", &Programming::Runs);
    let cases = [
        (object("Webhook", -1, &json!([])), "Progressing", "not looked at"),
        (object("Webhook", 1, &runs), "Progressing", "not looked at"),
        (object("Webhook", 2, &conditions_of("-", "-", &waits)), "Progressing", "pod logto-0"),
        (object("Webhook", 2, &runs), "Healthy", "the Webhook runs"),
        (
            object(
                "Webhook",
                2,
                &conditions_of("secretRef: {name: signing}", "secretRef: {name: later}", &waits),
            ),
            "Progressing",
            "there is no Secret",
        ),
        (
            object("Webhook", 2, &conditions_of("[PostSignIn]", "[PostSignIn]\n  filter: nonsense(", &waits)),
            "Degraded",
            "spec.filter",
        ),
    ];
    for (object, status, message) in cases {
        let (found, sentence) = health(&object);
        assert_eq!(found, status, "{object:#}");
        assert!(sentence.contains(message), "{sentence}");
    }
    let untouched = json!({ "kind": "Webhook", "metadata": { "generation": 1 } });
    assert_eq!(health(&untouched).0, "Progressing");
}

#[test]
fn an_auth_server_and_a_replay_are_judged_by_their_own_goals() {
    let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "message": kind });
    let ready = json!([condition("Accepted", "True"), condition("Ready", "True")]);
    assert_eq!(health(&object("AuthServer", 2, &ready)).0, "Healthy");
    let of_replay = |conditions: Value| health(&object("WebhookReplay", 2, &conditions));
    let complete = |status: &str| condition("Complete", status);
    assert_eq!(of_replay(json!([condition("Accepted", "True"), complete("True")])).0, "Healthy");
    assert_eq!(of_replay(json!([condition("Accepted", "True"), complete("False")])).0, "Progressing");
    let refused = json!([condition("Accepted", "False"), complete("False"), condition("Stalled", "True")]);
    assert_eq!(of_replay(refused), ("Degraded".to_owned(), "Stalled".to_owned()));
}
