//! The examples' objects as JSON, moved to namespaces of a test's own and changed to its needs.

use serde_json::{Value, json};
use tidings_tests::process::in_workspace;
use tokio::process::Command;

use crate::shell::kubectl;

/// Objects that are to be applied.
pub(crate) struct Objects(pub(crate) Vec<Value>);

// === impl Objects ===

impl Objects {
    /// A kustomization of the examples, as kubectl renders it, with `auth` and `shop` as the namespaces of a test.
    pub(crate) async fn of_example(folder: &str, auth: &str, shop: &str) -> Self {
        let rendered = kubectl(&["kustomize", folder]).await;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), rendered).expect("it is written");
        let path = file.path().to_str().expect("a path in UTF-8");
        let output = Command::new("kubectl")
            .args(["create", "--dry-run=client", "-o", "json", "-f", path])
            .current_dir(in_workspace(""))
            .output()
            .await
            .expect("kubectl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let documents = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        let mut objects: Vec<Value> = documents.map(|document| document.expect("JSON")).collect();
        if let [list] = &objects[..]
            && list["kind"] == "List"
        {
            objects = list["items"].as_array().expect("items").clone();
        }
        objects.retain(|object| object["kind"] != "Namespace");
        for object in &mut objects {
            moved(&mut object["metadata"]["namespace"], auth, shop);
            if object["spec"].get("authServerRef").is_some() {
                moved(&mut object["spec"]["authServerRef"]["namespace"], auth, shop);
            }
        }
        Self(objects)
    }

    /// The object of a kind and name.
    pub(crate) fn object(&mut self, kind: &str, name: &str) -> &mut Value {
        self.0
            .iter_mut()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("the example has no {kind} {name}"))
    }

    /// The first container of a workload's pods.
    pub(crate) fn container(&mut self, kind: &str, name: &str) -> &mut Value {
        &mut self.object(kind, name)["spec"]["template"]["spec"]["containers"][0]
    }

    /// More arguments for the first container.
    pub(crate) fn arguments(&mut self, kind: &str, name: &str, more: &[&str]) {
        let arguments = self.container(kind, name)["args"].as_array_mut().expect("args");
        arguments.extend(more.iter().map(|argument| json!(argument)));
    }

    /// Mounts the claim `ledger` at /ledger in the first container, whose environment has its pod's name.
    pub(crate) fn with_ledger(&mut self, kind: &str, name: &str) {
        let container = self.container(kind, name);
        push(&mut container["volumeMounts"], json!({"name": "ledger", "mountPath": "/ledger"}));
        let pod_name = json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
        push(&mut container["env"], pod_name);
        let claim = json!({"name": "ledger", "persistentVolumeClaim": {"claimName": "ledger"}});
        push(&mut self.object(kind, name)["spec"]["template"]["spec"]["volumes"], claim);
    }
}

/// Adds to a list that may be absent.
pub(crate) fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

fn moved(namespace: &mut Value, auth: &str, shop: &str) {
    let to = match namespace.as_str() {
        Some("auth") => auth,
        Some("shop") => shop,
        _ => return,
    };
    *namespace = json!(to);
}
