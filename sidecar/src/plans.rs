//! Where plans come from on a disk: a folder that is followed, and the last good plan.
//!
//! The folder holds `plan.json`. It is read whole and compared by content, so that a volume that is
//! swapped by a symbolic link, as Kubernetes does, is seen like a file that is written in place. A plan
//! that cannot be read changes nothing: the one before runs on.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidings_plan::{PlanError, Published};

/// The plan's file in its folder.
pub const PLAN_FILE: &str = "plan.json";

/// The last good plan's file in the data folder. It holds secrets; only its owner may read it.
pub const LAST_GOOD_FILE: &str = "last-good-plan.json";

/// How often the folder is looked at. One `read` of a file of some kilobytes costs less than a watch
/// that must know how each kind of volume is swapped.
pub const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// The file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The file is no plan.
    #[error("{path}: {source}", path = path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PlanError,
    },
}

/// A folder that is followed.
#[derive(Debug)]
pub struct PlanFolder {
    path: PathBuf,
    seen: Option<Vec<u8>>,
}

// === impl PlanFolder ===

impl PlanFolder {
    /// Follows a folder.
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join(PLAN_FILE), seen: None }
    }

    /// The plan, when it is another one than at the last call. An error is told once for each content.
    pub fn poll(&mut self) -> Result<Option<Published>, PlanFileError> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(source) if self.seen.is_some() || source.kind() == std::io::ErrorKind::NotFound => {
                let _ = source;
                return Ok(None);
            }
            Err(source) => return Err(PlanFileError::Io { path: self.path.clone(), source }),
        };
        if self.seen.as_ref() == Some(&bytes) {
            return Ok(None);
        }
        let plan = Published::from_json(&bytes)
            .map_err(|source| PlanFileError::Plan { path: self.path.clone(), source });
        self.seen = Some(bytes);
        plan.map(Some)
    }
}

/// Keeps a plan as the last good one, with its number and with what this program does not know of it: written
/// aside, synced, and put in place at once.
pub fn keep_last_good(data_dir: &Path, plan: &Published) -> Result<(), PlanFileError> {
    let path = data_dir.join(LAST_GOOD_FILE);
    write_private(&path, plan.document()).map_err(|source| PlanFileError::Io { path, source })
}

/// The last good plan; `None` when none was kept.
pub fn last_good(data_dir: &Path) -> Result<Option<Published>, PlanFileError> {
    let path = data_dir.join(LAST_GOOD_FILE);
    match std::fs::read(&path) {
        Ok(bytes) => {
            Published::from_json(&bytes).map(Some).map_err(|source| PlanFileError::Plan { path, source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PlanFileError::Io { path, source }),
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let aside = path.with_extension("json.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"{"version": 1, "generation": 7, "digest": "of-the-operator", "ofALaterVersion": [1],
        "authServer": {"namespace": "auth", "name": "logto"},
        "ingest": {"signingKeys": [], "eventPointer": "/event", "timePointer": "/createdAt", "idPointer": "/hookId"},
        "egress": {"allow": [], "deny": [], "allowInsecure": false}, "webhooks": []}"#;

    #[test]
    fn the_last_good_plan_is_kept_with_its_number_and_all_that_a_newer_sidecar_finds_in_it() {
        let dir = tempfile::TempDir::new().unwrap();
        assert!(last_good(dir.path()).unwrap().is_none());
        keep_last_good(dir.path(), &Published::from_json(PLAN.as_bytes()).unwrap()).unwrap();
        let kept = last_good(dir.path()).unwrap().unwrap();
        assert_eq!((kept.generation, kept.digest.as_str()), (7, "of-the-operator"));
        assert!(String::from_utf8_lossy(kept.document()).contains("ofALaterVersion"));
    }
}
