//! Lines that a person can follow: so many a second, and then how many were left out.

use std::time::{Duration, Instant};

/// More than that a second nobody reads.
const LINES: u32 = 10;

/// Prints lines, but not too many.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    lines: u32,
    left_out: u64,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), lines: 0, left_out: 0 }
    }

    /// Prints a line, or counts it among those left out.
    pub(super) fn say(&mut self, line: &str) {
        if let Some(before) = self.after(Instant::now()) {
            println!("{before}");
        }
        if self.lines < LINES {
            self.lines += 1;
            println!("{line}");
        } else {
            self.left_out += 1;
        }
    }

    /// Begins another second when this one is over; what is to be said of it.
    fn after(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.since) < Duration::from_secs(1) {
            return None;
        }
        (self.since, self.lines) = (now, 0);
        let left_out = std::mem::take(&mut self.left_out);
        (left_out > 0).then(|| format!("... and {left_out} more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_in_a_second_is_counted_in_the_next() {
        let mut pace = Pace::new();
        for _ in 0..LINES + 7 {
            pace.say("a line");
        }
        let next = pace.since + Duration::from_secs(1);
        assert_eq!(pace.after(next), Some("... and 7 more".to_owned()));
        assert_eq!(pace.after(next + Duration::from_secs(1)), None);
    }
}
