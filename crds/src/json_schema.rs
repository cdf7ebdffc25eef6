//! A definition's schema as JSON Schema, for editors and `kubeconform`.
//!
//! In: the `OpenAPI` schema of the definition. Out: the same in JSON Schema's words: what Kubernetes prunes is
//! refused, since a field that is dropped in silence is a mistake of its writer. CEL rules have no counterpart
//! and are left to the API server and `tidings lint`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

/// The file's text.
pub(crate) fn text(definition: &CustomResourceDefinition) -> String {
    let schema = schema(definition);
    // A value of JSON is always written.
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

fn schema(definition: &CustomResourceDefinition) -> Value {
    let spec = &definition.spec;
    let open_api = spec.versions.first().and_then(|version| version.schema.as_ref());
    let open_api = open_api.map(|schema| serde_json::to_value(&schema.open_api_v3_schema));
    let mut schema = convert(&open_api.and_then(Result::ok).unwrap_or_default());
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!(spec.names.kind);
    let api_version = format!("{}/{}", spec.group, crate::VERSION);
    schema["properties"]["apiVersion"] = json!({"type": "string", "enum": [api_version]});
    schema["properties"]["kind"] = json!({"type": "string", "enum": [spec.names.kind]});
    schema["properties"]["metadata"] = json!({"type": "object"});
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let own = ["apiVersion", "kind", "metadata"].map(Value::from);
    schema["required"] = own.into_iter().chain(required).collect();
    schema
}

fn convert(open_api: &Value) -> Value {
    match open_api {
        Value::Object(entries) => convert_object(entries),
        Value::Array(items) => items.iter().map(convert).collect(),
        other => other.clone(),
    }
}

fn convert_object(entries: &Map<String, Value>) -> Value {
    let own = |name: &str| name == "nullable" || name.starts_with("x-kubernetes-");
    let kept = entries.iter().filter(|(name, _)| !own(name));
    let mut schema: Map<_, _> =
        kept.map(|(name, value)| (name.clone(), convert_entry(name, value))).collect();
    if entries.get("nullable") == Some(&Value::Bool(true)) {
        permit_null(&mut schema);
    }
    if entries.contains_key("properties") {
        schema.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    Value::Object(schema)
}

/// The names below `properties` are a user's, whatever they are; defaults and enumerations are values.
fn convert_entry(name: &str, value: &Value) -> Value {
    match (name, value) {
        ("properties", Value::Object(properties)) => {
            properties.iter().map(|(name, property)| (name.clone(), convert(property))).collect()
        }
        ("default" | "enum" | "required", _) => value.clone(),
        _ => convert(value),
    }
}

fn permit_null(schema: &mut Map<String, Value>) {
    if let Some(kind) = schema.get("type").filter(|kind| kind.is_string()).cloned() {
        schema.insert("type".to_owned(), json!([kind, "null"]));
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_refused_and_what_may_be_null_may_be() {
        let open_api = json!({
            "type": "object",
            "properties": {"nullable": {"type": "string", "enum": ["a"], "nullable": true}},
            "x-kubernetes-validations": [{"rule": "true"}],
        });
        let expected = json!({
            "type": "object",
            "properties": {"nullable": {"type": ["string", "null"], "enum": ["a", null]}},
            "additionalProperties": false,
        });
        assert_eq!(convert(&open_api), expected);
    }

    #[test]
    fn a_map_keeps_what_its_values_must_be() {
        let open_api = json!({"type": "object", "additionalProperties": {"type": "string"}});
        assert_eq!(convert(&open_api), open_api);
    }
}
