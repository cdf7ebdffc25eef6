//! `tidings verify`: for a receiver's author, which part of a captured request's signatures is right.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tidings_signature::verify::{headers_of, verify};

use crate::{FAILED, USAGE};

/// Checks the signatures of a captured request, part by part.
///
/// Save a delivery as your receiver got it: the headers one by line ("name: value", a request line before
/// them is passed over) and the body as its exact bytes. The answer tells which part differs, and what is
/// probably wrong.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLE\n  \
    tidings verify --secret \"$(kubectl get secret mail-signing -o jsonpath='{.data.signingKey}' | base64 -d)\" \\\n    \
    --headers request.headers --body request.body\n\n\
    EXIT CODES\n  0  a signature is right and nothing differs\n  1  something differs\n  2  a file cannot be read")]
pub(crate) struct Arguments {
    /// The signing key, as it stands in the Secret. Better given by the environment than seen in `ps`.
    #[arg(long, env = "TIDINGS_SECRET", hide_env_values = true)]
    secret: String,
    /// The file with the headers.
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// The file with the body.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// Judge the timestamp's age too: it may be off by five minutes. Captures are mostly older.
    #[arg(long)]
    check_age: bool,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { secret, headers, body, check_age } = arguments;
    let (headers, body) = match (read(headers), read(body)) {
        (Ok(headers), Ok(body)) => (headers, body),
        (Err(message), _) | (_, Err(message)) => {
            eprintln!("tidings verify: {message}");
            return ExitCode::from(USAGE);
        }
    };
    let now = check_age.then(|| jiff::Timestamp::now().as_second());
    let report = verify(secret, &headers_of(&headers), &body, now);
    print!("{report}");
    if report.is_verified() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
