//! Damage of single events on the disk: a byte of the database is flipped while the sidecar is away.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use tidings_plan::WebhookPlan;
use tidings_signature::SigningKey;
use tidings_tests::client::get_json;
use tidings_tests::plan::{Change as _, plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Receiver, Reply};
use tidings_tests::{capture, until};

/// Stores one event of this name.
async fn store(sidecar: &Process, name: &str, number: usize) {
    let body = format!(r#"{{"event":"{name}","createdAt":"t{number}","mark":"number {number}."}}"#);
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(body.as_bytes()));
    let answer = sidecar.sender().await.post("/events", &headers, body.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Flips a byte of this text in the database, where it stands once but for those after another text.
fn damage(home: &Home, text: &str, but_after: &str) {
    let path = home.data().join("tidings.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<_> = (0..bytes.len() - text.len())
        .filter(|at| {
            bytes[*at..].starts_with(text.as_bytes()) && !bytes[..*at].ends_with(but_after.as_bytes())
        })
        .collect();
    assert_eq!(places.len(), 1, "{text:?} stands in the database once");
    bytes[places[0] + 2] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

/// The dead letters of a Webhook, by their place: name and reason.
async fn dead_letters(sidecar: &Process, webhook: &str) -> Vec<(u64, String, String)> {
    let page = get_json(sidecar.admin, &format!("/deadletters?webhook={webhook}")).await;
    let text = |letter: &serde_json::Value, key: &str| letter[key].as_str().unwrap().to_owned();
    let mut letters: Vec<_> = page["deadLetters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| (letter["seq"].as_u64().unwrap(), text(letter, "name"), text(letter, "reason")))
        .collect();
    letters.sort();
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_event_is_a_dead_letter_and_all_others_are_delivered() {
    let [all, too, other] = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    let answer = |status| {
        for receiver in [&all, &too, &other] {
            receiver.now_answering(move |_, _| Reply::Status(status));
        }
    };
    answer(503);
    let home = Home::default();
    home.put(&plan([
        webhook("all", &all),
        webhook("too", &too).selecting(&["User.Created"]),
        webhook("other", &other).selecting(&["Other.*"]),
    ]));
    let sidecar = home.start().await;
    for number in 1..=40 {
        store(&sidecar, if number % 10 == 0 { "Other.Thing" } else { "User.Created" }, number).await;
    }
    for (name, pending) in [("shop/all", 40), ("shop/too", 36), ("shop/other", 4)] {
        sidecar.wait_webhook(name, "all wait", |webhook| webhook["pending"] == pending).await;
    }
    assert!(sidecar.terminate().await.0.success());
    // One that is tried again, one that waits in the log, and the newest.
    for mark in ["number 1.", "number 25.", "number 39."] {
        damage(&home, mark, "no such text");
    }
    answer(200);
    let sidecar = home.start().await;
    for (name, delivered, dead) in [("shop/all", 37, 3), ("shop/too", 33, 3), ("shop/other", 4, 0)] {
        let is_over =
            |webhook: &serde_json::Value| webhook["pending"] == 0 && webhook["delivered"] == delivered;
        let status = sidecar.wait_webhook(name, "all others are delivered", is_over).await;
        assert_eq!(status["deadLettered"], dead, "{status}");
    }
    let letters = [1, 25, 39].map(|seq| (seq, "User.Created".to_owned(), "Damaged".to_owned()));
    for name in ["shop/all", "shop/too"] {
        until(name, async || (dead_letters(&sidecar, name).await == letters).then_some(())).await;
    }
    assert_eq!(dead_letters(&sidecar, "shop/other").await, []);
    assert_eq!(sidecar.metric("tidings_store_damaged_events_total ").await, Some(3), "each counts once");
    assert!(sidecar.output().contains("an event of the log is damaged"), "{}", sidecar.output());
    // It is over for them: another start finds nothing to do, and takes events.
    assert!(sidecar.terminate().await.0.success());
    let sidecar = home.start().await;
    store(&sidecar, "User.Created", 41).await;
    sidecar.wait_webhook("shop/all", "goes on", |webhook| webhook["delivered"] == 38).await;
    assert_eq!(dead_letters(&sidecar, "shop/all").await, letters);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_name_is_damaged_is_a_dead_letter_of_each_webhook_that_waited() {
    let [one, two] = [Receiver::start().await, Receiver::start().await];
    let home = Home::default();
    let webhooks = |suspend| {
        let of =
            |name, receiver, events| WebhookPlan { suspend, ..webhook(name, receiver).selecting(&[events]) };
        plan([of("one", &one, "User.*"), of("two", &two, "Other.*")])
    };
    home.put(&webhooks(true));
    let sidecar = home.start().await;
    for (number, name) in
        (1..).zip(["User.Created", "Other.Thing", "User.Once", "User.Created", "Other.Thing"])
    {
        store(&sidecar, name, number).await;
    }
    sidecar.wait_webhook("shop/one", "wait", |webhook| webhook["pending"] == 3).await;
    sidecar.wait_webhook("shop/two", "wait", |webhook| webhook["pending"] == 2).await;
    assert!(sidecar.terminate().await.0.success());
    // Another name than the one that each selects by.
    damage(&home, "User.Once", "\"event\":\"");
    home.put(&webhooks(false));
    let sidecar = home.start().await;
    for name in ["shop/one", "shop/two"] {
        let is_over = |webhook: &serde_json::Value| webhook["pending"] == 0 && webhook["delivered"] == 2;
        sidecar.wait_webhook(name, "the others are delivered", is_over).await;
        let letter = (3, String::new(), "Damaged".to_owned());
        until(name, async || (dead_letters(&sidecar, name).await == [letter.clone()]).then_some(())).await;
    }
}
