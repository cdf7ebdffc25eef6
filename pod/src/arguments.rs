//! The command line and the environment: what a sidecar is told at start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use tidings_plan::ObjectName;
use tidings_sidecar::drain::Drain;
use tidings_sidecar::sidecar::Options;
use tidings_store::Settings;

/// Receives an auth server's events, stores them durably, and delivers them as its plan says.
///
/// The plan is either a file plan.json in the folder --plan, or lies in the Secrets of --auth-server in the
/// cluster that it runs in. Either is followed, and the last good plan is kept in the data folder and used
/// at start when there is no other.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "tidings-sidecar",
    version,
    group = ArgGroup::new("source").required(true).args(["plan", "auth_server"])
)]
pub struct Arguments {
    /// The folder that holds plan.json.
    #[arg(long, value_name = "DIR", env = "TIDINGS_PLAN")]
    pub plan: Option<PathBuf>,
    /// The AuthServer whose plan is read from the cluster, and beside which the report is written.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "TIDINGS_AUTH_SERVER", value_parser = object_name)]
    pub auth_server: Option<ObjectName>,
    #[command(flatten)]
    pod: PodArguments,
    /// Where events are received: POST /events.
    #[arg(long, default_value = "127.0.0.1:8787", env = "TIDINGS_LISTEN")]
    listen: SocketAddr,
    /// Where /livez, /readyz, /startupz and /metrics are for anyone, and for who is in the pod /webhooks,
    /// /replays, /deliveries, /deadletters and /test.
    #[arg(long, default_value = "127.0.0.1:8788", env = "TIDINGS_ADMIN_LISTEN")]
    admin_listen: SocketAddr,
    /// Where events are stored.
    #[arg(long, default_value = "tidings-data", value_name = "DIR", env = "TIDINGS_DATA_DIR")]
    data_dir: PathBuf,
    /// The largest event that is taken, in bytes. Logto never sends again what it was refused.
    #[arg(long, default_value_t = 8 << 20, value_name = "BYTES")]
    max_body_bytes: usize,
    /// How long events are kept, in seconds.
    #[arg(long, default_value_t = 7 * 24 * 3600, value_name = "SECONDS")]
    max_age_seconds: u64,
    /// How many bytes of events are kept, as in 512Mi; beyond, the oldest go, delivered or not.
    #[arg(long, default_value = "4Gi", value_name = "BYTES", env = "TIDINGS_MAX_BYTES", value_parser = bytes)]
    max_bytes: u64,
    /// Under this much free space events are refused with 503, before the disk is full.
    #[arg(long, default_value = "64Mi", value_name = "BYTES", env = "TIDINGS_MIN_FREE_BYTES", value_parser = bytes)]
    min_free_bytes: u64,
    /// How large the data folder may become: the sizeLimit of its emptyDir, which the disk does not tell.
    #[arg(long, value_name = "BYTES", env = "TIDINGS_DATA_SIZE_LIMIT", value_parser = bytes)]
    data_size_limit: Option<u64>,
    /// What is waited for at the end: attempts under way, since what waits is on the volume; or that
    /// everything is delivered, since the volume goes with the pod.
    #[arg(long, value_enum, default_value_t, env = "TIDINGS_DRAIN_UNTIL")]
    drain_until: DrainUntil,
    /// How long that is waited for at the most, in seconds; less than the pod's grace period.
    #[arg(long, default_value_t = 20, value_name = "SECONDS", env = "TIDINGS_DRAIN_SECONDS")]
    drain_seconds: u64,
    /// Start although the store's file lost events that were acknowledged.
    #[arg(long)]
    accept_data_loss: bool,
}

/// What is waited for at the end.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum DrainUntil {
    /// Attempts under way.
    #[default]
    UnderWay,
    /// What waits too, as far as its endpoints take it.
    Delivered,
}

/// The pod, as the downward API tells it.
#[derive(Debug, Clone, clap::Args)]
struct PodArguments {
    /// The pod's name, which its report has too; the host's name when it is not given.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod_name: Option<String>,
    /// The pod's namespace; that of the AuthServer when it is not given.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pod_namespace: Option<String>,
    /// The pod's UID: with it the report is owned by the pod, and goes with it.
    #[arg(long, value_name = "UID", env = "POD_UID")]
    pod_uid: Option<String>,
    /// How often it is looked whether the report still stands in the cluster as it was written, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    report_check_seconds: u64,
}

/// The pod that a sidecar runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its UID, where the report can be owned by it.
    pub uid: Option<String>,
}

// === impl Arguments ===

impl Arguments {
    /// How often it is looked whether the report still stands in the cluster.
    pub fn report_check(&self) -> Duration {
        Duration::from_secs(self.pod.report_check_seconds)
    }

    /// The pod. An owner in another namespace is none: the cluster would remove what it owns.
    pub fn pod(&self, auth_server: &ObjectName) -> Pod {
        let PodArguments { pod_name, pod_namespace, pod_uid, report_check_seconds: _ } = &self.pod;
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let name = given(pod_name).unwrap_or_else(host_name);
        let elsewhere =
            given(pod_namespace).filter(|namespace| *namespace != auth_server.namespace && pod_uid.is_some());
        if let Some(namespace) = elsewhere {
            tracing::warn!(
                pod = name,
                namespace,
                "the pod is not in the AuthServer's namespace: its report does not go with it"
            );
            return Pod { name, uid: None };
        }
        Pod { name, uid: given(pod_uid) }
    }

    /// Where events are stored.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }
}

impl From<Arguments> for Options {
    fn from(arguments: Arguments) -> Self {
        let Arguments {
            plan: _,
            auth_server: _,
            pod: _,
            listen,
            admin_listen,
            data_dir,
            max_body_bytes,
            max_age_seconds,
            max_bytes,
            min_free_bytes,
            data_size_limit,
            drain_until,
            drain_seconds,
            accept_data_loss,
        } = arguments;
        let max_age = Duration::from_secs(max_age_seconds);
        Self {
            listen,
            admin_listen,
            store: Settings {
                dir: data_dir,
                max_age,
                max_bytes,
                min_free_bytes,
                size_limit: data_size_limit,
                accept_data_loss,
                ..Settings::default()
            },
            max_body_bytes,
            drain: match drain_until {
                DrainUntil::UnderWay => Drain::UnderWay,
                DrainUntil::Delivered => Drain::Delivered,
            },
            drain_time: Duration::from_secs(drain_seconds),
            control_plane: api_server(),
        }
    }
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    ObjectName::parse(text).ok_or_else(|| "write it as NAMESPACE/NAME".to_owned())
}

/// A number of bytes, also as a Kubernetes quantity with a binary suffix.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => return Err("write a number of bytes, or one with Ki, Mi, Gi or Ti".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too many".to_owned())
}

/// The host's name, which in a pod is the pod's.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() { "tidings-sidecar".to_owned() } else { name }
}

/// The API server's address, as a pod's environment tells it.
fn api_server() -> Vec<IpAddr> {
    std::env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse().ok()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [&str; 4] = ["--plan", "plans", "--auth-server", "auth/logto"];

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("tidings-sidecar").chain(arguments.iter().copied()))
    }

    #[test]
    fn the_plan_comes_from_exactly_one_place() {
        assert!(parse(&[]).is_err());
        assert!(parse(&BOTH).is_err());
        assert!(parse(&BOTH[..2]).is_ok());
        assert_eq!(parse(&BOTH[2..]).unwrap().auth_server, Some(ObjectName::new("auth", "logto")));
        assert!(parse(&["--auth-server", "logto"]).is_err());
    }

    #[test]
    fn a_pod_of_another_namespace_does_not_own_the_report() {
        let pod = |namespace| {
            let own = ["--pod-name", "logto-0", "--pod-uid", "u1", "--pod-namespace", namespace];
            parse(&[&BOTH[2..], &own[..]].concat()).unwrap().pod(&ObjectName::new("auth", "logto"))
        };
        assert_eq!(pod("auth"), Pod { name: "logto-0".to_owned(), uid: Some("u1".to_owned()) });
        assert_eq!(pod("other"), Pod { name: "logto-0".to_owned(), uid: None });
    }

    #[test]
    fn sizes_are_written_as_in_a_pod() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64Mi"), Ok(64 << 20));
        assert_eq!(bytes("2Gi"), Ok(2 << 30));
        for wrong in ["", "Gi", "2G", "1.5Gi", "-1", "20000000Ti"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
