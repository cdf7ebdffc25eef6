//! Our signatures against the official library's, and against requests of a real Logto.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use proptest::prelude::*;
use standardwebhooks::Webhook;
use tidings_signature::{SigningKey, sign, verify_logto};

fn whsec(bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Body and signature header of each captured request.
fn captured() -> Vec<(String, Vec<u8>, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/logto");
    let heads = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    heads
        .filter(|path| path.extension().is_some_and(|ending| ending == "headers"))
        .map(|path| {
            let head = std::fs::read_to_string(&path).unwrap();
            let signature =
                head.lines().find_map(|line| line.strip_prefix("logto-signature-sha-256: ")).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path.with_extension("body")).unwrap(), signature.trim().to_owned())
        })
        .collect()
}

fn hook_key() -> SigningKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/logto/signing-key");
    SigningKey::new(std::fs::read_to_string(path).unwrap().trim()).unwrap()
}

#[test]
fn every_captured_request_was_signed_as_we_say() {
    let captured = captured();
    assert_eq!(captured.len(), 31);
    for (name, body, signature) in captured {
        assert!(verify_logto(&[hook_key()], signature.as_bytes(), &body), "{name}");
        assert_eq!(hook_key().logto_signature(&body), signature, "{name}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_any_captured_body_is_refused() {
    for (name, mut body, signature) in captured() {
        for at in 0..body.len() {
            body[at] ^= 1 << (at % 8);
            assert!(!verify_logto(&[hook_key()], signature.as_bytes(), &body), "{name}, byte {at}");
            body[at] ^= 1 << (at % 8);
        }
    }
}

#[test]
fn a_signature_by_no_key_or_by_another_one_is_refused() {
    let (_, body, signature) = captured().remove(0);
    assert!(!verify_logto(&[], signature.as_bytes(), &body));
    let other = SigningKey::new("another-key-of-enough-bytes-01").unwrap();
    assert!(!verify_logto(std::slice::from_ref(&other), signature.as_bytes(), &body));
    assert!(
        verify_logto(&[other, hook_key()], signature.as_bytes(), &body),
        "one of the live keys is enough"
    );
    for odd in ["", "zz", &signature[1..], &format!("{signature}00"), &signature.replace(|_: char| true, "g")]
    {
        assert!(!verify_logto(&[hook_key()], odd.as_bytes(), &body), "{odd:?}");
    }
}

proptest! {
    #[test]
    fn the_official_library_makes_the_same_signature(
        key in proptest::collection::vec(any::<u8>(), 1..80), id in "[a-zA-Z0-9_]{1,40}",
        time in 0_i64..4_000_000_000, body in "\\PC{0,600}",
    ) {
        let theirs = Webhook::new(&whsec(&key)).unwrap().sign(&id, time, body.as_bytes()).unwrap();
        let ours = sign(&[SigningKey::new(&whsec(&key)).unwrap()], &id, time, body.as_bytes());
        prop_assert_eq!(ours.webhook_signature, theirs);
    }

    #[test]
    fn a_key_without_the_prefix_is_its_raw_bytes(key in "[ -~]{1,80}", body in "\\PC{0,200}") {
        prop_assume!(!key.starts_with("whsec_"));
        let theirs = Webhook::from_bytes(key.as_bytes().to_vec()).unwrap().sign("msg_1", 1, body.as_bytes()).unwrap();
        let ours = sign(&[SigningKey::new(&key).unwrap()], "msg_1", 1, body.as_bytes());
        prop_assert_eq!(ours.webhook_signature, theirs);
    }

    #[test]
    fn no_bytes_make_the_check_panic(header in proptest::collection::vec(any::<u8>(), 0..80), body in proptest::collection::vec(any::<u8>(), 0..80)) {
        prop_assert!(!verify_logto(&[hook_key()], &header, &body));
    }
}
