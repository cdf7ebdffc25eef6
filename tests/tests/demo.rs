//! `tidings demo`: a platform team proves in its own cluster that no event is lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidings_tests::plan::{Change as _, KEY, plan, webhook_to};
use tidings_tests::process::{Home, Process, binary, run};
use tidings_tests::{capture, client, until};
use tokio::process::Command;

/// A trial: a folder with ledgers and keys, and a sidecar on a port that it keeps.
struct Trial {
    home: Home,
    events: SocketAddr,
}

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("tidings"));
    command.arg("demo").args(arguments);
    command
}

/// The address in a line such as `ready status=http://127.0.0.1:3001/api/status`.
fn ready(output: &str) -> Option<(SocketAddr, SocketAddr)> {
    let url = output.lines().find_map(|line| line.strip_prefix("ready "))?.split_once("http://")?.1;
    let address = url.split('/').next()?.parse().ok()?;
    Some((address, address))
}

fn lines(ledger: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(ledger).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

// === impl Trial ===

impl Trial {
    async fn new() -> Self {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let trial = Self { home: Home::default(), events: free.local_addr().unwrap() };
        std::fs::write(trial.path("hook.key"), capture::signing_key()).unwrap();
        std::fs::write(trial.path("webhook.key"), KEY).unwrap();
        trial
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    fn events_url(&self) -> String {
        format!("http://{}/events", self.events)
    }

    async fn sidecar(&self) -> Process {
        let mut command = Command::new(binary("tidings-sidecar"));
        command.args(["--admin-listen", "127.0.0.1:0", "--listen", &self.events.to_string()]);
        command.arg("--plan").arg(self.path("plan")).arg("--data-dir").arg(self.home.data());
        Process::start(command).await
    }

    async fn receiver(&self) -> Process {
        let mut command = demo(&["receiver", "--listen", "127.0.0.1:0", "--name", "mail"]);
        command.arg("--signing-key-file").arg(self.path("webhook.key"));
        command.arg("--ledger").arg(self.path("ledgers/received.jsonl"));
        command.arg("--fail-while").arg(self.path("failing"));
        Process::start_until(command, ready).await
    }

    async fn auth_server(&self, rate: &str) -> Process {
        let mut command = demo(&["auth-server", "--listen", "127.0.0.1:0", "--rate", rate]);
        command.args(["--events-url", &self.events_url()]);
        command.arg("--signing-key-file").arg(self.path("hook.key"));
        command.arg("--ledger").arg(self.path("ledgers/sent.jsonl"));
        Process::start_until(command, ready).await
    }

    /// The sidecar delivers all to this receiver.
    fn deliver_to(&self, receiver: &Process) {
        let mail = webhook_to("mail", &format!("http://{}/hook", receiver.events));
        self.home.put(&plan([mail.retrying_within(1, 1, 3600)]));
    }

    /// Waits until so many more events were answered, or refused.
    async fn more(&self, count: usize, acknowledged: bool) {
        let so_far = || {
            let sent = lines(&self.path("ledgers/sent.jsonl"));
            sent.iter().filter(|line| (line["status"] == 200) == acknowledged).count()
        };
        let before = so_far();
        until("more events in the ledger", async || (so_far() >= before + count).then_some(())).await;
    }

    async fn judge(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = demo(&["judge"]);
        command.arg("--sent").arg(self.path("ledgers/sent.jsonl"));
        command.arg("--received").arg(self.path("ledgers/received.jsonl"));
        let (status, output) = run({
            command.args(more);
            command
        })
        .await;
        (status.code(), output)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_finds_nothing_lost_over_a_kill_of_the_sidecar_and_a_receiver_that_fails() {
    let trial = Trial::new().await;
    let receiver = trial.receiver().await;
    trial.deliver_to(&receiver);
    let sidecar = trial.sidecar().await;
    let auth_server = trial.auth_server("200").await;
    trial.more(50, true).await;
    std::fs::write(trial.path("failing"), "").unwrap();
    until("the receiver fails", async || receiver.output().contains("mail answered 503").then_some(())).await;
    sidecar.kill().await;
    trial.more(10, false).await;
    let sidecar = trial.sidecar().await;
    trial.more(50, true).await;
    std::fs::remove_file(trial.path("failing")).unwrap();
    let (status, output) = auth_server.terminate().await;
    assert!(status.success() && output.contains("ended: sent "), "{output}");

    let (code, output) = trial.judge(&["--wait-seconds", "60", "-o", "json"]).await;
    assert_eq!(code, Some(0), "{output}");
    let verdict: Value = serde_json::from_str(&output).unwrap();
    let sent = lines(&trial.path("ledgers/sent.jsonl"));
    let acknowledged = sent.iter().filter(|line| line["status"] == 200).count();
    assert_eq!((&verdict["sent"], &verdict["acknowledged"]), (&sent.len().into(), &acknowledged.into()));
    assert_eq!((&verdict["arrived"], &verdict["lost"]), (&acknowledged.into(), &serde_json::json!([])));
    assert_eq!(verdict["underSeveralIds"], 0);
    assert!(verdict["turnedAway"]["503"].as_u64() >= Some(1), "{verdict}");
    assert!(verdict["lag"]["maxMilliseconds"].as_u64() >= verdict["lag"]["p50Milliseconds"].as_u64());
    assert!(sidecar.terminate().await.0.success());
    assert!(receiver.terminate().await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_names_the_event_that_did_not_arrive() {
    let trial = Trial::new().await;
    let receiver = trial.receiver().await;
    trial.deliver_to(&receiver);
    let _sidecar = trial.sidecar().await;
    let auth_server = trial.auth_server("100").await;
    trial.more(20, true).await;
    auth_server.terminate().await;
    assert_eq!(trial.judge(&["--wait-seconds", "60"]).await.0, Some(0));
    let ledger = trial.path("ledgers/received.jsonl");
    let mut taken = lines(&ledger);
    let missing = taken.remove(3);
    let text: Vec<_> = taken.iter().map(ToString::to_string).collect();
    std::fs::write(&ledger, text.join("\n") + "\n").unwrap();
    let (code, output) = trial.judge(&[]).await;
    assert_eq!((code, output.contains("lost         1\n")), (Some(1), true), "{output}");
    assert!(output.contains(missing["id"].as_str().unwrap()), "{output}");
    let (code, output) = trial.judge(&["--event", "No.Such"]).await;
    assert_eq!((code, output.contains("nothing is proven")), (Some(1), true), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sign_in_on_demand_is_told_by_the_receiver_and_a_refused_one_by_the_exit_code() {
    let trial = Trial::new().await;
    let receiver = trial.receiver().await;
    trial.deliver_to(&receiver);
    let sidecar = trial.sidecar().await;
    let url = trial.events_url();
    let sign_in = async |key: &str| {
        let mut command = demo(&["sign-in", "--events-url", &url]);
        command.env("TIDINGS_INGEST_KEY", key);
        run(command).await
    };
    let (status, output) = sign_in(&capture::signing_key()).await;
    assert_eq!((status.code(), output.trim()), (Some(0), r#"PostSignIn: 200 {"stored":true}"#));
    until("the receiver tells", async || {
        receiver.output().contains("mail got PostSignIn as msg_").then_some(())
    })
    .await;
    for key in ["another-key-of-enough-bytes", ""] {
        let (status, output) = sign_in(key).await;
        assert_eq!((status.code(), output.contains("refused: 401")), (Some(1), true), "{output}");
    }
    sidecar.terminate().await;
    let (status, output) = sign_in(&capture::signing_key()).await;
    assert_eq!((status.code(), output.contains("Connection refused")), (Some(1), true), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_takes_only_what_its_key_of_now_signed() {
    let trial = Trial::new().await;
    let receiver = trial.receiver().await;
    assert_eq!(client::get(receiver.events, "/healthz").await.unwrap().status, 200);
    let post = async |key: &str| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().try_into().unwrap();
        let key = tidings_signature::SigningKey::new(key).unwrap();
        let signature = key.webhook_signature("msg_1", now, b"{\"event\":\"A\"}");
        let headers =
            format!("webhook-id: msg_1\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n");
        let mut client = client::Client::connect(receiver.events).await;
        client.post("/any", &headers, b"{\"event\":\"A\"}").await.unwrap().status
    };
    let other = "plain-old-key-of-enough-bytes";
    assert_eq!((post(KEY).await, post(other).await), (204, 401));
    // A Secret that was rotated, as a mounted file shows it.
    std::fs::write(trial.path("webhook.key"), format!("{other}\n")).unwrap();
    assert_eq!((post(KEY).await, post(other).await), (401, 204));
    assert!(receiver.output().contains("mail refused A as msg_1: the signature is wrong"));
    let (status, output) = run(demo(&["receiver"])).await;
    assert_eq!((status.code(), output.contains("--signing-key-file")), (Some(2), true), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_auth_server_answers_its_probe_as_logto_does_and_goes_on_when_nobody_takes_its_events() {
    let trial = Trial::new().await;
    let mut auth_server = trial.auth_server("50").await;
    trial.more(3, false).await;
    assert!(auth_server.is_running());
    assert_eq!(client::get(auth_server.events, "/api/status").await.unwrap().status, 204);
    let (status, output) = auth_server.terminate().await;
    assert!(status.success() && output.contains("acknowledged 0"), "{output}");
    assert!(output.contains("Connection refused"), "{output}");
}
