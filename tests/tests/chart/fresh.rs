//! What is rendered and checked in is what would be rendered now, and the version is the same everywhere.

use std::path::Path;
use std::process::Command;

use tidings_tests::charts::{objects, readme, run, tool};
use tidings_tests::process::in_workspace;
use tidings_tests::values;

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(in_workspace(path.as_ref().to_str().unwrap())).unwrap()
}

#[test]
fn config_is_what_the_chart_renders() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(in_workspace("config/render"));
    let said = run(command.env("HELM", tool("helm")).arg(folder.path()), "");
    assert!(said.worked, "config/render: {}", said.err);
    for file in ["operator/rbac.yaml", "sidecar/rbac.yaml", "default/operator.yaml", "default/roles.yaml"] {
        let fresh = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(fresh == read(Path::new("config").join(file)), "config/{file} is stale: config/render");
    }
}

#[test]
fn the_readme_has_the_values_of_today() {
    let (path, text) = readme();
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(
        committed == text,
        "charts/tidings/README.md is stale: cargo run -p tidings-tests --example chart_readme"
    );
}

#[test]
fn something_is_said_of_every_value() {
    assert_eq!(values::unexplained(&read("charts/tidings/values.yaml")), Vec::<String>::new());
}

#[test]
fn the_charts_have_the_version_of_the_workspace() {
    for chart in ["charts/tidings", "charts/tidings-crds", "charts/tidings/charts/tidings-sidecar"] {
        let file = format!("{chart}/Chart.yaml");
        let chart = &objects(&read(&file))[0];
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(chart["version"], version, "{file}");
        assert!(
            chart["appVersion"].is_null() || chart["appVersion"] == version,
            "{file}: {}",
            chart["appVersion"]
        );
    }
}

#[test]
fn every_definition_is_in_the_kustomization() {
    let listed = &objects(&read("crds/Kustomization"))[0]["resources"];
    let listed: Vec<_> =
        listed.as_array().unwrap().iter().map(|file| file.as_str().unwrap().to_owned()).collect();
    let mut files: Vec<_> = std::fs::read_dir(in_workspace("crds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".yaml"))
        .collect();
    files.sort();
    let mut sorted = listed;
    sorted.sort();
    assert_eq!(sorted, files);
}
