//! JSON pointers (RFC 6901) that were checked when they were made.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A JSON pointer below the root, `/userId` or `/params/userId`.
///
/// ```
/// # use tidings_plan::Pointer;
/// assert!(Pointer::parse("/params/userId").is_ok());
/// assert!(Pointer::parse("userId").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(String);

/// Why a text is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no JSON pointer: it begins with \"/\", and \"~\" is followed by 0 or 1, as in \"/params/userId\""
)]
pub struct PointerError {
    text: String,
}

impl Pointer {
    /// Checks and wraps a pointer; the empty one, the whole document, is refused.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if text.starts_with('/') && text.len() > 1 && escapes {
            Ok(Self(text.to_owned()))
        } else {
            Err(PointerError { text: text.to_owned() })
        }
    }

    pub(crate) fn of(literal: &'static str) -> Self {
        Self(literal.to_owned())
    }

    /// The pointer's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its reference tokens, unescaped.
    pub fn tokens(&self) -> impl Iterator<Item = String> + '_ {
        self.0.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Pointer {
    type Error = PointerError;

    fn try_from(text: String) -> Result<Self, PointerError> {
        Self::parse(&text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.0
    }
}
