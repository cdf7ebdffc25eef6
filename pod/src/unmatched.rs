//! Events that no Webhook selects, counted on over restarts.
//!
//! The count lies in a small file of the data folder, and is written there before it is reported: what
//! was reported never falls. A crash forgets at most what was counted since the last report.

use std::path::{Path, PathBuf};

/// The count's file in the data folder.
pub const UNMATCHED_FILE: &str = "unmatched";

/// The count.
#[derive(Debug)]
pub struct Unmatched {
    path: PathBuf,
    /// Those of earlier processes.
    before: u64,
    kept: u64,
}

// === impl Unmatched ===

impl Unmatched {
    /// Goes on with the count of a data folder.
    pub fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(UNMATCHED_FILE);
        let before =
            std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self { path, before, kept: before }
    }

    /// The whole count, with that of this process; where it cannot be kept, what was kept last.
    pub fn total(&mut self, of_this_process: u64) -> u64 {
        let total = self.before + of_this_process;
        if total != self.kept && self.keep(total).is_ok() {
            self.kept = total;
        }
        self.kept
    }

    fn keep(&self, total: u64) -> std::io::Result<()> {
        let aside = self.path.with_extension("new");
        std::fs::write(&aside, total.to_string())?;
        std::fs::rename(aside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_goes_on_after_a_restart() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut first = Unmatched::open(dir.path());
        assert_eq!((first.total(0), first.total(3)), (0, 3));
        let mut second = Unmatched::open(dir.path());
        assert_eq!((second.total(0), second.total(2)), (3, 5));
    }

    #[test]
    fn what_cannot_be_kept_is_not_told() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut count = Unmatched::open(&dir.path().join("gone"));
        assert_eq!(count.total(4), 0);
    }
}
