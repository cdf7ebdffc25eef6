//! Which Webhooks select an event: exact names, `Prefix.*`, `*`, behind an index.
//!
//! A look-up costs as many hash look-ups as the event's name has dots, plus the Webhooks found: it
//! does not see the Webhooks that do not select the event.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The most bytes of an event's name.
pub const MAX_EVENT_NAME_BYTES: usize = 256;

/// One entry of `spec.events`.
///
/// ```
/// # use tidings_plan::EventPattern;
/// let users = EventPattern::parse("User.*").unwrap();
/// assert!(users.selects("User.Created") && users.selects("User.Data.Updated"));
/// assert!(!users.selects("User") && !users.selects("UserX.Created"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventPattern {
    /// `*`: every event.
    All,
    /// `User.*`: every name that begins with the prefix, its dot included.
    Prefix(String),
    /// One name.
    Exact(String),
}

/// Why a text selects no events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no event selection: write a name such as \"PostSignIn\", a prefix such as \"User.*\", or \"*\""
)]
pub struct PatternError {
    text: String,
}

/// Finds the values whose patterns select a name.
#[derive(Debug, Clone)]
pub struct SelectionIndex<T> {
    all: Vec<T>,
    prefixes: HashMap<String, Vec<T>>,
    names: HashMap<String, Vec<T>>,
}

// === impl EventPattern ===

impl EventPattern {
    /// Reads a pattern; `*` may stand alone or after a trailing dot only.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let refused = || PatternError { text: text.to_owned() };
        if text == "*" {
            return Ok(Self::All);
        }
        let name = text.strip_suffix(".*").unwrap_or(text);
        let in_order = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
        if name.is_empty() || text.len() > MAX_EVENT_NAME_BYTES || !name.chars().all(in_order) {
            return Err(refused());
        }
        Ok(if name.len() == text.len() {
            Self::Exact(name.to_owned())
        } else {
            Self::Prefix(format!("{name}."))
        })
    }

    /// Whether every event that the other one selects is selected here too.
    ///
    /// ```
    /// # use tidings_plan::EventPattern;
    /// let [user, deleted] = ["User.*", "User.Deleted"].map(|text| EventPattern::parse(text).unwrap());
    /// assert!(user.covers(&deleted) && user.covers(&user));
    /// assert!(!deleted.covers(&user) && !user.covers(&EventPattern::All));
    /// ```
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (_, Self::All) | (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(prefix), Self::Prefix(other)) => other.starts_with(prefix.as_str()),
            (_, Self::Exact(name)) => self.selects(name),
        }
    }

    /// Whether an event of this name is selected.
    pub fn selects(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Self::Exact(exact) => exact == name,
        }
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

impl TryFrom<String> for EventPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl From<EventPattern> for String {
    fn from(pattern: EventPattern) -> Self {
        pattern.to_string()
    }
}

// === impl SelectionIndex ===

impl<T> Default for SelectionIndex<T> {
    fn default() -> Self {
        Self { all: Vec::new(), prefixes: HashMap::new(), names: HashMap::new() }
    }
}

impl<T: Copy + Ord> SelectionIndex<T> {
    /// Adds a value under its patterns.
    pub fn insert(&mut self, patterns: &[EventPattern], value: T) {
        for pattern in patterns {
            match pattern {
                EventPattern::All => self.all.push(value),
                EventPattern::Prefix(prefix) => self.prefixes.entry(prefix.clone()).or_default().push(value),
                EventPattern::Exact(name) => self.names.entry(name.clone()).or_default().push(value),
            }
        }
    }

    /// Puts the values that select `name` into `found`, each once, in order.
    pub fn find(&self, name: &str, found: &mut Vec<T>) {
        found.clear();
        found.extend_from_slice(&self.all);
        if let Some(values) = self.names.get(name) {
            found.extend_from_slice(values);
        }
        if !self.prefixes.is_empty() {
            for (dot, _) in name.match_indices('.') {
                if let Some(values) = self.prefixes.get(&name[..=dot]) {
                    found.extend_from_slice(values);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_index_finds_what_the_patterns_select_each_once() {
        let patterns =
            |texts: &[&str]| texts.iter().map(|t| EventPattern::parse(t).unwrap()).collect::<Vec<_>>();
        let mut index = SelectionIndex::default();
        index.insert(&patterns(&["PostSignIn"]), 0);
        index.insert(&patterns(&["User.*", "User.Created"]), 1);
        index.insert(&patterns(&["*"]), 2);
        index.insert(&patterns(&["User.Data.*"]), 3);
        let mut found = Vec::new();
        index.find("User.Data.Updated", &mut found);
        assert_eq!(found, [1, 2, 3]);
        index.find("User.Created", &mut found);
        assert_eq!(found, [1, 2]);
        index.find("PostSignIn", &mut found);
        assert_eq!(found, [0, 2]);
    }

    #[test]
    fn a_wildcard_stands_at_the_end_alone() {
        for refused in ["", "*.Created", "User.*.Updated", "Us*", ".*", "User Created", "User.Created\n"] {
            assert!(EventPattern::parse(refused).is_err(), "{refused:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn index_and_patterns_agree(texts in proptest::collection::vec("[AB](\\.[AB]){0,3}(\\.\\*)?|\\*", 1..20), name in "[AB](\\.[AB]){0,4}") {
            let patterns: Vec<_> = texts.iter().map(|t| EventPattern::parse(t).unwrap()).collect();
            let mut index = SelectionIndex::default();
            for (at, pattern) in patterns.iter().enumerate() {
                index.insert(std::slice::from_ref(pattern), at);
            }
            let mut found = Vec::new();
            index.find(&name, &mut found);
            let expected: Vec<_> = (0..patterns.len()).filter(|&at| patterns[at].selects(&name)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
