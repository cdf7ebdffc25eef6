//! The operator at work: watches feed the model, and what follows from it is published and written.
//!
//! ```text
//! watch -> Change -> World -> SecretReader, Publisher, StatusWriter -> API server
//!                      ^------------ what was read, published, written
//! ```
//!
//! One task owns the model. It takes what has come, waits a moment for more, and then looks once at all
//! of it. Whoever does not lead watches all the same, so that it is ready when it is its turn; it writes
//! nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use tidings_election::Lead;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::access::Lookup;
use crate::expire::Expiry;
use crate::metrics::Metrics;
use crate::publish::{Publisher, Request};
use crate::read::SecretReader;
use crate::surface::{Problems, Surface};
use crate::watch::{PodWatches, Scope};
use crate::world::World;
use crate::world::change::Change;
use crate::write::StatusWriter;

/// How many changes wait for the model before the watches do.
const CHANGES: usize = 1024;

/// After a change so long is waited for more, and at most [`LONGEST_GATHERING`]: an edit of a hundred
/// objects is one plan.
const GATHERING: Duration = Duration::from_millis(20);
const LONGEST_GATHERING: Duration = Duration::from_millis(200);

/// How often the queue's numbers are brought up to date, and finished replays looked for.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The operator, started.
pub struct Operator {
    world: World,
    changes: mpsc::Receiver<Change>,
    lead: watch::Receiver<Option<Lead>>,
    reader: SecretReader,
    publisher: mpsc::UnboundedSender<Request>,
    writer: StatusWriter,
    expiry: Expiry,
    pods: PodWatches,
    surface: Surface,
    metrics: Metrics,
    tasks: JoinSet<()>,
}

// === impl Operator ===

impl Operator {
    /// Starts everything that the model needs.
    pub fn start(
        client: &Client,
        scope: &Scope,
        identity: &str,
        lead: watch::Receiver<Option<Lead>>,
        surface: Surface,
        problems: &Problems,
        metrics: Metrics,
    ) -> Self {
        let (told, changes) = mpsc::channel(CHANGES);
        let (publisher, requests) = mpsc::unbounded_channel();
        let mut tasks = crate::watch::start(client, scope, &told, problems);
        let publishing = Publisher::new(client.clone(), lead.clone(), told.clone(), metrics.clone());
        tasks.spawn(publishing.run(requests));
        let writer =
            StatusWriter::start(client, identity, lead.clone(), told.clone(), metrics.clone(), &mut tasks);
        let expiry = Expiry::start(client, lead.clone(), problems.clone(), metrics.clone(), &mut tasks);
        Self {
            world: World::waiting_for(scope.lists()),
            changes,
            lead,
            reader: SecretReader::new(client.clone(), told.clone(), problems.clone()),
            publisher,
            writer,
            expiry,
            pods: PodWatches::new(client.clone(), told, problems.clone()),
            surface,
            metrics,
            tasks,
        }
    }

    /// The same, for which it is no news for so long, in seconds, that no sidecar is ready.
    #[must_use]
    pub fn with_grace(self, seconds: i64) -> Self {
        Self { world: self.world.with_grace(seconds), ..self }
    }

    /// Works until one of its tasks panics; to be dropped at the end. It tells who asks where sidecars are.
    pub async fn run(mut self, mut lookups: mpsc::Receiver<Lookup>) {
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => self.gather(change).await,
                    None => return,
                },
                Some(lookup) = lookups.recv() => {
                    lookup.answer(|webhook| self.world.locate(webhook));
                    continue;
                }
                _ = self.lead.changed() => self.lead_changed(),
                _ = tidy.tick() => {
                    self.writer.statuses().lock().tidy(Instant::now());
                    self.reader.keep(|name| self.world.is_wanted(name));
                    if self.lead.borrow().is_some() {
                        self.expiry.delete(self.world.expired_replays(Timestamp::now()));
                    }
                }
                // Each of them works for ever: one that ended has panicked, and half an operator is none.
                Some(_) = self.tasks.join_next() => return,
            }
            self.look();
        }
    }

    /// Takes a change, and what comes soon after it.
    async fn gather(&mut self, first: Change) {
        self.world.apply(first);
        let until = tokio::time::Instant::now() + LONGEST_GATHERING;
        loop {
            let quiet = (tokio::time::Instant::now() + GATHERING).min(until);
            match tokio::time::timeout_at(quiet, self.changes.recv()).await {
                Ok(Some(change)) => self.world.apply(change),
                Ok(None) | Err(_) => return,
            }
            if tokio::time::Instant::now() >= until {
                return;
            }
        }
    }

    fn lead_changed(&mut self) {
        let leads = self.lead.borrow_and_update().is_some();
        self.metrics.leads(leads);
        if leads {
            self.world.look_at_everything();
        } else {
            self.writer.statuses().lock().clear();
        }
    }

    /// Does what follows from the model as it is now.
    fn look(&mut self) {
        let began = Instant::now();
        self.surface.waits_for(
            self.world
                .waits_for()
                .map(|(kind, scope)| {
                    let place =
                        scope.as_ref().map(|namespace| format!(" in {namespace}")).unwrap_or_default();
                    format!("the first list of {kind:?} objects{place}")
                })
                .collect(),
        );
        for (name, keys) in self.world.take_secrets_to_read() {
            self.reader.read(name, keys);
        }
        self.pods.follow(&self.world.pod_selectors());
        let leads = self.lead.borrow().is_some();
        let changes = if leads { self.act() } else { self.judge_alone() };
        self.metrics.reconciled(began.elapsed(), changes);
        let outbox = self.writer.statuses().lock();
        self.metrics.queue(outbox.len(), outbox.saved());
    }

    /// As the leader: plans are published, statuses written.
    fn act(&mut self) -> usize {
        for server in self.world.take_gone() {
            let _ = self.publisher.send(Request::Gone(server));
        }
        for (secret, version) in self.world.take_touched() {
            let _ = self.publisher.send(Request::Touched(secret, version));
        }
        let plans = self.world.take_plans();
        let mut changes = plans.len();
        for plan in plans {
            if let Some(owner) = self.world.server_uid(&plan.auth_server) {
                let _ = self.publisher.send(Request::Plan(plan, owner));
            }
        }
        let statuses = self.world.take_statuses(Timestamp::now());
        changes += statuses.iter().filter(|(_, _, desired)| desired.is_some()).count();
        self.writer.statuses().leave(statuses);
        let rotated: BTreeSet<_> = self
            .world
            .take_rotated()
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.world.webhook_uid(&name)?)))
            .collect();
        self.writer.tell_rotated(rotated);
        changes
    }

    /// As one that waits: everything is judged, so that nothing is left to do but to write.
    fn judge_alone(&mut self) -> usize {
        self.world.take_gone();
        self.world.take_touched();
        self.world.take_rotated();
        self.world.take_plans().len() + self.world.take_statuses(Timestamp::now()).len()
    }
}
