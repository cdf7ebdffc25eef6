//! The programs as users run them: real processes, killed for real.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tidings_plan::Plan;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::client::{self, Client};
use crate::until;

/// A folder with a plan and a folder with data; both go with it.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

/// A program that said `ready`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it takes events.
    pub events: SocketAddr,
    /// Where its admin surface is.
    pub admin: SocketAddr,
    output: Arc<Mutex<String>>,
    readers: JoinSet<()>,
}

/// A program of this workspace, built if it is not.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.insert(name.to_owned()) {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--workspace", "--bin", name]);
        // What cargo tells a test of its package would tell build scripts that they are stale.
        for (variable, _) in std::env::vars_os() {
            if variable
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                cargo.env_remove(variable);
            }
        }
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(built.success(), "{name} builds");
    }
    folder.join(name)
}

// === impl Home ===

impl Default for Home {
    fn default() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("plan")).unwrap();
        Self { folder }
    }
}

impl Home {
    /// Where the data are.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a plan in place, at once and whole.
    pub fn put(&self, plan: &Plan) {
        let dir = self.folder.path().join("plan");
        std::fs::write(dir.join("new"), plan.to_json()).unwrap();
        std::fs::rename(dir.join("new"), dir.join("plan.json")).unwrap();
    }

    /// Starts the sidecar, and waits until it says that it is ready.
    pub async fn start(&self) -> Process {
        self.start_with(&[]).await
    }

    /// Starts it with more arguments.
    pub async fn start_with(&self, arguments: &[&str]) -> Process {
        Process::start(self.sidecar(arguments)).await
    }

    /// Compiles a small C library, to be loaded into a program in place of the system's (`LD_PRELOAD`).
    pub async fn library(&self, source: &str) -> PathBuf {
        let (text, library) = (self.path("library.c"), self.path("library.so"));
        std::fs::write(&text, source).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&text).arg("-ldl");
        assert!(compiler.status().await.unwrap().success(), "a C compiler makes the library");
        library
    }

    /// The sidecar's command line.
    pub fn sidecar(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("tidings-sidecar"));
        command
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--plan")
            .arg(self.folder.path().join("plan"))
            .arg("--data-dir")
            .arg(self.data())
            .args(arguments);
        command
    }
}

// === impl Process ===

impl Process {
    /// Starts a program, and waits until it says that it is ready.
    pub async fn start(command: Command) -> Self {
        Self::start_until(command, ready_line).await
    }

    /// Starts a program, and waits until its output tells its addresses.
    pub async fn start_until(
        mut command: Command,
        addresses: impl Fn(&str) -> Option<(SocketAddr, SocketAddr)>,
    ) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let mut readers = JoinSet::new();
        readers.spawn(collect(child.stdout.take().unwrap(), Arc::clone(&output)));
        readers.spawn(collect(child.stderr.take().unwrap(), Arc::clone(&output)));
        let (events, admin) = until("the program says where it listens", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", output.lock().unwrap());
            }
            addresses(&output.lock().unwrap())
        })
        .await;
        Self { child, events, admin, output, readers }
    }

    /// Everything that it printed until now.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// A connection to its events port.
    pub async fn sender(&self) -> Client {
        Client::connect(self.events).await
    }

    /// The numbers of one Webhook.
    pub async fn webhook(&self, name: &str) -> serde_json::Value {
        let all = client::get_json(self.admin, "/webhooks").await;
        let found = all.as_array().unwrap().iter().find(|webhook| webhook["webhook"] == name).cloned();
        found.unwrap_or_else(|| panic!("no Webhook {name} in {all}"))
    }

    /// Waits until a Webhook's numbers are as they should be.
    pub async fn wait_webhook(
        &self,
        name: &str,
        what: &str,
        mut is_so: impl FnMut(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        until(&format!("{name}: {what}"), async || {
            Some(self.webhook(name).await).filter(|webhook| is_so(webhook))
        })
        .await
    }

    /// One metric's value, a whole number, by its full line up to the value.
    pub async fn metric(&self, line: &str) -> Option<u64> {
        let page = client::get(self.admin, "/metrics").await?;
        page.body
            .lines()
            .find_map(|found| found.strip_prefix(line)?.trim().trim_end_matches(".0").parse().ok())
    }

    /// Waits until a metric has a value: a page is shown for a second.
    pub async fn wait_metric(&self, line: &str, value: u64) {
        until(&format!("{line} {value}"), async || self.metric(line).await.filter(|found| *found == value))
            .await;
    }

    /// Kills it as a crash does: nothing is flushed, nobody is told.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends it a signal, by its name: `STOP`.
    pub async fn signal(&self, name: &str) {
        let (signal, id) = (format!("-{name}"), self.id().to_string());
        let told = Command::new("kill").args([&signal, &id]).status().await.unwrap();
        assert!(told.success());
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end (SIGTERM), and waits until it did.
    pub async fn terminate(self) -> (ExitStatus, String) {
        self.signal("TERM").await;
        self.wait().await
    }

    /// Waits until it ends by itself; with everything that it printed.
    pub async fn wait(mut self) -> (ExitStatus, String) {
        let ended = async {
            let status = self.child.wait().await.unwrap();
            // What it printed last may be in the pipe yet.
            while self.readers.join_next().await.is_some() {}
            status
        };
        let status = tokio::time::timeout(crate::PATIENCE, ended).await.expect("it ends");
        (status, self.output())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} said:\n{}", self.child.id(), self.output());
        }
    }
}

/// Runs a program to its end; its status and both outputs together.
pub async fn run(mut command: Command) -> (ExitStatus, String) {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(crate::PATIENCE, output).await.expect("it ends").unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// A file's whole path from the workspace's root.
pub fn in_workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

async fn collect(stream: impl AsyncRead + Unpin, into: Arc<Mutex<String>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut into = into.lock().unwrap();
        into.push_str(&line);
        into.push('\n');
    }
}

fn ready_line(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    addresses(output.lines().find(|line| line.starts_with("ready "))?)
}

/// The addresses of a sidecar whose ports are bound, whatever becomes of its store.
pub fn bound_line(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    addresses(output.lines().find(|line| line.contains("the ports are bound"))?)
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let address = |key: &str| {
        let rest = line.split(' ').find_map(|part| part.strip_prefix(key))?;
        rest.trim_start_matches("http://").trim_end_matches("/events").parse().ok()
    };
    Some((address("events=")?, address("admin=")?))
}
