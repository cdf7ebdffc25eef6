//! `tidings`: the command line. Webhooks without a cluster, manifests judged offline, signatures checked.

mod dev;
mod lint;
mod verify;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Something was found, or went wrong.
pub(crate) const FAILED: u8 = 1;
/// The command was not used as it can be.
pub(crate) const USAGE: u8 = 2;

/// Durable, declarative webhooks for an auth server.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Arguments),
    Lint(lint::Arguments),
    Verify(verify::Arguments),
    /// Prints the completions for a shell: `source <(tidings completions bash)`.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("TIDINGS_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Dev(arguments) => dev::run(arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidings", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
