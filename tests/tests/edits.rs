//! A change of one Webhook among many: it costs what changed, and keeps no event waiting.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use tidings_plan::{Plan, WebhookPlan};
use tidings_tests::plan::{Change as _, plan, webhook, webhook_to};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::Receiver;
use tidings_tests::until;

fn many(count: usize, changed: impl IntoIterator<Item = WebhookPlan>) -> Plan {
    let others = (0..count).map(|at| {
        webhook_to(&format!("other-{at:04}"), "http://127.0.0.1:9/")
            .selecting(&["Other"])
            .filtered("has(event.data) && event.data.roles.exists(r, r.matches('^admin-[0-9]+$'))")
    });
    let mut plan = plan(others.chain(changed));
    plan.ingest.signing_keys.clear();
    plan
}

/// How many Webhooks the last plan compiled, and how many plans ran.
fn compiled(sidecar: &Process) -> (usize, usize) {
    let output = sidecar.output();
    let plans: Vec<_> = output.lines().filter(|line| line.contains("the plan runs")).collect();
    let last = plans.last().unwrap();
    let number = last.split("compiled=").nth(1).expect("the log says how many were compiled");
    (number.split_whitespace().next().unwrap().parse().unwrap(), plans.len())
}

async fn wait_for_plan(sidecar: &Process, number: usize) -> usize {
    until("the changed plan runs", async || {
        let (last, plans) = compiled(sidecar);
        (plans == number).then_some(last)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_one_webhook_compiles_that_one_and_the_others_run_on() {
    let (before, after) = (Receiver::start().await, Receiver::start().await);
    let home = Home::default();
    home.put(&many(200, [webhook("edited", &before)]));
    let sidecar = home.start().await;
    assert_eq!(compiled(&sidecar), (201, 1));
    let mut sender = sidecar.sender().await;
    assert_eq!(sender.post("/events", "", br#"{"event":"A"}"#).await.unwrap().status, 200);
    before.wait_for(1).await;
    let mut edited = webhook("edited", &after);
    edited.generation = 2;
    home.put(&many(200, [edited.clone()]));
    assert_eq!(wait_for_plan(&sidecar, 2).await, 1);
    assert_eq!(sender.post("/events", "", br#"{"event":"A"}"#).await.unwrap().status, 200);
    after.wait_for(1).await;
    assert_eq!(sidecar.webhook("shop/edited").await["generation"], 2);
    // Another policy is another way out for each of them.
    let mut closed = many(200, [edited]);
    closed.egress.deny.push("127.0.0.1/32".parse().unwrap());
    home.put(&closed);
    assert_eq!(wait_for_plan(&sidecar, 3).await, 201);
}

/// A measurement, to be read: `cargo test -p tidings-tests --test edits -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it measures, and asserts nothing of time"]
async fn how_long_an_event_waits_while_one_webhook_of_thousands_changes() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&many(5000, [webhook("edited", &receiver).selecting(&["Other"])]));
    let sidecar = home.start().await;
    let mut waits = Vec::new();
    for generation in 2..6 {
        let mut edited = webhook("edited", &receiver).selecting(&["Other"]);
        edited.generation = generation;
        home.put(&many(5000, [edited]));
        let mut sender = sidecar.sender().await;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            let sent = Instant::now();
            assert_eq!(sender.post("/events", "", br#"{"event":"A"}"#).await.unwrap().status, 200);
            waits.push(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    waits.sort_unstable();
    let of = |part: usize| waits[(waits.len() - 1) * part / 1000];
    println!(
        "{} events: median {:?}, p99 {:?}, p99.9 {:?}, most {:?}",
        waits.len(),
        of(500),
        of(990),
        of(999),
        of(1000)
    );
}
