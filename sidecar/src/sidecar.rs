//! The whole sidecar: store, engine, the events port and the admin port, started and ended in order.
//!
//! At start: the store is opened and checked, the ports are bound, the last good plan runs if there is
//! one. At the end: no new connection is taken, requests under way are answered, what waits is delivered
//! where that is asked ([`Drain`]), attempts under way are waited for, what changed is saved, the store is
//! synced and closed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tidings_plan::{Plan, Published};
use tidings_store::{Settings, SqliteStore, Store, StoreError, now_ms};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{self, Scrapes};
use crate::descriptors;
use crate::drain::{self, Drain};
use crate::engine::{Applied, Engine};
use crate::metrics::Scrape;
use crate::plans::{self, LOOK_EVERY, PlanFolder};
use crate::receive::Receiver;
use crate::serve::{self, Limits};
use crate::test_event::Tester;

/// How long a plan waits for its Webhooks' places to be saved, which takes a millisecond mostly.
const SAVE_PATIENCE: Duration = Duration::from_secs(5);

/// How a sidecar is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where events are received; loopback by default.
    pub listen: SocketAddr,
    /// Where the admin surface is.
    pub admin_listen: SocketAddr,
    /// How the store is kept.
    pub store: Settings,
    /// The largest body that is taken, in bytes.
    pub max_body_bytes: usize,
    /// What is waited for at the end.
    pub drain: Drain,
    /// How long it is waited for at the most.
    pub drain_time: Duration,
    /// Addresses that are refused to deliveries, such as the cluster's API server.
    pub control_plane: Vec<IpAddr>,
}

/// Why a sidecar did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// The store cannot be opened, or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port cannot be had.
    #[error(
        "cannot listen on {address} ({what}): {source}; end what listens there, or choose another address"
    )]
    Listen {
        /// Which port.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
}

/// A sidecar at work.
pub struct Sidecar {
    parts: Arc<Parts<SqliteStore>>,
    options: Options,
    events: SocketAddr,
    admin: SocketAddr,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
}

/// Runs plans on a sidecar that is under way.
#[derive(Clone)]
pub struct Applier {
    parts: Arc<Parts<SqliteStore>>,
    events: SocketAddr,
    admin: SocketAddr,
}

/// What surrounds the sidecar, and shows itself on its admin surface.
pub trait Surroundings: Send + Sync {
    /// Why there is no plan yet, for `/readyz`; asked only while there is none.
    fn no_plan_because(&self) -> String;

    /// More counters: name without `tidings_` and `_total`, help, value.
    fn counters(&self) -> Vec<(&'static str, &'static str, u64)>;
}

/// What the admin surface looks at.
pub(crate) struct Parts<S> {
    pub(crate) engine: Arc<Engine<S>>,
    pub(crate) receiver: Arc<Receiver<S>>,
    pub(crate) surroundings: OnceLock<Arc<dyn Surroundings>>,
    pub(crate) tester: Tester,
    pub(crate) scrapes: Scrapes,
    pub(crate) started: Instant,
    data_dir: PathBuf,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8788)),
            store: Settings::default(),
            max_body_bytes: 8 << 20,
            drain: Drain::default(),
            drain_time: Duration::from_secs(20),
            control_plane: Vec::new(),
        }
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Opens the store and binds the ports. Events are refused with 503 until a plan runs.
    pub async fn start(options: Options) -> Result<Self, SidecarError> {
        descriptors::raise();
        let store = Arc::new(SqliteStore::open(options.store.clone())?);
        let engine = Engine::start(Arc::clone(&store), options.control_plane.clone())?;
        let receiver = Arc::new(Receiver::new(store, options.max_body_bytes));
        let (events, events_at) = listen("events", options.listen).await?;
        let (admin, admin_at) = listen("admin", options.admin_listen).await?;
        let (surroundings, data_dir) = (OnceLock::new(), options.store.dir.clone());
        let (tester, scrapes, started) = (Tester::default(), Scrapes::default(), Instant::now());
        let parts = Arc::new(Parts { engine, receiver, surroundings, tester, scrapes, started, data_dir });
        let stop = watch::Sender::new(false);
        let servers = vec![
            tokio::spawn(serve_events(events, Arc::clone(&parts), stop.subscribe())),
            tokio::spawn(serve_admin(admin, Arc::clone(&parts), stop.subscribe())),
        ];
        Ok(Self { parts, options, events: events_at, admin: admin_at, stop, servers })
    }

    /// Where events are received.
    pub fn events_address(&self) -> SocketAddr {
        self.events
    }

    /// Where the admin surface is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Shows what surrounds it on the admin surface too; the first one counts.
    pub fn show(&self, surroundings: Arc<dyn Surroundings>) {
        let _ = self.parts.surroundings.set(surroundings);
    }

    /// Prints the one line that says where events are taken, for people and scripts.
    pub fn say_ready(&self) {
        self.applier().say_ready();
    }

    /// A handle that runs plans.
    pub fn applier(&self) -> Applier {
        Applier { parts: Arc::clone(&self.parts), events: self.events, admin: self.admin }
    }

    /// Runs a plan, and keeps it as the last good one. When it returns, each of its Webhooks has its
    /// place in the log on stable storage (but for a disk that stays full).
    pub async fn apply(&self, plan: &Plan) -> Arc<Applied> {
        self.apply_published(&Published::unpublished(plan.clone())).await
    }

    /// Runs a plan that was published; see [`Self::apply`].
    pub async fn apply_published(&self, plan: &Published) -> Arc<Applied> {
        self.parts.apply(plan).await
    }

    /// Runs the last good plan, when there is one; a damaged one is told and left alone.
    pub async fn apply_last_good(&self) -> Option<Arc<Applied>> {
        match plans::last_good(&self.parts.data_dir) {
            Ok(Some(plan)) => Some(self.parts.apply(&plan).await),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "the last good plan cannot be used");
                None
            }
        }
    }

    /// Follows a folder for ever: each new plan is run.
    pub fn follow(&self, mut folder: PlanFolder) -> impl Future<Output = ()> + Send + use<> {
        let parts = Arc::clone(&self.parts);
        async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                match folder.poll() {
                    Ok(Some(plan)) => drop(parts.apply(&plan).await),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the new plan cannot be used, the one before runs on");
                    }
                }
            }
        }
    }

    /// Works until `shutdown` resolves, then ends in order; an error of the store ends it at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), SidecarError> {
        self.run_and_tell(shutdown, std::future::ready(())).await
    }

    /// The same. `tell` is awaited once what waits was delivered and while the engine has its numbers yet.
    pub async fn run_and_tell(
        self,
        shutdown: impl Future<Output = ()>,
        tell: impl Future<Output = ()>,
    ) -> Result<(), SidecarError> {
        let Self { parts, options, events: _, admin: _, stop, servers } = self;
        let engine = &parts.engine;
        let ending = async {
            shutdown.await;
            let deadline = tokio::time::Instant::now() + options.drain_time;
            stop.send_replace(true);
            for server in servers {
                // A server that panicked has told so; there is nothing left to end.
                let _ = server.await;
            }
            if options.drain == Drain::Delivered {
                drain::deliver_what_waits(engine, deadline).await;
            }
            tell.await;
            deadline
        };
        let deadline = tokio::select! {
            biased;
            deadline = ending => deadline,
            // It also saves what is delivered meanwhile.
            error = engine.run_until_failure() => return Err(error.into()),
        };
        engine.stop(deadline).await?;
        engine.store().close().await?;
        Ok(())
    }
}

// === impl Applier ===

impl Applier {
    /// Runs a plan; see [`Sidecar::apply`].
    pub async fn apply(&self, plan: &Plan) -> Arc<Applied> {
        self.apply_published(&Published::unpublished(plan.clone())).await
    }

    /// Runs a plan that was published under a number, which is kept with it.
    pub async fn apply_published(&self, plan: &Published) -> Arc<Applied> {
        self.parts.apply(plan).await
    }

    /// Prints the one line that says where events are taken, for people and scripts.
    pub fn say_ready(&self) {
        use std::io::Write as _;
        let line = format!("ready events=http://{}/events admin=http://{}\n", self.events, self.admin);
        // A standard output that nobody reads any more is no reason to end.
        let _ = std::io::stdout().write_all(line.as_bytes());
    }

    /// The engine, for its numbers.
    pub fn engine(&self) -> &Arc<Engine<SqliteStore>> {
        &self.parts.engine
    }
}

// === impl Parts ===

impl<S: Store> Parts<S> {
    /// Events are taken for a plan only once its Webhooks' places are saved: an event that was answered
    /// before that would be missed by a Webhook that starts, after a crash, at the head beyond it.
    async fn apply(&self, published: &Published) -> Arc<Applied> {
        let applied = self.engine.apply(published);
        let (engine, receiver, ingest) =
            (Arc::clone(&self.engine), Arc::clone(&self.receiver), published.plan.ingest.clone());
        if receiver.takes_events() {
            receiver.set_ingest(&ingest);
        }
        let saving = tokio::spawn(async move {
            // A store that fails ends the process by itself.
            if engine.save().await.is_ok() {
                receiver.set_ingest(&ingest);
            }
        });
        // On a full disk it goes on by itself as soon as there is space.
        let _ = tokio::time::timeout(SAVE_PATIENCE, saving).await;
        if let Err(error) = plans::keep_last_good(&self.data_dir, published) {
            tracing::warn!(%error, "the plan runs, but could not be kept for the next start");
        }
        applied
    }

    /// What the metrics show besides the deliveries' own counts.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus holds every number as f64")]
    pub(crate) fn scrape(&self) -> Scrape {
        let store = self.engine.store();
        let applied = self.engine.applied();
        let counts = self.receiver.counts();
        let mut counters = counts.totals();
        let damaged = store.damaged_events();
        counters.push(("store_damaged_events", "Events of the log that were found damaged", damaged));
        counters.extend(self.surroundings.get().into_iter().flat_map(|around| around.counters()));
        Scrape {
            counters,
            gauges: vec![
                ("store_head", "The last event's place in the log", store.head().0 as f64),
                ("store_oldest", "The first event's place that retention left", store.oldest().0 as f64),
                ("store_free_bytes", "Free space where the store is", store.free_bytes() as f64),
                ("plan_generation", "Which published plan runs, from 1", applied.generation as f64),
                ("plan_webhooks", "Webhooks that run", applied.webhooks as f64),
                (
                    "plan_webhooks_rejected",
                    "Webhooks of the plan that are left out",
                    applied.rejected.len() as f64,
                ),
            ],
            refused: counts.refused(),
            webhooks: self.engine.snapshots(),
            now_ms: now_ms(),
        }
    }
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), SidecarError> {
    let refused = |source| SidecarError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

async fn serve_events<S: Store>(listener: TcpListener, parts: Arc<Parts<S>>, stop: watch::Receiver<bool>) {
    serve::serve(listener, Limits::EVENTS.within_sixteenths(3), stop, move |request| {
        let receiver = Arc::clone(&parts.receiver);
        async move { receiver.answer(request).await }
    })
    .await;
}

async fn serve_admin<S: Store>(listener: TcpListener, parts: Arc<Parts<S>>, stop: watch::Receiver<bool>) {
    let limits = Limits::ADMIN.within_sixteenths(1);
    serve::serve(listener, limits, stop, move |request| admin::answer(Arc::clone(&parts), request)).await;
}
