//! A signing key from a file or from the environment.
//!
//! A line break at its end is left out, as the operator does with a Secret's. It must never be shown.

use std::path::{Path, PathBuf};

use super::DemoError;

/// Where a key is.
#[derive(Debug, Clone)]
pub(super) enum KeySource {
    /// In a file, which is read for each use: a mounted Secret changes.
    File(PathBuf),
    /// Here.
    Text(String),
}

// === impl KeySource ===

impl KeySource {
    /// A file goes before a text; nothing and an empty text are no source.
    pub(super) fn of(file: Option<PathBuf>, text: Option<String>) -> Option<Self> {
        file.map(Self::File).or_else(|| text.filter(|text| !text.is_empty()).map(Self::Text))
    }

    /// The key's text.
    pub(super) fn read(&self) -> Result<String, DemoError> {
        match self {
            Self::File(path) => read(path),
            Self::Text(text) => Ok(text.clone()),
        }
    }
}

fn read(path: &Path) -> Result<String, DemoError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| DemoError::File { path: path.to_owned(), error })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
