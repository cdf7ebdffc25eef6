//! Reads manifests: files and folders of YAML or JSON, several documents a file.
//!
//! In: paths. Out: the objects that are in order, and for each the file and line where it stands; what is
//! not in order is a finding with file, line and field. A kind that is none of ours is passed over. It
//! must never take an object that the API server would refuse.

mod depth;
mod document;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Secret;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidings_crds::{AuthServer, Webhook, WebhookReplay};
use tidings_plan::{ObjectName, dns};

use crate::lint::Schemas;
use crate::reason::Place;
use crate::services::Service;
use crate::{Finding, Objects, Reason};
use document::Document;

/// What was read.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The objects that are in order.
    pub objects: Objects,
    /// The replays that are in order.
    pub replays: BTreeMap<ObjectName, WebhookReplay>,
    /// Where each Webhook, `AuthServer`, `WebhookReplay` and Secret stands.
    pub sources: BTreeMap<(Kind, ObjectName), Source>,
    /// What is not in order.
    pub findings: Vec<FileFinding>,
    /// How many objects of our kinds were read, in order or not.
    pub objects_read: usize,
}

/// The kinds that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An `AuthServer`.
    AuthServer,
    /// A Webhook.
    Webhook,
    /// A `WebhookReplay`.
    Replay,
    /// A Secret.
    Secret,
    /// A Namespace, for its labels.
    Namespace,
    /// A Service.
    Service,
}

/// Where an object stands.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// Its first line, from 1.
    pub line: usize,
    lines: BTreeMap<String, usize>,
}

/// A finding in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFinding {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The object, `Webhook shop/mail`; empty where it could not be read.
    pub object: String,
    /// What was found.
    pub finding: Finding,
}

/// Reads all manifests below the paths.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    let schemas = Schemas::new();
    for path in paths {
        match files(path) {
            Ok(files) => files.iter().for_each(|file| loaded.file(file, &schemas)),
            Err(error) => {
                loaded.unreadable(path, 1, format!("{error}: name a file or a folder that can be read"));
            }
        }
    }
    loaded
}

/// Reads the manifests in a text; findings say that it stands in `file`.
pub fn read(text: &str, file: &Path, schemas: &Schemas) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.text(text, file, schemas);
    loaded
}

/// The manifests' files below a path, by name; a file that is named itself is read whatever its ending.
pub fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut entries =
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    for entry in entries {
        let ending = entry.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if entry.is_dir() {
            let is_hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !is_hidden && entry.file_name().is_none_or(|name| name != "node_modules") {
                found.extend(files(&entry)?);
            }
        } else if matches!(ending, "yaml" | "yml") {
            found.push(entry);
        }
    }
    Ok(found)
}

// === impl Kind ===

impl Kind {
    /// The word in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthServer => "AuthServer",
            Self::Webhook => "Webhook",
            Self::Replay => "WebhookReplay",
            Self::Secret => "Secret",
            Self::Namespace => "Namespace",
            Self::Service => "Service",
        }
    }

    fn of(value: &Value) -> Option<Self> {
        match (value["apiVersion"].as_str()?, value["kind"].as_str()?) {
            ("tidings.dev/v1alpha1", "Webhook") => Some(Self::Webhook),
            ("tidings.dev/v1alpha1", "WebhookReplay") => Some(Self::Replay),
            ("tidings.dev/v1alpha1", "AuthServer") => Some(Self::AuthServer),
            ("v1", "Secret") => Some(Self::Secret),
            ("v1", "Namespace") => Some(Self::Namespace),
            ("v1", "Service") => Some(Self::Service),
            _ => None,
        }
    }
}

// === impl Source ===

impl Source {
    /// The line of a field, or of the nearest one around it that is written.
    pub fn line_of(&self, field: &str) -> usize {
        let mut path = field;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.line,
            }
        }
    }
}

// === impl Loaded ===

impl Loaded {
    /// Adds a finding about an object, with its file and line.
    pub fn finding(&self, kind: Kind, name: &ObjectName, finding: Finding) -> FileFinding {
        debug_assert!(finding.reason.stands_in(Place::Lint), "say in reason.rs: {}", finding.reason);
        let object = format!("{} {name}", kind.as_str());
        match self.sources.get(&(kind, name.clone())) {
            Some(source) => FileFinding {
                file: source.file.clone(),
                line: source.line_of(&finding.field),
                object,
                finding,
            },
            None => FileFinding { file: PathBuf::new(), line: 0, object, finding },
        }
    }

    fn unreadable(&mut self, file: &Path, line: usize, message: String) {
        let finding = Finding::new(Reason::InvalidManifest, "", message);
        self.findings.push(FileFinding { file: file.to_owned(), line, object: String::new(), finding });
    }

    fn file(&mut self, file: &Path, schemas: &Schemas) {
        match std::fs::read_to_string(file) {
            Ok(text) => self.text(&text, file, schemas),
            Err(error) => self.unreadable(file, 1, error.to_string()),
        }
    }

    fn text(&mut self, text: &str, file: &Path, schemas: &Schemas) {
        match document::documents(text) {
            Ok(documents) => {
                for document in documents {
                    self.document(file, document, schemas);
                }
            }
            Err((line, message)) => self.unreadable(file, line, message),
        }
    }

    fn document(&mut self, file: &Path, document: Document, schemas: &Schemas) {
        if document.value["kind"] == "List" {
            return document.items().for_each(|item| self.document(file, item, schemas));
        }
        let Some(kind) = Kind::of(&document.value) else { return self.other(file, &document) };
        let Document { value, line, lines } = document;
        let source = Source { file: file.to_owned(), line, lines };
        let metadata = &value["metadata"];
        let namespace = metadata["namespace"].as_str().unwrap_or("default");
        let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) else {
            let message = format!("the {} has no metadata.name", kind.as_str());
            return self.unreadable(file, source.line_of("metadata"), message);
        };
        let is_placed = kind == Kind::Namespace || dns::is_label(namespace);
        if !(is_placed && dns::is_object_name(name)) {
            let message = "metadata.name and metadata.namespace are not names that Kubernetes takes: write lower-case letters, digits and dashes";
            return self.unreadable(file, source.line_of("metadata"), message.to_owned());
        }
        self.objects_read += 1;
        let name = ObjectName::new(if kind == Kind::Namespace { "" } else { namespace }, name);
        let duplicate = self.sources.get(&(kind, name.clone())).map(|first| (first.file.clone(), first.line));
        self.sources.insert((kind, name.clone()), source);
        if let Some((first, line)) = duplicate {
            let message = format!("this object stands in {}:{line} too: keep one", first.display());
            let finding = Finding::new(Reason::DuplicateObject, "metadata.name", message);
            self.findings.push(self.finding(kind, &name, finding));
        }
        let findings = schemas.judge(kind, &value);
        if findings.is_empty() {
            self.take(kind, &name, value);
            return;
        }
        let findings: Vec<_> =
            findings.into_iter().map(|finding| self.finding(kind, &name, finding)).collect();
        self.findings.extend(findings);
    }

    /// A kind of our group that we do not have is a mistake; any other is somebody else's.
    fn other(&mut self, file: &Path, document: &Document) {
        let (version, kind) = (document.value["apiVersion"].as_str(), document.value["kind"].as_str());
        if let (Some(version), Some(kind)) = (version, kind) {
            if version.starts_with("tidings.dev/") {
                let message = format!(
                    "there is no {version} {kind}: write apiVersion: tidings.dev/v1alpha1 and kind: Webhook, AuthServer or WebhookReplay"
                );
                self.unreadable(file, document.line, message);
            }
        } else if !document.value.is_null() {
            self.unreadable(
                file,
                document.line,
                "this is no Kubernetes object: it has no apiVersion and kind".to_owned(),
            );
        }
    }

    fn take(&mut self, kind: Kind, name: &ObjectName, value: Value) {
        let objects = &mut self.objects;
        let taken =
            match kind {
                Kind::Webhook => typed::<Webhook>(value)
                    .map(|webhook| drop(objects.webhooks.insert(name.clone(), webhook))),
                Kind::Replay => typed::<WebhookReplay>(value)
                    .map(|replay| drop(self.replays.insert(name.clone(), replay))),
                Kind::AuthServer => typed::<AuthServer>(value)
                    .map(|server| drop(objects.auth_servers.insert(name.clone(), server))),
                Kind::Secret => typed::<Secret>(value).map(|secret| objects.add_secret(name.clone(), secret)),
                Kind::Service => typed::<k8s_openapi::api::core::v1::Service>(value).map(|service| {
                    objects.services.put(name, Service::from(&service));
                }),
                Kind::Namespace => {
                    let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
                    let labels = labels
                        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
                    objects.namespaces.insert(name.name.clone(), labels.collect());
                    Ok(())
                }
            };
        if let Err((field, message)) = taken {
            let finding = self.finding(kind, name, Finding::new(Reason::InvalidSchema, field, message));
            self.findings.push(finding);
        }
    }
}

/// An error names the field and what is expected there, and quotes nothing: the object could be a Secret.
fn typed<T: DeserializeOwned>(value: Value) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (field, text) = (error.path().to_string(), error.inner().to_string());
        let expected =
            text.split_once(", expected ").map(|(_, expected)| format!("{expected} is expected here"));
        let missing = text.strip_prefix("missing field").map(|name| format!("there is no field{name}"));
        (field, expected.or(missing).unwrap_or_else(|| "this value cannot be read".to_owned()))
    })
}
