//! The whole sidecar: store, engine, the events port and the admin port, started and ended in order.
//!
//! At start: the ports are bound and the admin port answers ([`Front`]), the store is opened and checked, the
//! last good plan runs if there is one, and then events are taken. At the end: no new connection is taken, requests under way are answered, what waits is delivered
//! where that is asked ([`Drain`]), attempts under way are waited for, what changed is saved, the store is
//! synced and closed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidings_plan::{Plan, Published};
use tidings_signature::question::AdminKey;
use tidings_store::{Settings, SqliteStore, Store, StoreError, clock_jumps, now_ms};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::descriptors;
use crate::drain::{self, Drain};
use crate::engine::{Applied, Engine};
use crate::fatal::EngineError;
use crate::front::{self, StoreProblem, Surface};
use crate::metrics::Scrape;
use crate::opening::{self, Opened};
use crate::plans::{self, LOOK_EVERY, PlanFolder};
use crate::receive::Receiver;
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
    /// The engine cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// At the end what changed last was not saved within the time.
    #[error(
        "what was delivered last could not be saved within the time at the end: {why}. No event is lost; after the next start some are delivered a second time, under the same webhook-id"
    )]
    NotSaved {
        /// What keeps it.
        why: String,
    },
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

/// A sidecar whose ports are bound, and whose store is not open yet. Its admin port answers.
pub struct Front {
    surface: Arc<Surface<SqliteStore>>,
    options: Options,
    events: SocketAddr,
    admin: SocketAddr,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
}

/// A sidecar at work.
pub struct Sidecar {
    front: Front,
    parts: Arc<Parts<SqliteStore>>,
}

/// Runs plans on a sidecar that is under way.
#[derive(Clone)]
pub struct Applier {
    parts: Arc<Parts<SqliteStore>>,
    surface: Arc<Surface<SqliteStore>>,
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
    pub(crate) tester: Tester,
    /// Whether connections to the events port are taken.
    accepts: watch::Sender<bool>,
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

// === impl Front ===

impl Front {
    /// Binds the ports. The admin port answers from now on; connections to the events port wait until a plan
    /// runs, or it is known that none will soon.
    pub async fn bind(options: Options) -> Result<Self, SidecarError> {
        descriptors::raise();
        let (events_port, events) = front::listen("events", options.listen).await?;
        let (admin_port, admin) = front::listen("admin", options.admin_listen).await?;
        tracing::info!(%events, %admin, "the ports are bound");
        let (surface, stop) = (Arc::new(Surface::new()), watch::Sender::new(false));
        let servers = vec![
            tokio::spawn(front::serve_events(events_port, Arc::clone(&surface), stop.subscribe())),
            tokio::spawn(front::serve_admin(admin_port, Arc::clone(&surface), stop.subscribe())),
        ];
        Ok(Self { surface, options, events, admin, stop, servers })
    }

    /// Shows what surrounds it on the admin surface too; the first one counts.
    pub fn show(&self, surroundings: Arc<dyn Surroundings>) {
        let _ = self.surface.surroundings.set(surroundings);
    }

    /// Why the store takes nothing: as a value to ask for again.
    pub fn problem(&self) -> impl Fn() -> Option<StoreProblem> + Send + Sync + use<> {
        let surface = Arc::clone(&self.surface);
        move || surface.problem()
    }

    /// Opens the store, as soon as that can be done. Where a person must replace files it never resolves:
    /// `/readyz` names them, and events are refused.
    pub async fn open(self) -> Sidecar {
        let Options { store, control_plane, .. } = &self.options;
        let opened = opening::open_sometime(store, control_plane, &self.surface).await;
        Sidecar::of(self, opened)
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Binds the ports and opens the store, once: for who looks on and can start it again. Events are
    /// taken once a plan runs.
    pub async fn start(options: Options) -> Result<Self, SidecarError> {
        let front = Front::bind(options).await?;
        let Options { store, control_plane, .. } = &front.options;
        let opened = opening::open(store.clone(), control_plane.clone()).await?;
        Ok(Self::of(front, opened))
    }

    fn of(front: Front, Opened { store, engine }: Opened) -> Self {
        let Options { max_body_bytes, store: Settings { dir, .. }, .. } = &front.options;
        let receiver = Receiver::new(store, *max_body_bytes, Arc::clone(&front.surface.counts));
        let parts = Arc::new(Parts {
            engine,
            receiver: Arc::new(receiver),
            tester: Tester::default(),
            accepts: front.surface.accepts(),
            data_dir: dir.clone(),
        });
        front.surface.opened(Arc::clone(&parts));
        Self { front, parts }
    }

    /// Where events are received.
    pub fn events_address(&self) -> SocketAddr {
        self.front.events
    }

    /// Where the admin surface is.
    pub fn admin_address(&self) -> SocketAddr {
        self.front.admin
    }

    /// Prints the one line that says where events are taken, for people and scripts.
    pub fn say_ready(&self) {
        self.applier().say_ready();
    }

    /// A handle that runs plans.
    pub fn applier(&self) -> Applier {
        let Front { surface, events, admin, .. } = &self.front;
        let (parts, surface) = (Arc::clone(&self.parts), Arc::clone(surface));
        Applier { parts, surface, events: *events, admin: *admin }
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

    /// Runs the last good plan, when there is one; a damaged one is logged and left alone. Events that come
    /// while there is none are refused.
    pub async fn apply_last_good(&self) -> Option<Arc<Applied>> {
        match plans::last_good(&self.parts.data_dir) {
            Ok(Some(plan)) => return Some(self.parts.apply(&plan).await),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the last good plan cannot be used"),
        }
        self.parts.accepts.send_replace(true);
        None
    }

    /// Follows a folder for ever: each new plan is run.
    pub fn follow(&self, mut folder: PlanFolder) -> impl Future<Output = ()> + Send + use<> {
        let parts = Arc::clone(&self.parts);
        async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let (polled, same) = aside(move || (folder.poll(), folder)).await;
                folder = same;
                match polled {
                    Ok(Some(plan)) => drop(parts.apply(&plan).await),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the new plan cannot be used, the one before runs on");
                    }
                }
            }
        }
    }

    /// Works until `shutdown` resolves, then ends in order; an error of the engine ends it, once that keeps no
    /// auth server from starting.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), SidecarError> {
        self.run_and_tell(shutdown, std::future::ready(())).await
    }

    /// The same. `tell` is awaited once what waits was delivered, or the store failed, and while the engine
    /// has its numbers yet.
    pub async fn run_and_tell(
        self,
        shutdown: impl Future<Output = ()>,
        tell: impl Future<Output = ()>,
    ) -> Result<(), SidecarError> {
        let Self { front: Front { surface, options, stop, servers, .. }, parts } = self;
        let engine = &parts.engine;
        let ending = async {
            shutdown.await;
            let deadline = tokio::time::Instant::now() + options.drain_time;
            stop.send_replace(true);
            for server in servers {
                // A server that panicked has told so; there is nothing left to end.
                let _ = tokio::time::timeout_at(deadline, server).await;
            }
            if options.drain == Drain::Delivered {
                drain::deliver_what_waits(engine, deadline).await;
            }
            deadline
        };
        let failing = async {
            // It also saves what is delivered meanwhile.
            let error = engine.run_until_failure().await;
            if let EngineError::Store(error) = &error {
                surface.failed(error);
            }
            surface.may_end().await;
            error
        };
        let ended = tokio::select! {
            biased;
            deadline = ending => Ok(deadline),
            error = failing => Err(error),
        };
        tell.await;
        drain::finish(engine, ended?).await
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

    /// Answers questions about one Webhook from outside of the pod, where they were signed with this key and for
    /// this pod; with `None`, none.
    pub fn admit(&self, key: Option<AdminKey>, pod: &str) {
        self.surface.admission.set_key(key, pod);
    }

    /// The engine, for its numbers.
    pub fn engine(&self) -> &Arc<Engine<SqliteStore>> {
        &self.parts.engine
    }

    /// Why the store takes nothing, where it does not.
    pub fn problem(&self) -> Option<StoreProblem> {
        self.surface.problem()
    }
}

// === impl Parts ===

impl<S: Store> Parts<S> {
    /// Events are taken for a plan only once its Webhooks' places are saved: an event that was answered
    /// before that would be missed by a Webhook that starts, after a crash, at the head beyond it.
    ///
    /// The work of thousands of Webhooks is done beside the threads that take events.
    async fn apply(&self, published: &Published) -> Arc<Applied> {
        let published = Arc::new(published.clone());
        let (engine, of_engine) = (Arc::clone(&self.engine), Arc::clone(&published));
        let applied = aside(move || engine.apply(&of_engine)).await;
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
        self.accepts.send_replace(true);
        let data_dir = self.data_dir.clone();
        if let Err(error) = aside(move || plans::keep_last_good(&data_dir, &published)).await {
            tracing::warn!(%error, "the plan runs, but could not be kept for the next start");
        }
        applied
    }

    /// What the metrics show besides the deliveries' own counts.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus holds every number as f64")]
    pub(crate) fn scrape(&self) -> Scrape {
        let store = self.engine.store();
        let applied = self.engine.applied();
        let damaged = store.damaged_events();
        let commits = store.commits();
        let (database_bytes, log_bytes) = store.file_bytes();
        Scrape {
            counters: vec![
                ("store_damaged_events", "Events of the log that were found damaged", damaged),
                (
                    "store_commits",
                    "Groups of events and changes that were written and synced",
                    commits.commits,
                ),
                ("store_commit_events", "Events in them", commits.events),
                ("clock_jumps", "Times that the wall clock was set by more than 10 s", clock_jumps()),
                (
                    "dead_letters_removed",
                    "Dead letters removed because their Webhook had too many",
                    store.dead_letters_removed(),
                ),
                (
                    "events_expired_absent",
                    "Events that retention took from Webhooks that the plan does not hold",
                    self.engine.expired_absent(),
                ),
            ],
            seconds: vec![(
                "store_commit_seconds",
                "Time that the groups took, the syncs included",
                commits.time.as_secs_f64(),
            )],
            gauges: vec![
                ("store_head", "The last event's place in the log", store.head().0 as f64),
                ("store_oldest", "The first event's place that retention left", store.oldest().0 as f64),
                ("store_free_bytes", "Free space where the store is", store.free_bytes() as f64),
                (
                    "store_commit_running_seconds",
                    "How long the write or sync that is under way has taken; 0 where there is none",
                    commits.running.unwrap_or_default().as_secs_f64(),
                ),
                ("store_database_bytes", "Size of the database's file", database_bytes as f64),
                ("store_log_bytes", "Size of its write-ahead log", log_bytes as f64),
                ("plan_generation", "Which published plan runs, from 1", applied.generation as f64),
                ("plan_webhooks", "Webhooks that run", applied.webhooks as f64),
                (
                    "plan_webhooks_rejected",
                    "Webhooks of the plan that are left out",
                    applied.rejected.len() as f64,
                ),
            ],
            refused: Vec::new(),
            webhooks: self.engine.snapshots(),
            now_ms: now_ms(),
        }
    }
}

/// Does what takes its time on a thread that serves nobody; a panic goes on here.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}
