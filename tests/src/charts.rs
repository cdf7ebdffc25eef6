//! The charts as a user's helm sees them, and the tools that judge what they render.
//!
//! In: values. Out: what helm says, or the rendered objects. The tools are built by `tests/tools/build`, once.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::process::in_workspace;
use crate::values;

/// The namespace that the README installs into.
pub const SYSTEM: &str = "tidings-system";

/// How a program ended.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended well.
    pub worked: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A tool by its name: helm, kubeconform, rules; or `monitoring`, the Prometheus Operator's definitions.
pub fn tool(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let built = run(&mut Command::new(in_workspace("tests/tools/build")), "");
        assert!(built.worked, "tests/tools/build: {}", built.err);
        PathBuf::from(built.out.trim())
    });
    folder.join(name)
}

/// Runs a program with this text as its standard input.
pub fn run(command: &mut Command, input: &str) -> Said {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // A program that ends early reads no more.
    let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { worked: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs helm in the workspace.
pub fn helm(arguments: &[&str]) -> Said {
    run(Command::new(tool("helm")).current_dir(in_workspace("")).args(arguments), "")
}

/// Runs helm, which must work; what it prints.
pub fn helm_works(arguments: &[&str]) -> String {
    let said = helm(arguments);
    assert!(said.worked, "helm {arguments:?}: {}", said.err);
    said.out
}

/// What the chart `tidings` renders with these arguments, as text.
pub fn template(arguments: &[&str]) -> String {
    let chart = ["template", "tidings", "charts/tidings", "--namespace", SYSTEM];
    helm_works(&[&chart, arguments].concat())
}

/// The chart's README, and what it is with the values of today.
pub fn readme() -> (PathBuf, String) {
    let path = in_workspace("charts/tidings/README.md");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let chart = read(&in_workspace("charts/tidings/values.yaml"));
    let sidecar = read(&in_workspace("charts/tidings/charts/tidings-sidecar/values.yaml"));
    let text = values::readme(&read(&path), &[("", &chart), ("sidecar.", &sidecar)]);
    (path, text)
}

/// The objects of a file of manifests.
pub fn objects(manifests: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
    documents.into_iter().filter(|object| !object.is_null()).collect()
}

/// The example values, by path from the workspace.
pub fn examples() -> Vec<String> {
    let mut files = files_below("charts/tidings/examples");
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| file.to_str().unwrap().to_owned()).collect()
}

/// Every file below a folder of the workspace.
pub fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&in_workspace(folder), &mut found);
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}
