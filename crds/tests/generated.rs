//! The generated definitions: fresh, bounded, and with the columns that users read.

use std::path::Path;

use serde_json::Value;

#[test]
fn every_generated_file_is_what_the_types_say() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (path, text) in tidings_crds::files() {
        let committed = std::fs::read_to_string(workspace.join(&path)).unwrap_or_default();
        let stale = committed != text;
        assert!(!stale, "{} is stale: cargo run -p tidings-crds --example generate", path.display());
    }
}

/// Every text and list below a schema that has no bound of its own, by path.
fn unbounded(schema: &Value, path: &str, found: &mut Vec<String>) {
    let is = |kind: &str| schema["type"] == kind;
    if is("string") && schema["maxLength"].is_null() && schema["enum"].is_null() {
        found.push(format!("{path}: text"));
    }
    if is("array") && schema["maxItems"].is_null() {
        found.push(format!("{path}: list"));
    }
    if !schema["additionalProperties"].is_null() && schema["maxProperties"].is_null() {
        found.push(format!("{path}: map"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        unbounded(property, &format!("{path}.{name}"), found);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            unbounded(&schema[below], &format!("{path}[]"), found);
        }
    }
}

#[test]
fn every_text_list_and_map_is_bounded() {
    for definition in tidings_crds::definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = Vec::new();
        for part in ["spec", "status"] {
            unbounded(&schema["properties"][part], part, &mut found);
        }
        assert_eq!(found, Vec::<String>::new(), "{}", definition["metadata"]["name"]);
    }
}

#[test]
fn kubectl_shows_the_columns_of_a_webhook() {
    let webhook = serde_json::to_value(&tidings_crds::definitions()[1]).unwrap();
    let columns = webhook["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
    let names: Vec<_> = columns.iter().map(|column| column["name"].as_str().unwrap()).collect();
    let expected = ["Ready", "Delivering", "Endpoint", "Delivered", "Pending", "Last-Success", "Age"];
    assert_eq!(names[..7], expected);
    assert_eq!(names[7..], ["Events", "Failed", "Dead", "Expired", "Last-Failure", "Reason"]);
}
