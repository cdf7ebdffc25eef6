//! The table of a chart's values, made of the comments in its values.yaml.
//!
//! In: the text of a values.yaml, whose comments stand above what they speak of. Out: a table in Markdown, and
//! the values of which nothing is said. Nothing is said twice: the README's table is this one.

use std::collections::BTreeMap;

use serde_json::Value;

/// Where the table stands in a README.
const MARKS: (&str, &str) = ("<!-- values.yaml, rendered -->\n", "<!-- the end of values.yaml -->\n");

/// A value, and what is said of it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    path: String,
    /// None for a group, whose values follow.
    default: Option<String>,
    comment: String,
}

/// A README with the table of these values between its marks.
pub fn readme(readme: &str, values: &[(&str, &str)]) -> String {
    let (before, rest) = readme.split_once(MARKS.0).expect("the README has no place for the values");
    let (_, after) = rest.split_once(MARKS.1).expect("the README's place for the values has no end");
    let rows = values.iter().flat_map(|(prefix, text)| rows(prefix, text)).map(|row| line(&row));
    let table = format!("\n| value | default | what it is |\n|---|---|---|\n{}\n", rows.collect::<String>());
    [before, MARKS.0, &table, MARKS.1, after].concat()
}

/// The values of which nothing is said, neither of them nor of the map that they are in as a whole.
pub fn unexplained(text: &str) -> Vec<String> {
    let said = rows("", text).into_iter().filter(|row| row.default.is_some());
    let said = said.map(|row| row.path).collect::<Vec<_>>();
    let parsed: Value = serde_saphyr::from_str(text).unwrap();
    let mut leaves = Vec::new();
    collect_leaves(&parsed, "", &mut leaves);
    leaves.retain(|leaf| !said.iter().any(|path| leaf == path || leaf.starts_with(&format!("{path}."))));
    leaves
}

fn line(row: &Row) -> String {
    let comment = row.comment.replace('|', "\\|");
    match &row.default {
        Some(default) => format!("| `{}` | `{}` | {comment} |\n", row.path, default.replace('|', "\\|")),
        None => format!("| **`{}`** | | {comment} |\n", row.path),
    }
}

/// What is said, in the order of the file; a group of which nothing is said is left out.
fn rows(prefix: &str, text: &str) -> Vec<Row> {
    let parsed: Value = serde_saphyr::from_str(text).unwrap();
    let comments = comments(text);
    let below = |path: &str| comments.iter().any(|(other, _)| other.starts_with(&format!("{path}.")));
    let row = |(path, comment): &(String, String)| {
        let value = path.split('.').fold(&parsed, |value, key| &value[key]);
        let is_group = value.is_object() && below(path);
        let default = (!is_group).then(|| value.to_string());
        Row { path: [prefix, path].concat(), default, comment: comment.clone() }
    };
    comments.iter().map(row).collect()
}

/// Each key's path, and the comment that stands right above it.
fn comments(text: &str) -> Vec<(String, String)> {
    let (mut found, mut keys, mut comment) = (Vec::new(), BTreeMap::<usize, String>::new(), Vec::new());
    for line in text.lines() {
        let told = line.trim_start();
        let indent = line.len() - told.len();
        if let Some(words) = told.strip_prefix('#') {
            comment.push(words.trim().to_owned());
            continue;
        }
        if let Some((key, _)) = told.split_once(':').filter(|_| !told.starts_with('-')) {
            keys.split_off(&indent);
            keys.insert(indent, key.to_owned());
            if !comment.is_empty() {
                let path = keys.values().cloned().collect::<Vec<_>>().join(".");
                found.push((path, comment.join(" ")));
            }
        }
        comment.clear();
    }
    found
}

fn collect_leaves(value: &Value, path: &str, leaves: &mut Vec<String>) {
    let entries = value.as_object().filter(|entries| !entries.is_empty());
    let Some(entries) = entries else { return leaves.push(path.to_owned()) };
    for (key, value) in entries {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        collect_leaves(value, &path, leaves);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# The head.\n\n# A group.\na:\n  # One\n  # thing.\n  b: x\n  c: 1\n# A map.\nd:\n  e: {f: 2}\ng: 3\n";

    #[test]
    fn a_comment_belongs_to_the_key_below_it() {
        let expected = [
            ("a", None, "A group."),
            ("a.b", Some("\"x\""), "One thing."),
            ("d", Some(r#"{"e":{"f":2}}"#), "A map."),
        ];
        let expected = expected.map(|(path, default, comment)| Row {
            path: path.to_owned(),
            default: default.map(str::to_owned),
            comment: comment.to_owned(),
        });
        assert_eq!(rows("", TEXT), expected);
    }

    #[test]
    fn a_value_of_which_nothing_is_said_is_found() {
        assert_eq!(unexplained("# A.\na:\n  # One.\n  b: 1\n  c: 2\n# D.\nd: {e: 1}\nf: 3\n"), ["a.c", "f"]);
    }

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let before = format!("head\n{}old\n{}tail\n", MARKS.0, MARKS.1);
        let after = readme(&before, &[("", "# One.\na: 1\n")]);
        assert!(
            after.starts_with("head\n")
                && after.ends_with("tail\n")
                && after.contains("| `a` | `1` | One. |")
        );
        assert_eq!(readme(&after, &[("", "# One.\na: 1\n")]), after);
    }
}
