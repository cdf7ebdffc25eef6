//! The delivery rules, as a receiver and a team see them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use tidings_plan::{Format, Plan, SecretText, WebhookPlan};
use tidings_signature::SigningKey;
use tidings_tests::capture::{self, Capture};
use tidings_tests::client::{Answer, get_json};
use tidings_tests::plan::{Change as _, plan, webhook, webhook_to};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::{Receiver, Reply};

/// Posts a body of our own, signed as the auth server would.
async fn post(sidecar: &Process, body: &str) -> Answer {
    let signature = SigningKey::new(&capture::signing_key()).unwrap().logto_signature(body.as_bytes());
    let headers = format!("logto-signature-sha-256: {signature}\r\n");
    let answer = sidecar.sender().await.post("/events", &headers, body.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer
}

async fn running(plan: &Plan) -> (Home, Process) {
    let home = Home::default();
    home.put(plan);
    let sidecar = home.start().await;
    (home, sidecar)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_gets_the_event_again_under_the_same_id_until_it_takes_it() {
    let receiver = Receiver::answering(|nth, _| Reply::Status(if nth < 3 { 500 } else { 204 })).await;
    let (_home, sidecar) = running(&plan([webhook("all", &receiver).retrying_within(1, 1, 3600)])).await;
    post(&sidecar, r#"{"event":"A"}"#).await;
    let received = receiver.wait_for(4).await;
    let ids: HashSet<_> = received.iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), 1, "one id over all attempts");
    let status = sidecar.wait_webhook("shop/all", "delivered", |webhook| webhook["delivered"] == 1).await;
    assert_eq!((&status["failed"], &status["pending"]), (&3.into(), &0.into()));
    assert_eq!(status["lastSuccess"]["attempt"], 4);
    assert_eq!(status["lastFailure"]["statusCode"], 500);
    assert_eq!(status["consecutiveFailures"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_live_key_signs_so_a_rotation_breaks_nobody() {
    let receiver = Receiver::start().await;
    let mut rotating = webhook("all", &receiver);
    let (new, old) = ("whsec_bmV3LWtleS1vZi1lbm91Z2gtYnl0ZXMtMDE=", "plain-old-key-of-enough-bytes");
    rotating.signing_keys = vec![SecretText::new(new), SecretText::new(old)];
    let (_home, sidecar) = running(&plan([rotating])).await;
    post(&sidecar, r#"{"event":"A"}"#).await;
    let received = &receiver.wait_for(1).await[0];
    let by_new = standardwebhooks::Webhook::new(new).unwrap();
    let by_old = standardwebhooks::Webhook::from_bytes(old.as_bytes().to_vec()).unwrap();
    by_new.verify(&received.body, &received.headers).expect("who has the new key verifies");
    by_old.verify(&received.body, &received.headers).expect("who has the old key verifies");
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_holds_the_whole_endpoint_back() {
    let receiver = Receiver::answering(|nth, _| match nth {
        0 => Reply::With(429, "retry-after", "2".to_owned()),
        _ => Reply::Status(200),
    })
    .await;
    let one_at_a_time =
        webhook("all", &receiver).retrying_within(1, 1, 3600).delivering(|delivery| delivery.concurrency = 1);
    let (_home, sidecar) = running(&plan([one_at_a_time])).await;
    for nth in 0..5 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    let received = receiver.wait_for(6).await;
    let waited = received[1].at.duration_since(received[0].at);
    assert!(waited >= Duration::from_millis(1900), "nothing was sent in between: {waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_burns_no_attempts_and_gets_everything_when_it_is_back() {
    let receiver = Receiver::answering(|_, _| Reply::Status(503)).await;
    let (_home, sidecar) = running(&plan([webhook("all", &receiver).retrying_within(1, 1, 3600)])).await;
    for nth in 0..300 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    sidecar.wait_webhook("shop/all", "the circuit opens", |webhook| webhook["circuit"] == "Open").await;
    let tried = receiver.received().len();
    assert!(tried < 300, "the circuit opened before each event was tried: {tried}");
    receiver.now_answering(|_, _| Reply::Status(200));
    let status =
        sidecar.wait_webhook("shop/all", "all delivered", |webhook| webhook["delivered"] == 300).await;
    assert_eq!((&status["pending"], &status["circuit"]), (&0.into(), &"Closed".into()));
    assert_eq!(status["deadLettered"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_made_again_under_its_name_inherits_nothing_that_waits() {
    let receiver = Receiver::answering(|_, _| Reply::Status(404)).await;
    let home = Home::default();
    let all = || webhook("all", &receiver).retrying_within(20, 20, 3600);
    home.put(&plan([all()]));
    let mut sidecar = home.start().await;
    for (nth, uid) in ["another", "a-third"].into_iter().enumerate() {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
        sidecar.wait_webhook("shop/all", "it is to be tried again", |webhook| webhook["failed"] == 1).await;
        let anew = WebhookPlan { uid: uid.to_owned(), ..all() };
        if nth == 0 {
            home.put(&plan([anew]));
            sidecar.wait_webhook("shop/all", "another one runs", |webhook| webhook["failed"] == 0).await;
            sidecar.terminate().await;
        } else {
            // It is made again while the sidecar is away.
            sidecar.terminate().await;
            home.put(&plan([anew]));
            home.start().await.terminate().await;
        }
        sidecar = home.start().await;
        assert_eq!(sidecar.webhook("shop/all").await["pending"], 0, "{uid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_listed_among_the_dead_letters_with_its_reason() {
    let receiver = Receiver::answering(|_, _| Reply::Status(400)).await;
    let (_home, sidecar) = running(&plan([webhook("all", &receiver).retrying_within(1, 1, 1)])).await;
    post(&sidecar, r#"{"event":"User.Deleted"}"#).await;
    sidecar.wait_webhook("shop/all", "given up", |webhook| webhook["deadLettered"] == 1).await;
    let letters = tidings_tests::until("the dead letter is listed", async || {
        let page = get_json(sidecar.admin, "/deadletters?webhook=shop/all").await;
        page["deadLetters"].get(0).cloned()
    })
    .await;
    assert_eq!(
        (&letters["name"], &letters["reason"], &letters["status_code"]),
        (&"User.Deleted".into(), &"HttpStatus".into(), &400.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_410_stops_the_webhook_until_it_is_changed_and_loses_nothing() {
    let receiver = Receiver::answering(|_, _| Reply::Status(410)).await;
    let (home, sidecar) = running(&plan([webhook("all", &receiver)])).await;
    post(&sidecar, r#"{"event":"A"}"#).await;
    sidecar.wait_webhook("shop/all", "stopped", |webhook| webhook["circuit"] == "Gone").await;
    let tried = receiver.received().len();
    for nth in 0..20 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    let status = sidecar.wait_webhook("shop/all", "all wait", |webhook| webhook["pending"] == 21).await;
    assert_eq!(
        (status["delivered"].as_u64(), receiver.received().len()),
        (Some(0), tried),
        "nothing more is sent"
    );
    receiver.now_answering(|_, _| Reply::Status(200));
    let mut changed = webhook("all", &receiver);
    changed.generation = 2;
    home.put(&plan([changed]));
    sidecar.wait_webhook("shop/all", "all delivered", |webhook| webhook["delivered"] == 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_a_failure_and_is_never_followed() {
    let target = Receiver::start().await;
    let location = target.url();
    let receiver = Receiver::answering(move |_, _| Reply::With(302, "location", location.clone())).await;
    let (_home, sidecar) = running(&plan([webhook("all", &receiver)])).await;
    post(&sidecar, r#"{"event":"A"}"#).await;
    let status = sidecar.wait_webhook("shop/all", "failed", |webhook| webhook["failed"] == 1).await;
    assert_eq!(status["lastFailure"]["statusCode"], 302);
    assert!(target.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_key_arrive_one_after_another_and_others_pass_them() {
    let receiver = Receiver::answering(|_, received| {
        let stuck = received.body.windows(8).any(|window| window == b"\"stuck\":");
        if stuck { Reply::After(Duration::from_millis(300), 200) } else { Reply::Status(200) }
    })
    .await;
    let (_home, sidecar) = running(&plan([webhook("all", &receiver).ordered_by("/user")])).await;
    post(&sidecar, r#"{"event":"A","user":"ada","nth":0,"stuck":1}"#).await;
    for nth in 1..20 {
        post(&sidecar, &format!(r#"{{"event":"A","user":"ada","nth":{nth}}}"#)).await;
        post(&sidecar, &format!(r#"{{"event":"A","user":"bob","nth":{nth}}}"#)).await;
    }
    let received = receiver.wait_for(39).await;
    let mut by_user: HashMap<String, Vec<u64>> = HashMap::new();
    for one in &received {
        let body: serde_json::Value = serde_json::from_slice(&one.body).unwrap();
        by_user
            .entry(body["user"].as_str().unwrap().to_owned())
            .or_default()
            .push(body["nth"].as_u64().unwrap());
    }
    assert_eq!(by_user["ada"], (0..20).collect::<Vec<_>>());
    assert_eq!(by_user["bob"], (1..20).collect::<Vec<_>>());
    let second = received
        .iter()
        .position(|one| one.body.as_ref() == br#"{"event":"A","user":"ada","nth":1}"#)
        .unwrap();
    assert!(
        received[..second].iter().any(|one| one.body.windows(3).any(|window| window == b"bob")),
        "bob did not wait"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_that_never_answers_delays_no_other() {
    let (hanging, quick) = (Receiver::answering(|_, _| Reply::Never).await, Receiver::start().await);
    let (_home, sidecar) = running(&plan([webhook("hanging", &hanging), webhook("quick", &quick)])).await;
    for nth in 0..100 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    quick.wait_for(100).await;
    let hanging = sidecar.webhook("shop/hanging").await;
    assert_eq!((hanging["delivered"].as_u64(), hanging["pending"].as_u64()), (Some(0), Some(100)));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_and_rate_are_kept() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let receiver = Receiver::answering(|_, _| Reply::After(Duration::from_millis(50), 200)).await;
    let limited = Receiver::start().await;
    let most = Arc::new(AtomicUsize::new(0));
    let (_home, sidecar) = running(&plan([
        webhook("three", &receiver).delivering(|delivery| delivery.concurrency = 3),
        webhook("slow", &limited).delivering(|delivery| delivery.rate_per_second = Some(10)),
    ]))
    .await;
    let began = Instant::now();
    for nth in 0..30 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    for one in receiver.wait_for(30).await {
        let overlapping = receiver
            .received()
            .iter()
            .filter(|other| other.at <= one.at && one.at < other.at + Duration::from_millis(50))
            .count();
        most.fetch_max(overlapping, Ordering::Relaxed);
    }
    assert!(most.load(Ordering::Relaxed) <= 3, "{most:?} at once");
    limited.wait_for(30).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1900), "10 at once, 20 more at 10 in a second: {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_lets_pass_what_it_accepts_and_the_rest_is_counted_as_dropped() {
    let receiver = Receiver::start().await;
    let (_home, sidecar) =
        running(&plan([webhook("all", &receiver).filtered("event.data.plan == 'pro'")])).await;
    post(&sidecar, r#"{"event":"A","data":{"plan":"free"}}"#).await;
    post(&sidecar, r#"{"event":"A","data":{"plan":"basic"}}"#).await;
    post(&sidecar, r#"{"event":"A","data":{"plan":"pro"}}"#).await;
    let status = sidecar
        .wait_webhook("shop/all", "judged", |webhook| webhook["dropped"] == 2 && webhook["delivered"] == 1)
        .await;
    assert_eq!((&status["pending"], &status["filterErrors"]), (&0.into(), &0.into()));
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_filter_cannot_be_evaluated_over_is_delivered_and_counted_apart() {
    let receiver = Receiver::start().await;
    let costly = "event.a.all(x, event.a.all(y, x.matches('^(a|b)*$') && y.matches('^(a|b)*$')))";
    let hooks = [("missing-key", "event.data.plan == 'hush'"), ("costly", costly)]
        .map(|(name, filter)| webhook(name, &receiver).filtered(filter));
    let (_home, sidecar) = running(&plan(hooks)).await;
    let list = vec!["ab"; 3000];
    post(&sidecar, &serde_json::json!({ "event": "A", "a": list, "secret": "hush" }).to_string()).await;
    receiver.wait_for(2).await;
    for (name, class) in [("shop/missing-key", "Evaluation"), ("shop/costly", "TooCostly")] {
        let status = sidecar.wait_webhook(name, "delivered", |webhook| webhook["delivered"] == 1).await;
        assert_eq!((&status["filterErrors"], &status["dropped"]), (&1.into(), &0.into()), "{status}");
        assert_eq!(status["filterFailing"]["class"], class, "{status}");
        let name = name.trim_start_matches("shop/");
        let line = format!("tidings_webhook_filter_errors_total{{namespace=\"shop\",webhook=\"{name}\"}}");
        sidecar.wait_metric(&line, 1).await;
    }
    let (_, output) = sidecar.terminate().await;
    assert!(output.contains("TooCostly") && !output.contains("hush"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_lets_others_have_their_turn_while_it_drops_goes_on_until_all_are_dropped() {
    let receiver = Receiver::start().await;
    let dropping = "event.a.exists(x, x == 2)";
    let hooks = (0..8).map(|at| webhook(&format!("dropping-{at}"), &receiver).filtered(dropping));
    let (_home, sidecar) = running(&plan(hooks.chain([webhook("good", &receiver)]))).await;
    for number in 0..50 {
        let list = vec![1; 200];
        post(&sidecar, &serde_json::json!({ "event": "A", "n": number, "a": list }).to_string()).await;
    }
    receiver.wait_for(50).await;
    for at in 0..8 {
        let name = format!("shop/dropping-{at}");
        sidecar.wait_webhook(&name, "all are dropped", |webhook| webhook["dropped"] == 50).await;
    }
    assert_eq!(receiver.received().len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_is_signed_as_it_is_sent() {
    let receiver = Receiver::start().await;
    let mut structured = webhook("all", &receiver);
    structured.format = Format::CloudEvents;
    let (_home, sidecar) = running(&plan([structured])).await;
    let Capture { body, head: _, name: _, event: _ } = capture::of_event("User.Created");
    sidecar.sender().await.send(&capture::of_event("User.Created")).await;
    let received = &receiver.wait_for(1).await[0];
    assert_eq!(received.header("content-type"), "application/cloudevents+json");
    standardwebhooks::Webhook::new(tidings_tests::plan::KEY)
        .unwrap()
        .verify(&received.body, &received.headers)
        .unwrap();
    let sent: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&received.body).unwrap();
    assert_eq!((&sent["specversion"], &sent["type"]), (&"1.0".into(), &"dev.tidings.User.Created".into()));
    assert_eq!(sent["data"], serde_json::from_slice::<serde_json::Value>(&body).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let receiver = Receiver::start().await;
    let (_home, sidecar) =
        running(&plan([webhook("all", &receiver).delivering(|delivery| delivery.concurrency = 1)])).await;
    for nth in 0..50 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    let received = receiver.wait_for(50).await;
    assert_eq!(received.iter().map(|one| one.connection).max(), Some(0), "one connection for all");
    let reused = tidings_tests::until("the last attempt is counted", async || {
        sidecar.metric("tidings_connections_reused_total").await.filter(|reused| *reused >= 49)
    });
    assert_eq!(reused.await, 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_run_is_left_out_and_hurts_no_other() {
    let receiver = Receiver::start().await;
    let mut forging = webhook("forging", &receiver);
    forging.endpoint.headers.insert("webhook-signature".to_owned(), SecretText::new("v1,forged"));
    let (_home, sidecar) = running(&plan([
        forging,
        webhook_to("metadata", "http://169.254.169.254/latest/meta-data"),
        webhook_to("nonsense", "ftp://example.com"),
        webhook("broken-filter", &receiver).filtered("event.("),
        webhook("good", &receiver),
    ]))
    .await;
    post(&sidecar, r#"{"event":"A"}"#).await;
    receiver.wait_for(1).await;
    assert_eq!(sidecar.metric("tidings_plan_webhooks_rejected").await, Some(4));
    assert_eq!(receiver.count(), 1, "a header of the user's takes the place of no signature");
    let output = sidecar.output();
    for name in ["shop/forging", "shop/metadata", "shop/nonsense", "shop/broken-filter"] {
        assert!(output.contains(name), "{name} is named: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_swapped_while_deliveries_run_and_a_broken_one_changes_nothing() {
    let (first, second) = (Receiver::answering(|_, _| Reply::Status(500)).await, Receiver::start().await);
    let (home, sidecar) = running(&plan([webhook("all", &first).retrying_within(1, 1, 3600)])).await;
    for nth in 0..40 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    first.wait_for(3).await;
    std::fs::write(home.path("plan").join("plan.json"), b"{\"version\":1").unwrap();
    tidings_tests::until("the broken plan is told", async || {
        sidecar.output().contains("the one before runs on").then_some(())
    })
    .await;
    let mut moved = webhook("all", &second).retrying_within(1, 1, 3600);
    moved.generation = 2;
    home.put(&plan([moved]));
    sidecar
        .wait_webhook("shop/all", "all delivered at the new URL", |webhook| webhook["delivered"] == 40)
        .await;
    assert!(second.received().len() >= 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_webhook_keeps_its_events_and_gets_them_on_resume() {
    let receiver = Receiver::start().await;
    let mut suspended = webhook("all", &receiver);
    suspended.suspend = true;
    let (home, sidecar) = running(&plan([suspended.clone()])).await;
    for nth in 0..600 {
        post(&sidecar, &format!(r#"{{"event":"A","nth":{nth}}}"#)).await;
    }
    sidecar.wait_webhook("shop/all", "all wait", |webhook| webhook["pending"] == 600).await;
    suspended.suspend = false;
    suspended.generation = 2;
    home.put(&plan([suspended]));
    sidecar.wait_webhook("shop/all", "all delivered", |webhook| webhook["delivered"] == 600).await;
    assert_eq!(receiver.received().len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_fewer_events_is_slowed_down_and_not_cut_off() {
    let receiver = Receiver::answering(|nth, _| Reply::Status(if nth < 7 { 429 } else { 200 })).await;
    let (_home, sidecar) = running(&plan([webhook("all", &receiver).retrying_within(1, 1, 3600)])).await;
    post(&sidecar, r#"{"event":"A"}"#).await;
    receiver.wait_for(7).await;
    let webhook = sidecar.wait_webhook("shop/all", "all failed", |webhook| webhook["failed"] == 7).await;
    assert_eq!(webhook["circuit"], "Closed", "seven in a row open no circuit: {webhook}");
    sidecar.wait_webhook("shop/all", "delivered", |webhook| webhook["delivered"] == 1).await;
    let between: Vec<_> = receiver.received().windows(2).map(|two| two[1].at - two[0].at).collect();
    let shortest = between.iter().min().unwrap();
    assert!(*shortest >= std::time::Duration::from_millis(400), "the endpoint is left alone: {between:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_line_for_each_change_of_an_endpoint_and_none_for_each_attempt() {
    let receiver = Receiver::answering(|_, _| Reply::Status(500)).await;
    let (_home, sidecar) = running(&plan([webhook("all", &receiver).retrying_within(1, 1, 3600)])).await;
    for nth in 0..20 {
        post(&sidecar, &format!(r#"{{"event":"A","secret":"hush","nth":{nth}}}"#)).await;
    }
    receiver.wait_for(8).await;
    sidecar.wait_webhook("shop/all", "the circuit is open", |webhook| webhook["circuit"] == "Open").await;
    receiver.now_answering(|_, _| Reply::Status(200));
    sidecar.wait_webhook("shop/all", "all delivered", |webhook| webhook["delivered"] == 20).await;
    let lines = |what: &str| sidecar.output().matches(what).count();
    let line = "the circuit closed";
    tidings_tests::until(line, async || (lines(line) == 1).then_some(())).await;
    assert_eq!((lines("an attempt failed"), lines("the circuit opened")), (1, 1), "{}", sidecar.output());
    assert!(!sidecar.output().contains("hush"));
}
