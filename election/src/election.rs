//! The task that carries a candidate's requests to the API server, one after the other, and tells who asks.
//!
//! Each wait in it ends at the latest when the lead does, so that a lapse is told in time. It must never wait without a
//! limit: an API server that takes a connection and says nothing is an everyday fault.

use std::time::Duration;

use kube::Client;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::candidate::{Answer, Candidate, Request, Step};
use crate::counters::Counters;
use crate::record::Claim;
use crate::settings::Settings;
use crate::store::{RequestError, Store};
use crate::tenure::{Lead, Loss};

pub use crate::candidate::Resignation;

/// A candidate that stands in the background until it resigns. One that is dropped ends its term and
/// leaves the Lease to lapse.
#[derive(Debug)]
pub struct Election {
    leads: watch::Receiver<Option<Lead>>,
    resign: oneshot::Sender<()>,
    task: JoinHandle<Resignation>,
    counters: Counters,
}

struct Task {
    candidate: Candidate,
    store: Store,
    leads: watch::Sender<Option<Lead>>,
    /// None once we were told to leave.
    resign: Option<oneshot::Receiver<()>>,
    counters: Counters,
    /// How long permits that are out are waited for when we leave.
    patience: Duration,
}

// === impl Election ===

impl Election {
    /// Stands for election from now on. To be called within a Tokio runtime.
    ///
    /// In the Lease the identity gets a part that is made afresh here, as `operator-0_<uuid>`.
    pub fn start(client: Client, settings: Settings) -> Self {
        let Settings { namespace, name, identity, timing } = settings;
        let holder = format!("{identity}_{}", Uuid::now_v7());
        let counters = Counters::default();
        let (leads, told) = watch::channel(None);
        let (resign, resigned) = oneshot::channel();
        let task = Task {
            candidate: Candidate::new(holder.clone(), timing, counters.clone(), Instant::now()),
            store: Store::new(client, &namespace, &name, Claim { holder, seconds: timing.lease_seconds() }),
            leads,
            resign: Some(resigned),
            counters: counters.clone(),
            patience: timing.renew_deadline(),
        };
        Self { leads: told, resign, task: tokio::spawn(task.run()), counters }
    }

    /// The term under way, and each change; `None` while another leads.
    ///
    /// It is told, not asked for leave: that is [`Lead::permit`].
    pub fn lead(&self) -> watch::Receiver<Option<Lead>> {
        self.leads.clone()
    }

    /// Numbers for metrics.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Ends the term, waits for the permits that are out, releases the Lease and ends the task.
    ///
    /// To be awaited on SIGTERM. It takes a request's time; at most, with permits that do not come back and an API
    /// server that does not answer, the renew deadline and three retry periods.
    ///
    /// # Panics
    ///
    /// If the task panicked.
    pub async fn resign(self) -> Resignation {
        // Whether it still listens shows in how it ended.
        let _ = self.resign.send(());
        match self.task.await {
            Ok(resignation) => resignation,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down.
            Err(_) => Resignation::LeftToLapse,
        }
    }
}

// === impl Task ===

impl Task {
    async fn run(mut self) -> Resignation {
        loop {
            let step = self.candidate.next(Instant::now());
            self.tell();
            match step {
                Step::Sleep { until } => self.sleep(until).await,
                Step::Send { request, give_up } => self.send(&request, give_up).await,
                Step::Leave(resignation) => {
                    info!(?resignation, "left the election");
                    return resignation;
                }
            }
        }
    }

    async fn send(&mut self, request: &Request, give_up: Instant) {
        let sent = timeout_at(give_up, self.store.send(request)).await;
        let answer =
            sent.unwrap_or(Err(RequestError::TimedOut)).unwrap_or_else(|error| self.failed(request, &error));
        if answer == Answer::Outpaced {
            debug!("the Lease was written by someone else in the meantime");
        }
        self.candidate.hear(answer, Instant::now());
    }

    fn failed(&self, request: &Request, error: &RequestError) -> Answer {
        let leading = self.candidate.lead().is_some();
        let (doing, error) = (request.name(), error as &dyn std::error::Error);
        warn!(error, leading, "{doing} the Lease failed");
        Answer::Failed
    }

    /// Until then, or until we are to leave, which is asked first so that a short sleep cannot hide it.
    async fn sleep(&mut self, until: Instant) {
        let Some(resign) = &mut self.resign else { return sleep_until(until).await };
        tokio::select! {
            biased;
            told = resign => self.leave(told.is_ok()).await,
            () = sleep_until(until) => {}
        }
    }

    /// Ends the term; permits that are out are waited for, since another may lead as soon as the Lease is released.
    async fn leave(&mut self, resigns: bool) {
        self.resign = None;
        if !resigns {
            return self.candidate.abandon(Loss::Abandoned, Instant::now());
        }
        self.candidate.resign(Instant::now());
        self.tell();
        if timeout(self.patience, self.counters.permits_are_back()).await.is_err() {
            warn!("a permit is still out; the Lease is left to lapse");
            self.candidate.abandon(Loss::Resigned, Instant::now());
        }
    }

    /// Tells of a term that began or ended.
    fn tell(&self) {
        let (before, now) = (self.leads.borrow().clone(), self.candidate.lead());
        if before.as_ref().map(Lead::term) == now.map(Lead::term) {
            return;
        }
        if let Some(before) = before {
            let loss = before.loss_at(Instant::now()).map(tracing::field::display);
            info!(term = before.term(), loss, "leads no longer");
        }
        if let Some(now) = now {
            info!(term = now.term(), "leads");
        }
        self.leads.send_replace(now.cloned());
    }
}

// === impl Request ===

impl Request {
    fn name(&self) -> &'static str {
        match self {
            Self::Read => "reading",
            Self::Claim(_) => "claiming",
            Self::Release(_) => "releasing",
        }
    }
}
