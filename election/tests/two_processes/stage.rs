//! What the tests stand on: a namespace of their own, candidates as real processes, and the API server's switch.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use rustix::process::{Pid, Signal, kill_process};
use tidings_election::Timing;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a condition may take to hold; generous, since nothing is measured by it.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const LEASE: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(2);
pub(crate) const RETRY: Duration = Duration::from_millis(400);

const HOW: &str = "no control plane; run this as \
    `tests/controlplane/run -- cargo test -p tidings-election --features controlplane --test two_processes`";

/// The name of the Lease.
pub(crate) const NAME: &str = "election";

/// Tests that take the API server away run alone.
static APISERVER: RwLock<()> = RwLock::const_new(());

/// A namespace with a Lease that nobody holds yet, and the log of writes.
pub(crate) struct Stage {
    client: Client,
    namespace: String,
}

/// A process that stands for election, killed when it is dropped.
pub(crate) struct Candidate {
    identity: String,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

/// A write that the API server accepted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub(crate) by: String,
    pub(crate) term: u64,
    /// When its permit was given, in microseconds of the machine's monotonic clock.
    at: u64,
}

/// The API server is served by nobody else, and comes back whatever happens.
pub(crate) struct ApiServer {
    _alone: RwLockWriteGuard<'static, ()>,
    switch: PathBuf,
}

/// Asks until the answer is `Some`, or panics with what was waited for.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn timing() -> Timing {
    Timing::new(LEASE, DEADLINE, RETRY).unwrap()
}

/// The API server as it is, for a test that leaves it alone.
pub(crate) async fn undisturbed() -> RwLockReadGuard<'static, ()> {
    APISERVER.read().await
}

// === impl Stage ===

impl Stage {
    pub(crate) async fn new() -> Self {
        assert!(std::env::var_os("KUBECONFIG").is_some(), "{HOW}");
        let client = Client::try_default().await.unwrap();
        let metadata = ObjectMeta { generate_name: Some("election-".to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let created = Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let stage = Self { client, namespace: created.metadata.name.unwrap() };
        let metadata = ObjectMeta { name: Some("writes".to_owned()), ..ObjectMeta::default() };
        let log = ConfigMap { metadata, ..ConfigMap::default() };
        stage.log().create(&PostParams::default(), &log).await.unwrap();
        stage
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client(), &self.namespace)
    }

    fn log(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// A process that stands for election from now on.
    pub(crate) fn candidate(&self, identity: &str) -> Candidate {
        let mut child = Command::new(program())
            .args([&self.namespace, NAME, identity])
            .args([LEASE, DEADLINE, RETRY].map(|time| time.as_millis().to_string()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = Arc::default();
        listen(child.stdout.take().unwrap(), Arc::clone(&said), "");
        listen(child.stderr.take().unwrap(), Arc::clone(&said), "! ");
        Candidate { identity: identity.to_owned(), child, said }
    }

    /// One that leads and one that waits, which has seen the Lease held.
    pub(crate) async fn leader_and_follower(&self) -> (Candidate, Candidate) {
        let first = self.candidate("first");
        first.says("leading term=1").await;
        let second = self.candidate("second");
        self.writes_more(20).await;
        (first, second)
    }

    /// Every write that was accepted, in that order.
    pub(crate) async fn writes(&self) -> Vec<Write> {
        let log = self.log().get("writes").await.unwrap().data.unwrap_or_default().remove("log");
        log.unwrap_or_default().lines().map(Write::read).collect()
    }

    /// Waits until so many writes have come to those that there were.
    pub(crate) async fn writes_more(&self, more: usize) {
        let before = self.writes().await.len();
        until("more writes are accepted", async || {
            (self.writes().await.len() >= before + more).then_some(())
        })
        .await;
    }

    /// The terms in the order of their writes; panics when a write of one lies within another's.
    pub(crate) async fn terms(&self) -> Vec<(String, u64)> {
        let writes = self.writes().await;
        for pair in writes.windows(2) {
            assert!(pair[0].at < pair[1].at, "accepted in another order than permitted: {pair:?}");
        }
        let mut terms: Vec<_> = writes.into_iter().map(|write| (write.by, write.term)).collect();
        terms.dedup();
        for (place, term) in terms.iter().enumerate() {
            assert!(!terms[..place].contains(term), "{term:?} wrote again after another: {terms:?}");
        }
        terms
    }
}

/// The example, built if it is not: cargo builds no examples for a single test.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--features", "controlplane", "--example", "candidate"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success(),
            "the candidate builds"
        );
        folder.join("examples/candidate")
    })
}

fn listen(
    output: impl AsyncRead + Unpin + Send + 'static,
    said: Arc<Mutex<Vec<String>>>,
    mark: &'static str,
) {
    let mut lines = BufReader::new(output).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            said.lock().unwrap().push(format!("{mark}{line}"));
        }
    });
}

// === impl Write ===

impl Write {
    fn read(line: &str) -> Self {
        let [by, term, at] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("a log of writes: {line}")
        };
        Self { by: by.to_owned(), term: term.parse().unwrap(), at: at.parse().unwrap() }
    }
}

// === impl Candidate ===

impl Candidate {
    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.said().iter().any(|line| line.starts_with(words))
    }

    /// Waits until it says so.
    pub(crate) async fn says(&self, words: &str) {
        self.says_after(0, words).await;
    }

    /// How much it has said so far.
    pub(crate) fn place(&self) -> usize {
        self.said().len()
    }

    /// Waits until it says so after a place.
    pub(crate) async fn says_after(&self, place: usize, words: &str) {
        self.prints(place, words, |line| line.starts_with(words)).await;
    }

    /// Waits until it logs a warning after a place.
    pub(crate) async fn warns_after(&self, place: usize) {
        self.prints(place, "a warning", |line| line.starts_with("! ") && line.contains(" WARN ")).await;
    }

    async fn prints(&self, place: usize, what: &str, is_it: impl Fn(&str) -> bool) {
        let what = format!("{} says `{what}`", self.identity);
        until(&what, async || self.said()[place..].iter().any(|line| is_it(line)).then_some(())).await;
    }

    /// Whether it leads, by what it said last about it.
    pub(crate) fn leads(&self) -> bool {
        let said = self.said();
        let last = said.iter().rfind(|line| line.starts_with("leading") || line.starts_with("refused"));
        last.is_some_and(|line| line.starts_with("leading"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("it runs"), signal).unwrap();
    }

    /// Waits until it is gone.
    pub(crate) async fn ends(&mut self) {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} said: {:#?}", self.identity, self.said());
        }
    }
}

// === impl ApiServer ===

impl ApiServer {
    /// Once nobody else uses it.
    pub(crate) async fn alone() -> Self {
        let folder = std::env::var_os("TIDINGS_CONTROLPLANE").expect(HOW);
        let switch = Path::new(&folder).join("controlplane");
        Self { _alone: APISERVER.write().await, switch }
    }

    pub(crate) fn pause(&self) {
        assert!(self.does("pause"));
    }

    /// It answers again when this returns.
    pub(crate) fn resume(&self) {
        assert!(self.does("resume"));
    }

    pub(crate) fn stop(&self) {
        assert!(self.does("stop"));
    }

    /// It answers again when this returns.
    pub(crate) fn start(&self) {
        assert!(self.does("start"));
    }

    fn does(&self, word: &str) -> bool {
        std::process::Command::new(&self.switch).args(["apiserver", word]).status().unwrap().success()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // One of the two is refused while a test fails, for the API server is either paused or stopped.
        let _ = std::thread::panicking() && self.does("resume") | self.does("start");
    }
}
