//! `tidings lint`: judges manifests offline.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tidings_operator::lint::{Report, assume_secrets, judge};
use tidings_operator::manifests::{FileFinding, load};

use crate::{FAILED, USAGE};

/// Judges manifests offline, by the very rules of the cluster: schema, CEL, and what the operator checks.
///
/// Webhooks, `AuthServers`, `WebhookReplays` and Secrets are read from files and folders; other kinds are passed
/// over. Where the `AuthServer` is not among the manifests, all that needs none is validated: schema, events, filter,
/// endpoint, headers, Secrets.
#[derive(Debug, Args)]
#[command(
    after_help = "EXIT CODES\n  0  nothing is wrong (warnings do not count)\n  1  something is wrong\n  2  nothing to judge, or bad usage"
)]
pub(crate) struct Arguments {
    /// Files and folders with manifests.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true, num_args = 1..)]
    paths: Vec<PathBuf>,
    /// Takes it that a Secret that is not among the manifests is in the cluster with the keys that are named, as
    /// with SOPS, Sealed Secrets or External Secrets.
    #[arg(long)]
    external_secrets: bool,
    /// How findings are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line a finding: <FILE:LINE>: error: OBJECT: FIELD: REASON: what to do.
    Text,
    /// One JSON object with errors and warnings.
    Json,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut loaded = load(&arguments.paths);
    if arguments.external_secrets {
        assume_secrets(&mut loaded);
    }
    let report = judge(&loaded);
    if report.objects == 0 && report.errors.is_empty() {
        eprintln!("tidings lint: there is no Webhook, AuthServer, WebhookReplay or Secret below these paths");
        return ExitCode::from(USAGE);
    }
    let text = if arguments.output == Output::Json { in_json(&report) } else { in_text(&report) };
    // A reader that went away wants no more.
    let _ = std::io::stdout().write_all(text.as_bytes());
    if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn in_text(report: &Report) -> String {
    let line = |severity: &str, found: &FileFinding| {
        let FileFinding { file, line, object, finding } = found;
        let parts = [object.as_str(), finding.field.as_str(), finding.reason.as_str(), &finding.message];
        let rest = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        format!("{}:{line}: {severity}: {rest}\n", file.display())
    };
    let errors = report.errors.iter().map(|found| line("error", found));
    let warnings = report.warnings.iter().map(|found| line("warning", found));
    let (wrong, odd) = (report.errors.len(), report.warnings.len());
    let sum = format!("{} objects judged: {wrong} errors, {odd} warnings\n", report.objects);
    errors.chain(warnings).chain([sum]).collect()
}

fn in_json(report: &Report) -> String {
    let list = |found: &[FileFinding]| found.iter().map(one).collect::<Vec<_>>();
    let whole = json!({ "objects": report.objects, "errors": list(&report.errors), "warnings": list(&report.warnings) });
    format!("{whole:#}\n")
}

/// A finding as JSON.
pub(crate) fn one(found: &FileFinding) -> Value {
    let FileFinding { file, line, object, finding } = found;
    json!({
        "file": file, "line": line, "object": object, "field": finding.field,
        "reason": finding.reason.as_str(), "message": finding.message,
    })
}

/// A finding as one line.
pub(crate) fn line(found: &FileFinding) -> String {
    let FileFinding { file, line, object, finding } = found;
    format!("{}:{line}: {object}: {}: {}: {}", file.display(), finding.field, finding.reason, finding.message)
}
