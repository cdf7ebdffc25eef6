//! Memory and descriptors of one process over its life.

use std::fmt;
use std::time::Duration;

use tidings_tests::process::Process;

/// Below this length a process has not come to its level, in seconds.
const LONG: u64 = 300;

#[derive(Debug, Default)]
pub(crate) struct Vitals {
    kibibytes: Vec<u64>,
    descriptors: Vec<usize>,
}

// === impl Vitals ===

impl Vitals {
    pub(crate) fn look(&mut self, sidecar: &Process) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        self.kibibytes.push(resident.trim().trim_end_matches(" kB").parse().unwrap());
        self.descriptors.push(std::fs::read_dir(format!("/proc/{}/fd", sidecar.id())).unwrap().count());
    }

    /// The last third of a long life is where the second one was.
    pub(crate) fn check(&self, length: Duration) {
        let most_descriptors = self.descriptors.iter().max().unwrap();
        assert!(*most_descriptors < 256, "{most_descriptors} descriptors");
        if length.as_secs() >= LONG {
            let (middle, last) = (self.third(1), self.third(2));
            assert!(last <= middle + middle / 4 + 4096, "memory grows: {middle} KiB, then {last} KiB");
        }
    }

    fn third(&self, nth: usize) -> u64 {
        let each = (self.kibibytes.len() / 3).max(1);
        *self.kibibytes.chunks(each).nth(nth).and_then(|part| part.iter().max()).unwrap_or(&0)
    }
}

impl fmt::Display for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thirds = [self.third(0), self.third(1), self.third(2)];
        let descriptors = self.descriptors.iter().max().unwrap_or(&0);
        write!(f, "the last process: most KiB in each third {thirds:?}, at most {descriptors} descriptors")
    }
}
