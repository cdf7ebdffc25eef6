//! Judges manifests offline by the very rules that the cluster has: the definitions' structural schemas
//! and CEL rules, and then what the operator itself checks.

mod schema;

use std::path::PathBuf;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;
use tidings_plan::ObjectName;

use crate::manifests::{self, FileFinding, Kind, Loaded};
use crate::{Finding, Reason, names, reconcile};

/// The schemas of our kinds, compiled.
pub struct Schemas {
    auth_server: Schema,
    webhook: Schema,
    validator: Validator,
}

struct Schema {
    structural: Value,
    rules: CompiledSchema,
}

/// What lint has to say.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What keeps an object from working.
    pub errors: Vec<FileFinding>,
    /// What is worth knowing.
    pub warnings: Vec<FileFinding>,
    /// How many objects of our kinds were read.
    pub objects: usize,
}

/// Judges all manifests below the paths.
pub fn lint(paths: &[PathBuf]) -> Report {
    judge(&manifests::load(paths))
}

/// Judges manifests that were read.
pub fn judge(loaded: &Loaded) -> Report {
    let mut report =
        Report { errors: loaded.findings.clone(), warnings: Vec::new(), objects: loaded.objects_read };
    for server in loaded.objects.auth_servers.keys() {
        report.server(loaded, server);
    }
    for (name, webhook) in &loaded.objects.webhooks {
        let server = names(webhook, name);
        if !loaded.objects.auth_servers.contains_key(&server) {
            let message =
                format!("AuthServer {server} is not among these manifests, so only the schema was judged");
            let finding = Finding::new(Reason::AuthServerNotFound, "spec.authServerRef", message);
            report.warnings.push(loaded.finding(Kind::Webhook, name, finding));
        }
    }
    report.sort();
    report
}

// === impl Schemas ===

impl Schemas {
    /// The schemas as the definitions have them.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "compiling is no default")]
    pub fn new() -> Self {
        let [auth_server, webhook, ..] = tidings_crds::definitions().map(|definition| {
            let definition = serde_json::to_value(definition).unwrap_or_default();
            let structural = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            Schema { rules: compile_schema(&structural), structural }
        });
        Self { auth_server, webhook, validator: Validator::new() }
    }

    /// What the API server would refuse about an object.
    pub fn judge(&self, kind: Kind, value: &Value) -> Vec<Finding> {
        let schema = match kind {
            Kind::AuthServer => &self.auth_server,
            Kind::Webhook => &self.webhook,
            Kind::Secret | Kind::Namespace | Kind::Service => return Vec::new(),
        };
        let findings = schema::judge(&schema.structural, value);
        if !findings.is_empty() {
            // Rules are written for objects of the right shape.
            return findings;
        }
        let broken = self.validator.validate_compiled(&schema.rules, value, None).err();
        broken
            .into_iter()
            .flatten()
            .map(|error| Finding::new(Reason::InvalidSchema, error.field_path, error.message))
            .collect()
    }
}

// === impl Report ===

impl Report {
    fn server(&mut self, loaded: &Loaded, server: &ObjectName) {
        let outcome = reconcile(&loaded.objects, server);
        let found = outcome.auth_server.into_iter();
        self.errors.extend(found.map(|finding| loaded.finding(Kind::AuthServer, server, finding)));
        for (name, judged) in outcome.webhooks {
            let errors = judged.accepted.err().into_iter().chain(judged.resolved_refs.err());
            self.errors.extend(errors.map(|finding| loaded.finding(Kind::Webhook, &name, finding)));
            let warnings = judged.warnings.into_iter();
            self.warnings.extend(warnings.map(|finding| loaded.finding(Kind::Webhook, &name, finding)));
        }
    }

    fn sort(&mut self) {
        let place = |found: &FileFinding| (found.file.clone(), found.line, found.finding.field.clone());
        self.errors.sort_by_key(place);
        self.warnings.sort_by_key(place);
    }
}
