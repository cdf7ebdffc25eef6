//! Signatures over events: Standard Webhooks v1 and Logto's own, made and checked.
//!
//! ```text
//! key text -> SigningKey -> sign(id, timestamp, body) -> webhook-signature, logto-signature-sha-256
//! request head, body, key text -> verify -> Report, part by part
//! question of the operator to a sidecar -> AdminKey -> tidings-signature
//! ```
//!
//! It must never show a key: no error, no `Debug` and no report holds one.

mod key;
pub mod question;
pub mod verify;

pub use key::{KeyError, SigningKey};

/// The headers' values that go out with one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    /// `webhook-signature`: one `v1,<base64>` for each live key, the current one first, between them
    /// one space.
    pub webhook_signature: String,
    /// `logto-signature-sha-256`: lower-case hex, by the first key; empty without any key.
    pub logto_signature: String,
}

/// Signs a delivery with every live key, the current one first.
///
/// `timestamp_seconds` is the Unix time of the attempt, the same that stands in
/// `webhook-timestamp`.
///
/// ```
/// # use tidings_signature::{sign, SigningKey};
/// let key = SigningKey::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
/// let made = sign(&[key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
/// assert_eq!(made.webhook_signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
/// ```
pub fn sign(keys: &[SigningKey], id: &str, timestamp_seconds: i64, body: &[u8]) -> Signatures {
    let each: Vec<_> = keys.iter().map(|key| key.webhook_signature(id, timestamp_seconds, body)).collect();
    Signatures {
        webhook_signature: each.join(" "),
        logto_signature: keys.first().map(|key| key.logto_signature(body)).unwrap_or_default(),
    }
}

/// Whether one of the keys made this `logto-signature-sha-256`; in constant time for each key.
///
/// Hex of either case is taken; anything else is not a signature. Without keys nothing is verified.
pub fn verify_logto(keys: &[SigningKey], header: &[u8], body: &[u8]) -> bool {
    let Some(given) = key::from_hex(header) else { return false };
    keys.iter().fold(false, |found, key| found | key.made_logto(&given, body))
}
