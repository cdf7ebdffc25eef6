//! What `OpenShift`'s security context constraints `restricted-v2` demand of pods, as its own manifest has them
//! (openshift/cluster-kube-apiserver-operator, `bindata/bootkube/scc-manifests`): a pod that names a user, or another
//! group for its volumes, or lacks one of these, is refused.

use serde_json::{Value, json};
use tidings_tests::charts::{objects, template};

use crate::pods::pods;

const EXAMPLE: &str = "charts/tidings/examples/openshift.yaml";

/// The kinds of volumes that it permits.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What of a pod's or a container's security context the cluster assigns.
const ASSIGNED: [&str; 5] = ["runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "seLinuxOptions"];

fn named(context: &Value) -> Vec<String> {
    ASSIGNED.iter().filter(|part| !context[**part].is_null()).map(|part| format!("names {part}")).collect()
}

/// Why restricted-v2 refuses a pod.
fn refused(pod: &Value) -> Vec<String> {
    let mut why = named(&pod["securityContext"]);
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[host] == true {
            why.push(format!("asks for {host}"));
        }
    }
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        why.extend(
            kinds.filter(|kind| !VOLUMES.contains(&kind.as_str())).map(|kind| format!("has a {kind}")),
        );
    }
    let lists = ["initContainers", "containers"].into_iter().filter_map(|list| pod[list].as_array());
    for container in lists.flatten() {
        let context = &container["securityContext"];
        why.extend(named(context));
        let seccomp = [&context["seccompProfile"]["type"], &pod["securityContext"]["seccompProfile"]["type"]];
        for (lacks, holds) in [
            ("drop ALL", context["capabilities"]["drop"] == json!(["ALL"])),
            ("allowPrivilegeEscalation: false", context["allowPrivilegeEscalation"] == false),
            ("RuntimeDefault", seccomp.contains(&&json!("RuntimeDefault"))),
            // Not demanded, but with no user of the pod's own nothing else keeps root out elsewhere.
            ("runAsNonRoot", context["runAsNonRoot"] == true),
        ] {
            if !holds {
                why.push(format!("lacks {lacks}"));
            }
        }
    }
    why
}

/// The pods of every object that is rendered.
fn rendered(arguments: &[&str]) -> Vec<Value> {
    let objects = objects(&template(arguments));
    let mut found = Vec::new();
    for object in &objects {
        pods(object, &mut found);
    }
    found.into_iter().cloned().collect()
}

/// The policy's expression, in which the sidecar stands.
fn injected(arguments: &[&str]) -> String {
    let objects = objects(&template(&[arguments, &["--set", "injection.enabled=true"]].concat()));
    let policy = objects.iter().find(|object| object["kind"] == "MutatingAdmissionPolicy").unwrap();
    policy["spec"]["mutations"][0]["jsonPatch"]["expression"].as_str().unwrap().to_owned()
}

#[test]
fn restricted_v2_admits_every_pod_of_the_openshift_example_and_none_with_a_user_of_its_own() {
    let pods = rendered(&["-f", EXAMPLE]);
    assert!(!pods.is_empty());
    for pod in &pods {
        assert_eq!(refused(pod), Vec::<String>::new(), "{pod}");
    }
    for pod in rendered(&[]) {
        assert!(
            refused(&pod).contains(&"names runAsUser".to_owned()),
            "elsewhere the user is the image's: {pod}"
        );
    }
}

#[test]
fn the_sidecar_of_an_injected_pod_names_no_user_where_the_cluster_assigns_it() {
    assert!(injected(&[]).contains("runAsUser: 65532") && injected(&[]).contains("runAsGroup: 65532"));
    let expression = injected(&["-f", EXAMPLE]);
    assert!(ASSIGNED.iter().all(|part| !expression.contains(part)), "{expression}");
    assert!(
        expression.contains("runAsNonRoot: true") && expression.contains(r#"drop: ["ALL"]"#),
        "{expression}"
    );
}

#[test]
fn openshift_is_recognized_by_its_api_and_a_value_decides_otherwise() {
    let users = |arguments: &[&str]| {
        let all = rendered(arguments).into_iter();
        all.map(|pod| pod["containers"][0]["securityContext"]["runAsUser"].clone()).collect::<Vec<_>>()
    };
    let openshift = ["--api-versions", "security.openshift.io/v1"];
    let adapt = "global.compatibility.openshift.adaptSecurityContext";
    let [force, disabled] = ["force", "disabled"].map(|value| format!("{adapt}={value}"));
    assert!(users(&[]).iter().all(|user| *user == 65532));
    assert!(users(&openshift).iter().all(Value::is_null));
    assert!(users(&["--set", &force]).iter().all(Value::is_null));
    assert!(users(&[&openshift[..], &["--set", &disabled]].concat()).iter().all(|user| *user == 65532));
}
