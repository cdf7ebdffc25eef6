//! `tidings demo auth-server`: stands for Logto in a pod.
//!
//! It answers its health probe as Logto does, and posts events to its sidecar at a fixed rate: an event is
//! due at its time, whether or not the one before was answered. What was refused is never sent again.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tidings_sidecar::serve::{Limits, serve};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::events::{Mark, VARIED, name_of, with_time_of_now};
use super::ledger::{Ledger, Sent};
use super::pace::Pace;
use super::sender::Sender;
use super::sign_in::To;
use super::{DemoError, listen};
use crate::signals::ended;

/// How often the counts are told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Stands for Logto: answers `GET /api/status`, and sends events at a fixed rate.
///
/// Each event has an id of its own. Like Logto, it never sends again what was refused. SIGTERM: nothing more
/// is sent, and answers under way are waited for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where `GET /api/status` is answered with 204, as Logto does.
    #[arg(long, default_value = "0.0.0.0:3001")]
    listen: SocketAddr,
    #[command(flatten)]
    to: To,
    /// How many events are sent in a second; none without it.
    #[arg(long, value_name = "EVENTS")]
    rate: Option<NonZeroU32>,
    /// Send these events alone, by name; may be given more than once. Otherwise six kinds take turns.
    #[arg(long = "event", value_name = "NAME", value_parser = captured)]
    events: Vec<Event>,
    /// The file to which a line of JSON is added for each event: its id, when, and the answer.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

/// A captured event.
#[derive(Debug, Clone)]
struct Event {
    name: String,
    body: &'static str,
}

/// Sends, and keeps account.
struct Load {
    sender: Sender,
    ledger: Option<Ledger>,
    account: Mutex<Account>,
}

/// What became of all.
struct Account {
    sent: u64,
    acknowledged: u64,
    pace: Pace,
}

/// Runs it.
pub(super) async fn run(arguments: Arguments) -> Result<(), DemoError> {
    let Arguments { listen: address, to, rate, events, ledger } = arguments;
    let ended = ended()?;
    let ledger = ledger.as_deref().map(Ledger::open).transpose()?;
    let load = Arc::new(Load { sender: to.sender()?, ledger, account: Mutex::new(Account::new()) });
    let (listener, address) = listen(address).await?;
    let stop = watch::Sender::new(false);
    let serving = tokio::spawn(serve(listener, Limits::ADMIN, stop.subscribe(), |request| answer(&request)));
    println!("ready status=http://{address}/api/status");
    let events = if events.is_empty() { varied() } else { events };
    let sent = if let Some(rate) = rate {
        load.send_until(ended, rate, events).await
    } else {
        ended.await;
        Ok(())
    };
    stop.send_replace(true);
    let _ = serving.await;
    println!("ended: {}", load.account());
    sent
}

#[expect(clippy::unused_async, reason = "the server takes answers that take their time")]
async fn reply(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn answer(request: &Request<Incoming>) -> impl Future<Output = Response<Full<Bytes>>> + Send + use<> {
    let is_status = request.uri().path() == "/api/status" && request.method() == Method::GET;
    reply(if is_status { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND })
}

fn varied() -> Vec<Event> {
    VARIED.into_iter().map(|body| Event { name: name_of(body), body }).collect()
}

fn captured(name: &str) -> Result<Event, String> {
    let all = varied();
    let names: Vec<_> = all.iter().map(|event| event.name.clone()).collect();
    let found = all.into_iter().find(|event| event.name == name);
    found.ok_or_else(|| format!("none was captured; there are {}", names.join(", ")))
}

// === impl Load ===

impl Load {
    /// Sends at the rate until the end, and then waits for what is under way.
    async fn send_until(
        self: &Arc<Self>,
        ended: impl Future<Output = ()>,
        rate: NonZeroU32,
        events: Vec<Event>,
    ) -> Result<(), DemoError> {
        let mut due = tokio::time::interval(Duration::from_secs(1) / rate.get());
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut tell = tokio::time::interval_at(tokio::time::Instant::now() + TELL_EVERY, TELL_EVERY);
        let (mut under_way, mut next) = (JoinSet::new(), events.iter().cycle());
        let mut ended = std::pin::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => break,
                Some(sent) = under_way.join_next() => sent.map_err(std::io::Error::other)??,
                _ = tell.tick() => println!("{}", self.account()),
                _ = due.tick() => {
                    let (load, event) = (Arc::clone(self), next.next().cloned());
                    under_way.spawn(async move { load.send(event).await });
                }
            }
        }
        while let Some(sent) = under_way.join_next().await {
            sent.map_err(std::io::Error::other)??;
        }
        Ok(())
    }

    async fn send(&self, event: Option<Event>) -> Result<(), DemoError> {
        let Some(Event { name, body }) = event else { return Ok(()) };
        let (mark, began) = (Mark::new(), Instant::now());
        let answer = self.sender.send(mark.on(&with_time_of_now(body))).await;
        let took_milliseconds = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let (status, error) = match answer {
            Ok(answer) => (Some(answer.status.as_u16()), None),
            Err(error) => (None, Some(error)),
        };
        let Mark { id, made_at } = mark;
        let sent = Sent { id, event: name, made_at, took_milliseconds, status, error };
        if let Some(ledger) = &self.ledger {
            ledger.add(&sent)?;
        }
        self.account.lock().unwrap_or_else(PoisonError::into_inner).enter(&sent);
        Ok(())
    }

    fn account(&self) -> String {
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let Account { sent, acknowledged, .. } = *account;
        format!("sent {sent}, acknowledged {acknowledged}, refused {}", sent - acknowledged)
    }
}

// === impl Account ===

impl Account {
    fn new() -> Self {
        Self { sent: 0, acknowledged: 0, pace: Pace::new() }
    }

    fn enter(&mut self, sent: &Sent) {
        self.sent += 1;
        if sent.is_acknowledged() {
            self.acknowledged += 1;
            return;
        }
        let why = sent.status.map_or_else(
            || sent.error.clone().unwrap_or_default(),
            |status| format!("it was answered {status}"),
        );
        self.pace.say(&format!("refused {} ({}): {why}", sent.event, sent.id));
    }
}
