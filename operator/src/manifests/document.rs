//! One YAML document as JSON, with the line of each field.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, YamlData};
use saphyr_parser::ScanError;
use serde_json::{Map, Value};

use super::depth::{MAX_DEPTH, too_deep};

/// A document.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// What it says.
    pub(super) value: Value,
    /// Its first line, from 1.
    pub(super) line: usize,
    /// The line of each field, by path: `spec.events[0]`.
    pub(super) lines: BTreeMap<String, usize>,
}

/// What is read of one document.
struct Reader {
    /// The text's last line. What is empty at a text's end has its place one line further.
    last: usize,
    lines: BTreeMap<String, usize>,
}

/// The documents of a text; where it is no YAML, the line and what is wrong.
pub(super) fn documents(text: &str) -> Result<Vec<Document>, (usize, String)> {
    let last = text.lines().count().max(1);
    let no_yaml = |error: ScanError| {
        (error.marker().line().clamp(1, last), format!("this is no YAML: {}", error.info()))
    };
    if let Some(line) = too_deep(text).map_err(no_yaml)? {
        return Err((line, format!("this is nested more than {MAX_DEPTH} levels deep, as no manifest is")));
    }
    let nodes = MarkedYaml::load_from_str(text).map_err(no_yaml)?;
    nodes.iter().map(|node| Reader { last, lines: BTreeMap::new() }.document(node)).collect()
}

// === impl Reader ===

impl Reader {
    fn document(mut self, node: &MarkedYaml<'_>) -> Result<Document, (usize, String)> {
        let value = self.value(node, "")?;
        Ok(Document { value, line: self.line(node), lines: self.lines })
    }

    fn line(&self, node: &MarkedYaml<'_>) -> usize {
        node.span.start.line().clamp(1, self.last)
    }

    fn value(&mut self, node: &MarkedYaml<'_>, path: &str) -> Result<Value, (usize, String)> {
        let line = self.line(node);
        self.lines.entry(path.to_owned()).or_insert(line);
        match &node.data {
            YamlData::Value(scalar) => Ok(scalar_of(scalar)),
            YamlData::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(at, item)| self.value(item, &format!("{path}[{at}]")))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            YamlData::Mapping(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let Some(name) = key.data.as_str() else {
                        return Err((self.line(key), "a key is not a text: put it in quotes".to_owned()));
                    };
                    let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                    self.lines.insert(path.clone(), self.line(key));
                    map.insert(name.to_owned(), self.value(value, &path)?);
                }
                Ok(Value::Object(map))
            }
            YamlData::Tagged(_, node) => self.value(node, path),
            YamlData::Alias(_) | YamlData::BadValue | YamlData::Representation(..) => {
                Err((line, "this value cannot be read: write it without anchors and tags".to_owned()))
            }
        }
    }
}

fn scalar_of(scalar: &Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(*value),
        Scalar::Integer(value) => Value::from(*value),
        Scalar::FloatingPoint(value) => Value::from(value.into_inner()),
        Scalar::String(text) => Value::from(text.as_ref()),
    }
}

// === impl Document ===

impl Document {
    /// The items of a List, each a document of its own.
    pub(super) fn items(self) -> impl Iterator<Item = Self> {
        let Self { mut value, line, lines } = self;
        let items = match value["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        items.into_iter().enumerate().map(move |(at, value)| {
            let prefix = format!("items[{at}]");
            let below = lines.iter().filter_map(|(path, line)| {
                let rest = path.strip_prefix(&prefix)?;
                Some((rest.strip_prefix('.').unwrap_or(rest).to_owned(), *line))
            });
            Self { value, line: lines.get(&prefix).copied().unwrap_or(line), lines: below.collect() }
        })
    }
}
