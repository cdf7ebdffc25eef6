//! `tidings-sidecar`: the sidecar as a process, its plan in a folder or in the cluster's Secrets.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use tidings_crds::DeliveryReportSpec;
use tidings_plan::ObjectName;
use tidings_pod::Signs;
use tidings_pod::arguments::Arguments;
use tidings_pod::cluster::{self, ClusterError};
use tidings_pod::plan_secret::PlanSecret;
use tidings_pod::report;
use tidings_pod::reporter::Reporter;
use tidings_pod::unmatched::Unmatched;
use tidings_pod::writer::Writer;
use tidings_sidecar::plans::PlanFolder;
use tidings_sidecar::sidecar::{Front, Sidecar, SidecarError};
use tidings_store::wall_ms;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

/// Why the process ends in error.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What goes on beside the sidecar.
#[derive(Debug, Default)]
struct Beside {
    plans: Option<JoinHandle<()>>,
    reporter: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// How often is looked what keeps the store from opening.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the last report is waited for, once everything else has ended.
const LAST_REPORT: Duration = Duration::from_secs(2);

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    say_on_stderr();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the sidecar ends");
            ExitCode::FAILURE
        }
    }
}

fn say_on_stderr() {
    let mut filter = EnvFilter::try_from_env("TIDINGS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // It logs answers that it cannot read, and an answer can be a Secret. Its errors are told here.
    if let Ok(silent) = "kube_client=off".parse() {
        filter = filter.add_directive(silent);
    }
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}

async fn run(arguments: Arguments) -> Result<(), EndError> {
    let mut ended = std::pin::pin!(ended());
    let mut beside = Beside::default();
    // The ports first: whatever becomes of the store, they answer.
    let front = Front::bind(arguments.clone().into()).await?;
    let starting = async {
        match (arguments.plan.clone(), arguments.auth_server.clone()) {
            (_, Some(auth_server)) => in_cluster(front, &arguments, auth_server, &mut beside).await,
            (folder, None) => Ok(from_folder(front, &folder.unwrap_or_default(), &mut beside).await),
        }
    };
    let sidecar = tokio::select! {
        biased;
        () = ended.as_mut() => None,
        sidecar = starting => Some(sidecar?),
    };
    let result = match sidecar {
        Some(sidecar) => sidecar.run_and_tell(ended, beside.stop()).await,
        None => Ok(()),
    };
    beside.end().await;
    Ok(result?)
}

/// Runs the folder's plan, or the last good one, and follows the folder.
async fn from_folder(front: Front, folder: &Path, beside: &mut Beside) -> Sidecar {
    let sidecar = front.open().await;
    let mut folder = PlanFolder::new(folder);
    match folder.poll() {
        Ok(Some(plan)) => drop(sidecar.apply_published(&plan).await),
        Ok(None) => drop(sidecar.apply_last_good().await),
        Err(error) => {
            tracing::warn!(%error, "the plan cannot be used, the last good one runs");
            drop(sidecar.apply_last_good().await);
        }
    }
    sidecar.say_ready();
    beside.follow(sidecar.follow(folder));
    sidecar
}

/// Runs the last good plan at once, since an event that is refused is lost, follows the plan's Secrets,
/// and reports.
async fn in_cluster(
    front: Front,
    arguments: &Arguments,
    auth_server: ObjectName,
    beside: &mut Beside,
) -> Result<Sidecar, EndError> {
    let client = cluster::connect().await?;
    let pod = arguments.pod(&auth_server);
    let signs = Arc::new(Signs::default());
    front.show(Arc::clone(&signs) as _);
    let (newest, reports) = watch::channel(Vec::new());
    let writer = Writer::new(client.clone(), auth_server.clone(), pod.clone(), reports, Arc::clone(&signs));
    beside.write(writer.checking_every(arguments.report_check()));
    let sidecar = opened(front, &auth_server, &pod.name, &newest).await;
    drop(sidecar.apply_last_good().await);
    let (events, admin) = (sidecar.events_address(), sidecar.admin_address());
    tracing::info!(%auth_server, pod = pod.name, %events, %admin, "the plan is looked for in the cluster");
    let applier = sidecar.applier();
    let plan = PlanSecret::new(client, auth_server.clone(), pod.name.clone(), applier.clone(), signs);
    beside.follow(plan.follow());
    let unmatched = Unmatched::open(arguments.data_dir());
    beside.report(Reporter::new(applier, auth_server, pod.name, unmatched, newest));
    Ok(sidecar)
}

/// Opens the store. As long as that cannot be done, the report says why.
async fn opened(
    front: Front,
    auth_server: &ObjectName,
    pod: &str,
    newest: &watch::Sender<Vec<DeliveryReportSpec>>,
) -> Sidecar {
    let problem = front.problem();
    let mut reported = None;
    let reporting = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let problem = problem();
            if problem != reported
                && let Some(problem) = problem.clone()
            {
                newest.send_replace(report::without_store(&auth_server.name, pod, problem, wall_ms()));
            }
            reported = problem;
        }
    };
    tokio::select! {
        biased;
        sidecar = front.open() => sidecar,
        () = reporting => std::future::pending().await,
    }
}

// === impl Beside ===

impl Beside {
    /// Follows plans until it is stopped.
    fn follow(&mut self, plans: impl Future<Output = ()> + Send + 'static) {
        self.plans = Some(tokio::spawn(plans));
    }

    /// Reports until it is stopped.
    fn report(&mut self, reporter: Reporter) {
        self.reporter = Some(tokio::spawn(reporter.run(self.stop.subscribe())));
    }

    /// Writes reports as long as there are any to come.
    fn write(&mut self, writer: Writer) {
        self.writer = Some(tokio::spawn(writer.run()));
    }

    /// No plan is run any more, and the last report is made: while the engine has its numbers.
    async fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(plans) = &self.plans {
            plans.abort();
        }
        if let Some(reporter) = self.reporter.take() {
            let _ = reporter.await;
        }
    }

    /// Waits until the last report is written, within a bound.
    async fn end(self) {
        if let Some(writer) = self.writer {
            let _ = tokio::time::timeout(LAST_REPORT, writer).await;
        }
    }
}

/// Resolves at SIGTERM or SIGINT.
async fn ended() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending in order");
}
