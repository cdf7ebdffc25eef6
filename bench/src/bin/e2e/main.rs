//! End-to-end figures: the sidecar as a process, a load generator and a receiver beside it.
//!
//! ```text
//! load --POST--> receiver             the reference, in the same run
//! load --POST--> sidecar --POST--> receiver
//! ```
//!
//! `cargo run --release -p tidings-bench --bin e2e` runs every scenario and prints one table; name
//! scenarios to run those alone. Bodies have 1 KiB and are signed; each event is synced before its answer.

mod scenarios;
mod sidecar;

use clap::Parser;

/// Measures the sidecar end to end.
#[derive(Debug, Parser)]
struct Arguments {
    /// The scenarios to run, all of them when none is named: rate, ten, latency, idle, backlog, hang,
    /// webhooks.
    scenarios: Vec<String>,
    /// How many events one measurement of a rate sends.
    #[arg(long, default_value_t = 40_000)]
    events: usize,
    /// How many events the backlog holds.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: usize,
    /// How many connections the load generator has.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments = Arguments::parse();
    println!("{:<52} {:>14}  against", "figure", "measured");
    for (name, run) in scenarios::ALL {
        if arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|wanted| wanted == name) {
            run(&arguments).await;
        }
    }
}
