//! Judges a value by a structural schema, as the API server does with strict field validation.

use regex::Regex;
use serde_json::{Map, Value};

use crate::{Finding, Reason};

/// Everything in which the value does not fit, by field.
pub(super) fn judge(schema: &Value, value: &Value) -> Vec<Finding> {
    let mut walk = Walk { findings: Vec::new() };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        // The rest of an object's head is the API server's own.
        match value.get(name) {
            Some(value) if name != "status" => walk.value(property, value, name),
            None if name == "spec" => walk.find("", "there is no spec"),
            _ => {}
        }
    }
    walk.findings
}

struct Walk {
    findings: Vec<Finding>,
}

// === impl Walk ===

impl Walk {
    fn find(&mut self, path: &str, message: impl Into<String>) {
        self.findings.push(Finding::new(Reason::InvalidSchema, path, message));
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if value.is_null() && schema["nullable"] == true {
            return;
        }
        let wanted = schema["type"].as_str().unwrap_or_default();
        match (wanted, value) {
            ("object", Value::Object(entries)) => self.object(schema, entries, path),
            ("array", Value::Array(items)) => self.array(schema, items, path),
            ("string", Value::String(text)) => self.text(schema, text, path),
            ("integer", Value::Number(number)) if number.is_i64() || number.is_u64() => {
                self.number(schema, number.as_f64().unwrap_or_default(), path);
            }
            ("number", Value::Number(number)) => {
                self.number(schema, number.as_f64().unwrap_or_default(), path);
            }
            ("boolean", Value::Bool(_)) | ("", _) => {}
            _ => self.find(path, format!("{} is expected here, not {}", article(wanted), kind_of(value))),
        }
    }

    fn object(&mut self, schema: &Value, entries: &Map<String, Value>, path: &str) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !entries.contains_key(name) {
                self.find(&join(path, name), format!("{name} is required"));
            }
        }
        self.at_most(schema, "maxProperties", entries.len(), path, "entries");
        for (name, value) in entries {
            let below = join(path, name);
            if let Some(property) = schema["properties"].get(name) {
                self.value(property, value, &below);
            } else if schema["additionalProperties"].is_object() {
                self.value(&schema["additionalProperties"], value, &below);
            } else {
                let known =
                    schema["properties"].as_object().map(|known| known.keys().cloned().collect::<Vec<_>>());
                let known = known.unwrap_or_default().join(", ");
                self.find(&below, format!("there is no field {name:?}; there are {known}"));
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], path: &str) {
        self.at_most(schema, "maxItems", items.len(), path, "entries");
        self.at_least(schema, "minItems", items.len(), path, "entries");
        for (at, item) in items.iter().enumerate() {
            self.value(&schema["items"], item, &format!("{path}[{at}]"));
        }
        for key in
            schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            for (at, item) in items.iter().enumerate() {
                if items[..at].iter().any(|other| other[key] == item[key]) {
                    self.find(&format!("{path}[{at}].{key}"), "another entry has this already");
                }
            }
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        self.at_most(schema, "maxLength", text.chars().count(), path, "characters");
        self.at_least(schema, "minLength", text.chars().count(), path, "characters");
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.iter().any(|value| value == text)
        {
            let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
            self.find(path, format!("{text:?} is none of {}", allowed.join(", ")));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
        {
            self.find(path, format!("{text:?} does not fit the pattern {pattern}"));
        }
    }

    fn number(&mut self, schema: &Value, number: f64, path: &str) {
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            self.find(path, format!("{number} is more than {most}"));
        }
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            self.find(path, format!("{number} is less than {least}"));
        }
    }

    fn at_most(&mut self, schema: &Value, bound: &str, count: usize, path: &str, unit: &str) {
        if let Some(most) = schema[bound].as_u64().filter(|most| count as u64 > *most) {
            self.find(path, format!("{count} {unit} are more than {most}"));
        }
    }

    fn at_least(&mut self, schema: &Value, bound: &str, count: usize, path: &str, unit: &str) {
        if let Some(least) = schema[bound].as_u64().filter(|least| (count as u64) < *least) {
            self.find(path, format!("at least {least} {unit} are needed"));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn article(wanted: &str) -> &str {
    match wanted {
        "object" => "an object",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "true or false",
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
