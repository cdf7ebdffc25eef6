//! Puts the parts together: dispatches what the store announces to the lanes that select it, swaps the
//! plan while deliveries run, and saves what the lanes change.
//!
//! In: a store and plans. Out: attempts, tallies. The store is closed by whoever opened it.
//!
//! # Why an idle lane loses nothing
//! A lane whose Webhook selects nothing writes nothing: its saved cursor is *idle*, and stands at the
//! idle floor that each save raises for all. The saver reads `dispatched` first and takes the changed
//! lanes after it; the dispatcher hands an event over, which marks the lane as changed, before it
//! raises `dispatched`. So a lane that got an event at or below the saved idle floor is in the same
//! save, and no longer idle.

mod retention;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tidings_egress::Egress;
use tidings_plan::{ObjectName, Published, ReplayPlan, SelectionIndex, WebhookPlan};
use tidings_store::{
    Changes, DeadLetter, Event, EventHead, LaneChange, ReplayProgress, SavedLane, Seq, Store, StoreError,
    now_ms,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::descriptors;
use crate::dial::Dialer;
use crate::fatal::{EngineError, Fatal};
use crate::lane::book::Book;
use crate::lane::spec::Spec;
use crate::lane::{self, Handle, Unsaved};
use crate::metrics::Deliveries;
use crate::replay::{Replays, Tools};
use crate::schedule;
use crate::tally::{Attempted, Snapshot, Standing};
use retention::{Losses, Removal};

/// How often what the lanes changed is saved. A crash takes back at most this much of the cursors:
/// those events are delivered a second time, under the same `webhook-id`.
const SAVE_EVERY: Duration = Duration::from_millis(100);

/// How many Webhooks may have an attempt under way, and how many attempts beyond the first of each; as far
/// as there are descriptors for them. Each may hold a connection's buffers, some 40 KiB.
const FIRST_ATTEMPTS: usize = 2048;
const FURTHER_ATTEMPTS: usize = 512;

/// Delivers what a store holds, as a plan says.
pub struct Engine<S> {
    store: Arc<S>,
    routing: ArcSwap<Routing>,
    dispatched: AtomicU64,
    unsaved: Arc<Unsaved>,
    metrics: Arc<Deliveries>,
    /// One plan after another; what is compiled meanwhile needs no lane.
    applying: Mutex<()>,
    lanes: Mutex<Lanes>,
    /// Locked after `lanes` where both are.
    replays: Mutex<Replays>,
    applied: ArcSwap<Applied>,
    fatal: Fatal,
    saving: tokio::sync::Mutex<()>,
    /// How often it was saved.
    saved: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    control_plane: Vec<std::net::IpAddr>,
    /// Attempts under way.
    attempts: Budget,
}

/// What became of a plan.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// The plan's name, [`Published::digest`]; empty before the first plan.
    pub digest: String,
    /// Which one of the plans that were published; 0 where it was not.
    pub generation: u64,
    /// How many Webhooks run.
    pub webhooks: usize,
    /// Those that are left out, with the reason.
    pub rejected: Vec<(ObjectName, String)>,
}

/// Which lanes select an event.
#[derive(Debug, Default)]
struct Routing {
    index: SelectionIndex<usize>,
    lanes: Vec<Arc<Handle>>,
}

/// The lanes at work, and the books of Webhooks that the plan does not hold now.
#[derive(Default)]
struct Lanes {
    running: BTreeMap<ObjectName, Running>,
    /// Ran under an earlier plan of this process; their tasks wait for them to come back.
    absent: BTreeMap<ObjectName, Running>,
    /// Were saved by an earlier process.
    parked: BTreeMap<String, Book>,
    /// Changes of parked lanes, to be saved.
    loose: Vec<LaneChange>,
    /// How many counts of what waits for lanes that joined are under way: nothing is removed meanwhile.
    counting: usize,
    losses: Losses,
    dialer: Option<(Egress, Dialer)>,
}

struct Running {
    handle: Arc<Handle>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

// === impl Engine ===

impl<S: Store> Engine<S> {
    /// Starts delivering from a store; nothing is delivered before the first plan. `control_plane`:
    /// addresses that are refused whatever the policy allows by range.
    pub fn start(store: Arc<S>, control_plane: Vec<std::net::IpAddr>) -> Result<Arc<Self>, StoreError> {
        let events = store.subscribe().ok_or(StoreError::Closed)?;
        let head = store.head();
        let now = now_ms();
        let restored = |mut saved: SavedLane| {
            saved.rows = saved.rows.iter().map(|row| schedule::at_start(row, now)).collect();
            (saved.lane.clone(), Book::restore(saved))
        };
        let parked = store.lanes()?.into_iter().map(restored).collect();
        let replays = Mutex::new(Replays::restore(store.replays()?));
        let engine = Arc::new(Self {
            dispatched: AtomicU64::new(head.0),
            store,
            routing: ArcSwap::default(),
            unsaved: Arc::default(),
            metrics: Arc::default(),
            applying: Mutex::default(),
            lanes: Mutex::new(Lanes { parked, ..Lanes::default() }),
            replays,
            applied: ArcSwap::default(),
            fatal: Fatal::new(),
            saving: tokio::sync::Mutex::default(),
            saved: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            control_plane,
            attempts: Budget::new(
                descriptors::sixteenths(3, FIRST_ATTEMPTS),
                descriptors::sixteenths(2, FURTHER_ATTEMPTS),
            ),
        });
        engine.fatal.watch("the dispatcher", dispatch(Arc::clone(&engine), events));
        Ok(engine)
    }

    /// Runs a plan in place of the one before. A Webhook that does not compile is left out, its cursor
    /// is kept, and the others run. What did not change is neither compiled nor saved anew, and what is
    /// compiled keeps no lane waiting. Takes its time with thousands of Webhooks: not for a thread that has
    /// others to serve.
    pub fn apply(self: &Arc<Self>, published: &Published) -> Arc<Applied> {
        let Published { plan, generation, digest, left_out, .. } = published;
        let _one_after_another = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let (dialer, known) = self.known(&plan.egress);
        let mut rejected: Vec<_> =
            left_out.iter().map(|one| (one.webhook.clone(), one.reason.clone())).collect();
        for (webhook, reason) in &rejected {
            tracing::warn!(%webhook, reason, "the Webhook is left out");
        }
        let (mut specs, mut compiled) = (BTreeMap::new(), 0);
        for webhook in &plan.webhooks {
            let same = known.get(&webhook.webhook).filter(|known| known.is_of(webhook, &plan.auth_server));
            if let Some(same) = same {
                specs.insert(webhook.webhook.clone(), Arc::clone(same));
                continue;
            }
            compiled += 1;
            match Spec::compile(webhook.clone(), plan.auth_server.clone(), &dialer) {
                Ok(spec) => {
                    specs.insert(webhook.webhook.clone(), Arc::new(spec));
                }
                Err(error) => {
                    tracing::warn!(webhook = %webhook.webhook, %error, "the Webhook is left out");
                    rejected.push((webhook.webhook.clone(), error.to_string()));
                }
            }
        }
        let mut lanes = self.lanes();
        self.park_absent(&mut lanes, &specs);
        let fresh = self.place(&mut lanes, specs);
        self.pin_parked(&mut lanes);
        self.routing.store(Arc::new(Routing::of(&lanes)));
        self.join(&mut lanes, fresh);
        self.replay(&lanes, &plan.replays);
        let (digest, generation, webhooks) = (digest.clone(), *generation, lanes.running.len());
        let applied = Arc::new(Applied { digest, generation, webhooks, rejected });
        self.applied.store(Arc::clone(&applied));
        self.unsaved.touch();
        tracing::info!(
            plan = applied.digest,
            webhooks = applied.webhooks,
            rejected = applied.rejected.len(),
            compiled,
            "the plan runs"
        );
        applied
    }

    /// What became of the last plan.
    pub fn applied(&self) -> Arc<Applied> {
        self.applied.load_full()
    }

    /// The numbers of all Webhooks, by namespace and name.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.handles().iter().map(|handle| handle.snapshot()).collect()
    }

    /// How all Webhooks stand, by namespace and name.
    pub fn standings(&self) -> Vec<Standing> {
        self.handles().iter().map(|handle| handle.standing()).collect()
    }

    /// Resolves when a plan was run or a tally changed since the last time. For one who waits.
    pub async fn touched(&self) {
        self.unsaved.touched().await;
    }

    /// The recent attempts of a Webhook; `None` when the plan does not hold it.
    pub fn recent(&self, webhook: &ObjectName) -> Option<Vec<Attempted>> {
        let handle = Arc::clone(&self.lanes().running.get(webhook)?.handle);
        let recent = handle.lock().recent.to_vec();
        Some(recent)
    }

    /// A Webhook as it runs; `None` when the plan does not hold it, or it was left out.
    pub(crate) fn spec(&self, webhook: &ObjectName) -> Option<Arc<Spec>> {
        Some(self.lanes().running.get(webhook)?.handle.spec())
    }

    /// The newest dead letters of a Webhook. Blocks on the file.
    pub fn dead_letters(&self, webhook: &ObjectName, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        self.store.dead_letters(&webhook.to_string(), limit)
    }

    /// How far the replays of the plan came, by UID.
    pub fn replays(&self) -> Vec<ReplayProgress> {
        self.known_replays().progress()
    }

    /// Events that retention took from Webhooks that the plan did not hold, since the process began.
    pub fn expired_absent(&self) -> u64 {
        self.lanes().losses.of_absent
    }

    /// The deliveries' metrics.
    pub fn metrics(&self) -> &Arc<Deliveries> {
        &self.metrics
    }

    /// The store that it delivers from.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }

    /// Saves what changes until the engine is stopped, the store fails or one of its tasks panics; then tells
    /// why it ended. To be run as long as the engine is.
    pub async fn run_until_failure(&self) -> EngineError {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                biased;
                error = self.store.failed() => return error.into(),
                error = self.fatal.wait() => return error,
                () = told(&mut stop) => std::future::pending().await,
                () = tokio::time::sleep(SAVE_EVERY) => {}
            }
            if let Err(error) = self.save_and_retain().await {
                return error.into();
            }
        }
    }

    /// Stops: starts nothing more, and waits until `deadline` for attempts under way. What they changed is to
    /// be saved then.
    pub async fn stop(&self, deadline: Instant) {
        self.stop.send_replace(true);
        self.known_replays().stop();
        let lanes: Vec<Running> = {
            let mut lanes = self.lanes();
            let running = std::mem::take(&mut lanes.running).into_values();
            running.chain(std::mem::take(&mut lanes.absent).into_values()).collect()
        };
        for lane in &lanes {
            lane.stop.send_replace(true);
        }
        for lane in lanes {
            let abort = lane.task.abort_handle();
            if tokio::time::timeout_at(deadline, lane.task).await.is_err() {
                abort.abort();
            }
        }
    }

    /// Saves what changed. With a new Webhook's place saved, no event after it can be missed.
    ///
    /// One save after another: were two of them written the other way round, the later idle floor
    /// could stand without the lanes that changed before it.
    pub async fn save(&self) -> Result<(), StoreError> {
        self.save_with(None).await.map(drop)
    }

    async fn save_and_retain(&self) -> Result<(), StoreError> {
        self.save().await?;
        self.retain().await
    }

    /// Saves what changed, and has the store remove what is counted with it. False where nothing was removed:
    /// what waits for lanes that just joined is being counted, and that would be wrong then.
    async fn save_with(&self, removal: Option<Removal>) -> Result<bool, StoreError> {
        let _one_at_a_time = self.saving.lock().await;
        // The order matters; see this module's head.
        let dispatched = Seq(self.dispatched.load(Ordering::SeqCst));
        let changes = self.take_changes(removal);
        let remove_before = changes.remove_before;
        if remove_before.is_some() || !(changes.lanes.is_empty() && changes.forget_replays.is_empty()) {
            self.store.save(Changes { idle_floor: Some(dispatched), ..changes }).await?;
        }
        self.saved.send_modify(|times| *times += 1);
        Ok(remove_before.is_some())
    }

    /// What is to be saved. No plan is applied meanwhile: what it forgets and what it begins anew under
    /// the same name go into one save, or into two in that order.
    fn take_changes(&self, removal: Option<Removal>) -> Changes {
        let mut held = self.lanes();
        let removal = removal.filter(|_| held.counting == 0);
        if let Some(removal) = &removal {
            self.expire(&mut held, removal);
        }
        // Those of parked lanes first: a Webhook that came back since then says more.
        let mut lanes = std::mem::take(&mut held.loose);
        lanes.extend(self.unsaved.take().iter().filter_map(|handle| handle.take_changes()));
        let remove_before = removal.map(|removal| removal.before());
        let forget_replays = self.known_replays().take_forgotten();
        Changes { idle_floor: None, remove_before, forget_replays, lanes }
    }

    /// Tries each event that waits once more at once, and begins no more replays. For the end.
    pub(crate) fn hurry(&self) {
        self.known_replays().stop();
        let now = now_ms();
        for handle in self.handles() {
            handle.change(&self.unsaved, |book| book.hurry(now));
        }
    }

    /// Whether something that waits may be tried before then, in milliseconds since 1970.
    pub(crate) fn goes_on_before(&self, deadline_ms: i64) -> bool {
        self.dispatched.load(Ordering::SeqCst) < self.store.head().0
            || self.handles().iter().any(|handle| handle.goes_on_before(deadline_ms))
    }

    fn handles(&self) -> Vec<Arc<Handle>> {
        self.lanes().running.values().map(|running| Arc::clone(&running.handle)).collect()
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_replays(&self) -> MutexGuard<'_, Replays> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the replays of a plan whose lanes run.
    fn replay(&self, lanes: &Lanes, plans: &[ReplayPlan]) {
        let tools = Tools {
            store: Arc::clone(&self.store),
            unsaved: Arc::clone(&self.unsaved),
            metrics: Arc::clone(&self.metrics),
            fatal: self.fatal.clone(),
            saved: self.saved.subscribe(),
        };
        let lane_of =
            |webhook: &ObjectName| lanes.running.get(webhook).map(|running| Arc::clone(&running.handle));
        self.known_replays().apply(plans, lane_of, &tools);
    }

    /// The dialer of this policy, and the Webhooks that run and go out by it.
    fn known(&self, egress: &Egress) -> (Dialer, BTreeMap<ObjectName, Arc<Spec>>) {
        let mut lanes = self.lanes();
        let is_new = lanes.dialer.as_ref().is_none_or(|(known, _)| known != egress);
        let dialer = self.dialer(&mut lanes, egress);
        let running = lanes.running.iter().filter(|_| !is_new);
        let known = running.map(|(name, running)| (name.clone(), running.handle.spec())).collect();
        (dialer, known)
    }

    /// The dialer of this policy; a new policy has new connections.
    fn dialer(&self, lanes: &mut Lanes, egress: &Egress) -> Dialer {
        if let Some((_, dialer)) = lanes.dialer.as_ref().filter(|(known, _)| known == egress) {
            return dialer.clone();
        }
        let judged = self
            .control_plane
            .iter()
            .fold(egress.clone(), |policy, address| policy.with_control_plane(*address));
        let dialer = Dialer::new(judged);
        lanes.dialer = Some((egress.clone(), dialer.clone()));
        dialer
    }

    /// Has the lanes leave whose Webhooks the plan no longer holds; their cursors stay. The dispatcher
    /// forgets them after this.
    fn park_absent(&self, lanes: &mut Lanes, specs: &BTreeMap<ObjectName, Arc<Spec>>) {
        let absent: Vec<_> = lanes.running.keys().filter(|name| !specs.contains_key(name)).cloned().collect();
        for name in absent {
            if let Some(lane) = lanes.running.remove(&name) {
                lane.handle.leave(Seq(self.dispatched.load(Ordering::SeqCst)), &self.unsaved);
                lanes.absent.insert(name, lane);
            }
        }
    }

    /// Pins the cursors of Webhooks that no plan of this process held yet, so that they miss nothing.
    fn pin_parked(&self, lanes: &mut Lanes) {
        let Lanes { parked, loose, .. } = lanes;
        for (label, book) in parked {
            book.park();
            loose.extend(book.take_changes(label));
        }
        self.forget_long_gone(lanes);
    }

    /// Gives each Webhook its lane; returns those that are to join.
    fn place(
        self: &Arc<Self>,
        lanes: &mut Lanes,
        specs: BTreeMap<ObjectName, Arc<Spec>>,
    ) -> Vec<Arc<Handle>> {
        let dispatched = Seq(self.dispatched.load(Ordering::SeqCst));
        let mut fresh = Vec::new();
        for (name, spec) in specs {
            let same =
                lanes.running.get(&name).filter(|running| running.handle.lock().uid() == uid_of(&spec.plan));
            if let Some(running) = same {
                if !Arc::ptr_eq(&running.handle.spec(), &spec) {
                    running.handle.replace_spec(&spec, dispatched, &self.unsaved);
                }
                continue;
            }
            let mut left = HashSet::new();
            if let Some(replaced) = lanes.running.remove(&name) {
                left = replaced.retire();
            }
            let uid = uid_of(&spec.plan);
            if let Some(lane) = lanes.absent.remove(&name) {
                if lane.handle.lock().uid() == uid {
                    lane.handle.replace_spec(&spec, dispatched, &self.unsaved);
                    fresh.push(Arc::clone(&lane.handle));
                    lanes.running.insert(name, lane);
                    continue;
                }
                left = lane.retire();
            }
            let book = match lanes.parked.remove(&name.to_string()) {
                Some(book) if book.uid() == uid => book,
                other => {
                    left.extend(other.into_iter().flat_map(|mut book| book.retire()));
                    Book::in_place_of(left, &uid, self.store.head())
                }
            };
            let lane = self.start_lane(spec, book);
            fresh.push(Arc::clone(&lane.handle));
            lanes.running.insert(name, lane);
        }
        fresh
    }

    /// Starts a lane's task, which waits for the lane to join.
    fn start_lane(&self, spec: Arc<Spec>, book: Book) -> Running {
        let handle = Arc::new(Handle::new(spec, book));
        handle.changed(&self.unsaved);
        let stop = watch::Sender::new(false);
        let work = lane::run(
            Arc::clone(&handle),
            Arc::clone(&self.store),
            Arc::clone(&self.unsaved),
            Arc::clone(&self.metrics),
            self.fatal.clone(),
            self.attempts.share(),
            stop.subscribe(),
        );
        let task = self.fatal.watch(format!("the lane of {}", handle.webhook), work);
        Running { handle, stop, task }
    }

    /// Has lanes work; the routing knows them already, so that they miss nothing.
    fn join(self: &Arc<Self>, lanes: &mut Lanes, fresh: Vec<Arc<Handle>>) {
        if fresh.is_empty() {
            return;
        }
        let starts: Vec<_> =
            fresh.iter().map(|lane| lane.join(|| self.store.head(), &self.unsaved)).collect();
        lanes.counting += 1;
        let engine = Arc::clone(self);
        self.fatal.watch_blocking("the count of what waits", move || {
            engine.count_backlog(&fresh, &starts);
            engine.lanes().counting -= 1;
        });
    }

    /// Counts what waited in the log for lanes that just joined, in one pass over the heads.
    fn count_backlog(&self, lanes: &[Arc<Handle>], starts: &[lane::book::Start]) {
        let Some(from) = starts.iter().map(book_start).min() else { return };
        let head = starts.iter().map(|start| start.head).max().unwrap_or(from);
        let mut index = SelectionIndex::default();
        for (at, lane) in lanes.iter().enumerate() {
            index.insert(&lane.spec().plan.events, at);
        }
        let mut counts = vec![(0_i64, None); lanes.len()];
        let mut found = Vec::new();
        let result = self.store.scan(from, head, &mut |EventHead { seq, name, received_ms }| {
            match name {
                Some(name) => index.find(&name, &mut found),
                // One whose name is damaged may be meant for any.
                None => found = (0..lanes.len()).collect(),
            }
            for &at in &found {
                if starts[at].rows.contains(&seq) {
                    lanes[at].lock().note_received(seq, received_ms);
                } else if starts[at].waits(seq) {
                    counts[at].0 += 1;
                    counts[at].1.get_or_insert(received_ms);
                }
            }
        });
        if let Err(error) = result {
            self.fatal.tell(error);
        }
        for (lane, (events, oldest_ms)) in lanes.iter().zip(counts) {
            lane.lock().add_backlog(events, oldest_ms);
        }
    }
}

/// Resolves when it is time to stop; also when nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn book_start(start: &lane::book::Start) -> Seq {
    start.rows.first().map_or(start.floor, |row| Seq(row.0 - 1).min(start.floor))
}

/// The Webhook's UID; one that came from a file has none and is known by its name.
fn uid_of(plan: &WebhookPlan) -> String {
    if plan.uid.is_empty() { plan.webhook.to_string() } else { plan.uid.clone() }
}

/// Hands what the store announces to the lanes that select it, until the store is closed.
async fn dispatch<S: Store>(engine: Arc<Engine<S>>, mut events: mpsc::Receiver<Arc<Event>>) {
    let mut selected = Vec::new();
    while let Some(event) = events.recv().await {
        // Loaded for each event: a lane that is being started relies on it.
        let routing = engine.routing.load();
        routing.index.find(&event.name, &mut selected);
        for &at in &selected {
            routing.lanes[at].hand_over(&event, &engine.unsaved);
        }
        engine.metrics.dispatched(!selected.is_empty());
        engine.dispatched.store(event.seq.0, Ordering::SeqCst);
    }
}

// === impl Running ===

impl Running {
    /// Ends the lane for good: another Webhook has its name. Returns its rows, which are to be removed.
    fn retire(self) -> HashSet<Seq> {
        self.stop.send_replace(true);
        self.handle.lock().retire()
    }
}

// === impl Routing ===

impl Routing {
    fn of(lanes: &Lanes) -> Self {
        let mut routing = Self::default();
        for running in lanes.running.values() {
            routing.index.insert(&running.handle.spec().plan.events, routing.lanes.len());
            routing.lanes.push(Arc::clone(&running.handle));
        }
        routing
    }
}

#[cfg(test)]
mod tests;
