//! What the events port takes and refuses, and that it cannot be held up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tidings_plan::SentAgain;
use tidings_signature::SigningKey;
use tidings_tests::capture::{self, of_event};
use tidings_tests::client::{Client, get};
use tidings_tests::plan::{plan, webhook};
use tidings_tests::process::{Home, Process};
use tidings_tests::receiver::Receiver;
use tidings_tests::until;

async fn sidecar() -> (Home, Receiver, Process) {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)]));
    let sidecar = home.start().await;
    (home, receiver, sidecar)
}

fn signed(body: &[u8]) -> String {
    let signature = SigningKey::new(&capture::signing_key()).unwrap().logto_signature(body);
    format!("logto-signature-sha-256: {signature}\r\n")
}

async fn wait_refused(sidecar: &Process, reason: &str, count: u64) {
    let line = format!("tidings_events_refused_total{{reason=\"{reason}\"}}");
    sidecar.wait_metric(&line, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_connections_at_once_lose_and_mix_up_nothing() {
    let (_home, receiver, sidecar) = sidecar().await;
    let captures = capture::captured();
    let sends = (0..32).map(|nth| {
        let (capture, events) = (captures[nth % captures.len()].clone(), sidecar.events);
        tokio::spawn(async move { Client::connect(events).await.send(&capture).await.status })
    });
    for send in sends.collect::<Vec<_>>() {
        assert_eq!(send.await.unwrap(), 200);
    }
    // 31 different requests; the 32nd is the first one sent again, and stored once.
    let received = receiver.wait_for(31).await;
    for capture in &captures {
        assert_eq!(received.iter().filter(|one| one.body == capture.body).count(), 1, "{}", capture.name);
    }
    sidecar.wait_metric("tidings_events_duplicate_total", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_of_any_body_is_refused() {
    let (_home, receiver, sidecar) = sidecar().await;
    let captures = capture::captured();
    for (nth, capture) in captures.iter().enumerate() {
        let at = capture.body.len() * (nth + 1) / (captures.len() + 1);
        let answer = sidecar.sender().await.send(&capture.flipped_at(at)).await;
        assert_eq!(answer.status, 401, "{}", capture.name);
        assert!(answer.body.contains("BadSignature"));
    }
    wait_refused(&sidecar, "BadSignature", 31).await;
    assert!(receiver.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_status_its_reason_and_its_count_and_no_body_in_the_log() {
    let (_home, receiver, sidecar) = sidecar().await;
    let cases: [(&str, &[u8], bool, u16, &str); 6] = [
        ("/events", b"{\"event\":\"PostSignIn\",\"k\":\"hush\"}", false, 401, "MissingSignature"),
        ("/events", b"{\"k\":\"hush\"}", true, 422, "NoEventName"),
        ("/events", b"{\"event\":\"hush", true, 422, "NotJson"),
        ("/events", b"{\"event\":\"\",\"k\":\"hush\"}", true, 422, "NoEventName"),
        ("/", b"[\"hush\"]", true, 422, "NoEventName"),
        ("/elsewhere", b"hush", true, 404, "NotFound"),
    ];
    for (at, (path, body, sign, status, reason)) in cases.into_iter().enumerate() {
        let headers = if sign { signed(body) } else { String::new() };
        let answer = sidecar.sender().await.post(path, &headers, body).await.unwrap();
        assert_eq!(answer.status, status, "{reason}: {}", answer.body);
        assert!(answer.body.contains(&format!("\"reason\":\"{reason}\"")), "{}", answer.body);
        let count = cases[..=at].iter().filter(|(.., other)| *other == reason).count();
        wait_refused(&sidecar, reason, count as u64).await;
    }
    let got = get(sidecar.events, "/events").await.unwrap();
    assert_eq!(got.status, 405);
    assert!(got.head.contains("allow: post"), "{}", got.head);
    let (status, output) = sidecar.terminate().await;
    assert!(status.success());
    assert!(output.contains("NoEventName") && !output.contains("hush"), "{output}");
    assert!(receiver.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_have_eight_mebibytes_and_no_more() {
    let (_home, receiver, sidecar) = sidecar().await;
    let body_of = |bytes: usize| {
        let head = br#"{"event":"User.Created","x":""#;
        let mut body = head.to_vec();
        body.resize(bytes - 2, b'x');
        body.extend_from_slice(b"\"}");
        body
    };
    let largest = body_of(8 << 20);
    let answer = sidecar.sender().await.post("/events", &signed(&largest), &largest).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(receiver.wait_for(1).await[0].body.len(), 8 << 20);
    let mut sender = sidecar.sender().await;
    // Only the head: a length is enough to refuse.
    sender.write(b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 8388609\r\n\r\n").await.unwrap();
    let answer = sender.read().await.unwrap();
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("--max-body-bytes"), "{}", answer.body);
    let mut chunked = sidecar.sender().await;
    chunked.write(b"POST /events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();
    for _ in 0..10 {
        // The last ones may meet a connection that was closed: that is the refusal too.
        let _ = chunked.write(&chunk).await;
    }
    wait_refused(&sidecar, "TooLarge", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_sent_again_is_stored_once_also_over_a_restart() {
    let (home, receiver, sidecar) = sidecar().await;
    let capture = of_event("PostRegister");
    assert!(sidecar.sender().await.send(&capture).await.body.contains("\"stored\":true"));
    let again = sidecar.sender().await.send(&capture).await;
    assert_eq!((again.status, again.body.contains("duplicate")), (200, true));
    receiver.wait_for(1).await;
    sidecar.wait_webhook("shop/all", "nothing waits", |webhook| webhook["pending"] == 0).await;
    sidecar.terminate().await;
    let sidecar = home.start().await;
    let again = sidecar.sender().await.send(&capture).await;
    assert_eq!((again.status, again.body.contains("duplicate")), (200, true));
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_events_with_one_body_are_two_where_the_auth_server_sends_such() {
    let (home, receiver, sidecar) = sidecar().await;
    let mut of_another = plan([webhook("all", &receiver)]);
    of_another.ingest.sent_again = SentAgain::Never;
    home.put(&of_another);
    let (capture, mut stored) = (of_event("PostRegister"), 0);
    // Until the plan runs, what is sent again is stored once.
    until("the same body is stored again", async || {
        let answer = sidecar.sender().await.send(&capture).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        stored += u64::from(!answer.body.contains("duplicate"));
        (stored == 3).then_some(())
    })
    .await;
    sidecar.wait_webhook("shop/all", "each is delivered", |webhook| webhook["delivered"] == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_plan_runs_events_are_refused_and_the_sender_is_told_to_come_back() {
    let home = Home::default();
    let sidecar = home.start().await;
    let answer = sidecar.sender().await.send(&of_event("PostSignIn")).await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert_eq!(get(sidecar.admin, "/livez").await.unwrap().status, 200);
    let ready = get(sidecar.admin, "/readyz").await.unwrap();
    assert_eq!((ready.status, ready.body.contains("no plan yet")), (503, true));
    let receiver = Receiver::start().await;
    home.put(&plan([webhook("late", &receiver)]));
    until("it is ready", async || (get(sidecar.admin, "/readyz").await?.status == 200).then_some(())).await;
    assert_eq!(sidecar.sender().await.send(&of_event("PostSignIn")).await.status, 200);
    receiver.wait_for(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_end_their_head_do_not_keep_others_out_and_are_cut_off() {
    let (_home, receiver, sidecar) = sidecar().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut client = sidecar.sender().await;
        client.write(b"POST /events HTTP/1.1\r\nhost: x\r\nx-").await.unwrap();
        slow.push(client);
    }
    assert_eq!(sidecar.sender().await.send(&of_event("PostSignIn")).await.status, 200);
    receiver.wait_for(1).await;
    // Each is closed by the deadline; reading then ends without an answer.
    for mut client in slow {
        let ended = tokio::time::timeout(Duration::from_secs(25), client.read()).await;
        assert!(ended.expect("it is cut off").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_requests_are_answered_with_connection_close_before_the_port_goes() {
    let (home, receiver, sidecar) = sidecar().await;
    let mut keep_alive = sidecar.sender().await;
    assert_eq!(keep_alive.send(&of_event("PostSignIn")).await.status, 200);
    let (id, events) = (sidecar.id().to_string(), sidecar.events);
    let ending = tokio::spawn(sidecar.terminate());
    until("no new connection is taken", async || tokio::net::TcpStream::connect(events).await.err()).await;
    // The auth server still holds this connection, and sends once more: that event is not lost.
    let last = keep_alive.send(&of_event("User.Created")).await;
    assert_eq!(last.status, 200);
    assert!(last.head.contains("connection: close"), "{}", last.head);
    let (status, output) = ending.await.unwrap();
    assert!(status.success(), "process {id}: {output}");
    let sidecar = home.start().await;
    receiver.wait_for(2).await;
    drop(sidecar);
}
