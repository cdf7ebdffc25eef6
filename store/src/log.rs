//! Reads of the log on one connection. Damage of one event is an answer here, and no error: whoever reads
//! goes on behind it. Damage of the tables that lead to the events is an error.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::quarantine::Quarantine;
use crate::schema::{EVENT_COLUMNS, HEAD_COLUMNS, Rows, event_of, head_at, head_of, is_corrupt, to_i64};
use crate::{Event, EventHead, Lookup, Seq};

/// One connection, and where damage is noted.
pub(crate) struct Log<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) path: &'a Path,
    pub(crate) quarantine: &'a Quarantine,
}

// === impl Log ===

impl Log<'_> {
    /// One event.
    pub(crate) fn get(&self, seq: Seq) -> rusqlite::Result<Lookup> {
        let found = self.next_after(Seq(seq.0.saturating_sub(1)), seq);
        match found {
            Ok(Some(Rows::Whole(event))) => Ok(Lookup::Found(Arc::new(event))),
            Ok(Some(Rows::Damaged { head, reason })) => Ok(self.damaged(head, &reason)),
            Ok(None) => Ok(Lookup::Removed),
            Err(error) if is_corrupt(&error) => {
                // The page of the body; where it is that of the head too, this fails as well.
                let head = head_at(self.db, seq)?;
                Ok(head.map_or(Lookup::Removed, |head| self.damaged(head, &error.to_string())))
            }
            Err(error) => Err(error),
        }
    }

    /// The next events, but for damaged ones.
    pub(crate) fn read(
        &self,
        after: Seq,
        max_events: usize,
        max_bytes: usize,
    ) -> rusqlite::Result<Vec<Arc<Event>>> {
        let (mut events, mut bytes, mut last) = (Vec::new(), 0, after);
        while events.len() < max_events && (bytes < max_bytes || events.is_empty()) {
            let head = match self.next_after(last, Seq(u64::MAX)) {
                Ok(None) => break,
                Ok(Some(Rows::Whole(event))) => {
                    (last, bytes) = (event.seq, bytes + event.body.len());
                    events.push(Arc::new(event));
                    continue;
                }
                Ok(Some(Rows::Damaged { head, reason })) => {
                    self.quarantine.note(self.path, head.seq, &reason);
                    head
                }
                Err(error) if is_corrupt(&error) => {
                    let Some(head) = self.next_head(last)? else { break };
                    self.quarantine.note(self.path, head.seq, &error.to_string());
                    head
                }
                Err(error) => return Err(error),
            };
            last = head.seq;
        }
        Ok(events)
    }

    /// The heads with `after < seq <= upto`.
    pub(crate) fn scan(
        &self,
        after: Seq,
        upto: Seq,
        each: &mut dyn FnMut(EventHead),
    ) -> rusqlite::Result<()> {
        let query = format!("SELECT {HEAD_COLUMNS} WHERE seq > ?1 AND seq <= ?2 ORDER BY seq");
        let mut statement = self.db.prepare_cached(&query)?;
        let mut rows = statement.query(params![to_i64(after), to_i64(upto)])?;
        while let Some(row) = rows.next()? {
            each(head_of(row)?);
        }
        Ok(())
    }

    fn next_after(&self, after: Seq, upto: Seq) -> rusqlite::Result<Option<Rows>> {
        let query = format!(
            "SELECT {EVENT_COLUMNS} WHERE event.seq > ?1 AND event.seq <= ?2 ORDER BY event.seq LIMIT 1"
        );
        let mut statement = self.db.prepare_cached(&query)?;
        let mut rows = statement.query(params![to_i64(after), to_i64(upto)])?;
        rows.next()?.map(event_of).transpose()
    }

    fn next_head(&self, after: Seq) -> rusqlite::Result<Option<EventHead>> {
        let query = format!("SELECT {HEAD_COLUMNS} WHERE seq > ?1 ORDER BY seq LIMIT 1");
        let mut statement = self.db.prepare_cached(&query)?;
        let mut rows = statement.query([to_i64(after)])?;
        rows.next()?.map(head_of).transpose()
    }

    fn damaged(&self, head: EventHead, reason: &str) -> Lookup {
        self.quarantine.note(self.path, head.seq, reason);
        Lookup::Damaged { name: head.name }
    }
}
