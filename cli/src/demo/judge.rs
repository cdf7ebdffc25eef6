//! `tidings demo judge`: what was acknowledged, what arrived, and whether an event is lost.

mod verdict;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use super::{DemoError, ledger};
use verdict::Verdict;

/// How often ledgers that still grow are read.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Compares the ledgers of auth servers and receivers: is an acknowledged event lost?
///
/// The ledgers of all auth servers and of all replicas of one receiver belong together. A receiver that
/// gets other events than another one is judged by itself.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ledgers of `demo auth-server`.
    #[arg(long, value_name = "LEDGER", num_args = 1.., required = true)]
    sent: Vec<PathBuf>,
    /// Ledgers of `demo receiver`.
    #[arg(long, value_name = "LEDGER", num_args = 1.., required = true)]
    received: Vec<PathBuf>,
    /// Speak of these events alone, by name; may be given more than once.
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// How long events that are missing are waited for.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    wait_seconds: u64,
    /// How the verdict is printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How the verdict is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Runs it.
pub(super) async fn run(arguments: &Arguments) -> Result<(), DemoError> {
    let until = Instant::now() + Duration::from_secs(arguments.wait_seconds);
    let mut verdict = look(arguments)?;
    while !verdict.lost.is_empty() && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        verdict = look(arguments)?;
    }
    match arguments.output {
        Output::Text => print!("{verdict}"),
        Output::Json => println!("{}", serde_json::to_string(&verdict).map_err(std::io::Error::from)?),
    }
    verdict.conclude().map_err(DemoError::Failed)
}

fn look(arguments: &Arguments) -> Result<Verdict, DemoError> {
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    // First what was sent: what is added in between can only arrive, not go missing.
    for path in &arguments.sent {
        sent.extend(ledger::read::<ledger::Sent>(path)?);
    }
    for path in &arguments.received {
        received.extend(ledger::read::<ledger::Received>(path)?);
    }
    let asked = |event: &str| arguments.events.is_empty() || arguments.events.iter().any(|one| one == event);
    sent.retain(|one| asked(&one.event));
    Ok(Verdict::of(&sent, &received))
}
