//! Whether a question to the admin port that comes from outside of the pod is the operator's.
//!
//! In: the request's head, the time, and the key of the plan's Secret. Out: admitted or refused. A signature counts
//! for one pod, one request and one use within [`TOLERANCE_SECONDS`]; what was signed before this process began is
//! refused, since it knows not what was used then. It must never answer without a key, and never show one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, Method, Uri};
use tidings_signature::question::{
    AdminKey, MAX_NONCE_BYTES, NONCE_HEADER, Question, SIGNATURE_HEADER, TIMESTAMP_HEADER, TOLERANCE_SECONDS,
};

/// How many nonces are remembered: more questions within two minutes are refused. The operator asks some in a second.
const MAX_NONCES: usize = 16_384;

/// Who is admitted.
#[derive(Debug)]
pub(crate) struct Admission {
    known: ArcSwapOption<Known>,
    used: Mutex<HashMap<String, i64>>,
    /// Unix time in seconds.
    since: i64,
}

/// What the plan's Secret gave.
#[derive(Debug)]
struct Known {
    key: AdminKey,
    pod: String,
}

/// Why a question is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It has no signature.
    #[error("this page answers who is in the pod: use kubectl tidings, or kubectl port-forward")]
    LoopbackOnly,
    /// There is no key to check it with.
    #[error("this sidecar has no admin.key yet: the operator writes it into the plan's Secret")]
    NoKey,
    /// The signature is not one of this question with this key.
    #[error("the signature is not one of this question to this pod with the key of the plan's Secret")]
    WrongSignature,
    /// The time is too far off.
    #[error(
        "the question was signed more than 60 s ago or ahead, or before this sidecar started: compare the clocks"
    )]
    Expired,
    /// It was asked before.
    #[error("this question was asked already: each is signed anew")]
    Replayed,
    /// Too many questions to remember.
    #[error("too many questions within two minutes: ask again later")]
    TooMany,
}

// === impl Admission ===

impl Admission {
    /// Admits nobody yet. `since`: the time now.
    pub(crate) fn new(since_seconds: i64) -> Self {
        Self { known: ArcSwapOption::empty(), used: Mutex::default(), since: since_seconds }
    }

    /// From now on questions to this pod count that were signed with this key; none with `None`.
    pub(crate) fn set_key(&self, key: Option<AdminKey>, pod: &str) {
        self.known.store(key.map(|key| Arc::new(Known { key, pod: pod.to_owned() })));
    }

    /// Whether a request is the operator's, for the first time.
    pub(crate) fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        now_seconds: i64,
    ) -> Result<(), Refused> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let signature = headers.get(SIGNATURE_HEADER).ok_or(Refused::LoopbackOnly)?;
        let known = self.known.load_full().ok_or(Refused::NoKey)?;
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let (timestamp, nonce) = (text(TIMESTAMP_HEADER), text(NONCE_HEADER));
        let question = Question { pod: &known.pod, method: method.as_str(), target, timestamp, nonce };
        if nonce.is_empty()
            || nonce.len() > MAX_NONCE_BYTES
            || !known.key.made(&question, signature.as_bytes())
        {
            return Err(Refused::WrongSignature);
        }
        let signed: i64 = timestamp.parse().map_err(|_| Refused::Expired)?;
        if signed < self.since || now_seconds.abs_diff(signed) > TOLERANCE_SECONDS.unsigned_abs() {
            return Err(Refused::Expired);
        }
        self.use_once(nonce, signed, now_seconds)
    }

    /// Only what is signed comes here: nobody else can fill the memory.
    fn use_once(&self, nonce: &str, signed: i64, now: i64) -> Result<(), Refused> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains_key(nonce) {
            return Err(Refused::Replayed);
        }
        if used.len() >= MAX_NONCES {
            used.retain(|_, signed| *signed >= now - TOLERANCE_SECONDS);
        }
        if used.len() >= MAX_NONCES {
            return Err(Refused::TooMany);
        }
        used.insert(nonce.to_owned(), signed);
        Ok(())
    }
}

// === impl Refused ===

impl Refused {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::LoopbackOnly => "LoopbackOnly",
            Self::NoKey => "NoKey",
            Self::WrongSignature => "WrongSignature",
            Self::Expired => "Expired",
            Self::Replayed => "Replayed",
            Self::TooMany => "TooMany",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tidings_signature::question::KEY_BYTES;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const PAGE: &str = "/deliveries?webhook=shop/mail";

    fn key() -> AdminKey {
        AdminKey::new(&[7; KEY_BYTES]).unwrap()
    }

    fn admission() -> Admission {
        let admission = Admission::new(NOW - 1000);
        admission.set_key(Some(key()), "logto-0");
        admission
    }

    fn signed(key: &AdminKey, target: &str, signed_at: i64, nonce: &str) -> HeaderMap {
        let timestamp = signed_at.to_string();
        let question = Question { pod: "logto-0", method: "GET", target, timestamp: &timestamp, nonce };
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        HeaderMap::from_iter([
            (SIGNATURE_HEADER.parse().unwrap(), value(&key.sign(&question))),
            (TIMESTAMP_HEADER.parse().unwrap(), value(&timestamp)),
            (NONCE_HEADER.parse().unwrap(), value(nonce)),
        ])
    }

    fn check(admission: &Admission, headers: &HeaderMap, now: i64) -> Result<(), Refused> {
        admission.check(&Method::GET, &PAGE.parse().unwrap(), headers, now)
    }

    #[test]
    fn a_signed_question_is_admitted_once_and_within_a_minute() {
        let admission = admission();
        let headers = signed(&key(), PAGE, NOW, "n1");
        assert_eq!(check(&admission, &headers, NOW + 60), Ok(()));
        assert_eq!(check(&admission, &headers, NOW), Err(Refused::Replayed));
        for late in [NOW + 61, NOW - 61] {
            assert_eq!(check(&admission, &signed(&key(), PAGE, NOW, "n2"), late), Err(Refused::Expired));
        }
    }

    #[test]
    fn what_was_signed_before_the_process_began_is_refused_since_it_may_have_been_used() {
        let admission = Admission::new(NOW);
        admission.set_key(Some(key()), "logto-0");
        assert_eq!(check(&admission, &signed(&key(), PAGE, NOW - 1, "n1"), NOW), Err(Refused::Expired));
        assert_eq!(check(&admission, &signed(&key(), PAGE, NOW, "n1"), NOW), Ok(()));
    }

    #[test]
    fn without_a_signature_a_key_or_for_another_question_nobody_is_admitted() {
        assert_eq!(check(&admission(), &HeaderMap::new(), NOW), Err(Refused::LoopbackOnly));
        let headers = signed(&key(), PAGE, NOW, "n1");
        let without = Admission::new(NOW);
        assert_eq!(check(&without, &headers, NOW), Err(Refused::NoKey));
        let other = signed(&key(), "/deliveries?webhook=other/mail", NOW, "n1");
        assert_eq!(check(&admission(), &other, NOW), Err(Refused::WrongSignature));
        let other_key = AdminKey::new(&[8; KEY_BYTES]).unwrap();
        assert_eq!(
            check(&admission(), &signed(&other_key, PAGE, NOW, "n1"), NOW),
            Err(Refused::WrongSignature)
        );
        let elsewhere = Admission::new(NOW);
        elsewhere.set_key(Some(key()), "logto-1");
        assert_eq!(check(&elsewhere, &headers, NOW), Err(Refused::WrongSignature));
    }

    #[test]
    fn nonces_are_forgotten_when_their_time_is_over_and_bounded_until_then() {
        let admission = admission();
        for number in 0..MAX_NONCES {
            let headers = signed(&key(), PAGE, NOW, &number.to_string());
            assert_eq!(check(&admission, &headers, NOW), Ok(()));
        }
        assert_eq!(check(&admission, &signed(&key(), PAGE, NOW, "more"), NOW), Err(Refused::TooMany));
        let later = NOW + 61;
        assert_eq!(check(&admission, &signed(&key(), PAGE, later, "more"), later), Ok(()));
    }
}
