//! `tidings demo`: what stands around Tidings in a trial of it, as programs that run anywhere.
//!
//! ```text
//! auth-server, sign-in --POST--> sidecar --POST--> receiver
//!          |                                          |
//!     sent ledger ----------> judge <-------- received ledger
//! ```
//!
//! None of them knows Tidings from within: they speak HTTP as Logto and as a service of a team do, and the
//! deliveries are verified by the official Standard Webhooks library.

mod auth_server;
pub(crate) mod delivery;
pub(crate) mod events;
mod judge;
mod key;
mod ledger;
mod pace;
mod receiver;
pub(crate) mod sender;
mod sign_in;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use tokio::net::TcpListener;

use crate::{FAILED, USAGE};

/// Stands for the auth server and for a receiver, and judges whether an event was lost.
///
/// With these a platform team proves in its own cluster what Tidings promises: `auth-server` sends events to
/// its sidecar and keeps a ledger of what was answered 2xx, `receiver` verifies what comes and keeps one too,
/// and `judge` compares them.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES\n  \
    tidings demo receiver --signing-key-file key --ledger received.jsonl\n  \
    tidings demo auth-server --rate 100 --ledger sent.jsonl\n  \
    tidings demo judge --sent sent.jsonl --received received.jsonl --wait-seconds 60\n  \
    kubectl exec deploy/logto -n auth -c logto -- /tidings demo sign-in\n\n\
    EXIT CODES\n  0  done; judge: nothing is lost\n  1  an event was refused or lost, or a file or an address cannot be used\n  2  bad usage")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    AuthServer(auth_server::Arguments),
    SignIn(sign_in::Arguments),
    Receiver(receiver::Arguments),
    Judge(judge::Arguments),
}

/// Why a part ends with an error.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs it.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(DemoError::Io).and_then(|runtime| {
        runtime.block_on(async {
            match arguments.part {
                Part::AuthServer(arguments) => auth_server::run(arguments).await,
                Part::SignIn(arguments) => sign_in::run(arguments).await,
                Part::Receiver(arguments) => receiver::run(arguments).await,
                Part::Judge(arguments) => judge::run(&arguments).await,
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings demo: {error}");
            ExitCode::from(if matches!(error, DemoError::Usage(_)) { USAGE } else { FAILED })
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DemoError> {
    let refused = |error| DemoError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Milliseconds since 1970.
fn now_milliseconds() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
