//! `tidings demo receiver`: stands for a team's service.
//!
//! It verifies each delivery, notes it in its ledger, and only then answers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use tidings_sidecar::serve::{Limits, serve};
use tokio::sync::watch;

use super::delivery::Delivery;
use super::key::KeySource;
use super::ledger::{Ledger, Received};
use super::pace::Pace;
use super::{DemoError, listen, now_milliseconds};
use crate::signals::ended;

/// The largest delivery that is taken: as much as a sidecar takes, in an envelope.
const BODY_BYTES: usize = 16 << 20;

/// Stands for a service: verifies each delivery with the official Standard Webhooks library.
///
/// It answers 204 to what is verified, 401 to what is not, and 503 while the file of --fail-while is there.
/// `GET /healthz` answers 200. A delivery stands in the ledger before it is answered.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where deliveries are taken, on any path.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// The file with the Webhook's signing key; read for each delivery, since a mounted Secret changes.
    #[arg(long, value_name = "FILE", env = "TIDINGS_SIGNING_KEY_FILE")]
    signing_key_file: Option<PathBuf>,
    /// The Webhook's signing key, where it is in no file.
    #[arg(long, value_name = "KEY", env = "TIDINGS_SIGNING_KEY", hide_env_values = true)]
    signing_key: Option<String>,
    /// How it calls itself in what it prints.
    #[arg(long, default_value = "receiver", env = "TIDINGS_RECEIVER_NAME")]
    name: String,
    /// The file to which a line of JSON is added for each delivery.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// How long each answer takes.
    #[arg(long, default_value_t = 0, value_name = "MILLISECONDS")]
    delay_milliseconds: u64,
    /// While this file is there, everything is answered with 503.
    #[arg(long, value_name = "FILE")]
    fail_while: Option<PathBuf>,
}

/// The service.
struct Service {
    name: String,
    key: KeySource,
    ledger: Option<Ledger>,
    delay: Duration,
    fail_while: Option<PathBuf>,
    pace: Mutex<Pace>,
}

/// Runs it.
pub(super) async fn run(arguments: Arguments) -> Result<(), DemoError> {
    let (ended, address) = (ended()?, arguments.listen);
    let service = Arc::new(Service::new(arguments)?);
    let (listener, address) = listen(address).await?;
    let limits = Limits { connections: 1024, drain: Duration::from_secs(2) + service.delay, ..Limits::ADMIN };
    let stop = watch::Sender::new(false);
    let serving = tokio::spawn(serve(listener, limits, stop.subscribe(), move |request| {
        let service = Arc::clone(&service);
        async move { service.answer(request).await }
    }));
    println!("ready deliveries=http://{address}/");
    ended.await;
    stop.send_replace(true);
    let _ = serving.await;
    Ok(())
}

// === impl Service ===

impl Service {
    fn new(arguments: Arguments) -> Result<Self, DemoError> {
        let Arguments {
            listen: _,
            signing_key_file,
            signing_key,
            name,
            ledger,
            delay_milliseconds,
            fail_while,
        } = arguments;
        let key = KeySource::of(signing_key_file, signing_key);
        let key = key.ok_or_else(|| {
            DemoError::Usage("the receiver needs --signing-key-file, or TIDINGS_SIGNING_KEY".to_owned())
        })?;
        key.read()?;
        let ledger = ledger.as_deref().map(Ledger::open).transpose()?;
        let delay = Duration::from_millis(delay_milliseconds);
        Ok(Self { name, key, ledger, delay, fail_while, pace: Mutex::new(Pace::new()) })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let status = match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => StatusCode::OK,
            (&Method::POST, _) => self.take(request).await,
            _ => StatusCode::NOT_FOUND,
        };
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    }

    async fn take(&self, request: Request<Incoming>) -> StatusCode {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_BYTES).collect().await else { return StatusCode::BAD_REQUEST };
        let received_at = now_milliseconds();
        tokio::time::sleep(self.delay).await;
        let key = match self.key.read() {
            Ok(key) => key,
            Err(error) => return self.say_failed(&error),
        };
        let delivery = Delivery::read(&key, &head.headers, &body.to_bytes());
        let status = self.status_for(&delivery);
        if let Err(error) = self.note(&delivery, received_at, status) {
            return self.say_failed(&error);
        }
        self.say(&told(&self.name, &delivery, status));
        status
    }

    fn status_for(&self, delivery: &Delivery) -> StatusCode {
        if !delivery.verified {
            StatusCode::UNAUTHORIZED
        } else if self.fail_while.as_ref().is_some_and(|file| file.exists()) {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::NO_CONTENT
        }
    }

    fn note(&self, delivery: &Delivery, received_at: i64, status: StatusCode) -> Result<(), DemoError> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let Delivery { verified: _, event, webhook_id, mark, made_at } = delivery;
        ledger.add(&Received {
            id: mark.as_ref().map(|mark| mark.id.clone()),
            event: event.clone(),
            webhook_id: webhook_id.clone(),
            made_at: *made_at,
            received_at,
            status: status.as_u16(),
        })
    }

    /// What could not be noted was not taken: it is to come again.
    fn say_failed(&self, error: &DemoError) -> StatusCode {
        self.say(&format!("{}: {error}", self.name));
        StatusCode::INTERNAL_SERVER_ERROR
    }

    fn say(&self, line: &str) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).say(line);
    }
}

fn told(name: &str, delivery: &Delivery, status: StatusCode) -> String {
    let Delivery { verified, event, webhook_id, .. } = delivery;
    match (verified, status) {
        (true, StatusCode::NO_CONTENT) => format!("{name} got {event} as {webhook_id} verified"),
        (true, _) => format!("{name} answered {} to {event} as {webhook_id} verified", status.as_u16()),
        (false, _) => format!("{name} refused {event} as {webhook_id}: the signature is wrong"),
    }
}
