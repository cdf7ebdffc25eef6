//! The sidecar as users run it: the release binary, a process of its own, its store on the disk of the
//! working folder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidings_plan::{
    Delivery, Egress, Endpoint, EventPattern, Format, Ingest, ObjectName, PLAN_VERSION, Plan, SecretText,
    Tls, WebhookPlan,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use tidings_bench::load::INGEST_KEY;

/// A folder for plan and data.
pub(crate) struct Home(TempDir);

/// The process.
pub(crate) struct Sidecar {
    child: Child,
    pub(crate) events: SocketAddr,
}

/// A Webhook that selects a pattern and delivers to an address.
pub(crate) fn webhook(name: &str, pattern: &str, to: SocketAddr) -> WebhookPlan {
    WebhookPlan {
        webhook: ObjectName::new("bench", name),
        uid: name.to_owned(),
        generation: 1,
        events: vec![EventPattern::parse(pattern).expect("a pattern")],
        endpoint: Endpoint {
            url: format!("http://{to}/hook"),
            in_cluster: false,
            addresses: None,
            headers: std::collections::BTreeMap::new(),
            tls: Tls::default(),
        },
        signing_keys: vec![SecretText::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")],
        filter: None,
        format: Format::Native,
        delivery: Delivery::default(),
        suspend: false,
    }
}

// === impl Home ===

impl Home {
    /// With a plan of these Webhooks.
    pub(crate) fn with(webhooks: Vec<WebhookPlan>) -> Self {
        std::fs::create_dir_all("target/bench").expect("a folder");
        let home = Self(TempDir::new_in("target/bench").expect("a folder"));
        std::fs::create_dir(home.0.path().join("plan")).expect("a folder");
        home.put(webhooks);
        home
    }

    /// Puts another plan in place.
    pub(crate) fn put(&self, mut webhooks: Vec<WebhookPlan>) {
        webhooks.sort_by(|a, b| a.webhook.cmp(&b.webhook));
        let plan = Plan {
            version: PLAN_VERSION,
            auth_server: ObjectName::new("bench", "logto"),
            ingest: Ingest { signing_keys: vec![SecretText::new(INGEST_KEY)], ..Ingest::default() },
            egress: Egress {
                allow: vec!["127.0.0.0/8".parse().expect("a CIDR")],
                allow_insecure: true,
                ..Egress::default()
            },
            webhooks,
            replays: Vec::new(),
        };
        let plans = self.0.path().join("plan");
        std::fs::write(plans.join("new"), plan.to_json()).expect("a file");
        std::fs::rename(plans.join("new"), plans.join("plan.json")).expect("a file");
    }

    /// Starts the sidecar.
    pub(crate) async fn start(&self) -> Sidecar {
        let mut child = Command::new(binary())
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--max-bytes",
                "17179869184",
                "--plan",
            ])
            .arg(self.0.path().join("plan"))
            .arg("--data-dir")
            .arg(self.0.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("build it first: cargo build --release -p tidings-pod");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("a line").expect("the ready line");
        let address = |key: &str| {
            let rest = line.split(' ').find_map(|part| part.strip_prefix(key)).expect("an address");
            rest.trim_start_matches("http://").trim_end_matches("/events").parse().expect("an address")
        };
        Sidecar { events: address("events="), child }
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Its resident memory, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().expect("it runs")))
            .expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Waits until its memory has not changed for a second, and tells it.
    pub(crate) async fn settled_rss(&self) -> u64 {
        let (mut rss, mut since) = (self.rss(), Instant::now());
        while since.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.rss() != rss {
                (rss, since) = (self.rss(), Instant::now());
            }
        }
        rss
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
    }
}

fn binary() -> PathBuf {
    let beside = std::env::current_exe().expect("a path");
    beside.parent().expect("a folder").join("tidings-sidecar")
}
