//! What is rendered, and what is not, for which values.

use std::collections::BTreeSet;

use serde_json::Value;
use tidings_tests::charts::{examples, objects, template};

fn kinds(arguments: &[&str]) -> BTreeSet<String> {
    objects(&template(arguments)).iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn in_listed_namespaces_nothing_is_made_that_belongs_to_the_whole_cluster() {
    let objects = objects(&template(&["-f", "charts/tidings/examples/listed-namespaces.yaml"]));
    for object in &objects {
        assert!(object["metadata"]["namespace"].is_string(), "{object}");
    }
    let operator = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let arguments = &operator["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(arguments.as_array().unwrap().contains(&"--namespaces=auth,shop".into()), "{arguments}");
}

#[test]
fn a_budget_is_made_only_where_it_does_not_block_drains() {
    assert!(kinds(&[]).contains("PodDisruptionBudget"));
    assert!(!kinds(&["--set", "operator.replicas=1"]).contains("PodDisruptionBudget"));
}

#[test]
fn what_needs_definitions_of_others_is_made_only_when_it_is_asked_for() {
    let own = [
        "ClusterRole",
        "ClusterRoleBinding",
        "Deployment",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(kinds(&[]), own.map(str::to_owned).into());
    let all = kinds(&["-f", "charts/tidings/examples/high-availability.yaml"]);
    for kind in ["PodMonitor", "PrometheusRule", "ConfigMap"] {
        assert!(all.contains(kind), "{kind}");
    }
}

#[test]
fn without_rights_of_its_own_the_chart_makes_no_role() {
    let kinds = kinds(&["-f", "charts/tidings/examples/default.yaml", "--set", "rbac.create=false"]);
    assert!(!kinds.iter().any(|kind| kind.contains("Role")), "{kinds:?}");
}

#[test]
fn what_helm_test_needs_is_a_hook_that_is_deleted_after_success_and_nothing_else_is() {
    let is_of_test =
        |object: &Value| object["metadata"]["name"].as_str().unwrap().starts_with("tidings-test");
    let objects = objects(&template(&["-f", "charts/tidings/examples/several-auth-servers.yaml"]));
    let mut kinds: Vec<_> = Vec::new();
    for object in &objects {
        let annotations = &object["metadata"]["annotations"];
        let hook = (&annotations["helm.sh/hook"], &annotations["helm.sh/hook-delete-policy"]);
        if is_of_test(object) {
            assert_eq!(hook, (&"test".into(), &"before-hook-creation,hook-succeeded".into()), "{object}");
            kinds.push(object["kind"].as_str().unwrap());
        } else {
            assert_eq!(hook, (&Value::Null, &Value::Null), "{object}");
        }
    }
    kinds.sort_unstable();
    // A Role where the operator is, and one in each of the two namespaces with AuthServers.
    assert_eq!(
        kinds,
        ["Pod", "Role", "Role", "Role", "RoleBinding", "RoleBinding", "RoleBinding", "ServiceAccount"]
    );
    let without = tidings_tests::charts::objects(&template(&["--set", "test.enabled=false"]));
    assert!(!without.iter().any(is_of_test));
}

#[test]
fn the_api_for_teams_is_reached_by_its_name_and_can_be_turned_off() {
    let named = |arguments: &[&str], kind: &str, name: &str| {
        objects(&template(arguments))
            .into_iter()
            .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    };
    let role = named(&[], "Role", "tidings-operator-api").unwrap();
    let rule = &role["rules"][0];
    assert_eq!(rule["resourceNames"], serde_json::json!(["https:tidings-operator:api"]));
    assert_eq!(rule["resources"], serde_json::json!(["services/proxy"]));
    let binding = named(&[], "RoleBinding", "tidings-operator-api").unwrap();
    assert_eq!(binding["subjects"][0]["name"], "system:authenticated");
    let by_hand = ["--set", "rbac.api=false"];
    assert!(named(&by_hand, "RoleBinding", "tidings-operator-api").is_none());
    assert!(named(&by_hand, "Service", "tidings-operator").is_some());
    let off = ["--set", "operator.api.enabled=false"];
    assert!(named(&off, "Service", "tidings-operator").is_none());
    assert!(named(&off, "Role", "tidings-operator-api").is_none());
    let operator = named(&off, "Deployment", "tidings-operator").unwrap().to_string();
    assert!(!operator.contains("TIDINGS_API_LISTEN") && !operator.contains("8443"), "{operator}");
}

#[test]
fn images_are_named_by_registry_and_digest_or_tag() {
    let image = |arguments: &[&str]| {
        let objects = objects(&template(arguments));
        let operator = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        operator["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(&[]), format!("tidings-operator:{version}"));
    assert_eq!(image(&["--set", "image.tag=edge"]), "tidings-operator:edge");
    let hardened = image(&["-f", "charts/tidings/examples/hardened.yaml"]);
    assert!(hardened.starts_with("registry.example.com/mirror/tidings-operator@sha256:"), "{hardened}");
}

/// Verbs, groups and resources of each rule of a role.
fn words(role: &Value) -> impl Iterator<Item = &Value> {
    let rules = role["rules"].as_array().into_iter().flatten();
    rules
        .flat_map(|rule| ["verbs", "resources", "apiGroups"].map(|part| rule[part].as_array().unwrap()))
        .flatten()
}

#[test]
fn no_role_of_any_example_permits_everything_of_anything() {
    for example in examples() {
        for object in objects(&template(&["-f", &example])) {
            assert!(words(&object).all(|word| word != "*"), "{example}: {object}");
        }
    }
}
