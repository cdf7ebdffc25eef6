//! The commands that ask a cluster, or its sidecars.
//!
//! ```text
//! gateway: the operator's API, by the API server's service proxy ----------+
//! connect --> sidecars: AuthServer -> DeliveryReports -> pods -> admin port +--> deliveries, dead_letters, test_event
//!    +--> replay, doctor, check
//! ```
//!
//! The operator's API is asked first; where it cannot be used, or with `--port-forward`, a port is forwarded to each
//! sidecar. With `--admin URL` the sidecars are named by hand, and no API server is asked. Nothing here ever prints
//! a Secret or a token.

mod connect;
mod exchange;
mod gateway;
mod sidecars;

pub(crate) mod check;
pub(crate) mod dead_letters;
pub(crate) mod deliveries;
pub(crate) mod doctor;
pub(crate) mod replay;
pub(crate) mod test_event;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tidings_plan::ObjectName;

use crate::{FAILED, USAGE, program};
use connect::Failure;
use exchange::AdminUrl;

/// Which cluster, as kubectl has it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArguments {
    /// The Webhook's namespace [default: the context's].
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The kubeconfig's context.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The kubeconfig [default: $KUBECONFIG, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Which sidecars.
#[derive(Debug, Clone, Args)]
pub(crate) struct SidecarArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// A sidecar's admin address, such as <http://127.0.0.1:8788>: asks it, and no cluster. May be repeated.
    #[arg(long, value_name = "URL", value_parser = AdminUrl::parse)]
    admin: Vec<AdminUrl>,
    /// Forwards a port to each sidecar instead of asking the operator's API; needs pods/portforward in the
    /// AuthServer's namespace.
    #[arg(long, conflicts_with = "admin")]
    port_forward: bool,
    /// The Service of the operator's API.
    #[arg(long, value_name = "NAMESPACE/SERVICE", default_value = "tidings-system/tidings-operator", value_parser = service)]
    operator: ObjectName,
}

fn service(text: &str) -> Result<ObjectName, String> {
    ObjectName::parse(text).ok_or_else(|| "write it as NAMESPACE/SERVICE".to_owned())
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListOutput {
    /// Columns, as kubectl prints them.
    Table,
    /// JSON.
    Json,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOutput {
    /// In words.
    Text,
    /// One JSON object.
    Json,
}

/// Runs a command to its exit code; what went wrong is told under the command's own name.
fn run(command: &str, work: impl Future<Output = Result<bool, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(Failure::Other(error.to_string())),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(failure) => {
            eprintln!("{} {command}: {failure}", program());
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { USAGE } else { FAILED })
        }
    }
}

/// Prints a text; a reader that went away wants no more.
fn put(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Milliseconds since 1970 as RFC 3339.
fn time_of(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|time| format!("{time:.3}")).unwrap_or_default()
}
