//! The rate limit of one Webhook: a bucket that holds one second's worth of attempts.

/// A token bucket; time comes in from outside.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: Option<u32>,
    // In thousandths of a token, so that each millisecond adds a whole number.
    millitokens: i64,
    filled_ms: i64,
}

// === impl Bucket ===

impl Bucket {
    /// A full bucket; `None`: no limit.
    pub fn new(per_second: Option<u32>, now_ms: i64) -> Self {
        Self { per_second, millitokens: i64::from(per_second.unwrap_or(0)) * 1000, filled_ms: now_ms }
    }

    /// Takes one token, or tells when there is one, in milliseconds since 1970.
    pub fn take(&mut self, now_ms: i64) -> Result<(), i64> {
        let Some(rate) = self.per_second.map(|rate| i64::from(rate.max(1))) else { return Ok(()) };
        let passed = now_ms.saturating_sub(self.filled_ms).clamp(0, 1000);
        self.millitokens = (self.millitokens + passed * rate).min(rate * 1000);
        self.filled_ms = now_ms;
        if self.millitokens >= 1000 {
            self.millitokens -= 1000;
            return Ok(());
        }
        Err(now_ms + (1000 - self.millitokens).div_ceil_by(rate))
    }

    /// Gives one back that was not used.
    pub fn put_back(&mut self) {
        self.millitokens += 1000;
    }
}

trait DivCeil {
    fn div_ceil_by(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_by(self, by: i64) -> i64 {
        (self + by - 1) / by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_carries_more_than_the_burst_and_the_rate() {
        let mut bucket = Bucket::new(Some(10), 0);
        let mut taken = 0;
        let mut now = 0;
        while now < 10_000 {
            match bucket.take(now) {
                Ok(()) => taken += 1,
                Err(next) => {
                    assert!(next > now);
                    now = next;
                }
            }
        }
        assert_eq!(taken, 10 + 99, "a burst of 10, then one each 100 ms until just before 10 s");
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut bucket = Bucket::new(None, 0);
        assert!((0..1000).all(|_| bucket.take(0).is_ok()));
    }
}
