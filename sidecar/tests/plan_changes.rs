//! Webhooks leave the plan and come back while events are taken: on a real store, to a real endpoint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::Arc;

use tempfile::TempDir;
use tidings_plan::Published;
use tidings_sidecar::engine::Engine;
use tidings_store::{NewEvent, Settings, SqliteStore, Store as _, now_ms};
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::receiver::{Received, Receiver, Reply};
use tidings_tests::until;

/// How many Webhooks leave and come back at once.
const WEBHOOKS: usize = 16;

/// A store and an engine on it.
struct Bench {
    store: Arc<SqliteStore>,
    engine: Arc<Engine<SqliteStore>>,
    _folder: TempDir,
}

impl Bench {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let settings = Settings { dir: folder.path().to_owned(), min_free_bytes: 0, ..Settings::default() };
        let store = Arc::new(SqliteStore::open(settings).unwrap());
        let engine = Engine::start(Arc::clone(&store), Vec::new()).unwrap();
        let runs = Arc::clone(&engine);
        tokio::spawn(async move { runs.run_until_failure().await });
        Self { store, engine, _folder: folder }
    }

    async fn append(&self, number: u64) {
        let body = format!(r#"{{"event":"PostSignIn","number":{number}}}"#);
        let event = NewEvent {
            name: "PostSignIn".into(),
            fingerprint: u128::from(number).to_be_bytes(),
            received_ms: now_ms(),
            body: body.into(),
        };
        self.store.append(event).await.unwrap();
    }

    /// How many deliveries wait.
    fn pending(&self) -> u64 {
        self.engine.snapshots().iter().map(|webhook| webhook.pending).sum()
    }
}

fn number_of(received: &Received) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    body["number"].as_u64().unwrap()
}

fn without() -> Published {
    Published::unpublished(plan([]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_is_missed_however_often_webhooks_leave_the_plan_and_come_back() {
    let receiver = Receiver::start().await;
    let with = plan((0..WEBHOOKS).map(|nth| webhook(&format!("nth-{nth}"), &receiver)));
    let with = Published::unpublished(with);
    let bench = Bench::start();
    let mut number = 0;
    for _ in 0..1000 {
        // Its lanes are at work on this one when they leave.
        bench.engine.apply(&with);
        number += 1;
        bench.append(number).await;
        bench.engine.apply(&without());
        // And this one comes while they are away.
        number += 1;
        bench.append(number).await;
    }
    bench.engine.apply(&with);
    let expected = usize::try_from(number).unwrap() * WEBHOOKS;
    let mut ids = HashSet::new();
    while ids.len() < expected {
        let seen = receiver.received();
        ids = seen.iter().map(|received| received.header("webhook-id").to_owned()).collect();
        let what = format!("{} of {expected} deliveries arrived, the others never do", ids.len());
        let more = async || (ids.len() == expected || receiver.count() > seen.len()).then_some(());
        until(&what, more).await;
    }
    until("nothing waits", async || (bench.pending() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_comes_back_during_a_long_attempt_gets_each_new_event_at_once() {
    let receiver = Receiver::answering(|nth, _| match nth {
        0 => Reply::Never,
        _ => Reply::Status(200),
    })
    .await;
    let with = plan([webhook("all", &receiver).delivering(|delivery| delivery.timeout_seconds = 600)]);
    let with = Published::unpublished(with);
    let bench = Bench::start();
    bench.engine.apply(&with);
    bench.append(1).await;
    receiver.wait_for(1).await;
    bench.engine.apply(&without());
    bench.engine.apply(&with);
    for number in 2..=20 {
        bench.append(number).await;
        // Before the next one, whose coming would wake the lane once more.
        receiver.wait_for(usize::try_from(number).unwrap()).await;
    }
    let arrived: Vec<_> = receiver.received().iter().map(number_of).collect();
    assert_eq!(arrived, (1..=20).collect::<Vec<_>>(), "each once: the first one is still under way");
}
