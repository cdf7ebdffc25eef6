//! What one process may use, and what one Webhook, one tenant or one stranger may use of it: memory,
//! descriptors, connections, attempts, look-ups, the admin port.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidings_plan::{ObjectName, Plan, WebhookPlan};
use tidings_tests::client::{self, Client};
use tidings_tests::plan::{Change as _, plan, webhook, webhook_to};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

/// What a test waits for something that happens at once, on a machine that is busy; far less than what it
/// takes when it is held up.
const AT_ONCE: Duration = Duration::from_secs(20);

fn unsigned(webhooks: impl IntoIterator<Item = WebhookPlan>) -> Plan {
    let mut plan = plan(webhooks);
    plan.ingest.signing_keys.clear();
    plan
}

/// A line of `/proc/PID/status`, in KiB or as a plain number.
fn status_of(process: &Process, line: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':')).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The most memory that a process ever had, in MiB.
fn peak_mib(process: &Process) -> usize {
    status_of(process, "VmHWM") / 1024
}

async fn post_all(sidecar: &Process, count: usize, body: &str) {
    let mut sender = sidecar.sender().await;
    for _ in 0..count {
        assert_eq!(sender.post("/events", "", body.as_bytes()).await.unwrap().status, 200);
    }
}

/// An endpoint that begins a head of 350 KiB for each request and never ends it; counts those connections
/// on which it could write no more.
async fn endless_heads() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (address, written) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&written);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = format!("HTTP/1.1 200 OK\r\nx-long: {}", "x".repeat(350 << 10));
                let _ = stream.write_all(head.as_bytes()).await;
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    (address, written)
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_never_end_cost_a_bounded_memory() {
    let (address, written) = endless_heads().await;
    let hostile = webhook_to("hostile", &format!("http://{address}/")).delivering(|delivery| {
        delivery.concurrency = 256;
        delivery.timeout_seconds = 60;
    });
    let home = Home::default();
    home.put(&unsigned([hostile]));
    let sidecar = home.start().await;
    let idle = peak_mib(&sidecar);
    post_all(&sidecar, 256, r#"{"event":"A"}"#).await;
    until("the heads are written, or refused", async || {
        let failed = sidecar.webhook("shop/hostile").await["failed"].as_u64().unwrap();
        (written.load(Ordering::SeqCst) >= 200 || failed >= 5).then_some(())
    })
    .await;
    let peak = peak_mib(&sidecar);
    assert!(peak < idle + 40, "256 heads of 350 KiB took {} MiB", peak - idle);
    let failure = &sidecar.webhook("shop/hostile").await["lastFailure"];
    assert_eq!(failure["reason"], "InvalidAnswer", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("16 KiB"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_events_at_once_cost_a_bounded_memory() {
    let home = Home::default();
    home.put(&unsigned([webhook_to("other", "http://127.0.0.1:9/").selecting(&["Other"])]));
    let sidecar = home.start().await;
    let body = Arc::new(format!(r#"{{"event":"A","x":"{}"}}"#, "x".repeat((8 << 20) - 64)).into_bytes());
    let mut senders = JoinSet::new();
    for _ in 0..40 {
        let (mut sender, body) = (sidecar.sender().await, Arc::clone(&body));
        senders.spawn(async move { sender.post("/events", "", &body).await.unwrap().status });
    }
    while let Some(status) = senders.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let peak = peak_mib(&sidecar);
    assert!(peak < 240, "40 events of 8 MiB took {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_events_cost_about_what_they_hold() {
    let home = Home::default();
    home.put(&unsigned([webhook_to("other", "http://127.0.0.1:9/").selecting(&["Other"])]));
    let sidecar = home.start().await;
    let idle = peak_mib(&sidecar);
    let mut senders = JoinSet::new();
    for _ in 0..20 {
        let address = sidecar.events;
        senders.spawn(async move {
            for _ in 0..1000 {
                // A sender that opens a connection for each event, as many do.
                let mut sender = Client::connect(address).await;
                let answer = sender.post("/events", "", br#"{"event":"A","x":"0123456789"}"#).await;
                assert_eq!(answer.unwrap().status, 200);
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.unwrap();
    }
    let grown = peak_mib(&sidecar) - idle;
    assert!(grown < 60, "20,000 events of 31 bytes, all of them kept in memory, took {grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rest_do_not_keep_the_probes_out() {
    let home = Home::default();
    home.put(&unsigned([]));
    let sidecar = home.start().await;
    let mut resting = Vec::new();
    for _ in 0..100 {
        resting.push(TcpStream::connect(sidecar.admin).await.unwrap());
    }
    for path in ["/livez", "/readyz", "/startupz"] {
        let answer = tokio::time::timeout(AT_ONCE, client::get(sidecar.admin, path)).await;
        assert_eq!(answer.unwrap_or_else(|_| panic!("{path} is silent")).unwrap().status, 200, "{path}");
    }
    drop(resting);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_heads_do_not_keep_the_probes_out() {
    let home = Home::default();
    home.put(&unsigned([]));
    let sidecar = home.start().await;
    let mut halves = Vec::new();
    for _ in 0..100 {
        let mut half = Client::connect(sidecar.admin).await;
        half.write(b"GET /livez HT").await.unwrap();
        halves.push(half);
    }
    let answer = tokio::time::timeout(AT_ONCE / 4, client::get(sidecar.admin, "/livez")).await;
    assert_eq!(answer.expect("the probe is answered").unwrap().status, 200);
}

/// An address of this machine that is not loopback.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // Nothing is sent: the system says from where it would be.
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_rests_on_the_admin_port_is_let_go_of_soon_and_the_pod_is_not() {
    let Some(own) = own_address() else { return eprintln!("this machine has loopback alone") };
    let home = Home::default();
    home.put(&unsigned([]));
    let mut command = home.sidecar(&[]);
    command.args(["--admin-listen", "0.0.0.0:0"]);
    let sidecar = Process::start(command_without_admin(&command)).await;
    let port = sidecar.admin.port();
    let mut local = Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
    assert_eq!(local.get("/livez").await.unwrap().status, 200);
    let mut stranger = TcpStream::connect((own, port)).await.unwrap();
    let closed = tokio::time::timeout(AT_ONCE, stranger.read(&mut [0; 1])).await;
    assert_eq!(closed.expect("the stranger is let go of").unwrap_or(0), 0);
    assert_eq!(local.get("/livez").await.unwrap().status, 200, "who is in the pod may rest longer");
}

/// The command line with its last `--admin-listen` alone.
fn command_without_admin(command: &Command) -> Command {
    let command = command.as_std();
    let mut arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    let first = arguments.iter().position(|argument| argument == "--admin-listen").unwrap();
    arguments.drain(first..first + 2);
    let mut made = Command::new(command.get_program());
    made.args(arguments);
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_within_a_second_are_one() {
    let home = Home::default();
    home.put(&unsigned([]));
    let sidecar = home.start().await;
    let mut sender = sidecar.sender().await;
    until("two scrapes with an event between them show the same", async || {
        let before = sidecar.metric("tidings_events_received_total").await;
        sender.post("/events", "", br#"{"event":"A"}"#).await.unwrap();
        (before == sidecar.metric("tidings_events_received_total").await).then_some(())
    })
    .await;
    let stored = sidecar.metric("tidings_events_received_total").await.unwrap();
    until("a later scrape shows what came since", async || {
        sidecar.metric("tidings_events_received_total").await.filter(|later| *later > stored)
    })
    .await;
}

/// The command line under other limits of open files.
fn with_descriptors(command: &Command, soft_and_hard: &str) -> Command {
    let command = command.as_std();
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={soft_and_hard}")).arg(command.get_program()).args(command.get_args());
    limited
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let home = Home::default();
    home.put(&unsigned([]));
    let sidecar = Process::start(with_descriptors(&home.sidecar(&[]), "256:2048")).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", sidecar.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().filter(|word| *word == "2048").count(), 2, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_few_descriptors_connections_wait_and_events_are_taken_and_delivered() {
    let good = Receiver::start().await;
    let home = Home::default();
    home.put(&unsigned([webhook("good", &good)]));
    let sidecar = Process::start(with_descriptors(&home.sidecar(&[]), "128:128")).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(TcpStream::connect(sidecar.events).await.unwrap());
    }
    until("what the crowd leaves is enough for the admin port", async || {
        client::get(sidecar.admin, "/livez").await.filter(|answer| answer.status == 200)
    })
    .await;
    assert!(!sidecar.output().contains("Too many open files"), "{}", sidecar.output());
    drop(crowd);
    post_all(&sidecar, 3, r#"{"event":"A"}"#).await;
    good.wait_for(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_never_answer_share_a_bounded_number_of_attempts_and_leave_some_to_others() {
    let never = Receiver::answering(|_, _| Reply::Never).await;
    let good = Receiver::start().await;
    let hogs = ["hog-a", "hog-b", "hog-c", "hog-d"].map(|name| {
        webhook(name, &never).delivering(|delivery| {
            delivery.concurrency = 256;
            delivery.timeout_seconds = 120;
        })
    });
    let home = Home::default();
    home.put(&unsigned(hogs.into_iter().chain([webhook("good", &good)])));
    let sidecar = home.start().await;
    post_all(&sidecar, 256, r#"{"event":"A"}"#).await;
    good.wait_for(256).await;
    // 4 of 256 each would be 1024.
    until("the four use what there is", async || (never.count() >= 320).then_some(())).await;
    post_all(&sidecar, 64, r#"{"event":"A"}"#).await;
    good.wait_for(320).await;
    assert!(never.count() <= 512 + 4, "{} attempts are under way at once", never.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rest_are_bounded_over_all_webhooks() {
    let (good, home) = (Receiver::start().await, Home::default());
    // Each name in 127.0.0.0/8 is an endpoint of its own.
    let listener = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = Arc::new(AtomicUsize::new(0));
    tokio::spawn(keep_open(listener, Arc::clone(&open)));
    let many = (0..300).map(|at| {
        let url = format!("http://127.0.{}.{}:{port}/", 1 + at / 200, 1 + at % 200);
        webhook_to(&format!("many-{at:03}"), &url)
    });
    home.put(&unsigned(many.chain([webhook("good", &good)])));
    let sidecar = Process::start(with_descriptors(&home.sidecar(&[]), "512:512")).await;
    post_all(&sidecar, 1, r#"{"event":"A"}"#).await;
    until("each of them has its event", async || {
        let all = client::get_json(sidecar.admin, "/webhooks").await;
        all.as_array().unwrap().iter().all(|webhook| webhook["delivered"] == 1).then_some(())
    })
    .await;
    until("those beyond the bound are closed", async || (open.load(Ordering::SeqCst) <= 128).then_some(()))
        .await;
    assert!(open.load(Ordering::SeqCst) > 32, "the others are kept");
}

/// Answers 200 and keeps each connection open; counts those that are.
async fn keep_open(listener: TcpListener, open: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let open = Arc::clone(&open);
        open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// A resolver that takes a minute for each name under `slow.test`.
const SLOW_NAMES: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    int (*system)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
    if (name && strstr(name, ".slow.test")) { sleep(60); return EAI_AGAIN; }
    return system(name, service, hints, found);
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_slow_names_keeps_no_neighbour_waiting() {
    let good = Receiver::start().await;
    let slow = (0..40).map(|at| {
        let mut webhook = webhook_to(&format!("slow-{at:02}"), &format!("http://w{at}.slow.test/"));
        webhook.webhook = ObjectName::new("slow", &webhook.webhook.name);
        webhook.delivery.timeout_seconds = 120;
        webhook.selecting(&["Slow"])
    });
    let neighbour = webhook_to("good", &format!("http://localhost:{}/", good.port())).selecting(&["Good"]);
    let home = Home::default();
    home.put(&unsigned(slow.chain([neighbour])));
    let mut command = home.sidecar(&[]);
    command.env("LD_PRELOAD", home.library(SLOW_NAMES).await);
    let sidecar = Process::start(command).await;
    let before = status_of(&sidecar, "Threads");
    post_all(&sidecar, 16, r#"{"event":"Slow"}"#).await;
    until("the slow names are asked for", async || {
        (status_of(&sidecar, "Threads") >= before + 10).then_some(())
    })
    .await;
    post_all(&sidecar, 20, r#"{"event":"Good"}"#).await;
    let delivered = tokio::time::timeout(AT_ONCE, good.wait_for(20)).await;
    assert!(delivered.is_ok(), "the neighbour got {} of 20", good.count());
    let threads = status_of(&sidecar, "Threads");
    assert!(threads < before + 64, "{threads} threads");
}
