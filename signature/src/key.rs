//! One signing key, ready to sign.
//!
//! In: the key's text as it stands in the Secret. Out: signatures. The two HMAC states are prepared
//! once and cloned for each use. It must never show the text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

type HmacSha256 = Hmac<Sha256>;

/// What a key in Standard Webhooks' own form begins with.
pub(crate) const PREFIX: &str = "whsec_";
/// What Standard Webhooks asks for at least, in bytes.
const ENOUGH_BYTES: usize = 24;

/// A key that signs.
#[derive(Clone)]
pub struct SigningKey {
    webhook: HmacSha256,
    logto: HmacSha256,
    bytes: usize,
}

/// Why a text is no signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No text, or nothing after `whsec_`.
    #[error("the signing key is empty: write at least 24 random bytes, as from `openssl rand -base64 32`")]
    Empty,
    /// Begins with `whsec_` and does not go on in base64.
    #[error(
        "the signing key begins with \"whsec_\", and what follows is not base64: put the key there as its maker gave it, without a line break at the end, or leave the prefix out for a key of raw bytes"
    )]
    NotBase64,
}

// === impl SigningKey ===

impl SigningKey {
    /// Reads a key. After `whsec_` it is base64 for `webhook-signature`; any other text is used as
    /// its bytes. `logto-signature-sha-256` always uses the text as it stands, as Logto does.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let decoded = match text.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD
                .decode(encoded)
                .or_else(|_| STANDARD_NO_PAD.decode(encoded))
                .map_err(|_| KeyError::NotBase64)?,
            None => text.as_bytes().to_vec(),
        };
        if decoded.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self { webhook: keyed(&decoded), logto: keyed(text.as_bytes()), bytes: decoded.len() })
    }

    /// Whether it has fewer bytes than the 24 that Standard Webhooks asks for.
    pub fn is_short(&self) -> bool {
        self.bytes < ENOUGH_BYTES
    }

    /// `v1,<base64>` over `id.timestamp.body`, as Standard Webhooks 1.0 has it.
    pub fn webhook_signature(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
        self.webhook_signature_at(id, &timestamp_seconds.to_string(), body)
    }

    /// The same with the timestamp as a receiver reads it, spelled in whatever way.
    pub(crate) fn webhook_signature_at(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = self.webhook.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// Lower-case hex of the HMAC-SHA256 over the body, keyed by the key's text.
    pub fn logto_signature(&self, body: &[u8]) -> String {
        to_hex(&self.logto_tag(body))
    }

    pub(crate) fn made_logto(&self, given: &[u8; 32], body: &[u8]) -> bool {
        self.logto_tag(body).ct_eq(given).into()
    }

    fn logto_tag(&self, body: &[u8]) -> [u8; 32] {
        let mut mac = self.logto.clone();
        mac.update(body);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} bytes)", self.bytes)
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
pub(crate) fn keyed(bytes: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(bytes).expect("HMAC takes keys of every length")
}

/// Writes 64 hex digits of lower case.
pub(crate) fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut hex, byte| {
        use fmt::Write as _;
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Reads 64 hex digits of either case.
pub(crate) fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
