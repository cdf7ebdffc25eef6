//! `tidings doctor`: what is wrong with a Webhook, and the way out, a line for each check.
//!
//! ```text
//! gather (asks the API server) --> Evidence --> judge (pure) --> findings --> lines
//! ```
//!
//! It changes nothing. What its user may not look at, it says so and goes on.

pub(super) mod evidence;
pub(super) mod gather;
pub(super) mod judge;

use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::connect::Cluster;
use super::sidecars::object_name;
use super::{ClusterArguments, TextOutput, put};
use crate::table;
use gather::{Scope, gather};
use judge::{Finding, Verdict, judge};

/// Says what is wrong with a Webhook and the way out, a line for each check.
///
/// It looks at the definitions, the operator's Lease, the AuthServer, the Secrets, the Webhook's spec and
/// conditions, the plan, the sidecars' reports and the endpoint. What you may not look at it says, and goes
/// on. A Secret's content is judged and never shown. It changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES\n  \
    tidings doctor welcome-mail -n shop\n  \
    tidings doctor -n shop              every Webhook of a namespace\n  \
    tidings doctor -A                   every Webhook\n\n\
    EXIT CODES\n  0  no problem was found\n  1  a problem was found, or the cluster cannot be asked\n  2  bad usage")]
pub(crate) struct Arguments {
    /// The Webhook: NAME or NAMESPACE/NAME [default: every one of the namespace].
    #[arg(value_name = "WEBHOOK", conflicts_with = "all_namespaces")]
    webhook: Option<String>,
    /// Looks at the Webhooks of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Where the operator runs [default: wherever its Lease is found].
    #[arg(long, value_name = "NAMESPACE")]
    operator_namespace: Option<String>,
    /// How the findings are printed.
    #[arg(short, long, value_enum, default_value_t = TextOutput::Text)]
    output: TextOutput,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    super::run("doctor", async {
        let cluster = Cluster::connect(&arguments.cluster).await?;
        let scope = match &arguments.webhook {
            Some(text) => Scope::One(object_name(text, &cluster.namespace, &arguments.cluster)?),
            None if arguments.all_namespaces => Scope::All,
            None => Scope::Namespace(cluster.namespace.clone()),
        };
        let operator = arguments.operator_namespace.as_deref();
        let findings = judge(&gather(&cluster, scope, operator, Timestamp::now()).await?);
        put(&match arguments.output {
            TextOutput::Text => in_text(&findings),
            TextOutput::Json => in_json(&findings),
        });
        Ok(count(&findings, Verdict::Problem) == 0)
    })
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings.iter().filter(|finding| finding.verdict == verdict).count()
}

pub(super) fn in_text(findings: &[Finding]) -> String {
    let (mut text, mut about) = (String::new(), None);
    for finding in findings {
        if about.replace(&finding.about) != Some(&finding.about) {
            text.push_str(&finding.about);
            text.push('\n');
        }
        let row = ["", finding.verdict.as_str(), finding.check, &finding.message].map(str::to_owned);
        text.push_str(&table::line(&row, &[0, 7, 11, 0]));
        if let Some(way_out) = &finding.way_out {
            text.push_str(&table::line(
                &["", "", "", &format!("-> {way_out}")].map(str::to_owned),
                &[0, 7, 11, 0],
            ));
        }
    }
    let (problems, unseen) = (count(findings, Verdict::Problem), count(findings, Verdict::Unseen));
    let unseen = if unseen > 0 { format!(", {unseen} not looked at") } else { String::new() };
    let problems = match problems {
        0 => "no problem found".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    text + &format!("{problems}{unseen}\n")
}

fn in_json(findings: &[Finding]) -> String {
    let list: Vec<_> = findings
        .iter()
        .map(|Finding { about, check, verdict, message, way_out }| {
            json!({ "about": about, "check": check, "verdict": verdict.as_str(), "message": message, "wayOut": way_out })
        })
        .collect();
    format!("{:#}\n", json!({ "problems": count(findings, Verdict::Problem), "findings": list }))
}
