//! The files that are made of the definitions: the YAML that `kubectl apply` takes, the templates of the chart
//! `tidings-crds`, and the JSON Schemas that editors and `kubeconform` read.
//!
//! In: the definitions. Out: paths from the workspace's root, each with its text. A test fails when one is
//! stale.

use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::{definitions, file_name, json_schema, yaml};

/// Helm leaves what bears this where it is: objects of users outlive a release.
const KEEP: (&str, &str) = ("helm.sh/resource-policy", "keep");

/// Every generated file: its path from the workspace's root, and its text.
pub fn files() -> Vec<(PathBuf, String)> {
    definitions().iter().flat_map(files_of).collect()
}

fn files_of(definition: &CustomResourceDefinition) -> [(PathBuf, String); 3] {
    let file = file_name(definition);
    let (group, kind) = (&definition.spec.group, definition.spec.names.kind.to_ascii_lowercase());
    let schema = format!("{kind}_{}.json", crate::VERSION);
    [
        (Path::new("crds").join(&file), yaml(definition)),
        (Path::new("charts/tidings-crds/templates").join(&file), template(definition)),
        (Path::new("schemas").join(group).join(schema), json_schema::text(definition)),
    ]
}

/// The definition as a template: what Helm would take for its own is written so that it comes out as it is.
fn template(definition: &CustomResourceDefinition) -> String {
    let mut kept = definition.clone();
    kept.metadata.annotations.get_or_insert_default().insert(KEEP.0.to_owned(), KEEP.1.to_owned());
    yaml(&kept).replace("{{", "{{ \"{{\" }}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_keeps_the_definition_when_its_release_goes() {
        let [auth_server, ..] = definitions();
        assert!(template(&auth_server).contains("helm.sh/resource-policy: keep"));
        assert!(!yaml(&auth_server).contains("helm.sh"));
    }

    #[test]
    fn braces_of_a_description_are_not_taken_for_a_template() {
        let [mut definition, ..] = definitions();
        definition.spec.names.singular = Some("{{x}}".to_owned());
        assert!(template(&definition).contains(r#"{{ "{{" }}x}}"#));
    }
}
