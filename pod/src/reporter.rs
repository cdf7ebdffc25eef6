//! Decides when there is something to report: at once when a plan or a Webhook's standing changed, else
//! every ten seconds.
//!
//! In: the engine's numbers. Out: the newest report, for the writer to take when it can. It never waits
//! for the writer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidings_crds::DeliveryReportSpec;
use tidings_plan::ObjectName;
use tidings_sidecar::engine::{Applied, Engine};
use tidings_sidecar::tally::Standing;
use tidings_store::{SqliteStore, Store as _};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::report::{self, Observed};
use crate::unmatched::Unmatched;

/// How long is waited for what comes together, such as the ends of several attempts.
const TOGETHER: Duration = Duration::from_millis(50);

/// How often numbers alone are reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Looks at a sidecar and makes its reports.
pub struct Reporter {
    engine: Arc<Engine<SqliteStore>>,
    auth_server: ObjectName,
    pod: String,
    unmatched: Unmatched,
    newest: watch::Sender<Vec<DeliveryReportSpec>>,
    seen: Option<(Arc<Applied>, Vec<Standing>)>,
}

// === impl Reporter ===

impl Reporter {
    /// A reporter, and where its newest report is.
    pub fn new(
        engine: Arc<Engine<SqliteStore>>,
        auth_server: ObjectName,
        pod: String,
        unmatched: Unmatched,
    ) -> (Self, watch::Receiver<Vec<DeliveryReportSpec>>) {
        let (newest, reports) = watch::channel(Vec::new());
        (Self { engine, auth_server, pod, unmatched, newest, seen: None }, reports)
    }

    /// Reports until `stop` says so, and then once more: an engine that was stopped has no numbers.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut due = Instant::now();
        loop {
            let is_due = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return self.report(),
                () = tokio::time::sleep_until(due) => true,
                () = self.engine.touched() => false,
            };
            if !is_due {
                tokio::time::sleep(TOGETHER).await;
            }
            if self.differs() || is_due {
                self.report();
                due = Instant::now() + REPORT_EVERY;
            }
        }
    }

    /// Whether the plan or a standing is another one than at the last call.
    fn differs(&mut self) -> bool {
        let now = (self.engine.applied(), self.engine.standings());
        let same = self
            .seen
            .as_ref()
            .is_some_and(|(applied, standings)| Arc::ptr_eq(applied, &now.0) && *standings == now.1);
        self.seen = Some(now);
        !same
    }

    fn report(&mut self) {
        let observed = Observed {
            auth_server: self.auth_server.name.clone(),
            pod: self.pod.clone(),
            store: self.engine.store().identity().to_owned(),
            applied: self.engine.applied(),
            // Each event has the next place in the log, from 1.
            received: self.engine.store().head().0,
            unmatched: self.unmatched.total(self.engine.metrics().unmatched()),
            webhooks: self.engine.snapshots(),
            time_ms: now_ms(),
        };
        self.newest.send_replace(report::parts(&observed));
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
