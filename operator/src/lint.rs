//! Judges manifests offline by the very rules that the cluster has: the definitions' structural schemas
//! and CEL rules, and then what the operator itself checks.

mod schema;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;
use tidings_crds::{Webhook, WebhookReplay};
use tidings_plan::{ObjectName, SecretText};

use crate::manifests::{self, FileFinding, Kind, Loaded};
use crate::objects::Texts;
use crate::world::{webhook_of_replay, window_of_replay};
use crate::{Finding, Judged, Reason, judge_webhook_alone, names, reconcile, resolve};

/// Stands for a text of a Secret that is not at hand: it is in order as a key, a header and a certificate.
const ASSUMED: &str = "a-text-that-is-not-at-hand-while-manifests-are-validated";

/// The schemas of our kinds, compiled.
pub struct Schemas {
    auth_server: Schema,
    webhook: Schema,
    replay: Schema,
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

/// Takes it that every Secret that is referred to, and is not among the manifests, is in the cluster with the
/// keys that are referred to: Secrets often do not stand in Git.
pub fn assume_secrets(loaded: &mut Loaded) {
    let objects = &mut loaded.objects;
    let servers =
        objects.auth_servers.iter().map(|(name, server)| (name, resolve::secrets_of_server(&server.spec)));
    let webhooks = objects.webhooks.iter().map(|(name, webhook)| (name, resolve::secrets_of(&webhook.spec)));
    let mut assumed = BTreeMap::<ObjectName, Texts>::new();
    for (user, keys) in servers.chain(webhooks) {
        for (secret, keys) in keys {
            let texts = keys.into_iter().map(|key| (key.to_owned(), SecretText::new(ASSUMED).into()));
            assumed.entry(ObjectName::new(&user.namespace, secret)).or_default().extend(texts);
        }
    }
    for (name, texts) in assumed {
        objects.secrets.entry(name).or_insert(texts);
    }
}

/// Judges manifests that were read.
pub fn judge(loaded: &Loaded) -> Report {
    let mut report =
        Report { errors: loaded.findings.clone(), warnings: Vec::new(), objects: loaded.objects_read };
    for server in loaded.objects.auth_servers.keys() {
        report.server(loaded, server);
    }
    for (name, webhook) in &loaded.objects.webhooks {
        if !loaded.objects.auth_servers.contains_key(&names(webhook, name)) {
            report.webhook_alone(loaded, name, webhook);
        }
    }
    for (name, replay) in &loaded.replays {
        report.replay(loaded, name, replay);
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
        let [auth_server, webhook, _report, replay] = tidings_crds::definitions().map(|definition| {
            let definition = serde_json::to_value(definition).unwrap_or_default();
            let structural = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            Schema { rules: compile_schema(&structural), structural }
        });
        Self { auth_server, webhook, replay, validator: Validator::new() }
    }

    /// What the API server would refuse about an object.
    pub fn judge(&self, kind: Kind, value: &Value) -> Vec<Finding> {
        let schema = match kind {
            Kind::AuthServer => &self.auth_server,
            Kind::Webhook => &self.webhook,
            Kind::Replay => &self.replay,
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
            self.judged(loaded, &name, judged);
        }
    }

    fn webhook_alone(&mut self, loaded: &Loaded, name: &ObjectName, webhook: &Webhook) {
        let server = names(webhook, name);
        let message = format!(
            "AuthServer {server} is not among these manifests: which namespaces, addresses and sizes it allows was not validated"
        );
        let finding = Finding::new(Reason::AuthServerNotFound, "spec.authServerRef", message);
        self.warnings.push(loaded.finding(Kind::Webhook, name, finding));
        self.judged(loaded, name, judge_webhook_alone(&loaded.objects, name, webhook));
    }

    fn judged(&mut self, loaded: &Loaded, name: &ObjectName, judged: Judged) {
        let Judged { accepted, resolved_refs, warnings, endpoint_host: _ } = judged;
        let errors = accepted.err().into_iter().chain(resolved_refs.err());
        self.errors.extend(errors.map(|finding| loaded.finding(Kind::Webhook, name, finding)));
        let warnings = warnings.into_iter();
        self.warnings.extend(warnings.map(|finding| loaded.finding(Kind::Webhook, name, finding)));
    }

    fn replay(&mut self, loaded: &Loaded, name: &ObjectName, replay: &WebhookReplay) {
        if let Err(finding) = window_of_replay(replay) {
            self.errors.push(loaded.finding(Kind::Replay, name, finding));
        }
        let webhook = webhook_of_replay(name, replay);
        if !loaded.objects.webhooks.contains_key(&webhook) {
            let message = format!("Webhook {webhook} is not among these manifests");
            let finding = Finding::new(Reason::WebhookNotFound, "spec.webhookRef", message);
            self.warnings.push(loaded.finding(Kind::Replay, name, finding));
        }
    }

    fn sort(&mut self) {
        let place = |found: &FileFinding| (found.file.clone(), found.line, found.finding.field.clone());
        self.errors.sort_by_key(place);
        self.warnings.sort_by_key(place);
    }
}
