//! One Webhook's lane: takes its events in order, tries each until it is settled, and keeps the book.
//!
//! In: events that the dispatcher hands over, or that the lane reads from the log when it is behind.
//! Out: attempts at the endpoint, and changes of the book that the saver writes. It must never wait
//! for another lane, and never start an attempt while the circuit or the rate forbids it.

mod attempt;
pub mod book;
mod finish;
mod handle;
mod log;
mod read;
pub mod spec;
mod start;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tidings_store::{Store, StoreError, now_ms};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::budget::{Share, Slot};
use crate::fatal::Fatal;
use crate::metrics::Deliveries;
use crate::rate::Bucket;
use attempt::Done;
pub use handle::{Handle, Unsaved};
use log::Logged;
use read::{Reading, next_reading};
use start::Turn;

/// One lane at work.
struct Lane<S> {
    handle: Arc<Handle>,
    store: Arc<S>,
    unsaved: Arc<Unsaved>,
    metrics: Arc<Deliveries>,
    fatal: Fatal,
    /// Of the attempts that the process has under way.
    share: Share,
    /// For the attempt that is started next.
    slot: Option<Slot>,
    bucket: Bucket,
    rate: Option<u32>,
    turn: Turn,
    /// Whether the next probe is an event that was never tried.
    probe_untried: bool,
    logged: Logged,
    /// Whether it was logged that there are too many rows.
    reported_full: bool,
    /// Whether there is more to start, and others on this thread go first.
    pauses: bool,
    attempts: FuturesUnordered<BoxFuture<'static, Done>>,
    reading: Option<JoinHandle<Result<Reading, StoreError>>>,
}

/// Runs a lane until `stop` says so; attempts that are under way then are waited for.
///
/// One task for a handle, for as long as the handle lives: a Webhook that leaves the plan and comes back
/// finds its own task, and no other one ever takes from its book or is woken in its place.
pub(crate) async fn run<S: Store>(
    handle: Arc<Handle>,
    store: Arc<S>,
    unsaved: Arc<Unsaved>,
    metrics: Arc<Deliveries>,
    fatal: Fatal,
    share: Share,
    mut stop: watch::Receiver<bool>,
) {
    let rate = handle.spec().plan.delivery.rate_per_second;
    let bucket = Bucket::new(rate, now_ms());
    let logged = Logged::new(&handle.lock());
    let mut lane = Lane {
        handle,
        store,
        unsaved,
        metrics,
        fatal,
        share,
        slot: None,
        bucket,
        rate,
        turn: Turn::default(),
        probe_untried: true,
        logged,
        reported_full: false,
        pauses: false,
        attempts: FuturesUnordered::new(),
        reading: None,
    };
    loop {
        let stopping = *stop.borrow() || lane.fatal.is_told();
        let wake_ms = if stopping { None } else { lane.start_what_may_start() };
        lane.log_changes();
        if stopping && lane.attempts.is_empty() {
            break;
        }
        let pauses = std::mem::take(&mut lane.pauses);
        tokio::select! {
            // What ended comes first: it makes room for what may start.
            biased;
            Some(done) = lane.attempts.next(), if !lane.attempts.is_empty() => lane.finish(done),
            read = next_reading(&mut lane.reading) => lane.take_reading(read),
            () = lane.handle.woken() => {}
            () = lane.share.freed() => {}
            () = tokio::task::yield_now(), if pauses => {}
            () = sleep_until_ms(wake_ms) => {}
            _ = stop.changed(), if !stopping => {}
        }
    }
    lane.handle.lock().rewind();
    lane.handle.changed(&lane.unsaved);
}

async fn sleep_until_ms(wake_ms: Option<i64>) {
    match wake_ms {
        Some(at) => {
            tokio::time::sleep(Duration::from_millis(u64::try_from(at - now_ms()).unwrap_or(0).max(1))).await;
        }
        None => std::future::pending().await,
    }
}
