//! What an auth server posts: read, and wrapped for a receiver.
//!
//! Whatever is taken is JSON, has a name of a bounded size, and stays JSON as the data of a CloudEvent.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tidings_plan::{
    Delivery, Endpoint, EventPattern, Format, Ingest, MAX_EVENT_NAME_BYTES, ObjectName, Pointer, SentAgain,
    Tls, WebhookPlan,
};
use tidings_sidecar::{envelope, extract};
use tidings_store::{Event, Seq};
use uuid::Uuid;

static INGEST: LazyLock<Ingest> = LazyLock::new(Ingest::default);

static KEYS: LazyLock<[Pointer; 3]> = LazyLock::new(|| {
    ["/data/id", "/user/id", "/params/1"].map(|text| Pointer::parse(text).expect("a pointer"))
});

static WEBHOOK: LazyLock<WebhookPlan> = LazyLock::new(|| WebhookPlan {
    webhook: ObjectName::new("shop", "mail"),
    uid: "uid".to_owned(),
    generation: 1,
    events: vec![EventPattern::All],
    endpoint: Endpoint {
        url: "https://example.com/hook".to_owned(),
        in_cluster: false,
        addresses: None,
        headers: BTreeMap::new(),
        tls: Tls::default(),
    },
    signing_keys: vec![],
    filter: None,
    format: Format::CloudEvents,
    delivery: Delivery::default(),
    suspend: false,
});

fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fuzz_target!(|body: &[u8]| {
    let Ok(extracted) = extract::extract(body, &INGEST) else { return };
    assert!(is_json(body));
    assert!((1..=MAX_EVENT_NAME_BYTES).contains(&extracted.event.len()));
    if extracted.time.is_some() {
        assert_eq!(
            extract::fingerprint(&extracted, body, SentAgain::Body),
            extract::fingerprint(&extracted, body, SentAgain::Body)
        );
    }
    let _ = extract::first_present(body, &*KEYS);
    let event = Event {
        seq: Seq(1),
        id: Uuid::from_u128(7),
        name: extracted.event.into(),
        received_ms: 1_700_000_000_123,
        body: Bytes::copy_from_slice(body),
    };
    let made = envelope::build(&event, &WEBHOOK, &[], &ObjectName::new("auth", "logto"), 1_700_000_000);
    assert!(is_json(&made.body));
});
