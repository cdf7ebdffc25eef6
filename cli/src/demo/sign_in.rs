//! `tidings demo sign-in`: one user signs in, now.

use std::path::PathBuf;

use clap::Args;
use http::Uri;
use tidings_signature::SigningKey;

use super::DemoError;
use super::events::{Mark, SIGN_IN, with_time_of_now};
use super::key::KeySource;
use super::sender::{Sender, events_url};

/// Sends one captured `PostSignIn`, as Logto does, and prints the answer.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    to: To,
}

/// Where events go, and what signs them.
#[derive(Debug, Args)]
pub(super) struct To {
    /// Where the sidecar receives events.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8787/events", env = "TIDINGS_EVENTS_URL", value_parser = events_url)]
    events_url: Uri,
    /// The file with the hook's signing key.
    #[arg(long, value_name = "FILE", env = "TIDINGS_INGEST_KEY_FILE")]
    signing_key_file: Option<PathBuf>,
    /// The hook's signing key, where it is in no file. Without a key nothing is signed.
    #[arg(long, value_name = "KEY", env = "TIDINGS_INGEST_KEY", hide_env_values = true)]
    signing_key: Option<String>,
}

/// Runs it.
pub(super) async fn run(arguments: Arguments) -> Result<(), DemoError> {
    let sender = arguments.to.sender()?;
    let answer = sender.send(Mark::new().on(&with_time_of_now(SIGN_IN))).await.map_err(DemoError::Failed)?;
    let said = format!("{} {}", answer.status.as_u16(), answer.body);
    if answer.status.is_success() {
        println!("PostSignIn: {said}");
        return Ok(());
    }
    Err(DemoError::Failed(format!("PostSignIn was refused: {said}")))
}

// === impl To ===

impl To {
    pub(super) fn sender(self) -> Result<Sender, DemoError> {
        let key = KeySource::of(self.signing_key_file, self.signing_key).map(|source| source.read());
        let key = key.transpose()?.map(|text| SigningKey::new(&text));
        let key = key.transpose().map_err(|error| DemoError::Failed(error.to_string()))?;
        Ok(Sender::new(self.events_url, key))
    }
}
