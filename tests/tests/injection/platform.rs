//! What a platform adds to injected pods: pull Secrets, volumes, environment, arguments, and users that the cluster
//! assigns. A policy of its own acts in this module's namespaces alone, beside which that of the other tests does not.

use std::process::Command;

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidings_tests::charts;
use tidings_tests::cluster::apply;
use tidings_tests::process::in_workspace;
use tidings_tests::until;
use tokio::sync::OnceCell;

use super::{LEFT_OUT, Place, asking, names, variable, volume};

/// Where this policy acts.
const SELECTED: &str = "platform=own";

static POLICY: OnceCell<()> = OnceCell::const_new();

/// One volume of each kind that a sidecar may want, with every map and list that they have.
pub(crate) fn volumes_of_all_kinds() -> Value {
    let claim = json!({
        "metadata": {"labels": {"a.example.com/b": "c"}, "annotations": {"d": "1"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "selector": {"matchLabels": {"tier": "fast"}},
        },
    });
    json!([
        {"name": "trust", "configMap": {"name": "trust", "optional": true, "items": [{"key": "ca.crt", "path": "ca.crt", "mode": 292}]}},
        {"name": "key", "secret": {"secretName": "key", "defaultMode": 256}},
        {"name": "driver", "csi": {"driver": "secrets.example.com", "readOnly": true, "volumeAttributes": {"provider-class": "x"}}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": claim}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ])
}

/// A namespace in which this module's policy acts.
async fn place() -> Place {
    let place = Place::new().await;
    place.label(LEFT_OUT).await;
    place.label(SELECTED).await;
    POLICY.get_or_init(install).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let asking: Pod = serde_json::from_value(asking("dry")).unwrap();
    until("this policy alone acts", async || {
        let taken = place.pods().create(&dry, &asking).await.unwrap().spec.unwrap();
        taken.init_containers.filter(|containers| containers[0].args.is_some())
    })
    .await;
    place
}

async fn install() {
    let (key, value) = SELECTED.split_once('=').unwrap();
    let sets = [
        format!("injection.namespaceSelector={}", json!({"matchLabels": {key: value}})),
        format!("sidecar.extraVolumes={}", volumes_of_all_kinds()),
        r#"sidecar.extraVolumeMounts=[{"name": "trust", "mountPath": "/trust", "readOnly": true}]"#
            .to_owned(),
        r#"sidecar.extraEnv=[{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}]"#.to_owned(),
        r#"sidecar.extraArgs=["--max-body-bytes=1048576"]"#.to_owned(),
        r#"global.imagePullSecrets=["mirror", {"name": "second"}]"#.to_owned(),
        r#"global.compatibility.openshift.adaptSecurityContext="force""#.to_owned(),
    ];
    let sets = sets.iter().flat_map(|set| ["--set-json", set]);
    let show = ["--set", "injection.enabled=true", "--show-only", "templates/injection.yaml"];
    let chart = ["template", "platform", "charts/tidings"];
    apply(&charts::helm_works(&chart.into_iter().chain(show).chain(sets).collect::<Vec<_>>())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_pod_keeps_its_own_pull_secrets_and_gets_the_chart_s_each_once() {
    let place = place().await;
    let mut pod = asking("own");
    pod["spec"]["imagePullSecrets"] = json!([{"name": "own"}, {"name": "second"}]);
    let pod = place.create(pod).await;
    assert_eq!(names(&pod["spec"]["imagePullSecrets"]), ["own", "second", "mirror"]);
    let pod = place.create(asking("none")).await;
    assert_eq!(names(&pod["spec"]["imagePullSecrets"]), ["mirror", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_pod_keeps_the_pull_secrets_of_its_service_account() {
    let place = place().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(place.plane.admin.clone(), &place.namespace);
    let secrets = json!({"imagePullSecrets": [{"name": "of-the-account"}]});
    accounts.patch("default", &PatchParams::default(), &Patch::Merge(&secrets)).await.unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let plain: Pod = serde_json::from_value(super::plain("plain")).unwrap();
    until("the server gives the account's Secrets to pods", async || {
        place.pods().create(&dry, &plain).await.unwrap().spec.unwrap().image_pull_secrets
    })
    .await;
    let pod = place.create(asking("auth")).await;
    assert_eq!(names(&pod["spec"]["imagePullSecrets"]), ["of-the-account", "mirror", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_injected_pod_gets_the_volumes_environment_and_arguments_of_the_values() {
    let place = place().await;
    place.label("pod-security.kubernetes.io/enforce=restricted").await;
    let pod = place.create(asking("auth")).await;
    let spec = &pod["spec"];
    let kinds = volumes_of_all_kinds();
    let expected = [&["tidings-data", "tidings-token"], &names(&kinds)[..]].concat();
    assert_eq!(names(&spec["volumes"]), expected);
    assert_eq!(volume(spec, "driver")["csi"]["volumeAttributes"], json!({"provider-class": "x"}));
    assert_eq!(variable(spec, "HTTPS_PROXY"), Some("http://proxy.example.com:3128"));
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar["args"], json!(["--max-body-bytes=1048576"]));
    let mount = json!({"name": "trust", "mountPath": "/trust", "readOnly": true});
    assert!(sidecar["volumeMounts"].as_array().unwrap().contains(&mount), "{sidecar}");
    let context = &sidecar["securityContext"];
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&Value::Null, &Value::Null));
    assert_eq!(context["runAsNonRoot"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_the_pod_has_under_the_same_name_is_used() {
    let place = place().await;
    let mut pod = asking("auth");
    pod["spec"]["volumes"] = json!([{"name": "trust", "secret": {"secretName": "my-own"}}]);
    let pod = place.create(pod).await;
    assert_eq!(names(&pod["spec"]["volumes"]).iter().filter(|name| **name == "trust").count(), 1);
    assert_eq!(volume(&pod["spec"], "trust")["secret"]["secretName"], "my-own");
}

#[test]
fn with_the_openshift_component_neither_sidecar_nor_operator_names_a_user() {
    let folder = tempfile::TempDir::new().unwrap();
    let copied =
        Command::new("cp").arg("-r").arg(in_workspace("config")).arg(folder.path()).status().unwrap();
    assert!(copied.success());
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(in_workspace("config/default/operator.yaml"), own.join("operator.yaml")).unwrap();
    let labels = json!({"tidings.dev/auth-server": "logto"});
    let auth = json!({"name": "auth", "image": "auth", "securityContext": {"runAsUser": 5}});
    let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [auth]}});
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "auth", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    });
    std::fs::write(own.join("auth.yaml"), set.to_string()).unwrap();
    let users = |components: &[&str]| {
        let components: Vec<_> =
            components.iter().map(|name| format!("../config/components/{name}")).collect();
        let all = json!({"resources": ["operator.yaml", "auth.yaml"], "components": components});
        std::fs::write(own.join("kustomization.yaml"), all.to_string()).unwrap();
        let said = charts::run(Command::new("kubectl").arg("kustomize").arg(&own), "");
        assert!(said.worked, "{}", said.err);
        assert_eq!(said.out.matches("runAsNonRoot: true").count(), 3, "the pod, and two containers of ours");
        said.out.lines().filter(|line| line.contains("runAs") && !line.contains("NonRoot")).count()
    };
    assert_eq!(users(&["sidecar"]), 7, "a user and a group of three, and the auth server's");
    assert_eq!(users(&["sidecar", "openshift"]), 1, "that of the auth server's own container stays");
}

#[test]
fn the_named_templates_have_pull_secrets_registry_and_users_from_the_global_values() {
    let rendered = super::user_chart(&[
        "--set",
        "global.imageRegistry=mirror.example.com,global.imagePullSecrets={mirror}",
        "--set",
        "global.compatibility.openshift.adaptSecurityContext=force",
    ]);
    let pod = super::template(&charts::objects(&rendered), "auth");
    let sidecar = &pod["initContainers"][0];
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "mirror"}]));
    assert!(
        sidecar["image"].as_str().unwrap().starts_with("mirror.example.com/tidings-sidecar:"),
        "{sidecar}"
    );
    assert!(sidecar["securityContext"]["runAsUser"].is_null(), "{sidecar}");
    let plain = super::template(&charts::objects(&super::user_chart(&[])), "auth");
    assert!(plain["imagePullSecrets"].is_null());
    assert_eq!(plain["initContainers"][0]["securityContext"]["runAsUser"], 65532);
}
