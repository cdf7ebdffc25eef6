//! `tidings dev`: Webhooks without a cluster. Manifests in, deliveries out, in one process.
//!
//! ```text
//! manifests -> operator: reconcile -> plan -> sidecar -> snapshots -> the table that kubectl prints
//!     ^---- followed
//! ```
//!
//! Nothing here judges or delivers: it calls the operator's and the sidecar's own code.

mod demo;
mod follow;
mod rows;
mod screen;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tidings_plan::ObjectName;
use tidings_sidecar::sidecar::{Applier, Options, Sidecar, SidecarError};
use tidings_store::Settings;

use crate::signals::ended;
use crate::{FAILED, USAGE};
use follow::Manifests;
use rows::Row;
use screen::Screen;

/// How often the numbers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs Webhooks from manifests, without a cluster.
///
/// Webhook, `AuthServer` and Secret manifests are judged by the operator's own code, and delivered by the
/// sidecar's own engine: what works here works in the cluster. Edit a file and the change is live. What was
/// acknowledged survives a kill -9; start again with the same --data-dir.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES\n  \
    tidings dev -f examples/auth-server.yaml examples/welcome-email\n  \
    tidings dev --demo            a tour: two services, one that fails and recovers\n  \
    curl -d '{\"event\":\"PostSignIn\",\"createdAt\":\"2026-01-01T00:00:00.000Z\"}' http://127.0.0.1:8787/events\n    \
                                  an event by hand, while the AuthServer has no ingest key\n\n\
    EXIT CODES\n  0  ended by SIGTERM or SIGINT with everything stored\n  1  the manifests or the store cannot be used\n  2  bad usage")]
pub(crate) struct Arguments {
    /// Files and folders with manifests.
    #[arg(short = 'f', long = "filename", value_name = "PATH", num_args = 1.., required_unless_present = "demo", conflicts_with = "demo")]
    paths: Vec<PathBuf>,
    /// Runs a tour with two services of its own, in place of manifests.
    #[arg(long)]
    demo: bool,
    /// With --demo: ends after the first event; exit code 0 only if both services verified it.
    #[arg(long, requires = "demo")]
    once: bool,
    /// Where events are received: POST /events.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Where /livez, /readyz, /metrics, /webhooks, /deliveries, /deadletters and /test are.
    #[arg(long, default_value = "127.0.0.1:8788")]
    admin_listen: SocketAddr,
    /// Where events are stored [default: tidings-data; with --demo a folder that is removed at the end].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The `AuthServer` to run, where the manifests hold more than one.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    auth_server: Option<ObjectName>,
    /// The largest event that is taken, in bytes.
    #[arg(long, default_value_t = 8 << 20, value_name = "BYTES")]
    max_body_bytes: usize,
    /// How the status is printed; by itself a table on a terminal, and lines elsewhere.
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

/// How the status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// The table that kubectl prints, refreshed in place.
    Table,
    /// One line for each change.
    Lines,
    /// One JSON object for each change.
    Json,
}

/// Why it ends with an error.
#[derive(Debug, thiserror::Error)]
enum DevError {
    #[error(transparent)]
    Sidecar(#[from] SidecarError),
    #[error("{0}")]
    Manifests(String),
    #[error("{0}")]
    Usage(String),
    #[error("the demo: {0}")]
    Demo(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// One run: the sidecar under way, what it runs, and where that is shown.
struct Session {
    manifests: Manifests,
    applier: Applier,
    screen: Screen,
    rows: Vec<Row>,
}

/// Runs it.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(DevError::Io).and_then(|runtime| {
        runtime.block_on(async {
            if arguments.demo { demo::run(arguments).await } else { follow_files(arguments).await }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings dev: {error}");
            ExitCode::from(if matches!(error, DevError::Usage(_)) { USAGE } else { FAILED })
        }
    }
}

async fn follow_files(arguments: Arguments) -> Result<(), DevError> {
    let manifests = Manifests::load(arguments.paths.clone(), arguments.auth_server.clone())?;
    let data_dir = arguments.data_dir.clone().unwrap_or_else(|| PathBuf::from("tidings-data"));
    let sidecar = Sidecar::start(options(&arguments, data_dir)).await?;
    let mut session = Session::start(&sidecar, manifests, Screen::new(arguments.output)).await;
    let showing = tokio::spawn(async move { session.show().await });
    let result = sidecar.run(ended()?).await;
    showing.abort();
    Ok(result?)
}

fn options(arguments: &Arguments, data_dir: PathBuf) -> Options {
    Options {
        listen: arguments.listen,
        admin_listen: arguments.admin_listen,
        max_body_bytes: arguments.max_body_bytes,
        store: Settings { dir: data_dir, ..Settings::default() },
        ..Options::default()
    }
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    ObjectName::parse(text).ok_or_else(|| format!("{text:?} is no NAMESPACE/NAME"))
}

// === impl Session ===

impl Session {
    /// Runs the manifests' plan, and says that it is ready.
    async fn start(sidecar: &Sidecar, manifests: Manifests, screen: Screen) -> Self {
        let mut session = Self { manifests, applier: sidecar.applier(), screen, rows: Vec::new() };
        session.apply().await;
        session.screen.ready(sidecar.events_address(), sidecar.admin_address());
        session
    }

    async fn apply(&mut self) {
        for found in self.manifests.findings() {
            self.screen.finding(found);
        }
        if let Some(plan) = self.manifests.plan() {
            self.applier.apply(plan).await;
        }
    }

    /// Shows every change, and follows the files, for ever.
    async fn show(&mut self) {
        loop {
            if self.manifests.reload() {
                self.apply().await;
            }
            self.refresh();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Shows what changed since the last look.
    fn refresh(&mut self) {
        let rows = rows::of(self.manifests.outcome(), &self.applier.engine().snapshots());
        self.screen.show(&rows, &self.rows);
        self.rows = rows;
    }
}
