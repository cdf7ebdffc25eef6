//! The manifests that are run, followed as their files change.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tidings_crds::Webhook;
use tidings_operator::manifests::{self, FileFinding, Kind, Loaded};
use tidings_operator::{Outcome, names, reconcile};
use tidings_plan::{ObjectName, Plan};

use super::DevError;

/// Manifests, judged.
pub(super) struct Manifests {
    paths: Vec<PathBuf>,
    auth_server: ObjectName,
    stamp: Vec<Stamp>,
    loaded: Loaded,
    outcome: Outcome,
    findings: Vec<FileFinding>,
}

/// By which a file's change is seen.
type Stamp = (PathBuf, Option<SystemTime>, u64);

// === impl Manifests ===

impl Manifests {
    /// Reads and judges them; an error where there is no plan to begin with.
    pub(super) fn load(paths: Vec<PathBuf>, auth_server: Option<ObjectName>) -> Result<Self, DevError> {
        let stamp = stamp(&paths);
        let loaded = read(&paths);
        let auth_server = choose(&loaded, auth_server)?;
        let mut manifests =
            Self { paths, auth_server, stamp, loaded, outcome: Outcome::default(), findings: Vec::new() };
        manifests.judge();
        if manifests.outcome.plan.is_some() {
            return Ok(manifests);
        }
        let lines: Vec<_> = manifests.findings.iter().map(crate::lint::line).collect();
        Err(DevError::Manifests(format!(
            "AuthServer {} cannot be used:\n{}",
            manifests.auth_server,
            lines.join("\n")
        )))
    }

    /// Reads them again when a file changed; true when it did.
    pub(super) fn reload(&mut self) -> bool {
        let stamp = stamp(&self.paths);
        if stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        self.loaded = read(&self.paths);
        self.judge();
        true
    }

    /// The plan; `None` while the `AuthServer` cannot be used: the one before runs on.
    pub(super) fn plan(&self) -> Option<&Plan> {
        self.outcome.plan.as_ref()
    }

    /// What was judged.
    pub(super) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What is wrong or odd.
    pub(super) fn findings(&self) -> &[FileFinding] {
        &self.findings
    }

    fn judge(&mut self) {
        self.outcome = reconcile(&self.loaded.objects, &self.auth_server);
        let mut findings = self.loaded.findings.clone();
        let server = self.outcome.auth_server.iter().cloned();
        findings
            .extend(server.map(|finding| self.loaded.finding(Kind::AuthServer, &self.auth_server, finding)));
        for (name, judged) in &self.outcome.webhooks {
            findings.extend(
                judged.findings().cloned().map(|finding| self.loaded.finding(Kind::Webhook, name, finding)),
            );
        }
        let strangers = self
            .loaded
            .objects
            .webhooks
            .iter()
            .filter(|(name, webhook)| names(webhook, name) != self.auth_server);
        for (name, webhook) in strangers {
            tracing::warn!(webhook = %name, auth_server = %names(webhook, name), "the Webhook is of another AuthServer and is left out");
        }
        self.findings = findings;
    }
}

/// Reads manifests, and gives each Webhook a generation: files have none, and a change must show.
fn read(paths: &[PathBuf]) -> Loaded {
    let mut loaded = manifests::load(paths);
    for webhook in loaded.objects.webhooks.values_mut() {
        webhook.metadata.generation = webhook.metadata.generation.or_else(|| Some(generation_of(webhook)));
    }
    loaded
}

/// A number that changes with the spec, and with nothing else.
fn generation_of(webhook: &Webhook) -> i64 {
    let text = serde_json::to_vec(&webhook.spec).unwrap_or_default();
    i64::from(crc32fast::hash(&text)).max(1)
}

/// The one `AuthServer`, or the one that was named.
fn choose(loaded: &Loaded, named: Option<ObjectName>) -> Result<ObjectName, DevError> {
    let servers: Vec<_> = loaded.objects.auth_servers.keys().collect();
    let list = || servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (named, servers.as_slice()) {
        (Some(named), servers) if servers.contains(&&named) => Ok(named),
        (Some(named), _) => Err(DevError::Usage(format!(
            "there is no AuthServer {named} in these manifests; there are: {}",
            list()
        ))),
        (None, [one]) => Ok((*one).clone()),
        (None, []) => {
            let lines: Vec<_> = loaded.findings.iter().map(crate::lint::line).collect();
            let message = "these manifests hold no AuthServer that can be used: add one, its name is in the Webhooks' authServerRef";
            Err(DevError::Manifests([vec![message.to_owned()], lines].concat().join("\n")))
        }
        (None, _) => Err(DevError::Usage(format!(
            "there is more than one AuthServer, name one with --auth-server: {}",
            list()
        ))),
    }
}

/// By name, time and size of each manifest's file; what else lies beside them is not looked at.
fn stamp(paths: &[PathBuf]) -> Vec<Stamp> {
    let files = paths.iter().flat_map(|path| manifests::files(path).unwrap_or_default());
    let mut stamps: Vec<_> = files.filter_map(|file| stamp_one(&file)).collect();
    stamps.sort();
    stamps
}

fn stamp_one(file: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((file.to_owned(), metadata.modified().ok(), metadata.len()))
}
