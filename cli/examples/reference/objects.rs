//! The definitions: kubectl's columns, and the fields of spec and status.

use serde_json::Value;

use crate::table::{code, prose, table};

/// The columns of all kinds.
pub(crate) fn columns(definitions: &[Value]) -> String {
    let one = |definition: &Value| {
        let columns = list(&definition["spec"]["versions"][0]["additionalPrinterColumns"]);
        let rows = columns.map(|column| {
            let wide = column["priority"].as_i64().unwrap_or_default() > 0;
            let path = text(&column["jsonPath"]);
            let only = if wide { "`-o wide`" } else { "" };
            [
                text(&column["name"]).to_owned(),
                prose(text(&column["description"])),
                code(path),
                only.to_owned(),
            ]
        });
        format!(
            "### Columns of {}\n\n{}",
            kind(definition),
            table(["column", "what it shows", "from", "only with"], rows)
        )
    };
    format!("## Columns\n\n{}", definitions.iter().map(one).collect::<Vec<_>>().join("\n"))
}

/// The fields of all kinds, with the rules over them.
pub(crate) fn fields(definitions: &[Value]) -> String {
    let one = |definition: &Value| {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = Found::default();
        for part in ["spec", "status"] {
            found.walk(part, &schema["properties"][part], true);
        }
        let head = ["field", "type", "bounds", "default", "what it is"];
        let rules = if found.rules.is_empty() {
            String::new()
        } else {
            format!("\nRules:\n\n{}", table(["at", "what must hold"], found.rules))
        };
        format!(
            "### Fields of {}\n\n{}\n\n{}{rules}",
            kind(definition),
            prose(text(&schema["description"])),
            table(head, found.rows)
        )
    };
    format!(
        "## Fields\n\nA `required` field must be written where what holds it is written. `kubectl explain` shows the same words.\n\n{}",
        definitions.iter().map(one).collect::<Vec<_>>().join("\n")
    )
}

/// What a walk through a schema found.
#[derive(Default)]
struct Found {
    rows: Vec<[String; 5]>,
    rules: Vec<[String; 2]>,
}

impl Found {
    fn walk(&mut self, path: &str, schema: &Value, required: bool) {
        for rule in list(&schema["x-kubernetes-validations"]) {
            self.rules.push([code(path), text(&rule["message"]).to_owned()]);
        }
        if path.contains('.') {
            self.rows.push(row(path, schema, required));
        }
        let below = if schema["items"]["properties"].is_object() { &schema["items"] } else { schema };
        let path = if below == schema { path.to_owned() } else { format!("{path}[]") };
        if below != schema {
            for rule in list(&below["x-kubernetes-validations"]) {
                self.rules.push([code(&path), text(&rule["message"]).to_owned()]);
            }
        }
        for (name, field) in below["properties"].as_object().into_iter().flatten() {
            let required = list(&below["required"]).any(|one| one == name);
            self.walk(&format!("{path}.{name}"), field, required);
        }
    }
}

fn row(path: &str, schema: &Value, required: bool) -> [String; 5] {
    let default =
        if schema["default"].is_null() { String::new() } else { code(&schema["default"].to_string()) };
    let is_required = required && path.starts_with("spec");
    let bounds = is_required.then(|| "required".to_owned()).into_iter().chain(bounds(schema));
    let description = prose(text(&schema["description"]));
    [code(path), type_of(schema), bounds.collect::<Vec<_>>().join("; "), default, description]
}

fn type_of(schema: &Value) -> String {
    match (text(&schema["type"]), text(&schema["format"])) {
        ("array", _) => format!("list of {}", type_of(&schema["items"])),
        ("object", _) if schema["additionalProperties"].is_object() => "map".to_owned(),
        ("string", "date-time") => "time".to_owned(),
        ("string", _) if schema["enum"].is_array() => "word".to_owned(),
        ("string", _) => "text".to_owned(),
        (kind, _) => kind.to_owned(),
    }
}

/// What a value must fit, of a list its items included.
fn bounds(schema: &Value) -> Vec<String> {
    let mut all = Vec::new();
    if let (Some(first), Some(last)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) {
        all.push(format!("{first} to {last}"));
    }
    for (least, most, unit) in [("minItems", "maxItems", "entries"), ("minLength", "maxLength", "characters")]
    {
        match (schema[least].as_u64().filter(|least| *least > 0), schema[most].as_u64()) {
            (Some(least), Some(most)) => all.push(format!("{least} to {most} {unit}")),
            (None, Some(most)) => all.push(format!("at most {most} {unit}")),
            _ => {}
        }
    }
    all.extend(schema["maxProperties"].as_u64().map(|most| format!("at most {most} entries")));
    let words: Vec<_> = list(&schema["enum"]).map(text).filter(|word| !word.is_empty()).collect();
    if !words.is_empty() {
        all.push(words.join(", "));
    }
    all.extend(schema["pattern"].as_str().map(code));
    if schema["items"].is_object() && !schema["items"]["properties"].is_object() {
        all.extend(bounds(&schema["items"]).into_iter().map(|each| format!("each {each}")));
    }
    all
}

fn kind(definition: &Value) -> &str {
    text(&definition["spec"]["names"]["kind"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
