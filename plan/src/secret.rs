//! Text that must not be seen: it has no `Display`, and its `Debug` shows its length alone.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A secret, as the text that stands in the Kubernetes Secret.
///
/// ```
/// let key = tidings_plan::SecretText::new("hunter2hunter2");
/// assert_eq!(format!("{key:?}"), "SecretText(14 bytes)");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for signing or for a header alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretText({} bytes)", self.0.len())
    }
}
