//! A folder of the node that pods write their ledgers to, so that what they sent and received can be compared when
//! they are gone; and the file whose presence makes the receiver fail.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shell::{apply, tidings};

/// The folder, as the claim `ledger` of some namespaces.
pub(crate) struct Ledgers {
    folder: TempDir,
}

// === impl Ledgers ===

impl Ledgers {
    /// Makes the folder and the claims.
    pub(crate) async fn new(namespaces: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let ledgers = Self { folder };
        open_to_all(ledgers.folder.path());
        for namespace in namespaces {
            apply(&volume(namespace, "ledger", ledgers.folder.path())).await;
        }
        ledgers
    }

    /// A folder in it, for a volume of its own.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        open_to_all(&folder);
        folder
    }

    /// The receiver answers 503 from now on.
    pub(crate) fn fail(&self) {
        std::fs::write(self.folder.path().join("down"), "").expect("it is written");
    }

    /// The receiver is back.
    pub(crate) fn recover(&self) {
        std::fs::remove_file(self.folder.path().join("down")).expect("it failed");
    }

    /// Compares what was sent with what was received, and waits for what is missing. An event that is lost fails.
    pub(crate) async fn judge(&self) -> Value {
        let sent = self.files("sent-");
        let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
        let received = self.files("received");
        let received: Vec<&str> = received.iter().map(String::as_str).collect();
        let mut arguments = vec!["demo", "judge", "--wait-seconds", "60", "--output", "json", "--sent"];
        arguments.extend(sent);
        arguments.push("--received");
        arguments.extend(received);
        let verdict = tidings(&arguments).await;
        serde_json::from_str(&verdict).unwrap_or_else(|error| panic!("{error}: {verdict}"))
    }

    /// How many deliveries the receiver answered 204.
    pub(crate) fn received(&self) -> usize {
        let text = std::fs::read_to_string(self.folder.path().join("received.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["status"] == 204).count()
    }

    fn files(&self, prefix: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder is there");
        let names = entries.map(|entry| entry.expect("an entry").path());
        let wanted = names
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
        wanted.map(|path| path.to_string_lossy().into_owned()).collect()
    }
}

/// A folder of the node as a claim.
pub(crate) fn volume(namespace: &str, claim: &str, folder: &std::path::Path) -> Vec<Value> {
    let (modes, size) = (json!(["ReadWriteMany"]), json!({"storage": "1Gi"}));
    let name = format!("{namespace}-{claim}");
    vec![
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
               "spec": {"storageClassName": "", "accessModes": modes, "capacity": size,
                        "claimRef": {"namespace": namespace, "name": claim},
                        "hostPath": {"path": folder, "type": "Directory"}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
               "metadata": {"name": claim, "namespace": namespace},
               "spec": {"storageClassName": "", "volumeName": name, "accessModes": modes,
                        "resources": {"requests": size}}}),
    ]
}

/// Pods run as a user of their own.
fn open_to_all(folder: &std::path::Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("our own folder");
}
