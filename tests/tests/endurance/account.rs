//! The account of each Webhook: every event of the log is delivered, dead-lettered, dropped, expired or waits.

use std::fmt;

use serde_json::Value;
use tidings_tests::client;
use tidings_tests::process::Process;

use crate::tenants::Tenants;

/// What became of the events of one Webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: &'static str,
    delivered: u64,
    dead_lettered: u64,
    dropped: u64,
    expired: u64,
    pending: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    stored: u64,
    rows: Vec<Row>,
}

// === impl Account ===

impl Account {
    pub(crate) async fn of(sidecar: &Process, _: &Tenants) -> Self {
        let all = client::get_json(sidecar.admin, "/webhooks").await;
        let rows = Tenants::NAMES.into_iter().filter_map(|name| {
            let is_it = |webhook: &&Value| webhook["webhook"] == format!("shop/{name}").as_str();
            let found = all.as_array().unwrap().iter().find(is_it)?;
            let count = |field: &str| found[field].as_u64().unwrap_or_else(|| panic!("{field} of {found}"));
            Some(Row {
                name,
                delivered: count("delivered"),
                dead_lettered: count("deadLettered"),
                dropped: count("dropped"),
                expired: count("expired"),
                pending: count("pending"),
            })
        });
        let rows = rows.collect();
        Self { stored: sidecar.metric("tidings_store_head").await.unwrap(), rows }
    }

    /// How many wait; one more while a Webhook is not there yet.
    pub(crate) fn pending(&self) -> u64 {
        let missing = Tenants::NAMES.len() - self.rows.len();
        self.rows.iter().map(|row| row.pending).sum::<u64>() + missing as u64
    }

    /// Every event of the log is accounted for, once; what was replayed more often.
    pub(crate) fn check(&self) {
        for row in &self.rows {
            let Row { name, delivered, dead_lettered, dropped, expired, pending } = row;
            let sum = delivered + dead_lettered + dropped + expired + pending;
            if *name == "flaky" {
                assert!(sum >= self.stored, "{name}: {sum} of {}: {row:?}", self.stored);
            } else {
                assert_eq!(sum, self.stored, "{row:?}");
            }
            let is_refused = ["poisoned", "refusing"].contains(name);
            assert_eq!(*dead_lettered > 0, is_refused, "{row:?}");
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} events stored", self.stored)?;
        self.rows.iter().try_for_each(|row| writeln!(f, "  {row:?}"))
    }
}
