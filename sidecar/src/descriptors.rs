//! How many files and connections the process may have open, and how they are divided.
//!
//! In: the system's limit, raised as far as the process may. Out: bounds for who opens connections. What
//! is not given out is for the store, the log and what libraries open. It must never give out more than
//! there is: a process without a descriptor left can neither take an event nor write one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No bound needs more than this; a limit of "unlimited" is no number to divide.
const MOST: u64 = 1 << 20;

/// Raises the soft limit to the hard one. What was there stays, should the system refuse.
pub(crate) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, ?maximum, "the limit of open files could not be raised");
    }
}

/// A part of the limit of open files, in sixteenths, and at the most so many.
pub(crate) fn sixteenths(part: usize, most: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(MOST).min(MOST);
    (usize::try_from(limit).unwrap_or(usize::MAX) / 16 * part).clamp(1, most)
}
