//! Operator and sidecar as users run them: release binaries, processes of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::cluster::Cluster;

/// One process.
struct Process {
    child: Child,
    line: String,
}

/// Both of them.
pub(crate) struct Processes {
    operator: Process,
    sidecar: Process,
    client: reqwest::Client,
}

/// What both did to the API server since they began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cost {
    /// The operator's requests, by method, with those for its Lease.
    pub(crate) requests: Vec<(String, u64)>,
    /// The operator's writes, by resource, without those of its Lease.
    pub(crate) writes: Vec<(String, u64)>,
    /// The sidecar's writes of its report.
    pub(crate) reports: u64,
}

// === impl Process ===

impl Process {
    /// Starts it; its log goes to a file.
    async fn start(cluster: &Cluster, name: &str, account: (&str, &str), arguments: &[&str]) -> Self {
        let log = std::fs::File::create(cluster.path(&format!("{name}.log"))).expect("a file");
        let mut child = Command::new(beside(name))
            .args(arguments)
            .env("KUBECONFIG", cluster.kubeconfig_of(account.0, account.1).await)
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("build it first: cargo build --release -p tidings-operator -p tidings-pod");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("a line").expect("its first line");
        Self { child, line }
    }

    fn address(&self, key: &str) -> SocketAddr {
        let rest = self.line.split(' ').find_map(|part| part.strip_prefix(key)).expect("an address");
        rest.trim_start_matches("http://").trim_end_matches("/events").parse().expect("an address")
    }

    /// The most memory that it ever held, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("it runs")))
            .expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    async fn metrics(&self, client: &reqwest::Client) -> String {
        let answer = client.get(format!("http://{}/metrics", self.address("admin="))).send().await;
        answer.expect("an answer").text().await.expect("text")
    }
}

// === impl Processes ===

impl Processes {
    /// Starts both at once.
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let operator = Process::start(
            cluster,
            "tidings-operator",
            ("tidings-operator", "tidings-system"),
            &["--admin-listen", "127.0.0.1:0"],
        );
        let data = cluster.path("data");
        let _ = std::fs::remove_dir_all(&data);
        let data = data.to_str().expect("a path");
        let loopback = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let own = ["--auth-server", "auth/logto", "--pod-name", "logto-0", "--data-dir", data];
        let arguments = [&loopback[..], &own[..]].concat();
        let sidecar = Process::start(cluster, "tidings-sidecar", ("logto", "auth"), &arguments);
        let (operator, sidecar) = tokio::join!(operator, sidecar);
        Self { operator, sidecar, client }
    }

    /// Where the sidecar takes events.
    pub(crate) fn events(&self) -> SocketAddr {
        self.sidecar.address("events=")
    }

    /// The most memory that each ever held, in bytes: operator, sidecar.
    pub(crate) fn peaks(&self) -> (u64, u64) {
        (self.operator.peak(), self.sidecar.peak())
    }

    pub(crate) async fn cost(&self) -> Cost {
        let operator = self.operator.metrics(&self.client).await;
        let sidecar = self.sidecar.metrics(&self.client).await;
        Cost {
            requests: series(&operator, "tidings_operator_api_requests_total"),
            writes: series(&operator, "tidings_operator_api_writes_total"),
            reports: series(&sidecar, "tidings_report_writes_total").iter().map(|(_, count)| count).sum(),
        }
    }

    /// Waits until nothing was written for some seconds; what it cost until then.
    pub(crate) async fn settled(&self) -> Cost {
        let (mut cost, mut since) = (self.cost().await, Instant::now());
        while since.elapsed() < Duration::from_secs(3) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = self.cost().await;
            if now.written() != cost.written() {
                since = Instant::now();
            }
            cost = now;
        }
        cost
    }

    /// Ends both as a cluster does, so that the Lease is given back for the next ones.
    pub(crate) async fn end(mut self) {
        for process in [&mut self.operator, &mut self.sidecar] {
            let pid = process.child.id().expect("it runs").to_string();
            Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill is in the PATH");
            process.child.wait().await.expect("it ends");
        }
    }
}

// === impl Cost ===

impl Cost {
    /// Writes of both, but for the Lease's.
    pub(crate) fn written(&self) -> u64 {
        self.writes.iter().map(|(_, count)| count).sum::<u64>() + self.reports
    }

    /// Writes of both, with the Lease's.
    pub(crate) fn written_at_all(&self) -> u64 {
        let writes = self.requests.iter().filter(|(method, _)| method != "GET");
        writes.map(|(_, count)| count).sum::<u64>() + self.reports
    }

    /// What came after an earlier one.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            requests: differences(&self.requests, &before.requests),
            writes: differences(&self.writes, &before.writes),
            reports: self.reports - before.reports,
        }
    }

    /// Each number in words, per something.
    pub(crate) fn each(&self, per: usize) -> String {
        let reports = [("deliveryreports".to_owned(), self.reports)];
        let all = self.writes.iter().chain(&reports);
        let words = all.map(|(name, count)| format!("{name} {:.2}", crate::ratio(*count, per)));
        words.collect::<Vec<_>>().join(", ")
    }
}

fn differences(now: &[(String, u64)], before: &[(String, u64)]) -> Vec<(String, u64)> {
    let count = |name: &str| before.iter().find(|(of, _)| of == name).map_or(0, |(_, count)| *count);
    now.iter().map(|(name, number)| (name.clone(), number - count(name))).collect()
}

/// The series of a counter: its one label's value, and its number.
fn series(metrics: &str, name: &str) -> Vec<(String, u64)> {
    let of_counter = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let mut all: Vec<_> = of_counter
        .filter_map(|rest| {
            let (labels, number) = rest.rsplit_once(' ')?;
            Some((labels.split('"').nth(1).unwrap_or_default().to_owned(), number.parse().ok()?))
        })
        .collect();
    all.sort();
    all
}

fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    own.parent().expect("a folder").join(name)
}
