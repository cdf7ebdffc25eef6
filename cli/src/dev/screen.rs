//! What a person, or a script, sees: a table refreshed in place, a line for each change, or JSON.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tidings_operator::manifests::FileFinding;

use super::Output;
use super::rows::Row;
use crate::moment::age;

const HEADINGS: [&str; 10] = [
    "NAMESPACE",
    "NAME",
    "READY",
    "DELIVERING",
    "ENDPOINT",
    "DELIVERED",
    "PENDING",
    "LAST-SUCCESS",
    "AGE",
    "REASON",
];

/// Where it is shown.
pub(super) struct Screen {
    output: Output,
    /// How many lines of a table stand at the bottom now.
    drawn: usize,
    last: String,
    began: Instant,
}

// === impl Screen ===

impl Screen {
    /// As it was asked for; by itself a table on a terminal, and lines elsewhere.
    pub(super) fn new(output: Option<Output>) -> Self {
        let by_itself = if std::io::stdout().is_terminal() { Output::Table } else { Output::Lines };
        Self { output: output.unwrap_or(by_itself), drawn: 0, last: String::new(), began: Instant::now() }
    }

    /// The one line that says where events are taken.
    pub(super) fn ready(&mut self, events: SocketAddr, admin: SocketAddr) {
        let (events, admin) = (format!("http://{events}/events"), format!("http://{admin}"));
        if self.output == Output::Json {
            self.say(&json!({ "type": "ready", "events": events, "admin": admin }).to_string());
        } else {
            self.say(&format!("ready events={events} admin={admin}"));
        }
    }

    /// A finding, on the standard error where it does not stand between rows.
    pub(super) fn finding(&mut self, found: &FileFinding) {
        if self.output == Output::Json {
            let mut finding = crate::lint::one(found);
            finding["type"] = json!("finding");
            self.say(&finding.to_string());
        } else {
            eprintln!("{}", crate::lint::line(found));
        }
    }

    /// A line of text, above the table.
    pub(super) fn say(&mut self, line: &str) {
        let mut text = self.clear();
        text.push_str(line);
        text.push('\n');
        text.push_str(&self.last);
        self.drawn = self.last.lines().count();
        put(&text);
    }

    /// A remark of the demo; JSON has no place for it.
    pub(super) fn remark(&mut self, line: &str) {
        if self.output != Output::Json {
            self.say(line);
        }
    }

    /// The rows as they are now, where they differ from what was shown.
    pub(super) fn show(&mut self, rows: &[Row], before: &[Row]) {
        match self.output {
            Output::Table => self.table(rows),
            Output::Lines => changed(rows, before).for_each(|row| put(&line(row))),
            Output::Json => changed(rows, before).for_each(|row| put(&object(row))),
        }
    }

    /// Prints the table once, whatever the output is.
    pub(super) fn print_table(&mut self, rows: &[Row]) {
        let mut text = self.clear();
        text.push_str(&table(rows, self.began));
        (self.drawn, self.last) = (0, String::new());
        put(&text);
    }

    fn table(&mut self, rows: &[Row]) {
        let now = table(rows, self.began);
        if now == self.last {
            return;
        }
        let text = self.clear() + &now;
        self.drawn = now.lines().count();
        self.last = now;
        put(&text);
    }

    /// Moves over the table that stands there, and clears it.
    fn clear(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

fn changed<'a>(rows: &'a [Row], before: &'a [Row]) -> impl Iterator<Item = &'a Row> {
    rows.iter().filter(move |row| !before.contains(row))
}

fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away is no reason to end.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn line(row: &Row) -> String {
    let Row {
        namespace, name, ready, delivering, endpoint, delivered, pending, failed, dead_lettered, ..
    } = row;
    let mut line = format!(
        "{namespace}/{name} Ready={ready} Delivering={delivering} Endpoint={endpoint} Delivered={delivered} Pending={pending} Failed={failed} Dead={dead_lettered}"
    );
    if !row.reason.is_empty() {
        let _ = write!(line, " Reason={} ({})", row.reason, row.message);
    }
    line.push('\n');
    line
}

fn object(row: &Row) -> String {
    let mut object = json!(row);
    object["type"] = json!("webhook");
    object["lastSuccessTime"] = json!(
        row.last_success_ms.and_then(|ms| Some(jiff::Timestamp::from_millisecond(ms).ok()?.to_string()))
    );
    format!("{object}\n")
}

fn table(rows: &[Row], began: Instant) -> String {
    let mut cells = vec![HEADINGS.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        [
            row.namespace.clone(),
            row.name.clone(),
            row.ready.to_owned(),
            row.delivering.to_owned(),
            row.endpoint.clone(),
            row.delivered.to_string(),
            row.pending.to_string(),
            row.last_success_ms.map(since).unwrap_or_default(),
            age(began.elapsed().as_secs()),
            row.reason.clone(),
        ]
        .to_vec()
    }));
    crate::table::of(&cells)
}

fn since(ms: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    age(now.saturating_sub(u64::try_from(ms / 1000).unwrap_or_default()))
}
