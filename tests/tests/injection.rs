//! The ways to the sidecar on a real API server: the policy, the kustomize components, the named templates.
//!
//! ```text
//! tests/controlplane/run -- cargo test -p tidings-tests --features controlplane --test injection
//! ```
//!
//! The server has no node: what is asserted is the pod as the server stored it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "injection/platform.rs"]
mod platform;

use std::process::Command;

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use tidings_tests::charts::{self, run};
use tidings_tests::cluster::{ControlPlane, apply, kubectl};
use tidings_tests::process::in_workspace;
use tidings_tests::until;
use tokio::sync::OnceCell;

/// The namespaces that the tests' policy leaves out have this label.
const LEFT_OUT: &str = "sidecars=none";

/// One policy serves all tests.
static POLICY: OnceCell<()> = OnceCell::const_new();

/// A namespace of the test's own, and the policy.
struct Place {
    plane: ControlPlane,
    namespace: String,
}

// === impl Place ===

impl Place {
    async fn new() -> Self {
        let plane = ControlPlane::shared().await;
        let namespace = plane.namespace("injection").await;
        let accounts: Api<ServiceAccount> = Api::namespaced(plane.admin.clone(), &namespace);
        // Without it the server takes no pod.
        until("the namespace has its ServiceAccount", async || accounts.get("default").await.ok()).await;
        let place = Self { plane, namespace };
        POLICY.get_or_init(|| place.install()).await;
        place
    }

    /// As `helm install` would, and then until the server acts by it.
    async fn install(&self) {
        let (key, value) = LEFT_OUT.split_once('=').unwrap();
        let selector = json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]});
        let selector = format!("injection.namespaceSelector={selector}");
        let values = ["--set", "injection.enabled=true", "--set-json", &selector];
        apply(&charts::template(&[&values[..], &["--show-only", "templates/injection.yaml"]].concat())).await;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let asking: Pod = serde_json::from_value(asking("dry")).unwrap();
        until("the policy acts", async || {
            let taken = self.pods().create(&dry, &asking).await.unwrap();
            taken.spec.unwrap().init_containers
        })
        .await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.plane.admin.clone(), &self.namespace)
    }

    async fn label(&self, label: &str) {
        kubectl(&["label", "namespace", &self.namespace, label]).await;
    }

    /// Creates a pod; as it was stored.
    async fn create(&self, pod: Value) -> Value {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        serde_json::to_value(self.pods().create(&PostParams::default(), &pod).await.unwrap()).unwrap()
    }

    /// The pod that a controller makes of an object.
    async fn made_by(&self, controller: &Value) -> Value {
        apply(&controller.to_string()).await;
        let one = ListParams::default().labels("app=auth");
        let pod = until("the controller makes a pod", async || {
            self.pods().list(&one).await.unwrap().items.into_iter().next()
        });
        serde_json::to_value(pod.await).unwrap()
    }

    /// A Deployment or a `StatefulSet` whose pods ask for the sidecar.
    fn controller(&self, kind: &str) -> Value {
        let mut pod = asking("any");
        pod["metadata"] = json!({"labels": {"app": "auth", "tidings.dev/inject": "logto"}});
        json!({
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": "auth", "namespace": self.namespace},
            "spec": {"selector": {"matchLabels": {"app": "auth"}}, "template": pod},
        })
    }
}

/// A pod as a user writes it, without a token of its own, which passes the restricted standard.
fn plain(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "auth",
                "image": "auth",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// A pod that asks for the sidecar of the `AuthServer` logto.
fn asking(name: &str) -> Value {
    let mut pod = plain(name);
    pod["metadata"]["labels"] = json!({"tidings.dev/inject": "logto"});
    pod
}

/// The names of the items of a list.
fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .map_or_else(Vec::new, |items| items.iter().map(|one| one["name"].as_str().unwrap()).collect())
}

fn volume<'a>(spec: &'a Value, name: &str) -> &'a Value {
    let volumes = spec["volumes"].as_array().unwrap();
    volumes.iter().find(|volume| volume["name"] == name).unwrap_or(&Value::Null)
}

/// What a variable of the sidecar says.
fn variable<'a>(spec: &'a Value, name: &str) -> Option<&'a str> {
    let variables = spec["initContainers"][0]["env"].as_array().unwrap();
    variables.iter().find(|variable| variable["name"] == name).and_then(|variable| variable["value"].as_str())
}

/// What a way adds to a pod: the first init container, and the volumes.
fn added(spec: &Value) -> [&Value; 3] {
    [&spec["initContainers"][0], volume(spec, "tidings-data"), volume(spec, "tidings-token")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_for_the_sidecar_gets_it_before_its_own_init_containers() {
    let place = Place::new().await;
    let mut pod = asking("auth");
    pod["spec"]["initContainers"] = pod["spec"]["containers"].clone();
    pod["spec"]["initContainers"][0]["name"] = json!("migrate");
    pod["spec"]["volumes"] = json!([{"name": "cache", "emptyDir": {}}]);
    let pod = place.create(pod).await;
    let spec = &pod["spec"];
    assert_eq!(names(&spec["initContainers"]), ["tidings", "migrate"]);
    assert_eq!(spec["initContainers"][0]["restartPolicy"], "Always", "it is a native sidecar");
    assert_eq!(pod["metadata"]["labels"]["tidings.dev/auth-server"], "logto");
    assert_eq!(variable(spec, "TIDINGS_AUTH_SERVER"), Some("$(POD_NAMESPACE)/$(AUTH_SERVER_NAME)"));
    assert_eq!(variable(spec, "TIDINGS_DRAIN_UNTIL"), Some("delivered"));
    assert_eq!(names(&spec["volumes"]), ["cache", "tidings-data", "tidings-token"]);
    let limit = &volume(spec, "tidings-data")["emptyDir"]["sizeLimit"];
    assert_eq!(
        variable(spec, "TIDINGS_DATA_SIZE_LIMIT"),
        limit.as_str(),
        "it knows where the kubelet evicts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_does_not_ask_stays_as_it_was() {
    let place = Place::new().await;
    let mut empty = asking("empty");
    empty["metadata"]["labels"]["tidings.dev/inject"] = json!("");
    for pod in [plain("plain"), empty] {
        let labels = pod["metadata"]["labels"].clone();
        let pod = place.create(pod).await;
        assert_eq!(pod["metadata"]["labels"], labels);
        assert_eq!((names(&pod["spec"]["initContainers"]), names(&pod["spec"]["volumes"])), (vec![], vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_has_the_sidecar_already_is_left_alone() {
    let place = Place::new().await;
    for list in ["containers", "initContainers"] {
        let mut pod = asking(&format!("has-{}", list.to_lowercase()));
        let mut own = pod["spec"]["containers"][0].clone();
        own["name"] = json!("tidings");
        own["image"] = json!("my-own");
        let mut all = pod["spec"][list].as_array().cloned().unwrap_or_default();
        all.push(own);
        pod["spec"][list] = json!(all);
        let pod = place.create(pod).await;
        assert_eq!(pod["spec"][list].as_array().unwrap().last().unwrap()["image"], "my-own");
        assert!(names(&pod["spec"]["initContainers"]).len() < 2 && names(&pod["spec"]["volumes"]).is_empty());
        assert_eq!(pod["metadata"]["labels"]["tidings.dev/auth-server"], Value::Null);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_deployment_get_it_and_pass_the_restricted_standard() {
    let place = Place::new().await;
    place.label("pod-security.kubernetes.io/enforce=restricted").await;
    let pod = place.made_by(&place.controller("Deployment")).await;
    assert_eq!(names(&pod["spec"]["initContainers"]), ["tidings"]);
    assert_eq!(pod["metadata"]["labels"]["tidings.dev/auth-server"], "logto");
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_names_a_claim_has_it_used_and_nothing_else_is_changed() {
    let place = Place::new().await;
    let mut pod = asking("auth");
    pod["metadata"]["annotations"] = json!({"tidings.dev/volume": "events"});
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["securityContext"]["fsGroup"] = json!(65532);
    let before = pod["spec"].clone();
    let pod = place.create(pod).await;
    let spec = &pod["spec"];
    assert_eq!(volume(spec, "tidings-data")["persistentVolumeClaim"], json!({"claimName": "events"}));
    assert_eq!(
        (variable(spec, "TIDINGS_DRAIN_UNTIL"), variable(spec, "TIDINGS_DATA_SIZE_LIMIT")),
        (None, None)
    );
    assert_eq!((&spec["hostNetwork"], &spec["securityContext"]), (&json!(true), &before["securityContext"]));
    assert_eq!(names(&spec["containers"]), ["auth"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_s_own_claim_is_used() {
    let place = Place::new().await;
    let mut set = place.controller("StatefulSet");
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "tidings-data"}, "spec": claim}]);
    let pod = place.made_by(&set).await;
    let spec = &pod["spec"];
    assert_eq!(names(&spec["volumes"]), ["tidings-data", "tidings-token"]);
    let claim = json!({"claimName": "tidings-data-auth-0"});
    assert_eq!(volume(spec, "tidings-data")["persistentVolumeClaim"], claim);
    assert_eq!(variable(spec, "TIDINGS_DRAIN_UNTIL"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_dir_that_the_pod_brings_goes_with_the_pod_too() {
    let place = Place::new().await;
    let mut pod = asking("auth");
    pod["spec"]["volumes"] = json!([{"name": "tidings-data", "emptyDir": {"sizeLimit": "2Gi"}}]);
    let pod = place.create(pod).await;
    assert_eq!(names(&pod["spec"]["volumes"]), ["tidings-data", "tidings-token"]);
    assert_eq!(variable(&pod["spec"], "TIDINGS_DRAIN_UNTIL"), Some("delivered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_values_are_the_server_takes_the_policy() {
    let _place = Place::new().await;
    let key = json!({"secretKeyRef": {"name": "proxy", "key": "url", "optional": true}});
    let env = json!([{"name": "HTTPS_PROXY", "valueFrom": key}, {"name": "QUOTED", "value": "\"it's\\\n"}]);
    let resources =
        json!({"limits": {"cpu": 0.5, "ephemeral-storage": "2Gi"}, "requests": {"cpu": 1, "memory": "1Gi"}});
    let values = [
        format!("sidecar.extraEnv={env}"),
        format!("sidecar.resources={resources}"),
        format!("sidecar.extraVolumes={}", platform::volumes_of_all_kinds()),
        r#"sidecar.extraVolumeMounts=[{"name": "trust", "mountPath": "/trust", "readOnly": true}]"#
            .to_owned(),
        r#"sidecar.extraArgs=["--log=\"quoted\""]"#.to_owned(),
        r#"global.imagePullSecrets=["mirror", {"name": "second"}]"#.to_owned(),
        r#"global.compatibility.openshift.adaptSecurityContext="force""#.to_owned(),
    ];
    let values: Vec<_> = values.iter().flat_map(|value| ["--set-json", value]).collect();
    let show = ["--show-only", "templates/injection.yaml", "--set", "injection.enabled=true"];
    let policy = charts::template(&[&show[..], &values].concat());
    let (objects, _) = defaulted(&["--force-conflicts", "-f", "-"], &policy);
    let expression = objects[0]["spec"]["mutations"][0]["jsonPatch"]["expression"].as_str().unwrap();
    assert!(
        expression.contains("HTTPS_PROXY") && expression.contains("limits: {\"cpu\": \"0.5\""),
        "{expression}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_namespace_that_is_not_selected_no_pod_gets_it() {
    let place = Place::new().await;
    place.label(LEFT_OUT).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let asking: Pod = serde_json::from_value(asking("auth")).unwrap();
    until("the policy knows of the label", async || {
        let taken = place.pods().create(&dry, &asking).await.unwrap();
        taken.spec.unwrap().init_containers.is_none().then_some(())
    })
    .await;
}

/// What the server would store of manifests: defaulted, and not stored.
fn defaulted(arguments: &[&str], manifests: &str) -> (Vec<Value>, String) {
    let mut command = Command::new("kubectl");
    command.args(["apply", "--server-side", "--dry-run=server", "-o", "json"]).args(arguments);
    let said = run(command.current_dir(in_workspace("")), manifests);
    assert!(said.worked, "kubectl apply {arguments:?}: {}", said.err);
    let mut objects = Vec::new();
    for object in serde_json::Deserializer::from_str(&said.out).into_iter::<Value>() {
        let object = object.unwrap();
        match object["items"].as_array() {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(object),
        }
    }
    (objects, said.err)
}

/// The pod that a Deployment or a `StatefulSet` of these objects makes.
fn template(objects: &[Value], name: &str) -> Value {
    let named =
        |object: &&Value| object["metadata"]["name"] == name && object["spec"]["template"].is_object();
    objects.iter().find(named).unwrap()["spec"]["template"]["spec"].clone()
}

/// The chart of examples/chart, as a user builds and renders it.
fn user_chart(arguments: &[&str]) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let examples = folder.path().join("examples");
    std::fs::create_dir(&examples).unwrap();
    std::os::unix::fs::symlink(in_workspace("charts"), folder.path().join("charts")).unwrap();
    let copied = run(Command::new("cp").arg("-r").arg(in_workspace("examples/chart")).arg(&examples), "");
    assert!(copied.worked, "{}", copied.err);
    let chart = examples.join("chart");
    let chart = chart.to_str().unwrap();
    charts::helm_works(&["dependency", "build", chart]);
    charts::helm_works(&[&["template", "auth", chart], arguments].concat())
}

/// The namespaces of the examples are there.
async fn namespaces() {
    kubectl(&[
        "apply",
        "--server-side",
        "-f",
        in_workspace("examples/quickstart/namespaces.yaml").to_str().unwrap(),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_three_ways_add_the_same_container_and_volumes() {
    let place = Place::new().await;
    namespaces().await;
    let injected = place.create(asking("auth")).await;
    let injected = &injected["spec"];
    let (quickstart, _) = defaulted(&["-k", "examples/quickstart"], "");
    let (chart, _) = defaulted(&["-n", "auth", "-f", "-"], &user_chart(&["-n", "auth"]));
    let by_component = template(&quickstart, "logto");
    let by_template = template(&chart, "auth");
    assert_eq!(names(&json!([added(injected)[0]])), ["tidings"]);
    assert_eq!(added(&by_component), added(injected), "the kustomize component");
    assert_eq!(added(&by_template), added(injected), "the named templates");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_claim_the_three_ways_add_the_same_too() {
    let place = Place::new().await;
    namespaces().await;
    let mut pod = asking("auth");
    pod["metadata"]["annotations"] = json!({"tidings.dev/volume": "events"});
    let injected = place.create(pod).await;
    let injected = &injected["spec"];
    let chart = user_chart(&["-n", "auth", "--set", "sidecar.volume.claimName=events"]);
    let by_template = template(&defaulted(&["-n", "auth", "-f", "-"], &chart).0, "auth");
    assert_eq!(added(&by_template), added(injected), "the named templates");
    let by_component = template(&defaulted(&["-k", "examples/statefulset"], "").0, "logto");
    let [container, _, token] = added(injected);
    assert_eq!([added(&by_component)[0], added(&by_component)[2]], [container, token], "the component");
    assert_eq!(volume(&by_component, "tidings-data"), &Value::Null, "the StatefulSet brings it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_taken_and_warn_of_nothing_but_logto_s_own_image() {
    let _place = Place::new().await;
    namespaces().await;
    for example in ["quickstart", "statefulset"] {
        let (objects, warnings) = defaulted(&["-k", &format!("examples/{example}")], "");
        assert!(objects.iter().any(|object| object["kind"] == "AuthServer"), "{example}");
        assert_eq!(warnings, "", "{example}");
    }
    let (objects, warnings) = defaulted(&["-k", "examples/logto"], "");
    assert_eq!(names(&template(&objects, "logto")["initContainers"]), ["tidings"]);
    assert!(!warnings.contains("\"tidings\""), "{warnings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_s_pods_are_made_in_namespaces_that_enforce_the_restricted_standard() {
    let place = Place::new().await;
    kubectl(&["apply", "--server-side", "-k", in_workspace("examples/quickstart").to_str().unwrap()]).await;
    for (namespace, name, count) in [("auth", "logto", 2), ("shop", "mail", 1)] {
        let pods: Api<Pod> = Api::namespaced(place.plane.admin.clone(), namespace);
        let by_name = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
        let pod = until(&format!("there is a pod of {name}"), async || {
            pods.list(&by_name).await.unwrap().items.into_iter().next()
        })
        .await;
        let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        assert_eq!(names(&spec["initContainers"]).len() + names(&spec["containers"]).len(), count, "{name}");
    }
    // Other suites on this server shall not find them.
    let [auth, shop] = ["auth", "shop"].map(|file| in_workspace(&format!("examples/quickstart/{file}.yaml")));
    let files = ["-f", auth.to_str().unwrap(), "-f", shop.to_str().unwrap()];
    kubectl(&[&["delete", "--wait=false"], &files[..]].concat()).await;
}

#[test]
fn what_is_checked_in_is_what_the_library_chart_renders() {
    let folder = tempfile::TempDir::new().unwrap();
    let mut render = Command::new(in_workspace("config/components/render"));
    let said = run(render.arg(folder.path()).env("HELM", charts::tool("helm")), "");
    assert!(said.worked, "{}", said.err);
    for name in ["sidecar", "sidecar-claim"] {
        let checked_in =
            std::fs::read_to_string(in_workspace(&format!("config/components/{name}/patch.yaml"))).unwrap();
        let rendered = std::fs::read_to_string(folder.path().join(name).join("patch.yaml")).unwrap();
        assert_eq!(checked_in, rendered, "run config/components/render");
    }
}

#[test]
fn the_yaml_of_the_documentation_is_the_component_s_patch() {
    let patch = std::fs::read_to_string(in_workspace("config/components/sidecar/patch.yaml")).unwrap();
    let start = patch.find("      initContainers:").unwrap();
    let snippet: Vec<_> = patch[start..].lines().map(|line| line.strip_prefix("      ").unwrap()).collect();
    let documentation = std::fs::read_to_string(in_workspace("docs/sidecar.md")).unwrap();
    assert!(documentation.contains(&snippet.join("\n")), "docs/sidecar.md shows {}", snippet.join("\n"));
}
