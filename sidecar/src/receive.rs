//! Receives events: checks, stores, and only then answers 200.
//!
//! In: a request to the events port. Out: an event in the store, or a refusal with its reason. It must
//! never log or echo a body, and never answer 2xx for what is not on stable storage.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::json;
use tidings_plan::Ingest;
use tidings_signature::{SigningKey, verify_logto};
use tidings_store::{AppendError, Appended, NewEvent, Store, now_ms};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::extract::{self, ExtractError};
use crate::words::words;

/// How long a request's body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Bodies under way together, from their first byte until they are stored, take at most this much memory, in
/// KiB, and at least one body's size: 64 MiB. What is kept of them after that is bounded by who keeps it: the
/// store's tail, and each lane's ready queue.
const BODIES_KIB: usize = 64 << 10;

/// A reason is logged at most this often; what is left out is counted in the next line.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// When a sender should come back after a 503, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Receives for one store.
pub struct Receiver<S> {
    store: Arc<S>,
    max_body: usize,
    bodies: Semaphore,
    ingest: ArcSwapOption<Prepared>,
    counts: Arc<Counts>,
}

/// How events are checked, keys prepared.
struct Prepared {
    ingest: Ingest,
    keys: Vec<SigningKey>,
}

/// What was received, and what was refused.
#[derive(Debug, Default)]
pub struct Counts {
    received: AtomicU64,
    stored: AtomicU64,
    duplicates: AtomicU64,
    refused: [Refused; Refusal::ALL.len()],
}

#[derive(Debug, Default)]
struct Refused {
    count: AtomicU64,
    logged: Mutex<Logged>,
}

#[derive(Debug, Default)]
struct Logged {
    at: Option<Instant>,
    left_out: u64,
}

words! {
    /// Why a request was refused.
    Refusal {
        /// No plan runs yet.
        NoPlan: "Wait for the operator to publish the plan, or see why it does not: the AuthServer's Programmed condition tells.",
        /// Another path than `/events` and `/`.
        NotFound: "Point the auth server's hook at /events.",
        /// Another method than POST.
        MethodNotAllowed: "Send events with POST.",
        /// There is no `logto-signature-sha-256`.
        MissingSignature: "Put the hook's signing key, which Logto makes, into the Secret of the AuthServer's spec.ingest.signingKeyRef; a sender that signs nothing is not the auth server.",
        /// No live key made the signature.
        BadSignature: "Put the hook's current signing key into the Secret of spec.ingest.signingKeyRef, the one before under previousSigningKey; see that no proxy changes bodies.",
        /// The body is not JSON.
        NotJson: "Have the sender post JSON in UTF-8; the answer's message tells where reading stopped.",
        /// The body names no event.
        NoEventName: "For a provider that is not Logto, set spec.provider to Generic and spec.generic.eventPointer to where the name stands.",
        /// The body is larger than allowed.
        TooLarge: "Start the sidecar with a larger --max-body-bytes.",
        /// The body did not arrive in time.
        BodyTimeout: "Look at the network between the auth server and the sidecar: they should share a pod.",
        /// The body broke off.
        BodyIncomplete: "Look whether the auth server ended or was restarted; it sends such an event once, and this one is lost.",
        /// The disk is nearly full.
        NoSpace: "Free space on the sidecar's volume or enlarge it; events are taken again at once.",
        /// The store takes nothing.
        StoreUnavailable: "Read the message, the sidecar's /readyz, or Receiving of the AuthServer: each names the cause and the fix. Where time or space helps, events are taken again without a restart.",
    }
}

// === impl Refusal ===

impl Refusal {
    /// The status that answers it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoPlan | Self::NoSpace | Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::MissingSignature | Self::BadSignature => StatusCode::UNAUTHORIZED,
            Self::NotJson | Self::NoEventName => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyIncomplete => StatusCode::BAD_REQUEST,
        }
    }
}

// === impl Counts ===

impl Counts {
    /// Plain counters: name, help, value.
    pub fn totals(&self) -> Vec<(&'static str, &'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("events_received", "Requests to the events port", read(&self.received)),
            ("events_stored", "Events that were stored", read(&self.stored)),
            ("events_duplicate", "Events that were sent again and stored once", read(&self.duplicates)),
        ]
    }

    /// Refused requests by reason.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        (Refusal::ALL.iter().zip(&self.refused))
            .map(|(refusal, refused)| (refusal.as_str(), refused.count.load(Ordering::Relaxed)))
            .collect()
    }

    fn refuse(&self, refusal: Refusal, message: &str) {
        let refused = &self.refused[refusal as usize];
        refused.count.fetch_add(1, Ordering::Relaxed);
        let mut logged = refused.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.at.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            logged.left_out += 1;
            return;
        }
        let left_out = std::mem::take(&mut logged.left_out);
        logged.at = Some(Instant::now());
        tracing::warn!(reason = refusal.as_str(), left_out, "an event was refused: {message}");
    }
}

// === impl Receiver ===

impl<S: Store> Receiver<S> {
    /// A receiver that refuses everything until it is told how events are checked.
    pub fn new(store: Arc<S>, max_body: usize, counts: Arc<Counts>) -> Self {
        let bodies = Semaphore::new(BODIES_KIB.max(kib(max_body) as usize));
        Self { store, max_body, bodies, ingest: ArcSwapOption::empty(), counts }
    }

    /// Checks events like this from now on. A key that cannot be used checks nothing: with no other
    /// one every event is refused.
    pub fn set_ingest(&self, ingest: &Ingest) {
        let keys = ingest.signing_keys.iter().filter_map(|key| SigningKey::new(key.reveal()).ok()).collect();
        self.ingest.store(Some(Arc::new(Prepared { ingest: ingest.clone(), keys })));
    }

    /// Whether it was told how events are checked.
    pub fn takes_events(&self) -> bool {
        self.ingest.load().is_some()
    }

    /// Answers one request to the events port.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.counts.received.fetch_add(1, Ordering::Relaxed);
        match self.take(request).await {
            Ok(appended) => {
                let is_new = matches!(appended, Appended::New(_));
                let counter = if is_new { &self.counts.stored } else { &self.counts.duplicates };
                counter.fetch_add(1, Ordering::Relaxed);
                let body = if is_new { r#"{"stored":true}"# } else { r#"{"stored":true,"duplicate":true}"# };
                respond(StatusCode::OK, Bytes::from_static(body.as_bytes()))
            }
            Err((refusal, message)) => {
                self.counts.refuse(refusal, &message);
                refuse(refusal, &message)
            }
        }
    }

    async fn take<B>(&self, request: Request<B>) -> Result<Appended, (Refusal, String)>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        if !matches!(head.uri.path(), "/" | "/events") {
            return Err((Refusal::NotFound, "events are taken at POST /events".to_owned()));
        }
        if head.method != Method::POST {
            return Err((Refusal::MethodNotAllowed, "events are taken at POST /events".to_owned()));
        }
        let prepared = self.ingest.load_full().ok_or_else(|| self.without_plan())?;
        // Held until the event is stored.
        let (body, _memory) = self.read(&head.headers, body).await?;
        prepared.check(&head.headers, &body)?;
        let extracted = extract::extract(&body, &prepared.ingest).map_err(|error| {
            let refusal = match error {
                ExtractError::NotJson(_) => Refusal::NotJson,
                ExtractError::NoEventName { .. } => Refusal::NoEventName,
            };
            (refusal, error.to_string())
        })?;
        let fingerprint = extract::fingerprint(&extracted, &body, prepared.ingest.sent_again);
        let event = NewEvent { name: extracted.event.into(), fingerprint, received_ms: now_ms(), body };
        self.store.append(event).await.map_err(|error| match error {
            AppendError::NoSpace { .. } => (Refusal::NoSpace, error.to_string()),
            AppendError::Store(_) => (Refusal::StoreUnavailable, error.to_string()),
        })
    }

    /// The whole body, within its bounds of size, time and memory.
    async fn read<B>(
        &self,
        headers: &HeaderMap,
        body: B,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), (Refusal, String)>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.max_body) {
            return Err(self.too_large());
        }
        let reading = async {
            // Without a length the most is set aside. The semaphore is never closed.
            let memory = self.bodies.acquire_many(kib(length.unwrap_or(self.max_body))).await.ok();
            Ok::<_, BoxError>((
                collect(Box::pin(Limited::new(body, self.max_body)), length.unwrap_or(0)).await?,
                memory,
            ))
        };
        match tokio::time::timeout(BODY_DEADLINE, reading).await {
            Ok(Ok(whole)) => Ok(whole),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(self.too_large()),
            Ok(Err(_)) => Err((Refusal::BodyIncomplete, "the body broke off".to_owned())),
            Err(_) => {
                let message = format!("the body did not arrive within {} s", BODY_DEADLINE.as_secs());
                Err((Refusal::BodyTimeout, message))
            }
        }
    }

    /// On a full disk a plan waits for the places of its Webhooks to be saved.
    fn without_plan(&self) -> (Refusal, String) {
        if let Err(error @ AppendError::NoSpace { .. }) = self.store.writable() {
            return (Refusal::NoSpace, error.to_string());
        }
        let message = "no plan runs yet, so nobody could say how to check this event";
        (Refusal::NoPlan, message.to_owned())
    }

    fn too_large(&self) -> (Refusal, String) {
        let message = format!(
            "the body is larger than {} bytes: start with a larger --max-body-bytes to take it",
            self.max_body
        );
        (Refusal::TooLarge, message)
    }
}

// === impl Prepared ===

impl Prepared {
    /// Whether one of the live keys signed the body; without a key everything passes.
    fn check(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), (Refusal, String)> {
        if self.ingest.signing_keys.is_empty() {
            return Ok(());
        }
        let Some(signature) = headers.get("logto-signature-sha-256") else {
            let message = "there is no logto-signature-sha-256: the hook's signing key, which Logto makes, belongs into the Secret of the AuthServer's ingest.signingKeyRef";
            return Err((Refusal::MissingSignature, message.to_owned()));
        };
        if verify_logto(&self.keys, signature.as_bytes(), body) {
            return Ok(());
        }
        let message = "logto-signature-sha-256 was made by another key, or over another body";
        Err((Refusal::BadSignature, message.to_owned()))
    }
}

/// The whole body in an allocation of just its size: a part of the connection's read buffer, as it comes, would
/// keep all of that buffer for as long as the event is kept.
async fn collect<B>(mut body: Pin<Box<Limited<B>>>, length: usize) -> Result<Bytes, BoxError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut whole = Vec::with_capacity(length);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            whole.extend_from_slice(data);
        }
    }
    whole.shrink_to_fit();
    Ok(Bytes::from(whole))
}

/// The size in KiB, rounded up.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Refuses an event that came while there is no store, whatever it says.
pub(crate) fn refuse_without_store(counts: &Counts, message: &str) -> Response<Full<Bytes>> {
    counts.received.fetch_add(1, Ordering::Relaxed);
    counts.refuse(Refusal::StoreUnavailable, message);
    refuse(Refusal::StoreUnavailable, message)
}

fn refuse(refusal: Refusal, message: &str) -> Response<Full<Bytes>> {
    let body = json!({ "reason": refusal.as_str(), "message": message }).to_string();
    let mut response = respond(refusal.status(), Bytes::from(body));
    match refusal.status() {
        StatusCode::SERVICE_UNAVAILABLE => {
            drop(response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            drop(response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST")));
        }
        _ => {}
    }
    response
}

fn respond(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
