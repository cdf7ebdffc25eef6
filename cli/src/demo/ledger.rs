//! A ledger: a file of JSON lines that is only ever added to.
//!
//! Each line is one write to a file opened for appending, made before anything is claimed of it, so a kill
//! at any moment takes no line that was written, and several processes may share a folder or a file.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::DemoError;

/// What became of an event that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) event: String,
    /// In milliseconds since 1970.
    pub(super) made_at: i64,
    /// From the first byte sent to the answer.
    pub(super) took_milliseconds: i64,
    /// The answer's; nothing when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// Why there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A delivery that came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Received {
    /// The event's; nothing for one that no auth server of the demo made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) event: String,
    pub(super) webhook_id: String,
    /// When the event was made, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made_at: Option<i64>,
    /// In milliseconds since 1970.
    pub(super) received_at: i64,
    /// What the receiver answered.
    pub(super) status: u16,
}

/// A ledger that is written.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
}

// === impl Sent ===

impl Sent {
    pub(super) fn is_acknowledged(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

// === impl Received ===

impl Received {
    pub(super) fn is_taken(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

// === impl Ledger ===

impl Ledger {
    /// Goes on with the file, or begins it; its folder is made.
    pub(super) fn open(path: &Path) -> Result<Self, DemoError> {
        let refused = |error| DemoError::File { path: path.to_owned(), error };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(refused)?;
        }
        let mut file = File::options().create(true).append(true).read(true).open(path).map_err(refused)?;
        end_last_line(&mut file).map_err(refused)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds a line.
    pub(super) fn add(&self, line: &impl Serialize) -> Result<(), DemoError> {
        let mut text = serde_json::to_string(line).map_err(std::io::Error::from)?;
        text.push('\n');
        let written = (&self.file).write_all(text.as_bytes());
        written.map_err(|error| DemoError::File { path: self.path.clone(), error })
    }
}

/// A line that a full disk cut short must not spoil the next one.
fn end_last_line(file: &mut File) -> std::io::Result<()> {
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// Reads the lines of a ledger. A line that is still being written, the last one without an end, is not
/// there yet; any other that cannot be read is an error, since nothing could be claimed of it.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, DemoError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| DemoError::File { path: path.to_owned(), error })?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let read_line = |(number, line)| {
        serde_json::from_str(line).map_err(|error| {
            DemoError::Failed(format!("{}:{}: no line of such a ledger: {error}", path.display(), number + 1))
        })
    };
    whole.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(read_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str) -> Sent {
        let (id, event) = (id.to_owned(), "PostSignIn".to_owned());
        Sent { id, event, made_at: 1, took_milliseconds: 2, status: Some(200), error: None }
    }

    #[test]
    fn a_ledger_goes_on_after_a_line_that_was_cut_short_and_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/sent.jsonl");
        Ledger::open(&path).unwrap().add(&sent("a")).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + r#"{"id":"b","#).unwrap();
        assert_eq!(read::<Sent>(&path).unwrap(), [sent("a")], "what is being written is not there yet");
        Ledger::open(&path).unwrap().add(&sent("c")).unwrap();
        let error = read::<Sent>(&path).unwrap_err().to_string();
        assert!(error.contains("sent.jsonl:2: "), "{error}");
        let last = std::fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
        assert_eq!(serde_json::from_str::<Sent>(&last).unwrap(), sent("c"));
    }

    #[test]
    fn a_refusal_is_no_acknowledgement() {
        for (status, expected) in
            [(Some(200), true), (Some(204), true), (Some(302), false), (Some(503), false), (None, false)]
        {
            assert_eq!(Sent { status, ..sent("a") }.is_acknowledged(), expected, "{status:?}");
        }
    }
}
