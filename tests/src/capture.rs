//! Requests of a real Logto, exactly as they came, and those written after its documents.

use std::path::PathBuf;

/// One request.
#[derive(Debug, Clone)]
pub struct Capture {
    /// `03-PostRegister`.
    pub name: String,
    /// `PostRegister`.
    pub event: String,
    /// The head's bytes, with the empty line.
    pub head: Vec<u8>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

/// The requests that a real Logto sent, in order.
pub fn captured() -> Vec<Capture> {
    read("logto")
}

/// The key of the hook that sent them.
pub fn signing_key() -> String {
    std::fs::read_to_string(folder("logto").join("signing-key")).unwrap().trim().to_owned()
}

/// The first captured request of an event.
pub fn of_event(event: &str) -> Capture {
    captured().into_iter().find(|capture| capture.event == event).unwrap()
}

/// The requests of one folder of fixtures, by name.
pub fn read(kind: &str) -> Vec<Capture> {
    let mut names: Vec<_> = std::fs::read_dir(folder(kind))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".headers")?.to_owned()))
        .collect();
    names.sort();
    names.into_iter().map(|name| read_one(kind, name)).collect()
}

fn read_one(kind: &str, name: String) -> Capture {
    let file = |ending: &str| std::fs::read(folder(kind).join(format!("{name}.{ending}"))).unwrap();
    let mut head = file("headers");
    while head.ends_with(b"\r\n") {
        head.truncate(head.len() - 2);
    }
    head.extend_from_slice(b"\r\n\r\n");
    let body = file("body");
    let event = name.split_once('-').map_or(name.as_str(), |(_, event)| event).to_owned();
    Capture { name, event, head, body }
}

fn folder(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(kind)
}

// === impl Capture ===

impl Capture {
    /// The whole request.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_slice(), self.body.as_slice()].concat()
    }

    /// The same request with one byte of its body changed.
    #[must_use]
    pub fn flipped_at(&self, at: usize) -> Self {
        let mut flipped = self.clone();
        flipped.body[at] ^= 1;
        flipped
    }
}
