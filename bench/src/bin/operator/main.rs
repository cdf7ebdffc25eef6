//! The operator's figures on a real API server: operator and sidecar as release processes, each with its
//! own `ServiceAccount`'s rights.
//!
//! ```text
//! bench --Webhooks, Secrets--> API server <--watch, get, write-- operator, sidecar
//!   ^-----------statuses-----------'
//! ```
//!
//! ```sh
//! cargo build --release -p tidings-operator -p tidings-pod
//! tests/controlplane/run -- cargo run --release -p tidings-bench --bin operator
//! ```
//!
//! It runs every scenario and prints one table; name scenarios to run those alone. Everything shares one
//! machine, API server and etcd included, so each figure has the load of that machine beside it.

mod cluster;
mod cold;
mod edit;
mod processes;
mod storm;

use std::time::Duration;

use clap::Parser;

use crate::cluster::Cluster;

/// Measures the operator on the API server that KUBECONFIG names; it should have nothing else to do.
#[derive(Debug, Parser)]
struct Arguments {
    /// The scenarios to run, all of them when none is named: edit, storm, cold.
    scenarios: Vec<String>,
    /// How many Webhooks a cold start meets; the edits have a tenth of them beside them.
    #[arg(long, default_value_t = 10_000)]
    webhooks: usize,
    /// How many edits are made, one after another.
    #[arg(long, default_value_t = 200)]
    edits: usize,
    /// How long the storm lasts.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments = Arguments::parse();
    let cluster = Cluster::prepare().await;
    println!("{:<52} {:>14}  against", "figure", "measured");
    let wants = |name: &str| {
        arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|wanted| wanted == name)
    };
    if wants("edit") {
        edit::run(&cluster, arguments.webhooks / 10, arguments.edits).await;
    }
    if wants("storm") {
        storm::run(&cluster, arguments.seconds).await;
    }
    // The last one: what it leaves behind is not removed.
    if wants("cold") {
        cold::run(&cluster, arguments.webhooks).await;
    }
}

/// A line of the table, with the machine's load of the last minute.
fn print(figure: &str, measured: &str, against: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    println!("{figure:<52} {measured:>14}  {against}; load {load}");
}

fn millis(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(of: u64, to: usize) -> f64 {
    of as f64 / to as f64
}

/// The quantile of sorted times.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}
