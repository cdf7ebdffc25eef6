//! `tidings-sidecar`: the sidecar as a process, its plan in a folder or in the cluster's Secrets.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use tidings_plan::ObjectName;
use tidings_pod::Signs;
use tidings_pod::arguments::{Arguments, Pod};
use tidings_pod::cluster::{self, ClusterError};
use tidings_pod::plan_secret::PlanSecret;
use tidings_pod::reporter::Reporter;
use tidings_pod::unmatched::Unmatched;
use tidings_pod::writer::Writer;
use tidings_sidecar::plans::PlanFolder;
use tidings_sidecar::sidecar::{Sidecar, SidecarError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

/// Why the process ends in error.
#[derive(Debug, thiserror::Error)]
enum EndError {
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

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
    let (folder, auth_server) = (arguments.plan.clone(), arguments.auth_server.clone());
    // Ends with this function, and everything in it.
    let mut tasks = JoinSet::new();
    let sidecar = match (folder, auth_server) {
        (_, Some(auth_server)) => in_cluster(arguments, auth_server, &mut tasks).await?,
        (folder, None) => {
            let folder = folder.unwrap_or_default();
            let sidecar = Sidecar::start(arguments.into()).await?;
            from_folder(&sidecar, &folder, &mut tasks).await;
            sidecar
        }
    };
    Ok(sidecar.run(ended()).await?)
}

/// Runs the folder's plan, or the last good one, and follows the folder.
async fn from_folder(sidecar: &Sidecar, folder: &Path, tasks: &mut JoinSet<()>) {
    let mut folder = PlanFolder::new(folder);
    match folder.poll() {
        Ok(Some(plan)) => drop(sidecar.apply(&plan).await),
        Ok(None) => drop(sidecar.apply_last_good().await),
        Err(error) => {
            tracing::warn!(%error, "the plan cannot be used, the last good one runs");
            drop(sidecar.apply_last_good().await);
        }
    }
    sidecar.say_ready();
    tasks.spawn(sidecar.follow(folder));
}

/// Runs the last good plan at once, since an event that is refused is lost, follows the plan's Secrets,
/// and reports.
async fn in_cluster(
    arguments: Arguments,
    auth_server: ObjectName,
    tasks: &mut JoinSet<()>,
) -> Result<Sidecar, EndError> {
    let client = cluster::connect().await?;
    let pod = arguments.pod(&auth_server);
    let data_dir = arguments.data_dir().to_owned();
    let sidecar = Sidecar::start(arguments.into()).await?;
    let signs = Arc::new(Signs::default());
    sidecar.show(Arc::clone(&signs) as _);
    drop(sidecar.apply_last_good().await);
    let (events, admin) = (sidecar.events_address(), sidecar.admin_address());
    tracing::info!(%auth_server, pod = pod.name, %events, %admin, "the plan is looked for in the cluster");
    let plan = PlanSecret::new(client.clone(), auth_server.clone(), sidecar.applier(), Arc::clone(&signs));
    tasks.spawn(plan.follow());
    let unmatched = Unmatched::open(&data_dir);
    report(client, auth_server, pod, &sidecar, unmatched, signs, tasks);
    Ok(sidecar)
}

fn report(
    client: kube::Client,
    auth_server: ObjectName,
    pod: Pod,
    sidecar: &Sidecar,
    unmatched: Unmatched,
    signs: Arc<Signs>,
    tasks: &mut JoinSet<()>,
) {
    let engine = Arc::clone(sidecar.applier().engine());
    let (reporter, newest) = Reporter::new(engine, auth_server.clone(), pod.name.clone(), unmatched);
    tasks.spawn(reporter.run());
    tasks.spawn(Writer::new(client, auth_server, pod, newest, signs).run());
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
    tracing::info!("ending: requests and attempts under way are waited for");
}
