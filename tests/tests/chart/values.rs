//! Values: what is refused, and how it is told.

use tidings_tests::charts::{examples, helm};

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
