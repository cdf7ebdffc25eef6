//! Replays: events of the past that are delivered to a Webhook once more, under their own ids.
//!
//! ```text
//! plan -> Replays --one task each--> look (log, dead letters, filter) -> Book::put_in_line -> lane
//! ```
//!
//! In: the replays of the plan, and how far each came when it was last saved. Out: rows in the books of
//! their lanes, a few at a time, and how far each came.
//!
//! A replay must never put an event in line without saying so in the very change that holds the row:
//! the book hands both to the saver together. It must never put in line what waits already, never more
//! in a second than its rate, and never so much that new events wait ([`Book::replay_room`] and
//! [`Book::take_replayed`]).
//!
//! [`Book::replay_room`]: crate::lane::book::Book::replay_room
//! [`Book::take_replayed`]: crate::lane::book::Book::take_replayed

mod look;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_plan::{ObjectName, ReplayPlan};
use tidings_store::{ReplayProgress, Seq, Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fatal::Fatal;
use crate::lane::{Handle, Unsaved};
use crate::metrics::Deliveries;
use look::{Found, Window};

/// How long a replay that found no room waits before it looks for some again. Twenty looks a second at
/// a counter cost nothing, and 256 rows in each of them are more than a lane delivers.
const ROOM_EVERY: Duration = Duration::from_millis(50);

/// The most events that are put in line at once. With a tenth of the rate at once, and the wait after
/// it, no second carries more than the rate, also not the first.
const AT_ONCE: u32 = 64;

/// How many events one look of a dry run counts.
const COUNTED_AT_ONCE: usize = 4096;

/// The replays that are known: those of the plan, and what the store tells of earlier ones.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    known: BTreeMap<String, Replay>,
    forgotten: Vec<String>,
}

/// What a running replay needs of the engine.
pub(crate) struct Tools<S> {
    pub(crate) store: Arc<S>,
    pub(crate) unsaved: Arc<Unsaved>,
    pub(crate) metrics: Arc<Deliveries>,
    pub(crate) fatal: Fatal,
    /// How often the books were saved.
    pub(crate) saved: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Replay {
    plan: Option<ReplayPlan>,
    state: Arc<Mutex<State>>,
    /// The lane that it puts events in line at, or did last.
    lane: Option<Arc<Handle>>,
    task: Option<JoinHandle<()>>,
}

/// How far a replay came, and which run of it may go on: one that was stopped finds another number.
#[derive(Debug, Default)]
struct State {
    progress: ReplayProgress,
    run: u64,
}

/// One replay at work.
struct Run<S> {
    tools: Tools<S>,
    plan: Arc<ReplayPlan>,
    lane: Arc<Handle>,
    state: Arc<Mutex<State>>,
    number: u64,
}

/// What comes after a step.
enum Next {
    Look,
    Wait(Duration),
    End,
}

// === impl Replays ===

impl Replays {
    /// As they were saved.
    pub(crate) fn restore(saved: Vec<ReplayProgress>) -> Self {
        let known = saved.into_iter().map(|progress| (progress.uid.clone(), Replay::of(progress)));
        Self { known: known.collect(), forgotten: Vec::new() }
    }

    /// Runs the replays of a plan that are not complete and whose Webhook has a lane, and forgets those
    /// that the plan does not hold.
    pub(crate) fn apply<S: Store>(
        &mut self,
        plans: &[ReplayPlan],
        lane_of: impl Fn(&ObjectName) -> Option<Arc<Handle>>,
        tools: &Tools<S>,
    ) {
        let gone: Vec<_> =
            self.known.keys().filter(|uid| !plans.iter().any(|plan| plan.uid == **uid)).cloned().collect();
        for uid in gone {
            if let Some(mut replay) = self.known.remove(&uid) {
                replay.stop();
                replay.unsay(&uid);
                tracing::info!(replay = uid, "the plan holds the replay no longer: it is forgotten");
                self.forgotten.push(uid);
            }
        }
        for plan in plans {
            let replay = self.known.entry(plan.uid.clone()).or_insert_with(|| Replay::new(&plan.uid));
            // Begun anew: the first save of it overwrites what is still to be forgotten.
            self.forgotten.retain(|uid| *uid != plan.uid);
            replay.apply(plan, lane_of(&plan.webhook), tools);
        }
    }

    /// How far each replay of the plan came, by UID.
    pub(crate) fn progress(&self) -> Vec<ReplayProgress> {
        let of_plan = self.known.values().filter(|replay| replay.plan.is_some());
        of_plan.map(|replay| lock(&replay.state).progress.clone()).collect()
    }

    /// The UIDs of those to be forgotten by the store.
    pub(crate) fn take_forgotten(&mut self) -> Vec<String> {
        std::mem::take(&mut self.forgotten)
    }

    /// Stops all of them; what they put in line until now is in the books.
    pub(crate) fn stop(&mut self) {
        self.known.values_mut().for_each(Replay::stop);
    }
}

// === impl Replay ===

impl Replay {
    fn new(uid: &str) -> Self {
        Self::of(ReplayProgress { uid: uid.to_owned(), ..ReplayProgress::default() })
    }

    fn of(progress: ReplayProgress) -> Self {
        let state = Arc::new(Mutex::new(State { progress, run: 0 }));
        Self { plan: None, state, lane: None, task: None }
    }

    fn apply<S: Store>(&mut self, plan: &ReplayPlan, lane: Option<Arc<Handle>>, tools: &Tools<S>) {
        let same_lane = self.lane.as_ref().zip(lane.as_ref()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
        if same_lane && self.plan.as_ref() == Some(plan) && self.is_at_work() {
            return;
        }
        self.stop();
        self.plan = Some(plan.clone());
        // Without a lane it waits for its Webhook.
        let Some(lane) = lane else { return };
        if !same_lane {
            // What the book of a Webhook of the same name has yet to say must not overtake what this will.
            self.unsay(&plan.uid);
        }
        self.lane = Some(Arc::clone(&lane));
        self.start(plan, lane, tools);
    }

    fn start<S: Store>(&mut self, plan: &ReplayPlan, lane: Arc<Handle>, tools: &Tools<S>) {
        let mut state = lock(&self.state);
        if state.progress.complete {
            return;
        }
        state.run += 1;
        let run = Run {
            tools: tools.clone(),
            plan: Arc::new(plan.clone()),
            lane,
            state: Arc::clone(&self.state),
            number: state.run,
        };
        let name = format!("the replay {}", plan.uid);
        self.task = Some(tools.fatal.watch(name, run.work()));
    }

    fn is_at_work(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Stops it; when this returns, its run changes nothing more.
    fn stop(&mut self) {
        lock(&self.state).run += 1;
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Takes back what the book was told of it and the saver did not take yet.
    fn unsay(&self, uid: &str) {
        if let Some(lane) = &self.lane {
            lane.lock().forget_replay(uid);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Tools ===

impl<S> Clone for Tools<S> {
    fn clone(&self) -> Self {
        let Self { store, unsaved, metrics, fatal, saved } = self;
        Self {
            store: Arc::clone(store),
            unsaved: Arc::clone(unsaved),
            metrics: Arc::clone(metrics),
            fatal: fatal.clone(),
            saved: saved.clone(),
        }
    }
}

// === impl Run ===

impl<S: Store> Run<S> {
    /// Works until the whole window was gone through, or it is stopped.
    async fn work(self) {
        if self.plan.only_failed {
            self.until_saved().await;
        }
        loop {
            match self.step().await {
                Ok(Next::Look) => tokio::task::yield_now().await,
                Ok(Next::Wait(wait)) => tokio::time::sleep(wait).await,
                Ok(Next::End) => return,
                // The process ends by it, and the replay goes on from where it was saved.
                Err(error) => return self.tools.fatal.tell(error),
            }
        }
    }

    /// Waits until the store has every dead letter of before now: that is where they are looked up. The
    /// save that is under way may have begun earlier; the one after it has not.
    async fn until_saved(&self) {
        let mut saved = self.tools.saved.clone();
        let times = *saved.borrow_and_update() + 2;
        // Nobody is left to save: the engine has ended, and the replay with it.
        let _ = saved.wait_for(|saved| *saved >= times).await;
    }

    /// Looks for the next few events, and puts them in line.
    async fn step(&self) -> Result<Next, StoreError> {
        let limit = self.limit();
        if limit == 0 {
            return Ok(Next::Wait(ROOM_EVERY));
        }
        let after = lock(&self.state).progress.position;
        let found = self.look(after, limit).await?;
        Ok(self.enter(&found))
    }

    /// How many events may be put in line now.
    fn limit(&self) -> usize {
        if self.plan.dry_run {
            return COUNTED_AT_ONCE;
        }
        let at_once = (self.rate() / 10).clamp(1, AT_ONCE);
        self.lane.lock().replay_room().min(at_once as usize)
    }

    fn rate(&self) -> u32 {
        self.plan.rate_per_second.max(1)
    }

    async fn look(&self, after: Seq, limit: usize) -> Result<Found, StoreError> {
        let window = Window { plan: Arc::clone(&self.plan), spec: self.lane.spec() };
        let store = Arc::clone(&self.tools.store);
        let look = tokio::task::spawn_blocking(move || look::look(&*store, &window, after, limit));
        look.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Puts in line what was found; the rows and how far the replay came enter the book at once.
    fn enter(&self, found: &Found) -> Next {
        let mut state = lock(&self.state);
        if state.run != self.number {
            return Next::End;
        }
        let replayed = self.lane.change(&self.tools.unsaved, |book| {
            let put =
                found.events.iter().filter(|(seq, row)| !self.plan.dry_run && book.put_in_line(*seq, *row));
            let replayed = put.count();
            advance(&mut state.progress, found, replayed);
            book.note_replay(state.progress.clone());
            replayed
        });
        self.tools.metrics.replayed(replayed as u64);
        if state.progress.complete {
            self.say_complete(&state.progress);
            return Next::End;
        }
        match u64::try_from(replayed).unwrap_or(0) * 1000 {
            0 => Next::Look,
            thousandths => Next::Wait(Duration::from_millis(thousandths.div_ceil(u64::from(self.rate())))),
        }
    }

    fn say_complete(&self, progress: &ReplayProgress) {
        tracing::info!(
            replay = progress.uid,
            webhook = %self.plan.webhook,
            matched = progress.matched,
            replayed = progress.replayed,
            dry_run = self.plan.dry_run,
            "the replay is complete"
        );
    }
}

fn advance(progress: &mut ReplayProgress, found: &Found, replayed: usize) {
    progress.position = found.upto;
    progress.matched += found.events.len() as u64;
    progress.replayed += replayed as u64;
    progress.complete = found.at_end;
    progress.oldest_available_ms = found.oldest_available_ms.or(progress.oldest_available_ms);
}
