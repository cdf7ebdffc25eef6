//! Decides when there is something to report: at once when a plan or a Webhook's standing changed, else
//! every ten seconds.
//!
//! In: the engine's numbers. Out: the newest report, for the writer to take when it can. It never waits
//! for the writer.

use std::sync::Arc;
use std::time::Duration;

use tidings_crds::DeliveryReportSpec;
use tidings_plan::ObjectName;
use tidings_sidecar::engine::{Applied, Engine};
use tidings_sidecar::sidecar::Applier;
use tidings_sidecar::tally::Standing;
use tidings_store::{ReplayProgress, SqliteStore, Store as _, wall_ms};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::report::{self, Observed};
use crate::unmatched::Unmatched;

/// How long is waited for what comes together, such as the ends of several attempts.
const TOGETHER: Duration = Duration::from_millis(50);

/// The least time between two reports for the sake of standings: an endpoint that fails and recovers many
/// times a second costs the API server one write.
const LEAST_APART: Duration = Duration::from_secs(1);

/// How often numbers alone are reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Looks at a sidecar and makes its reports.
pub struct Reporter {
    applier: Applier,
    engine: Arc<Engine<SqliteStore>>,
    auth_server: ObjectName,
    pod: String,
    unmatched: Unmatched,
    newest: watch::Sender<Vec<DeliveryReportSpec>>,
    /// What was reported last.
    seen: Option<Seen>,
}

/// What is worth a report when it changes.
struct Seen {
    applied: Arc<Applied>,
    standings: Vec<Standing>,
    replays: Vec<ReplayProgress>,
    /// The word alone: its sentence holds numbers that change.
    problem: Option<&'static str>,
}

/// What is worth a report before its time.
enum News {
    /// Another plan runs.
    Plan,
    /// A Webhook's standing is another one, or a replay came further.
    Standing,
}

// === impl Reporter ===

impl Reporter {
    /// A reporter, and where it puts its newest report.
    pub fn new(
        applier: Applier,
        auth_server: ObjectName,
        pod: String,
        unmatched: Unmatched,
        newest: watch::Sender<Vec<DeliveryReportSpec>>,
    ) -> Self {
        let engine = Arc::clone(applier.engine());
        Self { applier, engine, auth_server, pod, unmatched, newest, seen: None }
    }

    /// Reports until `stop` says so, and then once more: an engine that was stopped has no numbers.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut due = Instant::now();
        let mut reported = due;
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
            let now = Instant::now();
            match self.differs() {
                _ if is_due => {}
                Some(News::Plan) => {}
                Some(News::Standing) if reported + LEAST_APART <= now => {}
                Some(News::Standing) => {
                    due = due.min(reported + LEAST_APART);
                    continue;
                }
                None => continue,
            }
            self.seen = Some(self.look());
            self.report();
            (reported, due) = (now, now + REPORT_EVERY);
        }
    }

    fn look(&self) -> Seen {
        Seen {
            applied: self.engine.applied(),
            standings: self.engine.standings(),
            replays: self.engine.replays(),
            problem: self.applier.problem().map(|problem| problem.reason),
        }
    }

    /// What is other than it was reported.
    fn differs(&self) -> Option<News> {
        let Some(seen) = &self.seen else { return Some(News::Plan) };
        let now = self.look();
        if !Arc::ptr_eq(&seen.applied, &now.applied) {
            return Some(News::Plan);
        }
        let same =
            (&seen.standings, &seen.replays, seen.problem) == (&now.standings, &now.replays, now.problem);
        (!same).then_some(News::Standing)
    }

    fn report(&mut self) {
        let observed = Observed {
            auth_server: self.auth_server.name.clone(),
            pod: self.pod.clone(),
            store: self.engine.store().identity().to_owned(),
            problem: self.applier.problem(),
            applied: self.engine.applied(),
            // Each event has the next place in the log, from 1.
            received: self.engine.store().head().0,
            unmatched: self.unmatched.total(self.engine.metrics().unmatched()),
            webhooks: self.engine.snapshots(),
            replays: self.engine.replays(),
            time_ms: wall_ms(),
        };
        self.newest.send_replace(report::parts(&observed));
    }
}
