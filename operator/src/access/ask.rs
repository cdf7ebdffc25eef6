//! Asks sidecars, and merges what they say.
//!
//! In: a question that is allowed, the key, and where the sidecars are. Out: the rows of one Webhook by time, each with
//! its sidecar, and for each sidecar whether it answered. Each question is signed anew. Every wait has an end and every
//! answer a size; a sidecar that is away costs the others' answers nothing but that time. What a sidecar says of another
//! Webhook is dropped.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tidings_signature::question::{AdminKey, NONCE_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::question::Question;
use super::refusal::Refusal;
use crate::world::Place;

/// How long a connection to a sidecar may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a list may take, its wait for a place included.
const LIST: Duration = Duration::from_secs(5);

/// How long a test event may take: the longest deadline of a Webhook, and what the sidecar needs around it.
const TEST: Duration = Duration::from_secs(120 + 10);

/// Sidecars that are asked at once for one question: what they answer is in memory.
const AT_ONCE: usize = 4;

/// The most bytes of an answer: a thousand dead letters are a quarter of a megabyte.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Rows of one answer of ours, the newest.
const MAX_ROWS: usize = 2000;

/// Why a sidecar did not answer as it should.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("its pod has no address yet, or the operator may not list pods there")]
    NoAddress,
    #[error("it cannot be reached: {0}")]
    Unreachable(std::io::Error),
    #[error("no connection within {} s", CONNECT.as_secs())]
    NoConnection,
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    #[error("its answer is larger than {MAX_ANSWER_BYTES} bytes, or was cut short")]
    Cut,
    #[error("its answer cannot be read")]
    Unreadable,
    #[error("{message}")]
    Refused { status: StatusCode, reason: String, message: String },
}

/// How the admin surface refuses.
#[derive(Debug, Deserialize)]
struct Said {
    reason: String,
    message: String,
}

/// A row with its time.
type Row = (i64, Map<String, Value>);

/// Asks every sidecar for a list.
pub(super) async fn all(key: &AdminKey, question: &Question, places: &[Place]) -> Result<Value, Refusal> {
    let slots = Semaphore::new(AT_ONCE);
    let answers = join_all(places.iter().map(async |place| {
        let asking = async {
            let _slot = slots.acquire().await;
            rows(key, question, place).await
        };
        tokio::time::timeout(LIST, asking).await.unwrap_or(Err(AskError::Timeout(LIST)))
    }))
    .await;
    let (mut merged, mut sidecars, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for (place, answer) in places.iter().zip(answers) {
        match answer {
            Ok(rows) => {
                merged.extend(rows);
                sidecars.push(json!({ "name": place.pod, "answered": true }));
            }
            Err(error) => {
                sidecars.push(json!({ "name": place.pod, "answered": false, "message": error.to_string() }));
                failures.push((place, error));
            }
        }
    }
    if failures.len() == places.len() {
        return Err(of_all(failures));
    }
    Ok(listed(question, merged, &sidecars))
}

/// Has one test event sent, by the first sidecar that can.
pub(super) async fn one(key: &AdminKey, question: &Question, places: &[Place]) -> Result<Value, Refusal> {
    let mut failures = Vec::new();
    for place in places {
        let asking = exchange(key, question, place);
        match tokio::time::timeout(TEST, asking).await.unwrap_or(Err(AskError::Timeout(TEST))) {
            Ok(Value::Object(mut tested)) => {
                tested.insert("sidecar".to_owned(), json!(place.pod));
                return Ok(Value::Object(tested));
            }
            Ok(_) => failures.push((place, AskError::Unreadable)),
            // It may have been sent: a second one from elsewhere would not be one event.
            Err(error) if error.may_have_been_heard() => return Err(of_all(vec![(place, error)])),
            Err(error) => failures.push((place, error)),
        }
    }
    Err(of_all(failures))
}

/// The rows of one sidecar.
async fn rows(key: &AdminKey, question: &Question, place: &Place) -> Result<Vec<Row>, AskError> {
    let mut page = exchange(key, question, place).await?;
    if page["webhook"] != json!(question.webhook.to_string()) {
        return Err(AskError::Unreadable);
    }
    let (list, time) = question.page.list();
    let Value::Array(list) = page[list].take() else { return Err(AskError::Unreadable) };
    let rows = list.into_iter().rev().take(MAX_ROWS).rev().filter_map(|row| match row {
        Value::Object(mut row) => {
            row.insert("sidecar".to_owned(), json!(place.pod));
            Some((row.get(time).and_then(Value::as_i64).unwrap_or_default(), row))
        }
        _ => None,
    });
    Ok(rows.collect())
}

fn listed(question: &Question, mut rows: Vec<Row>, sidecars: &[Value]) -> Value {
    // Stable: within a sidecar the order is its own.
    rows.sort_by_key(|(time, _)| *time);
    let newest = rows.split_off(rows.len().saturating_sub(MAX_ROWS));
    let rows: Vec<_> = newest.into_iter().map(|(_, row)| row).collect();
    json!({ "webhook": question.webhook.to_string(), question.page.list().0: rows, "sidecars": sidecars })
}

/// Nobody answered: the sidecar's own refusal where that is it, else who failed how.
fn of_all(failures: Vec<(&Place, AskError)>) -> Refusal {
    let words = |(place, error): &(&Place, AskError)| format!("{}: {error}", place.pod);
    let told: Vec<_> = failures.iter().take(3).map(words).collect();
    match failures.into_iter().next_back() {
        Some((_, AskError::Refused { status, reason, message })) => {
            Refusal::Sidecar { status, reason, message }
        }
        _ => Refusal::NoSidecarAnswered(told.join("; ")),
    }
}

async fn exchange(key: &AdminKey, question: &Question, place: &Place) -> Result<Value, AskError> {
    let admin = place.admin.ok_or(AskError::NoAddress)?;
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(admin))
        .await
        .map_err(|_| AskError::NoConnection)?
        .map_err(AskError::Unreachable)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(AskError::Broken)?;
    let request = signed(key, question, place, &admin.to_string());
    let answering = async move {
        let (head, body) = sender.send_request(request).await.map_err(AskError::Broken)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|_| AskError::Cut)?;
        read(head.status, &body.to_bytes())
    };
    // The connection ends with its sender, which goes with the answer.
    let (answer, _) = tokio::join!(answering, connection);
    answer
}

/// The request, signed for this pod, this moment and one use.
fn signed(key: &AdminKey, question: &Question, place: &Place, host: &str) -> Request<Empty<Bytes>> {
    let (method, target) = (question.page.method(), question.target());
    let (timestamp, nonce) = (Timestamp::now().as_second().to_string(), new_nonce());
    let signature = key.sign(&tidings_signature::question::Question {
        pod: &place.pod,
        method: method.as_str(),
        target: &target,
        timestamp: &timestamp,
        nonce: &nonce,
    });
    let request = Request::builder().method(method).uri(target).header(header::HOST, host);
    let request = request.header(SIGNATURE_HEADER, signature).header(TIMESTAMP_HEADER, timestamp);
    // Every part of it is of letters, digits, dashes and dots.
    request.header(NONCE_HEADER, nonce).body(Empty::new()).unwrap_or_default()
}

fn new_nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn read(status: StatusCode, body: &[u8]) -> Result<Value, AskError> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|_| AskError::Unreadable);
    }
    match serde_json::from_slice(body) {
        Ok(Said { reason, message }) => Err(AskError::Refused { status, reason, message }),
        Err(_) => Err(AskError::Unreadable),
    }
}

// === impl AskError ===

impl AskError {
    /// Whether the question may have reached the sidecar.
    fn may_have_been_heard(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Broken(_) | Self::Cut)
    }
}
