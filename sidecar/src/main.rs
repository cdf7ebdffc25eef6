//! `tidings-sidecar`: the sidecar as a binary of its own, with its plan in a folder.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidings_sidecar::plans::PlanFolder;
use tidings_sidecar::sidecar::{Options, Sidecar, SidecarError};
use tidings_store::Settings;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Receives an auth server's events, stores them durably, and delivers them as its plan says.
///
/// The plan is a file plan.json in the folder --plan; it is followed, and the last good one is kept in
/// the data folder and used at start when there is no other.
#[derive(Debug, Parser)]
#[command(name = "tidings-sidecar", version)]
struct Arguments {
    /// The folder that holds plan.json.
    #[arg(long, value_name = "DIR", env = "TIDINGS_PLAN")]
    plan: PathBuf,
    /// Where events are received: POST /events.
    #[arg(long, default_value = "127.0.0.1:8787", env = "TIDINGS_LISTEN")]
    listen: SocketAddr,
    /// Where /livez, /readyz, /metrics, /webhooks, /replays, /deliveries and /deadletters are.
    #[arg(long, default_value = "127.0.0.1:8788", env = "TIDINGS_ADMIN_LISTEN")]
    admin_listen: SocketAddr,
    /// Where events are stored.
    #[arg(long, default_value = "tidings-data", value_name = "DIR", env = "TIDINGS_DATA_DIR")]
    data_dir: PathBuf,
    /// The largest event that is taken, in bytes. Logto never sends again what it was refused.
    #[arg(long, default_value_t = 8 << 20, value_name = "BYTES")]
    max_body_bytes: usize,
    /// How long events are kept, in seconds.
    #[arg(long, default_value_t = 7 * 24 * 3600, value_name = "SECONDS")]
    max_age_seconds: u64,
    /// How many bytes of events are kept.
    #[arg(long, default_value_t = 4 << 30, value_name = "BYTES")]
    max_bytes: u64,
    /// Under this much free space events are refused with 503, before the disk is full.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    min_free_bytes: u64,
    /// How long attempts under way are waited for at the end, in seconds.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    drain_seconds: u64,
    /// Start although the store's file lost events that were acknowledged.
    #[arg(long)]
    accept_data_loss: bool,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("TIDINGS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the sidecar ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), SidecarError> {
    let plan = arguments.plan.clone();
    let sidecar = Sidecar::start(arguments.into()).await?;
    let mut folder = PlanFolder::new(&plan);
    match folder.poll() {
        Ok(Some(plan)) => drop(sidecar.apply(&plan).await),
        Ok(None) => drop(sidecar.apply_last_good().await),
        Err(error) => {
            tracing::warn!(%error, "the plan cannot be used, the last good one runs");
            drop(sidecar.apply_last_good().await);
        }
    }
    sidecar.say_ready();
    let follow = sidecar.follower(folder);
    let result = sidecar.run(ended()).await;
    follow.abort();
    result
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

// === impl Arguments ===

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        let Arguments {
            plan: _,
            listen,
            admin_listen,
            data_dir,
            max_body_bytes,
            max_age_seconds,
            max_bytes,
            min_free_bytes,
            drain_seconds,
            accept_data_loss,
        } = arguments;
        let max_age = Duration::from_secs(max_age_seconds);
        Self {
            listen,
            admin_listen,
            store: Settings {
                dir: data_dir,
                max_age,
                max_bytes,
                min_free_bytes,
                accept_data_loss,
                ..Settings::default()
            },
            max_body_bytes,
            drain: Duration::from_secs(drain_seconds),
            control_plane: api_server(),
        }
    }
}

/// The API server's address, as a pod's environment tells it.
fn api_server() -> Vec<std::net::IpAddr> {
    std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok()).into_iter().collect()
}
