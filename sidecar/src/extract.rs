//! Reads a few values out of an event's body, without building the rest of it in memory.
//!
//! In: the exact bytes, and pointers. Out: the values as text. It must never change or re-serialise
//! the body. The whole body is read, so what is accepted is well-formed JSON to its end; of a key that
//! stands twice the last counts, as in JavaScript.

use std::fmt;

use rand::RngCore as _;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};
use tidings_plan::{Ingest, MAX_EVENT_NAME_BYTES, Pointer, SentAgain};

/// What receiving needs to know of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The event's name.
    pub event: String,
    /// When it happened, as the sender wrote it.
    pub time: Option<String>,
    /// The sender's id of the event or of the hook.
    pub id: Option<String>,
}

/// Why a body is no event.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// There is no name where one should stand.
    #[error(
        "the body has no event name: a text of 1 to {MAX_EVENT_NAME_BYTES} bytes is expected at {pointer}"
    )]
    NoEventName {
        /// Where it was looked for.
        pointer: Pointer,
    },
}

/// Reads the event's name, time and id.
pub fn extract(body: &[u8], ingest: &Ingest) -> Result<Extracted, ExtractError> {
    let pointers = [&ingest.event_pointer, &ingest.time_pointer, &ingest.id_pointer];
    // The parser looks at the bytes of those texts alone that are wanted.
    let text = std::str::from_utf8(body).map_err(|error| ExtractError::NotJson(error.to_string()))?;
    let found = find(text, &pointers).map_err(|error| ExtractError::NotJson(position_of(&error)))?;
    let [event, time, id]: [Option<String>; 3] = found.try_into().unwrap_or_default();
    match event.filter(|name| (1..=MAX_EVENT_NAME_BYTES).contains(&name.len())) {
        Some(event) => Ok(Extracted { event, time, id }),
        None => Err(ExtractError::NoEventName { pointer: ingest.event_pointer.clone() }),
    }
}

/// By which the same event sent again is known, as the auth server's kind has it. An event that lacks what it
/// would be known by is never taken for another: two sign-ins may well have the same body.
pub fn fingerprint(extracted: &Extracted, body: &[u8], sent_again: SentAgain) -> [u8; 16] {
    let mut fingerprint = [0; 16];
    let Extracted { event, time, id } = extracted;
    let known_by = match (sent_again, id, time) {
        (SentAgain::Body, _, Some(_)) => Sha256::digest(body),
        (SentAgain::Id, Some(id), _) => digest_of(&[event, id]),
        (SentAgain::IdAndTime, Some(id), Some(time)) => digest_of(&[event, id, time]),
        _ => {
            rand::rng().fill_bytes(&mut fingerprint);
            return fingerprint;
        }
    };
    fingerprint.copy_from_slice(&known_by[..16]);
    fingerprint
}

/// Of texts one after another, each with its length, so that no two lists have the same bytes.
fn digest_of(texts: &[&String]) -> sha2::digest::Output<Sha256> {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    digest.finalize()
}

/// The first of the pointers that is present, as text.
pub fn first_present(body: &[u8], pointers: &[Pointer]) -> Option<String> {
    let pointers: Vec<_> = pointers.iter().collect();
    find(std::str::from_utf8(body).ok()?, &pointers).ok()?.into_iter().flatten().next()
}

/// What stands at each pointer: a text, number or boolean; `None` for anything else.
fn find(body: &str, pointers: &[&Pointer]) -> Result<Vec<Option<String>>, serde_json::Error> {
    let wanted: Vec<Wanted> = (pointers.iter().enumerate())
        .map(|(at, pointer)| Wanted { at, tokens: pointer.tokens().collect() })
        .collect();
    let mut found = vec![None; pointers.len()];
    let mut json = serde_json::Deserializer::from_str(body);
    Walk { wanted: wanted.iter().collect(), depth: 0, found: &mut found }.deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

/// Where reading stopped, without any of the body.
fn position_of(error: &serde_json::Error) -> String {
    format!("reading stopped at line {}, column {}", error.line(), error.column())
}

struct Wanted {
    at: usize,
    tokens: Vec<String>,
}

/// One value of the document, and what is wanted at or below it.
struct Walk<'a> {
    wanted: Vec<&'a Wanted>,
    depth: usize,
    found: &'a mut [Option<String>],
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn put(&mut self, value: Option<&str>) {
        for wanted in self.wanted.iter().filter(|wanted| wanted.tokens.len() == self.depth) {
            self.found[wanted.at] = value.map(str::to_owned);
        }
    }

    fn below(&self, token: &str) -> Vec<&'a Wanted> {
        (self.wanted.iter().copied())
            .filter(|wanted| wanted.tokens.get(self.depth).is_some_and(|wanted| wanted == token))
            .collect()
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.put(Some(value));
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.put(Some(if value { "true" } else { "false" }));
        Ok(())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.put(Some(&value.to_string()));
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.put(Some(&value.to_string()));
        Ok(())
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.put(Some(&value.to_string()));
        Ok(())
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.put(None);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.put(None);
        while let Some(key) = entries.next_key::<std::borrow::Cow<'de, str>>()? {
            let wanted = self.below(&key);
            entries.next_value_seed(Walk { wanted, depth: self.depth + 1, found: &mut *self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.put(None);
        for at in 0_usize.. {
            let wanted = self.below(&at.to_string());
            let next = Walk { wanted, depth: self.depth + 1, found: &mut *self.found };
            if entries.next_element_seed(next)?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extracted(body: &str) -> Result<Extracted, ExtractError> {
        extract(body.as_bytes(), &Ingest::default())
    }

    #[test]
    fn name_time_and_id_are_read_wherever_they_stand() {
        let body = r#"{"x":{"event":"no","deep":[{"event":"no"}]},"createdAt":"t","hookId":"h","event":"PostSignIn","z":1}"#;
        let Extracted { event, time, id } = extracted(body).unwrap();
        assert_eq!((event.as_str(), time.as_deref(), id.as_deref()), ("PostSignIn", Some("t"), Some("h")));
    }

    #[test]
    fn a_body_without_a_name_is_refused_with_the_pointer() {
        for body in ["{}", "[]", "1", r#"{"event":""}"#, r#"{"event":null}"#, r#"{"event":{"a":1}}"#] {
            let error = extracted(body).unwrap_err();
            assert!(error.to_string().contains("/event"), "{body}: {error}");
        }
        assert!(extracted(&format!(r#"{{"event":"{}"}}"#, "x".repeat(257))).is_err());
    }

    #[test]
    fn a_body_that_is_not_json_to_its_end_is_refused_without_being_shown() {
        for body in [r#"{"event":"secret"}x"#, r#"{"event":"secret""#, "", r#"{"event":"a","b":[1,}"#] {
            let error = extracted(body).unwrap_err();
            assert!(matches!(error, ExtractError::NotJson(_)), "{body}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn a_body_that_is_not_utf8_is_not_json_wherever_the_bytes_stand() {
        for body in [
            &b"{\"event\":\"A\",\"x\":\"\xff\"}"[..],
            b"{\"event\":\"A\",\"\xc3\":1}",
            b"{\"event\":\"\xff\"}",
        ] {
            let error = extract(body, &Ingest::default()).unwrap_err();
            assert!(matches!(error, ExtractError::NotJson(_)), "{body:?}");
        }
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_counts() {
        assert_eq!(extracted(r#"{"event":"A","event":"B"}"#).unwrap().event, "B");
        assert!(extracted(r#"{"event":"A","event":null}"#).is_err());
    }

    #[test]
    fn the_first_pointer_that_is_present_gives_the_key() {
        let pointers = ["/userId", "/data/id", "/list/1"].map(|pointer| Pointer::parse(pointer).unwrap());
        let key = |body: &str| first_present(body.as_bytes(), &pointers);
        assert_eq!(key(r#"{"data":{"id":"b"},"userId":"a"}"#).as_deref(), Some("a"));
        assert_eq!(key(r#"{"data":{"id":7}}"#).as_deref(), Some("7"));
        assert_eq!(key(r#"{"list":["x","y"]}"#).as_deref(), Some("y"));
        assert_eq!(key("{}"), None);
    }

    #[test]
    fn an_event_is_known_again_by_what_its_auth_server_says_and_by_nothing_else() {
        let whole = r#"{"event":"A","createdAt":"t","hookId":"h"}"#;
        let of = |body: &str, sent_again| fingerprint(&extracted(body).unwrap(), body.as_bytes(), sent_again);
        let same = |a: &str, b: &str, sent_again| of(a, sent_again) == of(b, sent_again);
        let other_body = r#"{"event":"A","createdAt":"t","hookId":"h","attempt":2}"#;
        let other_time = r#"{"event":"A","createdAt":"u","hookId":"h"}"#;
        let other_id = r#"{"event":"A","createdAt":"t","hookId":"i"}"#;
        let other_name = r#"{"event":"B","createdAt":"t","hookId":"h"}"#;
        for (sent_again, known) in [
            (SentAgain::Never, vec![]),
            (SentAgain::Id, vec![whole, other_body, other_time]),
            (SentAgain::IdAndTime, vec![whole, other_body]),
            (SentAgain::Body, vec![whole]),
        ] {
            let all = [whole, other_body, other_time, other_id, other_name];
            let same: Vec<_> = all.into_iter().filter(|other| same(whole, other, sent_again)).collect();
            assert_eq!(same, known, "{sent_again:?}");
        }
        let bare = r#"{"event":"A"}"#;
        for sent_again in [SentAgain::Never, SentAgain::Id, SentAgain::IdAndTime, SentAgain::Body] {
            assert!(!same(bare, bare, sent_again), "nothing to be known by: {sent_again:?}");
        }
    }

    /// Any JSON, three levels deep.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "\\PC{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let key = prop_oneof![Just("event".to_owned()), Just("createdAt".to_owned()), "[a-z/~\"]{0,3}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(key, inner, 0..4)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic_and_what_is_taken_is_json(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(extract(&bytes, &Ingest::default()).is_err() || serde_json::from_slice::<IgnoredAny>(&bytes).is_ok());
        }

        #[test]
        fn a_body_with_a_changed_byte_is_taken_only_as_json(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut body = br#"{"event":"User.Created","createdAt":"t","data":{"name":"\u00e9\ud83d\ude00","n":[1.5e3,true,null]}}"#.to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            if extract(&body, &Ingest::default()).is_ok() {
                let text = std::str::from_utf8(&body);
                prop_assert!(text.is_ok_and(|text| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()));
            }
        }

        #[test]
        fn values_are_those_that_a_whole_parse_finds(value in json()) {
            let body = value.to_string();
            let text_at = |pointer: &str| match value.pointer(pointer)? {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Bool(_) | serde_json::Value::Number(_) => value.pointer(pointer).map(ToString::to_string),
                _ => None,
            };
            let expected = text_at("/event").filter(|name| (1..=MAX_EVENT_NAME_BYTES).contains(&name.len()));
            let found = extracted(&body).ok();
            prop_assert_eq!(found.as_ref().map(|found| &found.event), expected.as_ref());
            if let Some(found) = found {
                prop_assert_eq!(found.time, text_at("/createdAt"));
            }
        }
    }
}
