//! Values: what is refused, and how it is told.

use tidings_tests::charts::{examples, helm};
use tidings_tests::process::in_workspace;

/// What helm says when it renders with these values.
fn refusal(set: &str) -> String {
    let said = helm(&["template", "tidings", "charts/tidings", "--set", set]);
    assert!(!said.worked, "{set} was taken");
    said.err
}

#[test]
fn helm_finds_nothing_to_warn_of_in_any_example() {
    for example in examples() {
        let said = helm(&["lint", "--strict", "charts/tidings", "-f", &example]);
        assert!(said.worked && !said.out.contains("[WARNING]"), "{example}: {}{}", said.out, said.err);
    }
    let said = helm(&["lint", "--strict", "charts/tidings-crds"]);
    assert!(said.worked && !said.out.contains("[WARNING]"), "{}{}", said.out, said.err);
}

#[test]
fn an_unknown_value_is_refused_by_its_name_wherever_it_stands() {
    let unknown = [
        "replicas",
        "image.name",
        "watch.namespace",
        "rbac.aggregated",
        "operator.replica",
        "operator.image.registry",
        "operator.resources.limit",
        "operator.securityContext",
        "operator.serviceAccount.create2",
        "operator.podDisruptionBudget.minAvailable",
        "operator.networkPolicy.enable",
        "operator.extraEnvs",
        "operator.extraVolumeMounts[0].path",
        "operator.revisionHistory",
        "commonAnnotation",
        "global.imagePullSecrets[0].secret",
        "sidecar.env",
        "sidecar.extraArg",
        "sidecar.image.pullSecret",
        "test.enable",
        "test.image.registry",
        "monitoring.podMonitor",
        "monitoring.podMonitors.scrapeInterval",
        "monitoring.rules.enable",
        "monitoring.dashboard.folder",
        "authServers[0].serviceAccount",
    ];
    for path in unknown {
        let name = path.rsplit('.').next().unwrap();
        let said = refusal(&format!("{path}=1"));
        assert!(said.contains(&format!("'{name}' not allowed")), "{path}: {said}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
    for (set, place) in [
        ("operator.replicas=two", "/operator/replicas"),
        ("image.pullPolicy=always", "/image/pullPolicy"),
        ("watch.namespaces[0]=Shop", "/watch/namespaces/0"),
        ("operator.image.digest=latest", "/operator/image/digest"),
        ("operator.podDisruptionBudget.maxUnavailable=0", "/operator/podDisruptionBudget/maxUnavailable"),
        ("monitoring.podMonitors.interval=often", "/monitoring/podMonitors/interval"),
        ("authServers[0].name=logto", "/authServers/0"),
        ("operator.revisionHistoryLimit=-1", "/operator/revisionHistoryLimit"),
        ("operator.extraArgs[0]=", "/operator/extraArgs/0"),
        ("operator.extraEnv[0].value=x", "/operator/extraEnv/0"),
        ("operator.extraVolumeMounts[0].name=x", "/operator/extraVolumeMounts/0"),
        ("sidecar.extraVolumes[0].emptyDir.medium=Memory", "/extraVolumes/0"),
        ("sidecar.image.pullSecrets[0]=Mirror", "/image/pullSecrets/0"),
        ("test.timeoutSeconds=soon", "/test/timeoutSeconds"),
        ("commonAnnotations.a=1", "/commonAnnotations/a"),
        ("global.imageRegistry=5", "/global/imageRegistry"),
        ("global.imagePullSecrets[0]=A_B", "/global/imagePullSecrets/0"),
        (
            "global.compatibility.openshift.adaptSecurityContext=yes",
            "/global/compatibility/openshift/adaptSecurityContext",
        ),
    ] {
        let said = refusal(set);
        assert!(said.contains(place), "{set}: {said}");
    }
}

#[test]
fn an_auth_server_that_stands_there_twice_is_refused() {
    let set = [0, 1].map(|at| format!("authServers[{at}].namespace=auth,authServers[{at}].name=logto"));
    let said = refusal(&set.join(","));
    assert!(said.contains("auth/logto stands there twice"), "{said}");
}

#[test]
fn an_auth_server_that_the_operator_would_not_see_is_refused() {
    let said = refusal("watch.namespaces={shop},authServers[0].namespace=auth,authServers[0].name=logto");
    assert!(
        said.contains(r#"the namespace "auth" of AuthServer "logto" is not among watch.namespaces"#),
        "{said}"
    );
}

#[test]
fn a_misspelt_global_is_refused_by_its_name_but_a_parent_chart_s_is_its_own() {
    for (path, known) in [
        ("global.imageRegistri", "global has imageRegistry, imagePullSecrets, compatibility"),
        ("global.compatibility.openShift", "global.compatibility has openshift"),
        ("global.compatibility.openshift.adapt", "global.compatibility.openshift has adaptSecurityContext"),
    ] {
        let said = refusal(&format!("{path}=x"));
        assert!(said.contains(&format!("{path} is not a value of this chart: {known}")), "{said}");
    }
    let parent = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(parent.path().join("charts")).unwrap();
    let chart =
        "{apiVersion: v2, name: parent, version: 0.0.0, dependencies: [{name: tidings, version: '*'}]}";
    std::fs::write(parent.path().join("Chart.yaml"), chart).unwrap();
    std::os::unix::fs::symlink(in_workspace("charts/tidings"), parent.path().join("charts/tidings")).unwrap();
    let values = "global.imageRegistry=registry.example.com,global.ofAnotherChart=1";
    let said = helm(&["template", "parent", parent.path().to_str().unwrap(), "--set", values]);
    assert!(
        said.worked && said.out.contains("image: registry.example.com/tidings-operator:"),
        "{}",
        said.err
    );
}
