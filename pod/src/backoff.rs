//! How long to wait before the API server is asked again: twice as long each time, with chance in it, so
//! that many sidecars do not ask at once.

use std::time::Duration;

/// Waits between these two.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next wait: between a half of its bound and the whole, so that it is never none.
    pub(crate) fn next(&mut self, chance: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + chance / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// It went well: the next wait is the first again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        let waits: Vec<_> = (0..3).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 300]);
        assert_eq!(backoff.next(0.0).as_millis(), 150);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 100);
    }
}
