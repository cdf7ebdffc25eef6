//! What platforms have of their own: registries, pull Secrets, proxies, certificates, labels and annotations.

use serde_json::{Value, json};
use tidings_tests::charts::{objects, template};

use crate::pods::pods;

/// Everything that the chart can make.
const ALL: [&str; 8] = [
    "-f",
    "charts/tidings/examples/high-availability.yaml",
    "-f",
    "charts/tidings/examples/hardened.yaml",
    "-f",
    "charts/tidings/examples/injection.yaml",
    "--set",
    "authServers[0].createServiceAccount=true,authServers[0].namespace=auth,authServers[0].name=logto",
];

fn rendered(sets: &[&str]) -> Vec<Value> {
    let sets = sets.iter().flat_map(|set| ["--set-json", set]);
    objects(&template(&sets.chain(["--set", "injection.enabled=true"]).collect::<Vec<_>>()))
}

fn operator(objects: &[Value]) -> &Value {
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    &deployment["spec"]["template"]["spec"]
}

/// The policy's expression, in which the sidecar stands.
fn injected(objects: &[Value]) -> &str {
    let policy = objects.iter().find(|object| object["kind"] == "MutatingAdmissionPolicy").unwrap();
    policy["spec"]["mutations"][0]["jsonPatch"]["expression"].as_str().unwrap()
}

/// The names of all images, that of the sidecar included.
fn images(objects: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for object in objects {
        pods(object, &mut found);
    }
    let containers = found.iter().filter_map(|pod| pod["containers"].as_array()).flatten();
    let image = injected(objects).split("image: \"").nth(1).unwrap().split('"').next().unwrap();
    let named = containers.map(|container| container["image"].as_str().unwrap().to_owned());
    named.chain([image.to_owned()]).collect()
}

#[test]
fn one_global_registry_is_that_of_every_image() {
    let own = r#"image={"registry": "own.example.com"}"#;
    let sidecar = r#"sidecar.image={"registry": "sidecar.example.com"}"#;
    let global = r#"global.imageRegistry="mirror.example.com/a/""#;
    let below = |objects: &[Value], registry: &str| {
        let images = images(objects);
        assert!(images.len() > 1 && images.iter().all(|image| image.starts_with(registry)), "{images:?}");
    };
    below(&rendered(&[own]), "own.example.com/tidings");
    below(&rendered(&[global]), "mirror.example.com/a/tidings");
    below(&rendered(&[own, sidecar, global]), "mirror.example.com/a/tidings");
    assert!(
        images(&rendered(&[own, sidecar]))
            .contains(&format!("sidecar.example.com/tidings-sidecar:{}", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn pull_secrets_of_all_charts_and_of_this_one_are_given_to_every_pod_each_once() {
    let global = r#"global.imagePullSecrets=["everywhere", {"name": "objects-too"}]"#;
    let own = r#"image.pullSecrets=["mirror", "everywhere"]"#;
    let objects = rendered(&[global, own]);
    let expected = ["everywhere", "objects-too", "mirror"].map(|name| json!({"name": name}));
    assert_eq!(operator(&objects)["imagePullSecrets"], json!(expected));
    let added = injected(&objects).matches("Object.spec.imagePullSecrets{").count();
    assert_eq!(added, 3, "{}", injected(&objects));
    let objects = rendered(&[own, r#"sidecar.image.pullSecrets=["sidecars"]"#]);
    assert!(injected(&objects).contains("sidecars") && !injected(&objects).contains("mirror"));
    assert!(!injected(&rendered(&[])).contains("imagePullSecrets"));
}

#[test]
fn the_operator_takes_more_environment_arguments_and_volumes() {
    let env = json!({"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"});
    let volume = json!({"name": "trust", "configMap": {"name": "trust"}});
    let mount = json!({"name": "trust", "mountPath": "/trust", "readOnly": true});
    let objects = rendered(&[
        &format!("operator.extraEnv=[{env}]"),
        &format!("operator.extraVolumes=[{volume}]"),
        &format!("operator.extraVolumeMounts=[{mount}]"),
        r#"operator.extraArgs=["--admin-listen=0.0.0.0:8790"]"#,
    ]);
    let pod = operator(&objects);
    let container = &pod["containers"][0];
    let last = |list: &Value| list.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last(&container["env"]), env);
    assert_eq!(last(&container["args"]), "--admin-listen=0.0.0.0:8790");
    assert_eq!(container["args"][0], "--lease-name=tidings-operator", "its own arguments stay");
    assert_eq!((last(&pod["volumes"]), last(&container["volumeMounts"])), (volume, mount));
    let plain = rendered(&[]);
    assert!(
        operator(&plain)["volumes"].is_null() && operator(&plain)["containers"][0]["volumeMounts"].is_null()
    );
}

#[test]
fn as_many_versions_of_the_operator_are_kept_as_is_said() {
    let kept = |sets: &[&str]| {
        let objects = rendered(sets);
        objects.iter().find(|object| object["kind"] == "Deployment").unwrap()["spec"]["revisionHistoryLimit"]
            .clone()
    };
    assert_eq!([kept(&[]), kept(&["operator.revisionHistoryLimit=0"])], [10, 0]);
}

#[test]
fn every_object_has_the_common_labels_and_annotations_beside_its_own() {
    let common = ["commonLabels", "commonAnnotations"].map(|name| format!("{name}.team=platform"));
    let arguments = [&ALL[..], &["--set", &common[0], "--set", &common[1]]].concat();
    let objects = objects(&template(&arguments));
    assert!(objects.len() > 15, "{} objects", objects.len());
    for object in &objects {
        let metadata = &object["metadata"];
        for part in ["labels", "annotations"] {
            assert_eq!(
                metadata[part]["team"], "platform",
                "{} {} of {}",
                object["kind"], metadata["name"], part
            );
        }
    }
    let annotations = |objects: &[Value], name: &str| {
        let named = |kind: &str| {
            objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        };
        named("ServiceAccount").or_else(|| named("ConfigMap")).unwrap()["metadata"]["annotations"].clone()
    };
    let both = json!({"team": "platform", "example.com/owner": "platform"});
    assert_eq!(annotations(&objects, "tidings-operator"), both, "its own stay");
    assert_eq!(annotations(&objects, "tidings-dashboard")["grafana_folder"], "Platform", "its own stay");
    let own = [&arguments[..], &["--set", "operator.serviceAccount.annotations.team=auth"]].concat();
    let own = tidings_tests::charts::objects(&template(&own));
    assert_eq!(annotations(&own, "tidings-operator")["team"], "auth", "its own goes before the common one");
}
