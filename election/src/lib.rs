//! Who of several replicas may write: leader election by a `coordination.k8s.io/v1` Lease.
//!
//! ```text
//!            Lease on the API server
//!               |               ^
//!     Record <- store (requests, each with a timeout) <- Request
//!        |                                                  ^
//!     sighting: Wait | Take | Renew -> candidate: next, hear (pure; time comes in)
//!                                         |
//!                                        Lead -> Permit -> the operator's writes
//! ```
//!
//! # Why two replicas never hold a permit at once
//!
//! 1. Every write of the Lease carries the `resourceVersion` that was read, or creates it. Of two that
//!    decide upon the same record, the API server lets one through.
//! 2. A leader's right ends `renew_deadline` after the *start* of its last renewal that succeeded. The
//!    renewal was applied after its start, so nobody saw it earlier than that.
//! 3. Another takes a held Lease only after it has seen no change for the whole `leaseDurationSeconds`
//!    that stand in it, counted from when the answer that brought the record *arrived*. That is after the
//!    record was applied; and `renew_deadline` is shorter, so the right of 2. is over before.
//! 4. Both spans are measured on the measuring process's own monotonic clock. No process compares its
//!    clock with a time that another wrote. Clocks may be apart by anything; they may run at different
//!    speeds as long as the ratio stays under `lease_duration / renew_deadline`, 1.5 by default.
//! 5. A right that ended is over: a renewal that comes late begins a new term with a [`Lead`] of its own.
//! 6. A leader that resigns ends its right first, waits for the permits that are out, and then empties
//!    `holderIdentity`. That alone lets another in at once.
//! 7. The identity in the Lease has a part that is made afresh for each [`Election`], so that no process
//!    takes the record of its predecessor, or of a namesake, for its own.
//!
//! # What a permit cannot do
//!
//! It judges the moment in which it is taken. A process may be stopped between the permit and the
//! write, and a request may linger in the network. So a permit is taken just before each write, the
//! write is bounded by [`Permit::remaining`], and it is itself guarded (by `resourceVersion`, or by being
//! the same write whoever makes it). Then a late write of an old leader is refused or does no harm.
//!
//! `CLOCK_MONOTONIC` runs on while a process is stopped (SIGSTOP, a busy node, a debugger). It does not while the
//! whole machine sleeps; there, only the guard of the write itself remains. And a person can undo all of this by
//! editing `holderIdentity` or deleting the Lease: who had seen it held still waits, a newcomer does not.
//!
//! # Use
//!
//! ```no_run
//! # use tidings_election::{Election, LeadershipLost, Permit, Settings, Timing};
//! # async fn write_status(_: &Permit<'_>) {}
//! # async fn example(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::new("tidings", "tidings-operator", "operator-0", Timing::default())?;
//! let election = Election::start(client, settings);
//! let mut leads = election.lead();
//! let lead = leads.wait_for(Option::is_some).await?.clone().expect("waited for one");
//! while let Ok(permit) = lead.permit() {
//!     write_status(&permit).await;
//! }
//! election.resign().await; // on SIGTERM
//! # Ok(())
//! # }
//! ```

mod candidate;
mod counters;
mod election;
mod record;
mod settings;
mod sighting;
mod store;
mod tenure;

#[cfg(test)]
mod simulation;

pub use counters::Counters;
pub use election::{Election, Resignation};
pub use settings::{Settings, SettingsError, Timing};
pub use tenure::{Lead, LeadershipLost, Loss, Permit};
