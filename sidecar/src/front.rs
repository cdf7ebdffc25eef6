//! What stands before the store is open, and whatever becomes of it: the two ports.
//!
//! In: requests from the first moment on. Out: pages and answers. The store is opened behind it, and may
//! fail, be damaged or never answer: that is shown, events are refused with the reason, and an auth server's
//! start is let through. It must never wait for the store.
//!
//! # Events that come at start
//! An auth server sends an event once. So the events port is bound at once and its connections wait in the
//! system's queue until the last good plan runs, some milliseconds mostly: a connection that is refused, or
//! an answer 503, would lose the event. Nobody waits longer than [`HOLD`], since senders wait 10 s at most.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tidings_store::{Store, StoreError, now_ms, wall_ms};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::{self, Scrapes};
use crate::admit::Admission;
use crate::metrics::{Deliveries, Scrape};
use crate::receive::{self, Counts};
use crate::serve::{self, Limits};
use crate::sidecar::{Parts, SidecarError, Surroundings};

/// How long connections to the events port wait for a plan at start.
const HOLD: Duration = Duration::from_secs(5);

/// A store that fails does not end the process sooner than this after its start, unless `/startupz` gave way
/// before: in a pod, a container that ends before that keeps the auth server from starting.
const LEAST_LIFE: Duration = Duration::from_secs(30);

/// Why the store takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreProblem {
    /// One word.
    pub reason: &'static str,
    /// A sentence for a person, with the fix.
    pub message: String,
}

/// What both ports answer from.
pub(crate) struct Surface<S> {
    parts: OnceLock<Arc<Parts<S>>>,
    problem: watch::Sender<Option<StoreProblem>>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) surroundings: OnceLock<Arc<dyn Surroundings>>,
    pub(crate) started: Instant,
    pub(crate) scrapes: Scrapes,
    /// Who is answered from outside of the pod.
    pub(crate) admission: Admission,
    /// Whether connections to the events port are taken.
    accepts: watch::Sender<bool>,
    /// Whether `/startupz` gave way to somebody.
    gave_way: watch::Sender<bool>,
}

// === impl StoreProblem ===

impl StoreProblem {
    fn opening() -> Self {
        let message =
            "the store is being opened; where that lasts, look whether the volume of the data folder answers";
        Self { reason: "StoreOpening", message: message.to_owned() }
    }

    fn of(error: &StoreError) -> Self {
        let then = if error.may_pass() { "it is tried again" } else { "then restart the sidecar" };
        Self { reason: error.reason(), message: format!("{error}; {then}") }
    }
}

impl std::fmt::Display for StoreProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

// === impl Surface ===

impl<S: Store> Surface<S> {
    pub(crate) fn new() -> Self {
        Self {
            parts: OnceLock::new(),
            problem: watch::Sender::new(Some(StoreProblem::opening())),
            counts: Arc::default(),
            surroundings: OnceLock::new(),
            started: Instant::now(),
            scrapes: Scrapes::default(),
            admission: Admission::new(wall_ms() / 1000),
            accepts: watch::Sender::new(false),
            gave_way: watch::Sender::new(false),
        }
    }

    /// The sidecar behind it; `None` as long as the store is not open.
    pub(crate) fn parts(&self) -> Option<&Arc<Parts<S>>> {
        self.parts.get()
    }

    /// The store is open.
    pub(crate) fn opened(&self, parts: Arc<Parts<S>>) {
        if self.parts.set(parts).is_ok() {
            self.problem.send_replace(None);
        }
    }

    /// Opens the events port, where it does not take connections yet.
    pub(crate) fn accepts(&self) -> watch::Sender<bool> {
        self.accepts.clone()
    }

    /// The store cannot be opened: shown, and logged when it is another cause than before. Where time does
    /// not help, events are refused at once.
    pub(crate) fn cannot_open(&self, error: &StoreError) {
        let problem = StoreProblem::of(error);
        if self.problem.borrow().as_ref() != Some(&problem) {
            tracing::error!(
                reason = problem.reason,
                "the store cannot be opened, events are refused: {error}"
            );
        }
        self.problem.send_replace(Some(problem));
        if !error.may_pass() {
            self.accepts.send_replace(true);
        }
    }

    /// The store failed under way.
    pub(crate) fn failed(&self, error: &StoreError) {
        let message = format!("{error}; the sidecar ends, and is started again to open it anew");
        self.problem.send_replace(Some(StoreProblem { reason: error.reason(), message }));
    }

    /// Why the store takes nothing, where it does not.
    pub(crate) fn problem(&self) -> Option<StoreProblem> {
        let told = self.problem.borrow().clone();
        told.or_else(|| {
            let error = self.parts()?.engine.store().writable().err()?;
            Some(StoreProblem { reason: error.reason(), message: error.to_string() })
        })
    }

    /// `/startupz` answered that the start may go on.
    pub(crate) fn gives_way(&self) {
        self.gave_way.send_replace(true);
    }

    /// Resolves once ending keeps no auth server from starting.
    pub(crate) async fn may_end(&self) {
        let mut gave_way = self.gave_way.subscribe();
        let left = LEAST_LIFE.saturating_sub(self.started.elapsed());
        let _ = tokio::time::timeout(left, gave_way.wait_for(|gave_way| *gave_way)).await;
    }

    /// Why there is no plan yet, as the surroundings know it.
    pub(crate) fn no_plan_because(&self) -> String {
        let waiting = || "waiting for one".to_owned();
        self.surroundings.get().map_or_else(waiting, |around| around.no_plan_because())
    }

    /// The page of metrics; without a store what there is without one.
    pub(crate) fn metrics(&self) -> Result<String, std::fmt::Error> {
        let available = f64::from(u8::from(self.problem().is_none()));
        let mut scrape = self
            .parts()
            .map_or_else(|| Scrape { now_ms: now_ms(), ..Scrape::default() }, |parts| parts.scrape());
        scrape.counters.splice(0..0, self.counts.totals());
        scrape.counters.extend(self.surroundings.get().into_iter().flat_map(|around| around.counters()));
        scrape.gauges.insert(
            0,
            ("store_available", "1 while the store takes events, else 0: /readyz tells why", available),
        );
        scrape.refused = self.counts.refused();
        match self.parts() {
            Some(parts) => parts.engine.metrics().encode(scrape),
            None => Deliveries::default().encode(scrape),
        }
    }

    async fn answer_event<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(parts) = self.parts() else {
            let problem = self.problem().unwrap_or_else(StoreProblem::opening);
            return receive::refuse_without_store(&self.counts, &problem.to_string());
        };
        parts.receiver.answer(request).await
    }
}

/// Binds a port, and the address that it got.
pub(crate) async fn listen(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), SidecarError> {
    let refused = |source| SidecarError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Answers on the events port, once a plan runs or it is known that none will soon.
pub(crate) async fn serve_events<S: Store>(
    listener: TcpListener,
    surface: Arc<Surface<S>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut accepts = surface.accepts.subscribe();
    tokio::select! {
        biased;
        _ = accepts.wait_for(|accepts| *accepts) => {}
        _ = stop.wait_for(|stop| *stop) => {}
        () = tokio::time::sleep(HOLD) => {}
    }
    serve::serve(listener, Limits::EVENTS.within_sixteenths(3), stop, move |request| {
        let surface = Arc::clone(&surface);
        async move { surface.answer_event(request).await }
    })
    .await;
}

/// Answers on the admin port.
pub(crate) async fn serve_admin<S: Store>(
    listener: TcpListener,
    surface: Arc<Surface<S>>,
    stop: watch::Receiver<bool>,
) {
    let limits = Limits::ADMIN.within_sixteenths(1);
    serve::serve(listener, limits, stop, move |request| admin::answer(Arc::clone(&surface), request)).await;
}
