//! When a delivery is tried again: a state machine with one pure `next`.
//!
//! In: what an attempt ended in, the time, the Webhook's [`Retry`], and a number of chance. Out: the
//! delivery's next state. It must never name a time before now, nor one beyond the horizon, and a
//! delivery that has ended stays so.

use std::time::Duration;

use tidings_plan::Retry;
use tidings_store::RetryRow;

/// Other 4xx and 3xx wait this many times longer: a receiver answers so while it rolls out.
const SLOW_FACTOR: u64 = 12;

/// The longest `Retry-After` that is honoured, in milliseconds.
pub const MAX_RETRY_AFTER_MS: i64 = 3_600_000;

/// One event on its way to one Webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To be tried, or tried again.
    Pending {
        /// Attempts made.
        attempts: u32,
        /// When the first was made, in milliseconds since 1970; 0 where none was.
        first_attempt_ms: i64,
        /// When the next is due, in milliseconds since 1970.
        due_ms: i64,
    },
    /// Taken by the endpoint.
    Delivered,
    /// Given up.
    DeadLettered,
}

/// What an attempt ended in, as far as the schedule is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// 2xx.
    Taken,
    /// 408, 425, 5xx, or a transport fault.
    Again {
        /// The answer's `Retry-After`, in milliseconds.
        retry_after_ms: Option<i64>,
    },
    /// 429: the receiver is there, and asks for fewer events at a time.
    SlowDown {
        /// The answer's `Retry-After`, in milliseconds.
        retry_after_ms: Option<i64>,
    },
    /// Another 4xx, or a redirect: again, but slower.
    Later,
    /// 410: the receiver wants no more.
    Gone,
}

/// How long after a start no delivery is given up without another attempt: its horizon may have passed while
/// none was possible, or by a wall clock that is wrong.
pub const ANOTHER_CHANCE: Duration = Duration::from_hours(1);

/// A row of an earlier process as it counts in this one, whose wall clock may be behind that one's: no first
/// attempt lies ahead, and none is due later than an hour from now.
#[must_use]
pub fn at_start(row: &RetryRow, now_ms: i64) -> RetryRow {
    let ahead_ms = row.first_attempt_ms.saturating_sub(now_ms).max(0);
    let due_ms = row.due_ms.saturating_sub(ahead_ms).min(now_ms.saturating_add(MAX_RETRY_AFTER_MS));
    RetryRow { first_attempt_ms: row.first_attempt_ms - ahead_ms, due_ms, ..row.clone() }
}

// === impl Verdict ===

impl Verdict {
    /// The verdict on an answer's status.
    pub fn of_status(code: u16, retry_after_ms: Option<i64>) -> Self {
        match code {
            200..=299 => Self::Taken,
            429 => Self::SlowDown { retry_after_ms },
            408 | 425 | 500.. => Self::Again { retry_after_ms },
            410 => Self::Gone,
            _ => Self::Later,
        }
    }

    /// Whether this speaks against the endpoint as a whole, not against the one event.
    pub fn blames_endpoint(self) -> bool {
        matches!(self, Self::Again { .. })
    }

    /// How long nothing more is sent to the endpoint, in milliseconds: what it asks for, and after 429 without a
    /// number the wait of an event that was tried once. `chance` is uniform in `0.0..1.0`.
    pub fn holds_for_ms(self, retry: &Retry, chance: f64) -> Option<i64> {
        let asked = match self {
            Self::Again { retry_after_ms } => retry_after_ms?,
            // Between a half and the whole of it: at once would be no slower.
            Self::SlowDown { retry_after_ms } => {
                retry_after_ms.unwrap_or_else(|| backoff_ms(1, 1, retry, 0.5 + chance / 2.0))
            }
            Self::Taken | Self::Later | Self::Gone => return None,
        };
        Some(asked.clamp(0, MAX_RETRY_AFTER_MS))
    }
}

// === impl Delivery ===

impl Delivery {
    /// One that was never tried.
    pub const NEW: Self = Self::Pending { attempts: 0, first_attempt_ms: 0, due_ms: 0 };

    /// Its state after an attempt that ended now. `chance` is uniform in `0.0..1.0`.
    #[must_use]
    pub fn next(self, verdict: Verdict, now_ms: i64, retry: &Retry, chance: f64) -> Self {
        let Self::Pending { attempts, first_attempt_ms, .. } = self else { return self };
        let first_attempt_ms = if attempts == 0 { now_ms } else { first_attempt_ms };
        let attempts = attempts.saturating_add(1);
        let (wait_ms, least_ms) = match verdict {
            Verdict::Taken => return Self::Delivered,
            // The lane stops; the event waits for it to be started again.
            Verdict::Gone => (0, 0),
            Verdict::Again { retry_after_ms } | Verdict::SlowDown { retry_after_ms } => (
                backoff_ms(attempts, 1, retry, chance),
                retry_after_ms.unwrap_or(0).clamp(0, MAX_RETRY_AFTER_MS),
            ),
            Verdict::Later => (backoff_ms(attempts, SLOW_FACTOR, retry, chance), 0),
        };
        let horizon_ms = horizon_ms(first_attempt_ms, retry);
        if now_ms >= horizon_ms || now_ms.saturating_add(least_ms) > horizon_ms {
            return Self::DeadLettered;
        }
        let due_ms = now_ms.saturating_add(wait_ms.max(least_ms)).min(horizon_ms);
        Self::Pending { attempts, first_attempt_ms, due_ms }
    }

    /// Whether its horizon has passed: it is given up without another attempt.
    pub fn has_expired(self, now_ms: i64, retry: &Retry) -> bool {
        match self {
            Self::Pending { attempts, first_attempt_ms, .. } => {
                attempts > 0 && now_ms > horizon_ms(first_attempt_ms, retry)
            }
            Self::Delivered | Self::DeadLettered => false,
        }
    }
}

/// When an event whose first attempt was then is given up, in milliseconds since 1970.
fn horizon_ms(first_attempt_ms: i64, retry: &Retry) -> i64 {
    first_attempt_ms.saturating_add(i64::from(retry.give_up_after_seconds) * 1000)
}

/// Exponential with full jitter: anything from nothing to `initial * 2^(attempts-1)`, at most the maximum.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the bound is at most 2^32 seconds, far below 2^52 milliseconds"
)]
pub(crate) fn backoff_ms(attempts: u32, factor: u64, retry: &Retry, chance: f64) -> i64 {
    let initial = u64::from(retry.initial_backoff_seconds) * 1000 * factor;
    let most = u64::from(retry.max_backoff_seconds) * 1000;
    let bound = initial.saturating_mul(1 << attempts.saturating_sub(1).min(32)).min(most);
    ((bound as f64) * chance.clamp(0.0, 1.0)) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdicts() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(Verdict::Taken),
            Just(Verdict::Later),
            Just(Verdict::Gone),
            proptest::option::of(-5_000_000_000i64..5_000_000_000)
                .prop_map(|retry_after_ms| Verdict::Again { retry_after_ms }),
            proptest::option::of(-5_000_000_000i64..5_000_000_000)
                .prop_map(|retry_after_ms| Verdict::SlowDown { retry_after_ms }),
        ]
    }

    fn policies() -> impl Strategy<Value = Retry> {
        (0u32..=86_400, 0u32..=604_800, 0u32..=2_592_000).prop_map(
            |(initial_backoff_seconds, max_backoff_seconds, give_up_after_seconds)| Retry {
                initial_backoff_seconds,
                max_backoff_seconds,
                give_up_after_seconds,
            },
        )
    }

    proptest! {
        #[test]
        fn a_delivery_is_due_from_now_to_its_horizon_and_an_end_is_an_end(
            retry in policies(),
            steps in proptest::collection::vec((verdicts(), 0i64..1_000_000_000, 0.0f64..1.0), 1..60),
        ) {
            let mut delivery = Delivery::NEW;
            let mut now = 1_700_000_000_000;
            for (verdict, pause, chance) in steps {
                let before = delivery;
                delivery = delivery.next(verdict, now, &retry, chance);
                match (before, delivery) {
                    (Delivery::Pending { attempts: a, .. }, Delivery::Pending { attempts: b, first_attempt_ms, due_ms }) => {
                        prop_assert_eq!(b, a + 1);
                        prop_assert!(due_ms >= now);
                        prop_assert!(due_ms <= first_attempt_ms + i64::from(retry.give_up_after_seconds) * 1000);
                    }
                    (Delivery::Pending { .. }, _) => {}
                    (ended, still) => prop_assert_eq!(ended, still),
                }
                now += pause;
            }
        }
    }

    #[test]
    fn a_row_of_a_process_whose_clock_was_days_ahead_is_due_as_soon_as_it_was_then() {
        let now = 1_700_000_000_000;
        let row = |first_attempt_ms, due_ms| RetryRow {
            seq: tidings_store::Seq(1),
            attempts: 1,
            first_attempt_ms,
            due_ms,
            key: 0,
        };
        let three_days = 3 * 86_400_000;
        let ahead = at_start(&row(now + three_days, now + three_days + 5000), now);
        assert_eq!((ahead.first_attempt_ms, ahead.due_ms), (now, now + 5000));
        let long_ago = at_start(&row(now - three_days, now + three_days), now);
        assert_eq!(
            (long_ago.first_attempt_ms, long_ago.due_ms),
            (now - three_days, now + MAX_RETRY_AFTER_MS)
        );
        assert_eq!(at_start(&row(now - 7, now + 7), now), row(now - 7, now + 7));
    }

    #[test]
    fn waits_double_up_to_the_maximum_and_other_4xx_wait_longer() {
        let retry =
            Retry { initial_backoff_seconds: 5, max_backoff_seconds: 60, give_up_after_seconds: 1000 };
        let waits: Vec<_> = (1..=6).map(|n| backoff_ms(n, 1, &retry, 1.0)).collect();
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
        assert_eq!(backoff_ms(1, SLOW_FACTOR, &retry, 1.0), 60_000);
    }

    #[test]
    fn retry_after_is_the_least_wait_and_one_beyond_the_horizon_gives_up() {
        let retry = Retry { initial_backoff_seconds: 1, max_backoff_seconds: 1, give_up_after_seconds: 100 };
        let again = |ms| Delivery::NEW.next(Verdict::Again { retry_after_ms: Some(ms) }, 1000, &retry, 0.0);
        assert_eq!(again(30_000), Delivery::Pending { attempts: 1, first_attempt_ms: 1000, due_ms: 31_000 });
        assert_eq!(again(100_001), Delivery::DeadLettered);
    }

    #[test]
    fn what_asks_for_fewer_events_holds_the_endpoint_and_does_not_speak_against_it() {
        let retry =
            Retry { initial_backoff_seconds: 4, max_backoff_seconds: 60, give_up_after_seconds: 1000 };
        let held = |verdict: Verdict| (verdict.holds_for_ms(&retry, 0.0), verdict.blames_endpoint());
        assert_eq!(held(Verdict::SlowDown { retry_after_ms: None }), (Some(2000), false));
        assert_eq!(
            held(Verdict::SlowDown { retry_after_ms: Some(i64::MAX) }),
            (Some(MAX_RETRY_AFTER_MS), false)
        );
        assert_eq!(held(Verdict::Again { retry_after_ms: Some(7) }), (Some(7), true));
        assert_eq!(held(Verdict::Again { retry_after_ms: None }), (None, true));
    }

    #[test]
    fn statuses_have_the_verdicts_that_the_design_gives_them() {
        for (code, verdict) in [
            (204, Verdict::Taken),
            (302, Verdict::Later),
            (401, Verdict::Later),
            (404, Verdict::Later),
            (410, Verdict::Gone),
        ] {
            assert_eq!(Verdict::of_status(code, None), verdict);
        }
        assert_eq!(Verdict::of_status(429, Some(5)), Verdict::SlowDown { retry_after_ms: Some(5) });
        for code in [408, 425, 500, 503, 599] {
            assert_eq!(Verdict::of_status(code, None), Verdict::Again { retry_after_ms: None });
        }
    }
}
