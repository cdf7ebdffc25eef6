//! The JSON Schemas of our objects, as kubeconform and editors use them. Kubernetes' own kinds, and those of
//! the Prometheus Operator, are judged by a real API server instead, in the suite `in_cluster`: kubeconform
//! would fetch their schemas from the network.

use std::process::Command;

use serde_json::Value;
use tidings_tests::charts::{Said, files_below, objects, run, tool};
use tidings_tests::process::in_workspace;

fn kubeconform(manifests: &str) -> Said {
    let location = in_workspace("schemas").join("{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json");
    let mut command = Command::new(tool("kubeconform"));
    run(command.args(["-strict", "-summary", "-schema-location"]).arg(location).arg("-"), manifests)
}

/// Our objects among these manifests, as YAML; JSON is YAML.
fn ours(manifests: &str) -> Vec<Value> {
    let ours = |object: &Value| {
        object["apiVersion"].as_str().is_some_and(|version| version.starts_with("tidings.dev/"))
    };
    objects(manifests).into_iter().filter(ours).collect()
}

fn text(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

#[test]
fn every_object_of_the_examples_fits_its_schema() {
    let mut found = 0;
    for file in files_below("examples") {
        let text_of = std::fs::read_to_string(&file).unwrap_or_default();
        if file.extension().is_some_and(|extension| extension == "yaml")
            && text_of.contains("tidings.dev/v1alpha1")
        {
            let ours = ours(&text_of.replace("RECEIVER", "127.0.0.1:80"));
            let said = kubeconform(&text(&ours));
            let all = format!("Valid: {}, Invalid: 0, Errors: 0, Skipped: 0", ours.len());
            assert!(said.worked && said.out.contains(&all), "{}: {}{}", file.display(), said.out, said.err);
            found += ours.len();
        }
    }
    assert!(found > 10, "{found} objects");
}

#[test]
fn a_field_that_there_is_not_and_a_missing_one_are_refused_with_their_names() {
    let webhook = |edit: fn(&mut Value)| {
        let mut webhook = serde_json::json!({
            "apiVersion": "tidings.dev/v1alpha1", "kind": "Webhook", "metadata": {"name": "w"},
            "spec": {
                "authServerRef": {"name": "logto"}, "events": ["*"],
                "endpoint": {"url": "https://example.com"}, "secretRef": {"name": "w"},
            },
        });
        edit(&mut webhook);
        kubeconform(&webhook.to_string())
    };
    let fine = webhook(|_| ());
    assert!(fine.worked, "{}{}", fine.out, fine.err);
    let unknown = webhook(|webhook| webhook["spec"]["delivery"] = serde_json::json!({"timeout": 5}));
    assert!(!unknown.worked && unknown.out.contains("timeout"), "{}", unknown.out);
    let missing = webhook(|webhook| drop(webhook["spec"].as_object_mut().unwrap().remove("events")));
    assert!(!missing.worked && missing.out.contains("events"), "{}", missing.out);
}
