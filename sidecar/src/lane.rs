//! One Webhook's lane: takes its events in order, tries each until it is settled, and keeps the book.
//!
//! In: events that the dispatcher hands over, or that the lane reads from the log when it is behind.
//! Out: attempts at the endpoint, and changes of the book that the saver writes. It must never wait
//! for another lane, and never start an attempt while the circuit or the rate forbids it.

pub mod book;
pub mod spec;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tidings_plan::ObjectName;
use tidings_store::{DeadLetter, Event, Seq, Store, StoreError, now_ms};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::circuit::{Circuit, Gate};
use crate::dial::{Attempt, Outcome};
use crate::engine::Fatal;
use crate::envelope;
use crate::metrics::Deliveries;
use crate::rate::Bucket;
use crate::schedule::{Delivery, MAX_RETRY_AFTER_MS, Verdict};
use crate::tally::{Attempted, Failure, Snapshot, Standing, Success};
use book::{Book, Row};
use spec::Spec;

/// How many heads of the log one reading looks at, and how many events it brings.
const READ_HEADS: u64 = 4096;
const READ_EVENTS: usize = 128;
const READ_BYTES: usize = 512 << 10;

/// What the dispatcher, the saver and the admin surface hold of a lane.
#[derive(Debug)]
pub struct Handle {
    /// The Webhook.
    pub webhook: ObjectName,
    label: String,
    book: Mutex<Book>,
    spec: ArcSwap<Spec>,
    wake: Notify,
    queued_for_save: AtomicBool,
}

/// The lanes whose books changed since they were saved.
#[derive(Debug, Default)]
pub struct Unsaved {
    lanes: Mutex<Vec<Arc<Handle>>>,
    touched: Notify,
}

/// One lane at work.
struct Lane<S> {
    handle: Arc<Handle>,
    store: Arc<S>,
    unsaved: Arc<Unsaved>,
    metrics: Arc<Deliveries>,
    fatal: Fatal,
    bucket: Bucket,
    rate: Option<u32>,
    /// Whether a replayed event goes before a new one: they take turns.
    replayed_turn: bool,
    attempts: FuturesUnordered<BoxFuture<'static, Done>>,
    reading: Option<JoinHandle<Result<Reading, StoreError>>>,
}

/// What one reading of the log brought.
struct Reading {
    spec: Arc<Spec>,
    after: Seq,
    selected: Vec<Arc<Event>>,
    upto: Seq,
}

/// An attempt that ended, or could not be made.
struct Done {
    seq: Seq,
    row: Row,
    probe: bool,
    spec: Arc<Spec>,
    end: End,
}

enum End {
    Attempted {
        event: Arc<Event>,
        webhook_id: String,
        attempt: Attempt,
    },
    /// The current spec does not want the event.
    Dropped,
    /// Retention took the event.
    Expired,
    Failed(StoreError),
}

/// Runs a lane until `stop` says so; attempts that are under way then are waited for.
pub(crate) async fn run<S: Store>(
    handle: Arc<Handle>,
    store: Arc<S>,
    unsaved: Arc<Unsaved>,
    metrics: Arc<Deliveries>,
    fatal: Fatal,
    mut stop: watch::Receiver<bool>,
) {
    let rate = handle.spec.load().plan.delivery.rate_per_second;
    let bucket = Bucket::new(rate, now_ms());
    let mut lane = Lane {
        handle,
        store,
        unsaved,
        metrics,
        fatal,
        bucket,
        rate,
        replayed_turn: false,
        attempts: FuturesUnordered::new(),
        reading: None,
    };
    loop {
        let stopping = *stop.borrow() || lane.fatal.is_told();
        let wake_ms = if stopping { None } else { lane.start_what_may_start() };
        if stopping && lane.attempts.is_empty() {
            break;
        }
        tokio::select! {
            // What ended comes first: it makes room for what may start.
            biased;
            Some(done) = lane.attempts.next(), if !lane.attempts.is_empty() => lane.finish(done),
            read = next_reading(&mut lane.reading) => lane.take_reading(read),
            () = lane.handle.wake.notified() => {}
            () = sleep_until_ms(wake_ms) => {}
            _ = stop.changed(), if !stopping => {}
        }
    }
    lane.handle.lock().rewind();
    lane.handle.changed(&lane.unsaved);
}

async fn next_reading(
    reading: &mut Option<JoinHandle<Result<Reading, StoreError>>>,
) -> Result<Reading, StoreError> {
    let Some(handle) = reading.as_mut() else { return std::future::pending().await };
    let result = handle.await;
    *reading = None;
    result.unwrap_or(Err(StoreError::Closed))
}

async fn sleep_until_ms(wake_ms: Option<i64>) {
    match wake_ms {
        Some(at) => {
            tokio::time::sleep(Duration::from_millis(u64::try_from(at - now_ms()).unwrap_or(0).max(1))).await;
        }
        None => std::future::pending().await,
    }
}

// === impl Unsaved ===

impl Unsaved {
    /// Takes the lanes whose books changed.
    pub fn take(&self) -> Vec<Arc<Handle>> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        for lane in &lanes {
            lane.queued_for_save.store(false, Ordering::SeqCst);
        }
        lanes
    }

    /// Says that something changed.
    pub fn touch(&self) {
        self.touched.notify_one();
    }

    /// Resolves when something changed since the last time. For one who waits.
    pub async fn touched(&self) {
        self.touched.notified().await;
    }

    fn add(&self, handle: &Arc<Handle>) {
        self.touch();
        if !handle.queued_for_save.swap(true, Ordering::SeqCst) {
            self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(handle));
        }
    }
}

// === impl Handle ===

impl Handle {
    /// A lane's handle.
    pub fn new(spec: Arc<Spec>, book: Book) -> Self {
        let webhook = spec.plan.webhook.clone();
        Self {
            label: webhook.to_string(),
            webhook,
            book: Mutex::new(book),
            spec: ArcSwap::new(spec),
            wake: Notify::new(),
            queued_for_save: AtomicBool::new(false),
        }
    }

    /// The book. A panic of another holder leaves it whole: each of its methods ends consistent.
    pub fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the lane.
    pub fn hand_over(self: &Arc<Self>, event: &Arc<Event>, unsaved: &Unsaved) {
        if self.lock().hand_over(event) {
            unsaved.add(self);
        }
        self.wake.notify_one();
    }

    /// Runs the Webhook as it is now.
    pub fn replace_spec(self: &Arc<Self>, spec: &Arc<Spec>, dispatched: Seq, unsaved: &Unsaved) {
        let old = self.spec.swap(Arc::clone(spec));
        {
            let mut book = self.lock();
            if old.plan.events != spec.plan.events {
                book.reselect(dispatched);
            }
            if old.plan.generation != spec.plan.generation || old.plan.endpoint != spec.plan.endpoint {
                book.circuit = Circuit::default();
                book.hold_until_ms = 0;
            }
        }
        self.changed(unsaved);
        self.wake.notify_one();
    }

    /// What runs.
    pub fn spec(&self) -> Arc<Spec> {
        self.spec.load_full()
    }

    /// Says that the book must be saved.
    pub fn changed(self: &Arc<Self>, unsaved: &Unsaved) {
        unsaved.add(self);
    }

    /// Changes the book from outside of the lane: what changed is saved, and the lane looks at it.
    pub(crate) fn change<T>(self: &Arc<Self>, unsaved: &Unsaved, change: impl FnOnce(&mut Book) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed(unsaved);
        self.wake.notify_one();
        changed
    }

    /// What must be saved.
    pub fn take_changes(&self) -> Option<tidings_store::LaneChange> {
        self.lock().take_changes(&self.label)
    }

    /// The numbers as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let spec = self.spec();
        let book = self.lock();
        let gone = is_gone(&book, &spec);
        let circuit = match book.circuit {
            _ if spec.plan.suspend => "Suspended",
            _ if gone => "Gone",
            Circuit::Closed { .. } => "Closed",
            Circuit::Open { .. } => "Open",
            Circuit::Probing { .. } => "Probing",
        };
        let waits_until = match book.circuit {
            Circuit::Open { until_ms, .. } => Some(until_ms),
            _ => book.next_due_ms(),
        };
        Snapshot {
            webhook: self.label.clone(),
            uid: spec.plan.uid.clone(),
            generation: spec.plan.generation,
            tally: book.tally.clone(),
            pending: book.pending(),
            oldest_pending_ms: book.oldest_pending_ms(),
            next_attempt_ms: waits_until
                .filter(|_| !gone && !spec.plan.suspend)
                .map(|at| at.max(book.hold_until_ms)),
            circuit,
        }
    }

    /// Whether something that waits may be tried before then, in milliseconds since 1970.
    pub(crate) fn goes_on_before(&self, deadline_ms: i64) -> bool {
        let spec = self.spec();
        let book = self.lock();
        let stands = spec.plan.suspend || is_gone(&book, &spec) || book.pending() == 0;
        !stands && book.goes_on_at_ms().is_none_or(|at| at < deadline_ms)
    }

    /// How the Webhook stands, for who must tell a change of it at once.
    pub fn standing(&self) -> Standing {
        let spec = self.spec();
        let book = self.lock();
        Standing {
            delivered: book.tally.delivered > 0,
            failing: book.tally.consecutive_failures > 0,
            dead_letters: book.tally.dead_lettered > 0,
            stopped: book.circuit.is_open() || is_gone(&book, &spec),
        }
    }
}

fn is_gone(book: &Book, spec: &Spec) -> bool {
    book.tally.gone_generation == Some(spec.plan.generation)
}

// === impl Lane ===

impl<S: Store> Lane<S> {
    /// Starts what may start now; tells when to look again, where that is not told by an event.
    fn start_what_may_start(&mut self) -> Option<i64> {
        let spec = self.handle.spec();
        if spec.plan.delivery.rate_per_second != self.rate {
            self.rate = spec.plan.delivery.rate_per_second;
            self.bucket = Bucket::new(self.rate, now_ms());
        }
        while self.attempts.len() < spec.concurrency() {
            let now = now_ms();
            let probe = match self.gate(&spec, now) {
                Gate::Pass => false,
                Gate::Probe => true,
                Gate::Shut(until) => return (until < i64::MAX).then_some(until),
            };
            if let Err(at) = self.bucket.take(now) {
                return Some(at);
            }
            if !self.start_one(&spec, now, probe) {
                self.bucket.put_back();
                break;
            }
        }
        self.read_on(&spec);
        // With the lane full, what ends tells; a row that is due may not spin it.
        let full = self.attempts.len() >= spec.concurrency();
        self.handle.lock().next_due_ms().filter(|_| !full)
    }

    fn gate(&self, spec: &Spec, now: i64) -> Gate {
        let mut book = self.handle.lock();
        if spec.plan.suspend || is_gone(&book, spec) {
            book.rewind();
            return Gate::Shut(i64::MAX);
        }
        if now < book.hold_until_ms {
            return Gate::Shut(book.hold_until_ms);
        }
        let gate = book.circuit.gate(now);
        if matches!(gate, Gate::Shut(_)) {
            book.rewind();
        }
        gate
    }

    /// Starts one attempt: a row that is due, else by turns the next event and the next one that a replay
    /// put in line. False when there is none.
    fn start_one(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        if let Some((seq, row)) = self.take_due(spec, now) {
            self.begin(spec, seq, row, None, probe);
            return true;
        }
        if self.replayed_turn && self.start_replayed(spec, now, probe) {
            self.replayed_turn = false;
            return true;
        }
        self.replayed_turn = true;
        self.start_next(spec, now, probe) || self.start_replayed(spec, now, probe)
    }

    fn start_replayed(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        let Some((seq, row)) = self.handle.lock().take_replayed(now) else { return false };
        self.begin(spec, seq, row, None, probe);
        true
    }

    /// Starts the next event that is wanted.
    fn start_next(&mut self, spec: &Arc<Spec>, now: i64, probe: bool) -> bool {
        loop {
            let taken = self.handle.lock().take_ready(|event| spec.ordering_key(event));
            match taken {
                None => return false,
                // Parked behind another of its key.
                Some(None) => {}
                Some(Some(event)) => {
                    let row = Row {
                        attempts: 0,
                        first_attempt_ms: 0,
                        due_ms: now,
                        key: spec.ordering_key(&event),
                        received_ms: event.received_ms,
                    };
                    if spec.wants(&event) {
                        self.begin(spec, event.seq, row, Some(event), probe);
                        return true;
                    }
                    self.drop_event(event.seq, row.key);
                }
            }
        }
    }

    /// The next row that is due; those beyond their horizon are given up on the way.
    fn take_due(&self, spec: &Spec, now: i64) -> Option<(Seq, Row)> {
        let mut book = self.handle.lock();
        loop {
            let (seq, row) = book.take_due(now)?;
            let Row { attempts, first_attempt_ms, due_ms, key, received_ms: _ } = row;
            let delivery = Delivery::Pending { attempts, first_attempt_ms, due_ms };
            if !delivery.has_expired(now, &spec.plan.delivery.retry) {
                return Some((seq, row));
            }
            let last = book.tally.last_failure.clone();
            let letter = DeadLetter {
                seq,
                name: String::new(),
                attempts,
                at_ms: now,
                reason: last.as_ref().map_or_else(|| "GaveUp".to_owned(), |failure| failure.reason.clone()),
                status_code: last.and_then(|failure| failure.status_code),
            };
            book.bury(letter, key);
            self.handle.changed(&self.unsaved);
        }
    }

    fn begin(&mut self, spec: &Arc<Spec>, seq: Seq, row: Row, event: Option<Arc<Event>>, probe: bool) {
        if probe {
            let mut book = self.handle.lock();
            book.circuit = book.circuit.probe_started();
        }
        let (spec, store) = (Arc::clone(spec), Arc::clone(&self.store));
        self.attempts.push(Box::pin(async move {
            let end = attempt(&spec, &store, seq, event).await;
            Done { seq, row, probe, spec, end }
        }));
    }

    fn drop_event(&self, seq: Seq, key: u64) {
        let mut book = self.handle.lock();
        book.tally.dropped += 1;
        book.settle(seq, key);
        drop(book);
        self.handle.changed(&self.unsaved);
    }

    /// Reads the log on when the lane is behind.
    fn read_on(&mut self, spec: &Arc<Spec>) {
        if self.reading.is_some() {
            return;
        }
        let after = {
            let mut book = self.handle.lock();
            book.go_live(self.store.head());
            if !book.wants_reading(spec.concurrency()) {
                return;
            }
            book.position
        };
        let (spec, store) = (Arc::clone(spec), Arc::clone(&self.store));
        self.reading = Some(tokio::task::spawn_blocking(move || read_log(&*store, spec, after)));
    }

    fn take_reading(&mut self, reading: Result<Reading, StoreError>) {
        match reading {
            Ok(Reading { spec, after, selected, upto }) => {
                // Another selection since then reads for itself.
                if Arc::ptr_eq(&spec, &self.handle.spec()) {
                    self.handle.lock().take_read(after, selected, upto);
                }
                self.handle.changed(&self.unsaved);
            }
            Err(error) => self.fatal.tell(error),
        }
    }

    fn finish(&mut self, done: Done) {
        let Done { seq, row, probe, spec, end } = done;
        match end {
            End::Attempted { event, webhook_id, attempt } => {
                self.finish_attempt(&spec, row, probe, &event, webhook_id, &attempt);
            }
            End::Dropped => self.drop_event(seq, row.key),
            End::Expired => {
                let mut book = self.handle.lock();
                book.tally.expired += 1;
                book.settle(seq, row.key);
            }
            // The process ends by it, and the event stays in the log.
            End::Failed(error) => self.fatal.tell(error),
        }
        if probe {
            // A probe that was no attempt says nothing of the endpoint: the next one may go at once.
            let mut book = self.handle.lock();
            if let Circuit::Probing { probes } = book.circuit {
                book.circuit = Circuit::Open { until_ms: 0, probes };
            }
        }
        self.handle.changed(&self.unsaved);
    }

    fn finish_attempt(
        &self,
        spec: &Spec,
        row: Row,
        probe: bool,
        event: &Event,
        webhook_id: String,
        attempt: &Attempt,
    ) {
        let now = now_ms();
        let judged = Judged::of(&attempt.outcome);
        // How long ago a replayed event came says nothing of how fast events are delivered.
        let replayed = self.handle.lock().is_replayed(event.seq);
        self.metrics.attempted(
            judged.label,
            attempt.duration,
            attempt.reused_connection,
            (!replayed).then_some(now - event.received_ms),
            judged.verdict,
        );
        let chance = rand::random::<f64>();
        let retry = &spec.plan.delivery.retry;
        let mut book = self.handle.lock();
        let burns = !(probe && judged.verdict.blames_endpoint());
        note(&mut book, &judged, event, webhook_id, row.attempts + 1, attempt, now);
        book.circuit = if judged.verdict.blames_endpoint() {
            book.circuit.failed(probe, now, retry, chance)
        } else {
            book.circuit.succeeded()
        };
        if let Verdict::Again { retry_after_ms: Some(wait) } = judged.verdict {
            book.hold_until_ms = book.hold_until_ms.max(now + wait.clamp(0, MAX_RETRY_AFTER_MS));
        }
        if judged.verdict == Verdict::Gone {
            tracing::warn!(webhook = %self.handle.webhook, "the endpoint answered 410 Gone: its Webhook is stopped until it is changed");
            book.tally.gone_generation = Some(spec.plan.generation);
        }
        let before = Delivery::Pending {
            attempts: row.attempts,
            first_attempt_ms: row.first_attempt_ms,
            due_ms: row.due_ms,
        };
        let after = if burns {
            before.next(judged.verdict, now, retry, chance)
        } else {
            Delivery::Pending { attempts: row.attempts, first_attempt_ms: row.first_attempt_ms, due_ms: now }
        };
        enter(&mut book, after, event, row, &judged, now);
    }
}

/// What an outcome means, in words that metrics, status and schedule share.
struct Judged {
    verdict: Verdict,
    label: &'static str,
    status_code: Option<u16>,
    phase: Option<&'static str>,
    message: String,
}

impl Judged {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Status { code, retry_after } => {
                let wait =
                    retry_after.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(MAX_RETRY_AFTER_MS));
                let verdict = Verdict::of_status(*code, wait);
                let label = if verdict == Verdict::Taken { "Delivered" } else { "HttpStatus" };
                Self {
                    verdict,
                    label,
                    status_code: Some(*code),
                    phase: None,
                    message: format!("the endpoint answered {code}"),
                }
            }
            Outcome::Failed { phase, reason, message } => Self {
                verdict: Verdict::Again { retry_after_ms: None },
                label: reason.as_str(),
                status_code: None,
                phase: Some(phase.as_str()),
                message: message.clone(),
            },
        }
    }
}

/// Writes an attempt into the tallies.
fn note(
    book: &mut Book,
    judged: &Judged,
    event: &Event,
    webhook_id: String,
    number: u32,
    attempt: &Attempt,
    now: i64,
) {
    let duration_milliseconds = u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX);
    let name = event.name.to_string();
    book.recent.push(Attempted {
        time_ms: now,
        event: name.clone(),
        webhook_id,
        attempt: number,
        outcome: judged.label.to_owned(),
        status_code: judged.status_code,
        duration_milliseconds,
    });
    let tally = &mut book.tally;
    if let (Verdict::Taken, Some(status_code)) = (judged.verdict, judged.status_code) {
        tally.delivered += 1;
        tally.consecutive_failures = 0;
        tally.failing_since_ms = None;
        tally.last_success =
            Some(Success { time_ms: now, event: name, status_code, duration_milliseconds, attempt: number });
        return;
    }
    tally.failed += 1;
    tally.consecutive_failures += 1;
    tally.failing_since_ms.get_or_insert(now);
    tally.last_failure = Some(Failure {
        time_ms: now,
        event: name,
        reason: judged.label.to_owned(),
        phase: judged.phase.map(str::to_owned),
        status_code: judged.status_code,
        message: judged.message.clone(),
        duration_milliseconds,
        timeout_seconds: u32::try_from(attempt.deadline.as_secs()).unwrap_or(u32::MAX),
        attempt: number,
    });
}

/// Enters a delivery's next state into the book.
fn enter(book: &mut Book, delivery: Delivery, event: &Event, row: Row, judged: &Judged, now: i64) {
    match delivery {
        Delivery::Delivered => book.settle(event.seq, row.key),
        Delivery::Pending { attempts, first_attempt_ms, due_ms } => {
            book.retry(
                event.seq,
                Row { attempts, first_attempt_ms, due_ms, key: row.key, received_ms: event.received_ms },
            );
        }
        Delivery::DeadLettered => {
            let letter = DeadLetter {
                seq: event.seq,
                name: event.name.to_string(),
                attempts: row.attempts + 1,
                at_ms: now,
                reason: judged.label.to_owned(),
                status_code: judged.status_code,
            };
            book.bury(letter, row.key);
        }
    }
}

async fn fetch<S: Store>(store: Arc<S>, seq: Seq) -> Result<Option<Arc<Event>>, StoreError> {
    tokio::task::spawn_blocking(move || store.get(seq)).await.unwrap_or(Err(StoreError::Closed))
}

async fn attempt<S: Store>(spec: &Spec, store: &Arc<S>, seq: Seq, event: Option<Arc<Event>>) -> End {
    let event = match event {
        // The lane has asked already whether the Webhook wants it.
        Some(event) => event,
        None => match fetch(Arc::clone(store), seq).await {
            Ok(Some(event)) if spec.wants(&event) => event,
            Ok(Some(_)) => return End::Dropped,
            Ok(None) => return End::Expired,
            Err(error) => return End::Failed(error),
        },
    };
    let webhook_id = envelope::webhook_id(event.id, &spec.plan.webhook);
    let envelope = envelope::build(&event, &spec.plan, &spec.keys, &spec.source, now_ms().div_euclid(1000));
    let deadline = Duration::from_secs(u64::from(spec.plan.delivery.timeout_seconds.max(1)));
    let attempt = spec.client.send(envelope, deadline).await;
    End::Attempted { event, webhook_id, attempt }
}

/// The events that the Webhook selects among the next ones of the log.
fn read_log<S: Store>(store: &S, spec: Arc<Spec>, after: Seq) -> Result<Reading, StoreError> {
    let upto = Seq(store.head().0.min(after.0 + READ_HEADS));
    let mut wanted = Vec::new();
    let mut seen = upto;
    store.scan(after, upto, &mut |head| {
        if wanted.len() < READ_EVENTS {
            if spec.selects(&head.name) {
                wanted.push(head.seq);
            }
            seen = head.seq;
        }
    })?;
    let (mut selected, mut bytes) = (Vec::new(), 0);
    let mut reached = if wanted.len() < READ_EVENTS { upto } else { seen };
    for seq in wanted {
        if bytes >= READ_BYTES {
            reached = Seq(seq.0 - 1);
            break;
        }
        // `None`: retention was faster.
        if let Some(event) = store.get(seq)? {
            bytes += event.body.len();
            selected.push(event);
        }
    }
    Ok(Reading { spec, after, selected, upto: reached })
}
