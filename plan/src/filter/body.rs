//! An event's body as CEL values, with its size.
//!
//! In: bytes. Out: values. It must never read more than [`MAX_BYTES`] or build more than [`MAX_VALUES`]
//! values, however the body is made: one byte may become a hundred, and each takes its time.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::FilterError;

/// The largest body that is filtered, in bytes.
const MAX_BYTES: usize = 256 << 10;

/// The most JSON values in a body that is filtered.
const MAX_VALUES: usize = 10_000;

/// Reads a body.
pub(super) fn read(body: &[u8]) -> Result<Value, FilterError> {
    if body.len() > MAX_BYTES {
        let message = format!("it has {} bytes, the most that is filtered is {MAX_BYTES}", body.len());
        return Err(FilterError::Body { message });
    }
    let left = Cell::new(MAX_VALUES);
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = Seed { left: &left }.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|error| FilterError::Body { message: error.to_string() })
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    left: &'a Cell<usize>,
}

// === impl Seed ===

impl Seed<'_> {
    fn take<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom(format_args!("it has more than {MAX_VALUES} values")))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.take()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::UInt(value), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(Arc::new(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = entries.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Value::List(Arc::new(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = HashMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            map.insert(Key::from(key), entries.next_value_seed(self)?);
        }
        Ok(Value::Map(Map { map: Arc::new(map) }))
    }
}
