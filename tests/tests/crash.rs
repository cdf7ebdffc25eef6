//! Kills the sidecar under load, again and again: what it answered 2xx is delivered, counted by id.
//!
//! The short form runs with the other tests. The long form takes the number of kills:
//! `TIDINGS_KILLS=200 cargo test -p tidings-tests --release --test crash -- --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_signature::SigningKey;
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Received, Receiver, Reply};
use tidings_tests::{capture, until};
use tokio::sync::watch;

fn kills() -> u32 {
    std::env::var("TIDINGS_KILLS").map_or(8, |kills| kills.parse().expect("TIDINGS_KILLS is a number"))
}

/// Sends numbered events over four connections until it is told to stop; notes the acknowledged ones.
struct Load {
    acknowledged: Arc<Mutex<HashSet<u64>>>,
    address: watch::Sender<Option<std::net::SocketAddr>>,
    senders: Vec<tokio::task::JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Load {
    fn start() -> Self {
        let (acknowledged, address, stop) =
            (Arc::default(), watch::Sender::new(None), watch::Sender::new(false));
        let senders = (0..4)
            .map(|lane| {
                tokio::spawn(send(lane, Arc::clone(&acknowledged), address.subscribe(), stop.subscribe()))
            })
            .collect();
        Self { acknowledged, address, senders, stop }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn stop(self) -> HashSet<u64> {
        self.stop.send_replace(true);
        for sender in self.senders {
            sender.await.unwrap();
        }
        self.acknowledged.lock().unwrap().clone()
    }
}

async fn send(
    lane: u64,
    acknowledged: Arc<Mutex<HashSet<u64>>>,
    mut address: watch::Receiver<Option<std::net::SocketAddr>>,
    stop: watch::Receiver<bool>,
) {
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    let mut number = lane;
    while !*stop.borrow() {
        let Some(to) = *address.borrow_and_update() else {
            let _ = tokio::time::timeout(Duration::from_millis(50), address.changed()).await;
            continue;
        };
        let Ok(stream) = tokio::net::TcpStream::connect(to).await else { continue };
        drop(stream);
        let Ok(mut client) = tokio::spawn(tidings_tests::client::Client::connect(to)).await else { continue };
        while !*stop.borrow() {
            number += 4;
            let body =
                format!(r#"{{"event":"User.Data.Updated","createdAt":"t{number}","number":{number}}}"#);
            let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(body.as_bytes()));
            match client.post("/events", &headers, body.as_bytes()).await {
                Some(answer) if answer.status == 200 => drop(acknowledged.lock().unwrap().insert(number)),
                Some(_) => {}
                // Killed: this one was not answered, and nothing is claimed of it.
                None => break,
            }
        }
    }
}

fn number_of(received: &Received) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    body["number"].as_u64().unwrap()
}

/// Each number arrived, and whatever arrived twice did so under one id.
fn check(received: &[Received], acknowledged: &HashSet<u64>) -> usize {
    let mut ids: HashMap<u64, HashSet<String>> = HashMap::new();
    for one in received {
        ids.entry(number_of(one)).or_default().insert(one.header("webhook-id").to_owned());
    }
    let lost: Vec<_> = acknowledged.iter().filter(|number| !ids.contains_key(number)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged events were lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    let renamed: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(renamed.is_empty(), "an event came under several ids: {renamed:?}");
    received.len() - ids.len()
}

/// Waits until everything acknowledged has arrived; as long as something comes, it is waited for.
async fn arrived(sidecar: &Process, receiver: &Receiver, acknowledged: &HashSet<u64>) {
    loop {
        let arrived = receiver.received();
        let numbers: HashSet<_> = arrived.iter().map(number_of).collect();
        let missing: Vec<_> = acknowledged.difference(&numbers).collect();
        if missing.is_empty() {
            return;
        }
        let state = tidings_tests::client::get_json(sidecar.admin, "/webhooks").await;
        let what =
            format!("of {} acknowledged events {missing:?} have not arrived: {state:#}", acknowledged.len());
        until(&what, async || (receiver.count() > arrived.len()).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_event_is_lost_however_often_it_is_killed() {
    let steady = Receiver::start().await;
    // One in five fails: rows and retries are under way at each kill too.
    let flaky = Receiver::answering(|nth, _| Reply::Status(if nth % 5 == 0 { 503 } else { 200 })).await;
    let home = Home::default();
    home.put(&plan([webhook("steady", &steady), webhook("flaky", &flaky).retrying_within(1, 1, 36_000)]));
    let load = Load::start();
    for kill in 0..kills() {
        let sidecar = home.start().await;
        let before = load.acknowledged();
        load.address.send_replace(Some(sidecar.events));
        // At a moment that differs from kill to kill: after so many more acknowledged events.
        let more = 1 + usize::try_from(kill * 37 % 211).unwrap();
        until("events are acknowledged", async || (load.acknowledged() >= before + more).then_some(())).await;
        load.address.send_replace(None);
        sidecar.kill().await;
    }
    let acknowledged = load.stop().await;
    let sidecar = home.start().await;
    arrived(&sidecar, &steady, &acknowledged).await;
    arrived(&sidecar, &flaky, &acknowledged).await;
    let again = (check(&steady.received(), &acknowledged), check(&flaky.received(), &acknowledged));
    println!(
        "{} kills, {} events acknowledged, none lost; arrived again: {again:?}",
        kills(),
        acknowledged.len()
    );
    let settled =
        sidecar.wait_webhook("shop/flaky", "nothing waits", |webhook| webhook["pending"] == 0).await;
    assert_eq!((&settled["deadLettered"], &settled["expired"]), (&0.into(), &0.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_for_a_dead_endpoint_survives_the_kill_and_the_plan_too() {
    let receiver = Receiver::answering(|_, _| Reply::Status(503)).await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver).retrying_within(1, 2, 36_000)]));
    let load = Load::start();
    let sidecar = home.start().await;
    load.address.send_replace(Some(sidecar.events));
    until("a backlog", async || (load.acknowledged() > 1000).then_some(())).await;
    let acknowledged = load.stop().await;
    sidecar.kill().await;
    // The operator is away: no plan is mounted. The last good one runs.
    std::fs::remove_file(home.path("plan").join("plan.json")).unwrap();
    receiver.now_answering(|_, _| Reply::Status(200));
    let sidecar: Process = home.start().await;
    arrived(&sidecar, &receiver, &acknowledged).await;
    let taken: Vec<_> = receiver.received();
    check(&taken, &acknowledged);
    let settled = sidecar.wait_webhook("shop/all", "nothing waits", |webhook| webhook["pending"] == 0).await;
    assert_eq!(settled["deadLettered"], 0);
}
