//! Restarts while an auth server sends: it sends an event once, so each that finds the port bound is taken.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidings_signature::SigningKey;
use tidings_tests::plan::{plan, webhook_to};
use tidings_tests::process::{Home, Process, bound_line};
use tidings_tests::{capture, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long a sender waits for an answer, as Logto does.
const SENDER_WAITS: Duration = Duration::from_secs(10);

const RESTARTS: usize = 15;

/// What became of the events of an auth server.
#[derive(Debug, Default)]
struct Sent {
    stored: AtomicU64,
    /// Nobody listened.
    refused: AtomicU64,
    /// The connection broke: the process was killed with the event under way.
    broken: AtomicU64,
    /// An answer other than 200.
    answered: std::sync::Mutex<Vec<String>>,
    slowest_ms: AtomicU64,
}

impl Sent {
    /// Sends one event over a connection of its own.
    async fn send(&self, to: SocketAddr, number: u64) {
        let Ok(mut stream) = TcpStream::connect(to).await else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let body = format!(r#"{{"event":"User.Created","createdAt":"t{number}"}}"#);
        let signature = SigningKey::new(&capture::signing_key()).unwrap().logto_signature(body.as_bytes());
        let request = format!(
            "POST /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\nlogto-signature-sha-256: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let began = Instant::now();
        let mut answer = String::new();
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            stream.read_to_string(&mut answer).await
        };
        let whole =
            tokio::time::timeout(SENDER_WAITS, exchange).await.expect("an answer in the sender's time");
        match whole {
            Ok(_) if answer.starts_with("HTTP/1.1 200") => {
                self.stored.fetch_add(1, Ordering::Relaxed);
                let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                self.slowest_ms.fetch_max(took, Ordering::Relaxed);
            }
            Ok(_) if !answer.is_empty() => self.answered.lock().unwrap().push(answer),
            _ => drop(self.broken.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// A hundred events a second, each on a connection of its own, until it is aborted.
fn load(to: SocketAddr, sent: &Arc<Sent>) -> tokio::task::JoinHandle<()> {
    let sent = Arc::clone(sent);
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let mut sending = JoinSet::new();
        for number in 0.. {
            tick.tick().await;
            let sent = Arc::clone(&sent);
            sending.spawn(async move { sent.send(to, number).await });
            while sending.try_join_next().is_some() {}
        }
    })
}

async fn start(home: &Home, port: SocketAddr) -> Process {
    let command = home.sidecar(&[]);
    let arguments: Vec<_> = command.as_std().get_args().map(ToOwned::to_owned).collect();
    let mut again = tokio::process::Command::new(command.as_std().get_program());
    // The same port each time, as in a pod.
    again.args(["--listen", &port.to_string()]).args(&arguments[2..]);
    Process::start_until(again, bound_line).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_that_comes_during_a_restart_is_refused_for_want_of_a_plan() {
    let home = Home::default();
    // A plan that takes some time to get under way.
    let webhooks = (0..300).map(|at| webhook_to(&format!("hook-{at}"), "http://127.0.0.1:9/hook"));
    let mut plan = plan(webhooks);
    for webhook in &mut plan.webhooks {
        webhook.suspend = true;
    }
    home.put(&plan);
    let mut sidecar = home.start().await;
    let port = sidecar.events;
    // From now on the last good plan is all there is, as it is in a pod before the API server answers.
    std::fs::remove_file(home.path("plan").join("plan.json")).unwrap();
    let sent = Arc::new(Sent::default());
    let sending = load(port, &sent);
    for _ in 0..RESTARTS {
        sidecar.kill().await;
        sidecar = start(&home, port).await;
        let before = sent.stored.load(Ordering::Relaxed);
        until("events are stored", async || {
            (sent.stored.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }
    sending.abort();
    let _ = sending.await;
    println!("{RESTARTS} restarts: {sent:?}");
    let answered = sent.answered.lock().unwrap();
    assert!(answered.is_empty(), "{} were refused, the first: {}", answered.len(), answered[0]);
}
