//! What a receiver's author is told about a captured request.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use tidings_signature::SigningKey;
use tidings_signature::verify::{Outcome, Report, headers_of, verify};

const KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const BODY: &[u8] = br#"{"event":"PostSignIn"}"#;
const NOW: i64 = 1_700_000_000;

/// Key, headers, body, and what the hint says.
type Case<'a> = (&'a str, Vec<(String, String)>, &'a [u8], &'a str);

fn headers(key: &str, time: &str, body: &[u8]) -> Vec<(String, String)> {
    let signing = SigningKey::new(key).unwrap();
    let seconds = time.parse().unwrap_or_default();
    [
        ("Webhook-Id", "msg_1".to_owned()),
        ("Webhook-Timestamp", time.to_owned()),
        ("Webhook-Signature", signing.webhook_signature("msg_1", seconds, body)),
        ("Logto-Signature-Sha-256", signing.logto_signature(body)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn hint(report: &Report, part: &str) -> String {
    let found = report.parts.iter().find(|found| found.name == part).unwrap();
    match &found.outcome {
        Outcome::Differs { hint } => hint.clone(),
        other => panic!("{part} is {other:?}"),
    }
}

#[test]
fn a_request_that_is_right_is_verified_part_by_part() {
    let report = verify(KEY, &headers(KEY, &NOW.to_string(), BODY), BODY, Some(NOW));
    assert!(report.is_verified(), "{report}");
    assert!(report.parts.iter().all(|part| part.outcome == Outcome::Ok));
}

#[test]
fn each_common_mistake_is_named() {
    let trailing = format!("{KEY}\n");
    let time = NOW.to_string();
    let cases: [Case<'_>; 5] = [
        (KEY, headers(&KEY["whsec_".len()..], &time, BODY), BODY, "has no \"whsec_\""),
        (&KEY["whsec_".len()..], headers(KEY, &time, BODY), BODY, "begins with \"whsec_\""),
        (
            "plain-key-of-enough-bytes-012",
            headers("plain-key-of-enough-bytes-012\n", &time, BODY),
            BODY,
            "line break",
        ),
        (
            KEY,
            headers(KEY, &time, b"{\"event\": \"PostSignIn\"}"),
            BODY,
            "another key signed it, or the body is not the bytes",
        ),
        (KEY, headers("other-key-of-enough-bytes-000", &time, BODY), BODY, "another key signed it"),
    ];
    for (key, headers, body, expected) in cases {
        let report = verify(key, &headers, body, None);
        assert!(!report.is_verified());
        let hint = hint(&report, "webhook-signature");
        assert!(hint.contains(expected), "{expected}: {hint}");
        assert!(!report.to_string().contains(KEY), "no key in a report");
    }
    assert!(!verify(&trailing, &headers(KEY, &time, BODY), BODY, None).is_verified());
}

#[test]
fn an_old_timestamp_is_told_only_when_its_age_is_judged() {
    let old = headers(KEY, "1600000000", BODY);
    assert!(verify(KEY, &old, BODY, None).is_verified());
    let report = verify(KEY, &old, BODY, Some(NOW));
    assert!(hint(&report, "webhook-timestamp").contains("old"), "{report}");
    let millis = headers(KEY, "1700000000000", BODY);
    assert!(hint(&verify(KEY, &millis, BODY, Some(NOW)), "webhook-timestamp").contains("milliseconds"));
}

#[test]
fn what_is_missing_is_said_to_be_missing() {
    let report = verify(KEY, &headers(KEY, &NOW.to_string(), BODY)[3..], BODY, None);
    assert!(report.is_verified(), "Logto's own signature is enough");
    let missing = report.parts.iter().filter(|part| part.outcome == Outcome::Missing).count();
    assert_eq!(missing, 3);
    assert!(!verify(KEY, &[], BODY, None).is_verified());
}

#[test]
fn a_key_that_is_none_is_the_one_finding() {
    for (key, expected) in [("", "empty"), ("whsec_", "empty"), ("whsec_!!", "not base64")] {
        let report = verify(key, &headers(KEY, "1", BODY), BODY, None);
        assert!(hint(&report, "signing key").contains(expected), "{key}: {report}");
        assert!(!report.is_verified());
    }
}

#[test]
fn a_captured_head_is_read_without_its_request_line() {
    let head = b"POST /hook?a=b HTTP/1.1\r\nWebhook-Id: msg_1\r\nx-empty:\r\nx-colons: a:b\r\n\r\n";
    let read = headers_of(head);
    let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(read, [("Webhook-Id", "msg_1"), ("x-empty", ""), ("x-colons", "a:b")]);
}

proptest! {
    #[test]
    fn no_bytes_make_reading_or_checking_panic(
        head in proptest::collection::vec(any::<u8>(), 0..200),
        body in proptest::collection::vec(any::<u8>(), 0..60),
        now in any::<Option<i64>>(),
    ) {
        prop_assert!(!verify(KEY, &headers_of(&head), &body, now).is_verified());
    }

    #[test]
    fn a_head_in_which_one_byte_changed_is_reported_on_without_the_key(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), now in any::<Option<i64>>(),
    ) {
        let lines = headers(KEY, &NOW.to_string(), BODY).into_iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let mut head = lines.collect::<String>().into_bytes();
        let at = at.index(head.len());
        head[at] = byte;
        let report = verify(KEY, &headers_of(&head), BODY, now).to_string();
        prop_assert!(!report.contains(&KEY["whsec_".len()..]), "{}", report);
    }
}
