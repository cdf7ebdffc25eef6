//! Every container of ours that is rendered or checked in keeps the restricted Pod Security Standard
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>), and its root is read-only.

use serde_json::{Value, json};
use tidings_tests::charts::{examples, files_below, objects, template};

/// Every pod's spec in an object, wherever it is; a patch has a part of one.
pub(crate) fn pods<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    if value["containers"].is_array() || value["initContainers"].is_array() {
        found.push(value);
    }
    for below in value.as_object().into_iter().flat_map(serde_json::Map::values) {
        pods(below, found);
    }
    for below in value.as_array().into_iter().flatten() {
        pods(below, found);
    }
}

/// What a container lacks; some of it a pod says for all of its containers.
fn lacks(pod: &Value, container: &Value) -> Vec<&'static str> {
    let context = &container["securityContext"];
    let either = |part: &str| match &context[part] {
        Value::Null => &pod["securityContext"][part],
        own => own,
    };
    let checks = [
        ("runAsNonRoot", either("runAsNonRoot") == true),
        // None where the cluster assigns it, which openshift.rs is about.
        ("runAsUser", either("runAsUser").as_u64() != Some(0)),
        ("readOnlyRootFilesystem", context["readOnlyRootFilesystem"] == true),
        ("allowPrivilegeEscalation", context["allowPrivilegeEscalation"] == false),
        ("capabilities", context["capabilities"] == json!({"drop": ["ALL"]})),
        ("seccompProfile", either("seccompProfile")["type"] == "RuntimeDefault"),
        ("privileged", context["privileged"].is_null()),
        ("limits of memory", container["resources"]["limits"]["memory"].is_string()),
        ("requests", container["resources"]["requests"]["cpu"].is_string()),
    ];
    checks.into_iter().filter(|(_, holds)| !holds).map(|(what, _)| what).collect()
}

/// Another's image, as a database's, needs what it needs.
fn is_ours(container: &Value) -> bool {
    let image = container["image"].as_str().unwrap_or_default();
    image.rsplit('/').next().unwrap().starts_with("tidings")
}

/// How many containers a file of manifests has; fails at one that lacks something.
fn restricted(what: &str, manifests: &str, own: fn(&Value) -> bool) -> usize {
    let objects = objects(manifests);
    let mut specs = Vec::new();
    for object in &objects {
        pods(object, &mut specs);
    }
    specs.into_iter().map(|spec| restricted_containers(what, spec, own)).sum()
}

fn restricted_containers(what: &str, pod: &Value, own: fn(&Value) -> bool) -> usize {
    for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[forbidden].is_null(), "{what}: {forbidden}");
    }
    let parts = ["initContainers", "containers", "ephemeralContainers"];
    let containers = parts.iter().filter_map(|part| pod[part].as_array()).flatten();
    let containers: Vec<_> = containers.filter(|container| own(container)).collect();
    for container in &containers {
        let lacks = lacks(pod, container);
        assert!(lacks.is_empty(), "{what}: container {} lacks {lacks:?}", container["name"]);
    }
    containers.len()
}

#[test]
fn every_container_of_every_example_is_restricted() {
    for example in examples() {
        assert!(
            restricted(&example, &template(&["-f", &example]), |_| true) > 0,
            "{example} has no container"
        );
    }
}

#[test]
fn every_container_of_ours_that_is_checked_in_is_restricted() {
    let mut found = 0;
    for folder in ["config", "examples"] {
        for file in files_below(folder) {
            // A chart's template is no manifest; tests/injection.rs renders it.
            let is_manifest = file.extension().is_some_and(|extension| extension == "yaml")
                && !file.parent().unwrap().ends_with("templates");
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if is_manifest && text.contains("ontainers:") {
                found += restricted(file.to_str().unwrap(), &text, is_ours);
            }
        }
    }
    assert!(found > 0);
}

#[test]
fn the_token_is_mounted_by_the_operators_pods_alone() {
    let objects = objects(&template(&[]));
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    assert_eq!(of_kind("ServiceAccount")["automountServiceAccountToken"], false);
    let spec = &of_kind("Deployment")["spec"]["template"]["spec"];
    assert_eq!(spec["automountServiceAccountToken"], true);
    assert_eq!(spec["serviceAccountName"], "tidings-operator");
}
