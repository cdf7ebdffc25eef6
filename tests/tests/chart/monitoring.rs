//! Alerts and the dashboard: read as Prometheus reads them, made of numbers that the programs have, each alert
//! with a way out.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tidings_tests::charts::{objects, run, template, tool};
use tidings_tests::process::in_workspace;

fn rendered() -> Vec<Value> {
    objects(&template(&["-f", "charts/tidings/examples/high-availability.yaml"]))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap()
}

/// The metrics that are used, as Prometheus' own parser finds them.
fn used(arguments: &[&str], input: &str) -> BTreeSet<String> {
    let said = run(Command::new(tool("rules")).args(arguments), input);
    assert!(said.worked, "{}", said.err);
    said.out.lines().map(str::to_owned).collect()
}

/// The metrics that there are: docs/reference.md is made of the programs' own answers, and tested to be fresh.
fn known() -> BTreeSet<String> {
    let reference = std::fs::read_to_string(in_workspace("docs/reference.md")).unwrap();
    let names = reference.lines().filter_map(|line| line.strip_prefix("| `tidings_")?.split_once('`'));
    let kinds = ["", "_bucket", "_sum", "_count"];
    names
        .flat_map(|(name, _)| kinds.map(|kind| format!("tidings_{name}{kind}")))
        .chain(["up".to_owned()])
        .collect()
}

#[test]
fn prometheus_takes_the_alerts_and_knows_every_metric_in_them() {
    let objects = rendered();
    let used =
        used(&[], &json!({"groups": of_kind(&objects, "PrometheusRule")["spec"]["groups"]}).to_string());
    let unknown: Vec<_> = used.difference(&known()).cloned().collect();
    assert!(used.len() > 8 && unknown.is_empty(), "there are no such metrics: {unknown:?}");
}

#[test]
fn every_panel_of_the_dashboard_is_made_of_metrics_that_there_are() {
    let objects = rendered();
    let dashboard = of_kind(&objects, "ConfigMap")["data"]["tidings.json"].as_str().unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let targets =
        dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    let expressions: Vec<_> =
        targets.flatten().map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let queried =
        variables.filter_map(|variable| variable["definition"].as_str()?.strip_prefix("label_values("));
    let queried = queried.map(|query| query.rsplit_once(',').unwrap().0.to_owned());
    let all: Vec<_> = expressions.into_iter().chain(queried).collect();
    let used = used(&["--expressions"], &all.join("\n").replace("$__rate_interval", "5m"));
    let unknown: Vec<_> = used.difference(&known()).cloned().collect();
    assert!(used.len() > 15 && unknown.is_empty(), "there are no such metrics: {unknown:?}");
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do() {
    let objects = rendered();
    let groups = of_kind(&objects, "PrometheusRule")["spec"]["groups"].as_array().unwrap();
    for rule in groups.iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = &rule["alert"];
        assert!(["critical", "warning"].map(Value::from).contains(&rule["labels"]["severity"]), "{name}");
        assert_eq!(rule["labels"]["team"], "platform", "{name} lacks alertLabels");
        for part in ["summary", "description", "runbook"] {
            let said = rule["annotations"][part].as_str().unwrap_or_default();
            assert!(said.len() > 20, "{name} has no {part}");
        }
        let text = rule.to_string();
        for word in ["RELEASE_NAME", "FREE_BYTES", "PENDING_SECONDS"] {
            assert!(!text.contains(word), "{name} keeps {word}");
        }
    }
}

#[test]
fn sidecars_are_scraped_in_auth_servers_namespaces_alone_since_any_other_pod_could_forge_their_numbers() {
    let sidecars = |objects: &[Value]| {
        objects.iter().find(|object| object["metadata"]["name"] == "tidings-sidecar").cloned()
    };
    let monitored = |arguments: &[&str]| {
        let enabled = ["--set", "monitoring.podMonitors.enabled=true"];
        sidecars(&objects(&template(&[arguments, &enabled].concat())))
    };
    let sidecar = sidecars(&rendered()).unwrap();
    assert_eq!(sidecar["spec"]["namespaceSelector"], json!({"matchNames": ["auth"]}));
    assert_eq!(sidecar["spec"]["podMetricsEndpoints"][0]["port"], "tidings-admin");
    let listed = monitored(&["-f", "charts/tidings/examples/listed-namespaces.yaml"]).unwrap();
    assert_eq!(listed["spec"]["namespaceSelector"], json!({"matchNames": ["auth"]}), "not the teams' own");
    assert!(monitored(&[]).is_none(), "without an AuthServer there is no sidecar to scrape");
}
