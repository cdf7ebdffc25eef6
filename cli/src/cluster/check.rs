//! `tidings check`: whether an installation is ready. `helm test` runs it in the cluster.
//!
//! ```text
//! look (asks the API server) --> findings, as doctor words them --> lines
//!   ^                               |
//!   +--- again, until all are ok ---+
//! ```
//!
//! It looks at the operator and at auth servers, and never at a team's Webhooks: an installation is ready, whatever their
//! receivers do. What it may not look at is not ready. It changes nothing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use tidings_crds::AuthServer;

use super::connect::{Ask, Cluster, Failure, TIDINGS};
use super::doctor::evidence::{Look, Operator};
use super::doctor::gather::{OPERATOR, look, operator};
use super::doctor::in_text;
use super::doctor::judge::{About, Finding, Verdict, of_status, operator_runs};
use super::{ClusterArguments, put};

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(1);

/// Checks whether an installation is ready: the operator, and the auth servers of the namespaces that are named.
///
/// It waits until the operator's replicas are all ready and one of them leads, and until each AuthServer's conditions
/// are true. `helm test` runs it in the cluster. It changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "EXAMPLES\n  \
    tidings check --operator-namespace tidings-system\n  \
    tidings check --operator-namespace tidings-system --auth-servers auth\n\n\
    EXIT CODES\n  0  everything is ready\n  1  something is not, or the cluster cannot be asked\n  2  bad usage")]
pub(crate) struct Arguments {
    /// The operator's Deployment, and its Lease.
    #[arg(long, value_name = "NAME", default_value = OPERATOR)]
    operator: String,
    /// Where the operator runs [default: the context's namespace].
    #[arg(long, value_name = "NAMESPACE")]
    operator_namespace: Option<String>,
    /// The namespaces whose auth servers are checked too; one that has no AuthServer is ready.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    auth_servers: Vec<String>,
    /// How long all of it may take to become ready, in seconds; with 0 it looks once.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    super::run("check", async {
        let cluster = Cluster::connect(&arguments.cluster).await?;
        let (began, timeout) = (Instant::now(), Duration::from_secs(arguments.timeout));
        loop {
            let seen = findings(&cluster, arguments).await;
            let ready = seen.as_ref().is_ok_and(|findings| all_ok(findings));
            let again = !ready && !matches!(seen, Err(Failure::Unauthenticated));
            if !again || began.elapsed() >= timeout {
                put(&in_text(&seen?));
                return Ok(ready);
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

fn all_ok(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict == Verdict::Ok)
}

/// One look at everything.
async fn findings(cluster: &Cluster, arguments: &Arguments) -> Result<Vec<Finding>, Failure> {
    let namespace = arguments.operator_namespace.as_deref().unwrap_or(&cluster.namespace);
    let seen = operator(cluster, Some(namespace), &arguments.operator).await?;
    let about = format!("operator {namespace}/{}", arguments.operator);
    let mut findings = of_operator(&About(&about), &arguments.operator, &seen, Timestamp::now());
    for namespace in &arguments.auth_servers {
        findings.extend(of_namespace(namespace, auth_servers(cluster, namespace).await?));
    }
    Ok(findings.into_iter().map(strict).collect())
}

/// What cannot be looked at is not ready.
fn strict(finding: Finding) -> Finding {
    match finding.verdict {
        Verdict::Unseen => Finding { verdict: Verdict::Problem, ..finding },
        Verdict::Ok | Verdict::Problem => finding,
    }
}

async fn auth_servers(cluster: &Cluster, namespace: &str) -> Result<Look<Vec<AuthServer>>, Failure> {
    let servers: Api<AuthServer> = Api::namespaced(cluster.client.clone(), namespace);
    let listed = servers.list(&ListParams::default()).await;
    look(Ask::new("list", TIDINGS, "authservers").within(namespace), listed.map(|list| Some(list.items)))
}

/// One of the replicas leads, and all of them are ready.
fn of_operator(about: &About<'_>, name: &str, operator: &Look<Operator>, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![operator_runs(about, name, operator, now)];
    let Look::Seen(Operator { namespace, replicas, .. }) = operator else { return findings };
    let check = "replicas";
    findings.push(match replicas {
        Some((ready, wanted)) if ready >= wanted && *ready > 0 => {
            about.ok(check, format!("{ready} of {wanted} are ready"))
        }
        Some((ready, wanted)) => {
            about.problem(check, format!("{ready} of {wanted} are ready at the newest version")).solved_by(
                format!("kubectl get deployments,pods -n {namespace}; the operator's log has the reason"),
            )
        }
        None => about.unseen(check, "its Deployment is not there, or may not be read"),
    });
    findings
}

fn of_namespace(namespace: &str, servers: Look<Vec<AuthServer>>) -> Vec<Finding> {
    let about = format!("namespace {namespace}");
    let about = About(&about);
    match servers {
        Look::Seen(servers) if servers.is_empty() => {
            vec![about.ok("authservers", "there is no AuthServer yet")]
        }
        Look::Seen(servers) => servers.iter().flat_map(|server| of_server(namespace, server)).collect(),
        Look::Missing => vec![
            about
                .problem("authservers", "the definitions of tidings.dev/v1alpha1 are not installed")
                .solved_by("install the chart tidings-crds, or `kubectl apply -f crds`"),
        ],
        Look::Barred(why) => vec![about.unseen("authservers", &why)],
    }
}

fn of_server(namespace: &str, server: &AuthServer) -> Vec<Finding> {
    let name = server.metadata.name.as_deref().unwrap_or_default();
    of_status(&About(&format!("authserver {namespace}/{name}")), server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(replicas: Option<(i32, i32)>, held: bool) -> Vec<Verdict> {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().expect("a time");
        let operator = Operator {
            namespace: "tidings".to_owned(),
            holder: held.then(|| "operator-0".to_owned()),
            renewed: Some(now),
            lease_seconds: 15,
            replicas,
        };
        let findings = of_operator(&About("operator"), "tidings-operator", &Look::Seen(operator), now);
        findings.into_iter().map(|finding| strict(finding).verdict).collect()
    }

    #[test]
    fn the_operator_is_ready_when_every_replica_is_and_one_leads() {
        assert_eq!(verdicts(Some((2, 2)), true), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(Some((1, 2)), true), [Verdict::Ok, Verdict::Problem]);
        assert_eq!(
            verdicts(Some((0, 0)), true),
            [Verdict::Ok, Verdict::Problem],
            "none is wanted, none works"
        );
        assert_eq!(verdicts(Some((2, 2)), false), [Verdict::Problem, Verdict::Ok]);
        assert_eq!(verdicts(None, true), [Verdict::Ok, Verdict::Problem]);
    }

    #[test]
    fn what_may_not_be_looked_at_is_not_ready_and_an_empty_namespace_is() {
        let of = |servers| {
            let findings: Vec<_> = of_namespace("auth", servers).into_iter().map(strict).collect();
            all_ok(&findings)
        };
        assert!(of(Look::Seen(Vec::new())));
        assert!(!of(Look::Missing));
        assert!(!of(Look::Barred("no".to_owned())));
    }
}
