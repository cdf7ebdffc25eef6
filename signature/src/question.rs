//! The signature of a question that the operator asks a sidecar's admin port.
//!
//! In: a key that lies in the plan's Secret, and the question: for which pod, with which method and path, when, and
//! a number that is used once. Out: a signature, or whether one is right. No bearer token crosses the pod network:
//! whoever reads a question there can neither ask another one nor ask this one again. It must never show the key.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::key::{from_hex, keyed, to_hex};

/// The header with the signature, lower-case hex.
pub const SIGNATURE_HEADER: &str = "tidings-signature";

/// The header with the Unix time in seconds at which the question was signed.
pub const TIMESTAMP_HEADER: &str = "tidings-timestamp";

/// The header with the number that is used once.
pub const NONCE_HEADER: &str = "tidings-nonce";

/// How far a question's time may be off, either way, in seconds.
pub const TOLERANCE_SECONDS: i64 = 60;

/// The length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// The most bytes of a nonce.
pub const MAX_NONCE_BYTES: usize = 64;

/// The key by which an operator and the sidecars of one `AuthServer` know each other.
#[derive(Clone)]
pub struct AdminKey(Hmac<Sha256>);

/// What is signed. No field may hold a line break; in an HTTP request none can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name of the pod that is asked.
    pub pod: &'a str,
    /// The HTTP method.
    pub method: &'a str,
    /// The path with its query.
    pub target: &'a str,
    /// When it was signed: Unix time in seconds, as it stands in the header.
    pub timestamp: &'a str,
    /// The number that is used once.
    pub nonce: &'a str,
}

// === impl AdminKey ===

impl AdminKey {
    /// Of a key's bytes; `None` where there are fewer than [`KEY_BYTES`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= KEY_BYTES).then(|| Self(keyed(bytes)))
    }

    /// The signature of a question, lower-case hex.
    pub fn sign(&self, question: &Question<'_>) -> String {
        to_hex(&self.tag(question))
    }

    /// Whether this signature is the question's; in constant time.
    pub fn made(&self, question: &Question<'_>, signature: &[u8]) -> bool {
        from_hex(signature).is_some_and(|given| self.tag(question).ct_eq(&given).into())
    }

    fn tag(&self, question: &Question<'_>) -> [u8; 32] {
        let Question { pod, method, target, timestamp, nonce } = question;
        let mut mac = self.0.clone();
        mac.update(b"tidings-admin-v1");
        for part in [pod, method, target, timestamp, nonce] {
            mac.update(b"\n");
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question<'_> = Question {
        pod: "logto-0",
        method: "GET",
        target: "/deliveries?webhook=a/b",
        timestamp: "1",
        nonce: "n",
    };

    #[test]
    fn a_signature_is_for_one_pod_one_request_and_one_key() {
        let key = AdminKey::new(&[7; KEY_BYTES]).unwrap();
        let signature = key.sign(&QUESTION);
        assert!(key.made(&QUESTION, signature.as_bytes()));
        let others = [
            Question { pod: "logto-1", ..QUESTION },
            Question { method: "POST", ..QUESTION },
            Question { target: "/deliveries?webhook=a/c", ..QUESTION },
            Question { timestamp: "2", ..QUESTION },
            Question { nonce: "m", ..QUESTION },
        ];
        for other in others {
            assert!(!key.made(&other, signature.as_bytes()), "{other:?}");
        }
        assert!(!AdminKey::new(&[8; KEY_BYTES]).unwrap().made(&QUESTION, signature.as_bytes()));
        assert!(!key.made(&QUESTION, b"") && !key.made(&QUESTION, &signature.as_bytes()[1..]));
    }

    #[test]
    fn a_short_key_is_none_and_no_key_is_shown() {
        assert!(AdminKey::new(&[7; KEY_BYTES - 1]).is_none());
        assert_eq!(format!("{:?}", AdminKey::new(&[7; KEY_BYTES]).unwrap()), "AdminKey");
    }
}
