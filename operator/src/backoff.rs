//! How long to wait before another attempt: doubling, bounded, and spread out. Pure; chance comes in.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(1);

/// The wait after so many failures in a row, at least one. `chance`, from 0 to 1, spreads those that failed
/// together over half of it.
pub(crate) fn wait(failures: u32, chance: f64) -> Duration {
    let whole = FIRST.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    whole / 2 + (whole / 2).mul_f64(chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_twice_the_one_before_up_to_a_minute() {
        let waits: Vec<_> = [1, 2, 3, 6, 7, u32::MAX].map(|failures| wait(failures, 1.0).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 32, 60, 60]);
        assert_eq!(wait(3, 0.0), Duration::from_secs(2), "half of it is left to chance");
    }
}
