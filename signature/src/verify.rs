//! For a receiver's author: which part of a captured request's signatures is right, and what is
//! probably wrong with one that is not.
//!
//! In: the key's text, the request's head and body. Out: a [`Report`], part by part, that can be
//! shown to anybody. It must never hold the key, the body, or a signature that would have been right.

use std::fmt;

use subtle::ConstantTimeEq as _;

use crate::key::{PREFIX, SigningKey, from_hex};

/// How far `webhook-timestamp` may be off, either way, in seconds.
pub const TOLERANCE_SECONDS: i64 = 300;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The parts, in the order of their headers; one that reads `signing key` stands first and
    /// alone when the key is no key.
    pub parts: Vec<Part>,
}

/// One part of the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The header's name.
    pub name: &'static str,
    /// What was found.
    pub outcome: Outcome,
}

/// What was found of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// The request has no such header.
    Missing,
    /// It is there and not right.
    Differs {
        /// What is probably wrong, and what to do.
        hint: String,
    },
}

/// Checks a request's signatures. Header names are taken in either case; `now_seconds` is the Unix
/// time against which the timestamp is judged, `None` leaves its age out.
///
/// ```
/// # use tidings_signature::{verify::verify, SigningKey};
/// let key = SigningKey::new("0123456789abcdef01234567").unwrap();
/// let head = [("Logto-Signature-SHA-256".to_owned(), key.logto_signature(b"{}"))];
/// assert!(verify("0123456789abcdef01234567", &head, b"{}", None).is_verified());
/// assert!(!verify("0123456789abcdef01234567", &head, b"{ }", None).is_verified());
/// ```
pub fn verify(key: &str, headers: &[(String, String)], body: &[u8], now_seconds: Option<i64>) -> Report {
    let request = Request { headers, body };
    let signing = match SigningKey::new(key) {
        Ok(signing) => signing,
        Err(error) => return Report { parts: vec![differs("signing key", error.to_string())] },
    };
    Report {
        parts: vec![
            request.id(),
            request.timestamp(now_seconds),
            request.webhook_signature(&signing, key),
            request.logto_signature(&signing, key),
        ],
    }
}

/// The headers of a captured request's head, one by line, in whatever bytes; what has no colon, such as
/// the request line, is passed over.
pub fn headers_of(head: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(head)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| !name.contains(' '))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

struct Request<'a> {
    headers: &'a [(String, String)],
    body: &'a [u8],
}

// === impl Report ===

impl Report {
    /// Whether at least one signature is right, and no part differs. A signature without the id and
    /// the timestamp that it covers does not count.
    pub fn is_verified(&self) -> bool {
        let is_ok =
            |name: &str| self.parts.iter().any(|part| part.name == name && part.outcome == Outcome::Ok);
        let differs = self.parts.iter().any(|part| matches!(part.outcome, Outcome::Differs { .. }));
        !differs && (is_ok("webhook-signature") || is_ok("logto-signature-sha-256"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match &part.outcome {
                Outcome::Ok => writeln!(f, "{:<24} ok", part.name)?,
                Outcome::Missing => writeln!(f, "{:<24} missing", part.name)?,
                Outcome::Differs { hint } => writeln!(f, "{:<24} differs: {hint}", part.name)?,
            }
        }
        Ok(())
    }
}

// === impl Request ===

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn id(&self) -> Part {
        let name = "webhook-id";
        match self.header(name) {
            None => missing(name),
            Some("") => differs(name, "the header is empty".to_owned()),
            Some(_) => ok(name),
        }
    }

    fn timestamp(&self, now: Option<i64>) -> Part {
        let name = "webhook-timestamp";
        let Some(text) = self.header(name) else { return missing(name) };
        let Ok(given) = text.parse::<i64>() else {
            return differs(name, "it is not a whole number of seconds since 1970".to_owned());
        };
        match now.and_then(|now| age_hint(given, now)) {
            None => ok(name),
            Some(hint) => differs(name, hint),
        }
    }

    fn webhook_signature(&self, key: &SigningKey, text: &str) -> Part {
        let name = "webhook-signature";
        let Some(given) = self.header(name) else { return missing(name) };
        let (Some(id), Some(time)) = (self.header("webhook-id"), self.header("webhook-timestamp")) else {
            return differs(
                name,
                "it covers webhook-id and webhook-timestamp, and one of them is missing".to_owned(),
            );
        };
        let made_by = |key: &SigningKey, body: &[u8]| lists(given, &key.webhook_signature_at(id, time, body));
        if made_by(key, self.body) {
            return ok(name);
        }
        if !given.split(' ').any(|one| one.starts_with("v1,")) {
            return differs(name, "it holds no signature of the form \"v1,<base64>\"".to_owned());
        }
        differs(name, hint(text, self.body, made_by))
    }

    fn logto_signature(&self, key: &SigningKey, text: &str) -> Part {
        let name = "logto-signature-sha-256";
        let Some(given) = self.header(name) else { return missing(name) };
        let Some(tag) = from_hex(given.as_bytes()) else {
            return differs(name, "it is not 64 hex digits; this header is hex, not base64".to_owned());
        };
        if key.made_logto(&tag, self.body) {
            return ok(name);
        }
        differs(name, hint(text, self.body, |key, body| key.made_logto(&tag, body)))
    }
}

/// Whether one of the header's signatures is the expected one.
fn lists(header: &str, expected: &str) -> bool {
    header.split(' ').fold(false, |found, one| found | bool::from(one.as_bytes().ct_eq(expected.as_bytes())))
}

fn age_hint(given: i64, now: i64) -> Option<String> {
    let off = now.saturating_sub(given);
    if off.saturating_abs() <= TOLERANCE_SECONDS {
        return None;
    }
    if now.saturating_sub(given / 1000).saturating_abs() <= TOLERANCE_SECONDS {
        return Some("it counts milliseconds; the header counts seconds".to_owned());
    }
    let when = if off > 0 { "old" } else { "ahead" };
    Some(format!(
        "it is {} s {when}, more than {TOLERANCE_SECONDS} s: an old capture, a replay, or a clock that is off",
        off.unsigned_abs()
    ))
}

/// Tries the mistakes that are made most often, and names the one that explains the signature.
fn hint(text: &str, body: &[u8], made_by: impl Fn(&SigningKey, &[u8]) -> bool) -> String {
    let other_key = other_keys(text)
        .into_iter()
        .find(|(key, _)| SigningKey::new(key).is_ok_and(|key| made_by(&key, body)))
        .map(|(_, hint)| hint);
    let other_body = || {
        let key = SigningKey::new(text).ok()?;
        other_bodies(body).into_iter().find(|(body, _)| made_by(&key, body)).map(|(_, hint)| hint)
    };
    other_key.or_else(other_body).unwrap_or(UNEXPLAINED).to_owned()
}

const UNEXPLAINED: &str = "another key signed it, or the body is not the bytes that were sent: compare the key with the \
     Secret, and take the body before any JSON parser or framework touches it (parsed and written again it differs)";

/// The key in the forms that it is mistaken for.
fn other_keys(text: &str) -> Vec<(String, &'static str)> {
    let trimmed = text.trim();
    let mut found = vec![
        (trimmed.to_owned(), "the key has blanks or a line break around it that the signer's has not"),
        (
            format!("{trimmed}\n"),
            "the signer's key ends in a line break: the Secret was made from a file with one",
        ),
    ];
    match trimmed.strip_prefix(PREFIX) {
        Some(rest) => {
            found.push((
                rest.to_owned(),
                "the signer's key has no \"whsec_\": it signed with the text itself",
            ));
        }
        None => found.push((
            format!("{PREFIX}{trimmed}"),
            "the signer's key begins with \"whsec_\" and is decoded from base64: put the prefix before yours",
        )),
    }
    found
}

/// The body in the forms that it is mistaken for.
fn other_bodies(body: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let trimmed = body.trim_ascii();
    let mut found = vec![
        (
            trimmed.to_vec(),
            "the body has blanks or a line break around it that were not sent: save the bytes as they came",
        ),
        ([trimmed, b"\n"].concat(), "the body was sent with a line break at its end that is missing here"),
        (
            compact(body),
            "the body was written again with other blanks: take the bytes before any JSON parser does",
        ),
    ];
    if let Some(rest) = body.strip_prefix(b"\xef\xbb\xbf") {
        found.push((rest.to_vec(), "the body begins with a byte order mark that was not sent"));
    }
    found
}

/// JSON without blanks between its tokens.
fn compact(body: &[u8]) -> Vec<u8> {
    let (mut quoted, mut escaped) = (false, false);
    let keep = |byte: &u8| {
        let kept = quoted || !byte.is_ascii_whitespace();
        let closes = *byte == b'"' && !escaped;
        escaped = quoted && *byte == b'\\' && !escaped;
        quoted ^= closes;
        kept
    };
    let mut keep = keep;
    body.iter().filter(|byte| keep(byte)).copied().collect()
}

fn ok(name: &'static str) -> Part {
    Part { name, outcome: Outcome::Ok }
}

fn missing(name: &'static str) -> Part {
    Part { name, outcome: Outcome::Missing }
}

fn differs(name: &'static str, hint: String) -> Part {
    Part { name, outcome: Outcome::Differs { hint } }
}
