//! The witness: the last acknowledged event's place, in a small file beside the database.
//!
//! `SQLite` takes a damaged frame of its write-ahead log for the log's end, and drops what follows without
//! a word. The witness is written before an append is answered, without a sync of its own: it survives
//! the process, and after a power cut it is at most too low. So a log that ends below it has lost events
//! that were acknowledged, and that is told instead of passed over.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::Seq;

const FILE: &str = "acked";

/// The open witness.
#[derive(Debug)]
pub(crate) struct Witness(File);

// === impl Witness ===

impl Witness {
    /// Opens or makes it; tells the last acknowledged place, where it can be read. A half written one
    /// cannot: then nothing is claimed.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Option<Seq>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(FILE))?;
        let mut bytes = [0; 12];
        let acked = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(bytes),
            // Its block is taken now: later writes need no space, however full the disk becomes.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                file.write_all_at(&[0; 12], 0)?;
                None
            }
            Err(error) => return Err(error),
        };
        Ok((Self(file), acked))
    }

    /// Writes the last acknowledged place.
    pub(crate) fn write(&self, acked: Seq) -> io::Result<()> {
        self.0.write_all_at(&encode(acked), 0)
    }
}

fn encode(acked: Seq) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&acked.0.to_le_bytes());
    bytes[8..].copy_from_slice(&crc32fast::hash(&acked.0.to_le_bytes()).to_le_bytes());
    bytes
}

fn decode(bytes: [u8; 12]) -> Option<Seq> {
    let acked = Seq(u64::from_le_bytes(bytes[..8].try_into().ok()?));
    (encode(acked) == bytes).then_some(acked)
}
