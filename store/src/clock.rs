//! The time, from outside: one clock that cannot be set, and the one on the wall.
//!
//! Out: [`now_ms`], by which everything in the process is scheduled and kept. It is the wall clock of the
//! process' start and goes on by monotonic time, so that a wall clock that is set (by a person, by NTP, with
//! a virtual machine that is resumed) moves no retry, no circuit and no retention. [`wall_ms`] is what others
//! compare with their own clocks. Between two processes the wall clock is all there is: whoever reads times
//! of an earlier one expects any.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A difference from one look to the next that is no correction, but a clock that was set.
const JUMP_MS: i64 = 10_000;

static START: LazyLock<(i64, Instant)> = LazyLock::new(|| (wall_ms(), Instant::now()));

/// How far the wall clock is from [`now_ms`], as last looked at.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);
static JUMPS: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since 1970, as every time in the store is; never set while the process lives.
pub fn now_ms() -> i64 {
    let (started_ms, started) = &*START;
    started_ms.saturating_add(i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970 by the wall clock, for what somebody with a clock of his own reads.
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How long the process has its clock, that is, about since its start.
pub fn uptime() -> Duration {
    START.1.elapsed()
}

/// How often the wall clock was set since the start, as far as it was seen.
pub fn clock_jumps() -> u64 {
    JUMPS.load(Ordering::Relaxed)
}

/// Looks whether the wall clock was set since the last look.
pub(crate) fn look() {
    let ahead_ms = wall_ms().saturating_sub(now_ms());
    let jump_ms = ahead_ms.saturating_sub(AHEAD_MS.swap(ahead_ms, Ordering::Relaxed));
    if jump_ms.abs() >= JUMP_MS {
        JUMPS.fetch_add(1, Ordering::Relaxed);
        let seconds = jump_ms / 1000;
        tracing::warn!(
            seconds,
            "the wall clock was set; retries, circuits and retention go on by elapsed time"
        );
    }
}
