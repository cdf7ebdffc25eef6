//! `tidings`: the command line. Webhooks without a cluster, manifests judged offline, signatures checked, and
//! the cluster asked what became of its deliveries. Under the name `kubectl-tidings` it is kubectl's plugin.

mod cluster;
mod demo;
mod dev;
mod lint;
mod moment;
mod signals;
mod table;
mod verify;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// As kubectl's plugin this program is called so.
const KUBECTL: &str = "kubectl tidings";

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
    Deliveries(cluster::deliveries::Arguments),
    #[command(name = "deadletters", visible_alias = "dead-letters")]
    DeadLetters(cluster::dead_letters::Arguments),
    Replay(cluster::replay::Arguments),
    Test(cluster::test_event::Arguments),
    Doctor(cluster::doctor::Arguments),
    Check(cluster::check::Arguments),
    Demo(demo::Arguments),
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
    let matches = named_as_called(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Dev(arguments) => dev::run(arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Deliveries(arguments) => cluster::deliveries::run(&arguments),
        Command::DeadLetters(arguments) => cluster::dead_letters::run(&arguments),
        Command::Replay(arguments) => cluster::replay::run(&arguments),
        Command::Test(arguments) => cluster::test_event::run(&arguments),
        Command::Doctor(arguments) => cluster::doctor::run(&arguments),
        Command::Check(arguments) => cluster::check::run(&arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidings", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// What the user typed: `kubectl tidings` where kubectl found this program as its plugin.
pub(crate) fn program() -> &'static str {
    let called = std::env::args_os().next().map(PathBuf::from);
    let name = called.as_deref().and_then(Path::file_name).unwrap_or_default();
    if name == "kubectl-tidings" { KUBECTL } else { "tidings" }
}

/// The command under the name that the user typed, in its examples too.
fn named_as_called(command: clap::Command) -> clap::Command {
    if program() != KUBECTL {
        return command;
    }
    command.bin_name(KUBECTL).mut_subcommands(|command| {
        let help = command.get_after_help().map(ToString::to_string);
        match help {
            Some(help) => command.after_help(help.replace("  tidings ", &format!("  {KUBECTL} "))),
            None => command,
        }
    })
}
