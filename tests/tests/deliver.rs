//! From a request of a real Logto to a signed delivery.

use tidings_tests::capture::{self, of_event};
use tidings_tests::client::get_json;
use tidings_tests::plan::{Change as _, KEY, plan, webhook};
use tidings_tests::process::Home;
use tidings_tests::receiver::Receiver;

#[tokio::test(flavor = "multi_thread")]
async fn one_event_reaches_the_two_services_that_select_it_and_no_other() {
    let (mail, sync, other) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let home = Home::default();
    home.put(&plan([
        webhook("mail", &mail).selecting(&["PostSignIn"]),
        webhook("sync", &sync).selecting(&["PostSignIn", "User.*"]),
        webhook("other", &other).selecting(&["Role.*"]),
    ]));
    let sidecar = home.start().await;
    let capture = of_event("PostSignIn");
    let answer = sidecar.sender().await.send(&capture).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for receiver in [&mail, &sync] {
        let received = &receiver.wait_for(1).await[0];
        assert_eq!(received.body, capture.body, "byte for byte");
        let official = standardwebhooks::Webhook::new(KEY).unwrap();
        official.verify(&received.body, &received.headers).expect("the official library verifies it");
        let logto = tidings_signature::SigningKey::new(KEY).unwrap().logto_signature(&received.body);
        assert_eq!(received.header("logto-signature-sha-256"), logto);
        assert!(received.header("user-agent").starts_with("Tidings/"));
        let traceparent = received.header("traceparent");
        assert!(
            traceparent.len() == 55 && traceparent.ends_with("-00"),
            "no span is recorded: {traceparent}"
        );
    }
    assert_ne!(mail.received()[0].header("webhook-id"), sync.received()[0].header("webhook-id"));
    let delivered =
        sidecar.wait_webhook("shop/mail", "one delivered", |webhook| webhook["delivered"] == 1).await;
    assert_eq!(delivered["pending"], 0);
    let attempts = get_json(sidecar.admin, "/deliveries?webhook=shop/mail").await;
    assert_eq!(attempts["deliveries"][0]["event"], "PostSignIn");
    assert_eq!(attempts["deliveries"][0]["statusCode"], 200);
    let (status, output) = sidecar.terminate().await;
    assert!(status.success(), "{output}");
    assert!(other.received().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_captured_request_is_taken_and_delivered_byte_for_byte() {
    let receiver = Receiver::start().await;
    let home = Home::default();
    home.put(&plan([webhook("all", &receiver)]));
    let sidecar = home.start().await;
    let captures = capture::captured();
    assert_eq!(captures.len(), 31);
    let mut sender = sidecar.sender().await;
    for capture in &captures {
        assert_eq!(sender.send(capture).await.status, 200, "{}", capture.name);
    }
    let received = receiver.wait_for(captures.len()).await;
    for capture in &captures {
        let body = &capture.body;
        assert!(received.iter().any(|received| received.body == body), "{} arrived", capture.name);
    }
}
