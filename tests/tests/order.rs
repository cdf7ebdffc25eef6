//! Events of one ordering key arrive one after another, also through a crash.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;
use tidings_signature::SigningKey;
use tidings_store::{Settings, SqliteStore, Store as _};
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Received, Receiver, Reply};
use tidings_tests::{capture, until};

const USERS: u64 = 5;
const EVENTS: u64 = 3;

async fn send_events(sidecar: &Process) {
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    let mut client = sidecar.sender().await;
    for number in 1..=EVENTS {
        for user in 1..=USERS {
            let body = format!(
                r#"{{"event":"A","createdAt":"{user}-{number}","user":"u{user}","number":{number}}}"#
            );
            let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(body.as_bytes()));
            assert_eq!(client.post("/events", &headers, body.as_bytes()).await.unwrap().status, 200);
        }
    }
}

/// How many rows a crash at this moment would leave, from a copy of the files; `None` where the copy was made
/// in the middle of a write.
async fn saved_rows(data: &Path) -> Option<usize> {
    let copy = TempDir::new().unwrap();
    for file in std::fs::read_dir(data).ok()? {
        let file = file.ok()?;
        std::fs::copy(file.path(), copy.path().join(file.file_name())).ok()?;
    }
    let settings = Settings { dir: copy.path().to_owned(), accept_data_loss: true, ..Settings::default() };
    let store = SqliteStore::open(settings).ok()?;
    let rows = store.lanes().ok()?.iter().map(|lane| lane.rows.len()).sum();
    store.close().await.ok()?;
    Some(rows)
}

fn numbers_by_user(received: &[Received]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for received in received {
        let body: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
        let user = body["user"].as_str().unwrap().to_owned();
        numbers.entry(user).or_default().push(body["number"].as_u64().unwrap());
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_user_keep_their_order_when_the_sidecar_is_killed_while_the_first_is_under_way() {
    let receiver = Receiver::answering(|_, _| Reply::Never).await;
    let home = Home::default();
    let ordered = webhook("all", &receiver).ordered_by("/user");
    home.put(&plan([ordered.delivering(|delivery| delivery.timeout_seconds = 600)]));
    let sidecar = home.start().await;
    send_events(&sidecar).await;
    let under_way = usize::try_from(USERS).unwrap();
    let behind = usize::try_from(USERS * (EVENTS - 1)).unwrap();
    receiver.wait_for(under_way).await;
    until("those that wait behind another are saved", async || {
        saved_rows(&home.data()).await.filter(|rows| *rows >= behind)
    })
    .await;
    sidecar.kill().await;
    receiver.now_answering(|_, _| Reply::Status(200));
    let sidecar = home.start().await;
    sidecar.wait_webhook("shop/all", "all are delivered", |webhook| webhook["pending"] == 0).await;
    let after = receiver.received().split_off(under_way);
    for (user, numbers) in numbers_by_user(&after) {
        assert_eq!(numbers, (1..=EVENTS).collect::<Vec<_>>(), "{user}");
    }
}
