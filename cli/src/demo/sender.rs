//! Sends events as Logto does: one POST over a connection that is kept, ten seconds of patience, and never
//! the same again.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tidings_signature::SigningKey;

/// Logto waits so long for an answer's head.
const PATIENCE: Duration = Duration::from_secs(10);

/// Logto lets go of a connection that rested so long.
const IDLE: Duration = Duration::from_secs(4);

/// More than that of an answer is not read.
const ANSWER_BYTES: usize = 16 << 10;

/// Sends to one address.
#[derive(Clone)]
pub(crate) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    events: Uri,
    key: Option<SigningKey>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

// === impl Sender ===

impl Sender {
    /// With a key, each event is signed.
    pub(crate) fn new(events: Uri, key: Option<SigningKey>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .build_http();
        Self { client, events, key }
    }

    /// Sends a body; an error is that nothing was answered.
    pub(crate) async fn send(&self, body: String) -> Result<Answer, String> {
        let answer = self.client.request(self.request(body)?);
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.map_err(|_| format!("no answer within {PATIENCE:?}"))?;
        let (head, body) = answer.map_err(|error| plainly(&error))?.into_parts();
        let body = tokio::time::timeout(PATIENCE, Limited::new(body, ANSWER_BYTES).collect()).await;
        let body =
            body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok(Answer { status: head.status, body: String::from_utf8_lossy(&body).trim().to_owned() })
    }

    fn request(&self, body: String) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.events)
            .header(header::USER_AGENT, "Logto (https://logto.io/)")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header("logto-signature-sha-256", key.logto_signature(body.as_bytes()));
        }
        request.body(Full::from(body)).map_err(|error| error.to_string())
    }
}

/// The innermost cause is what a person can act upon: "Connection refused".
fn plainly(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// Reads a URL of the events port.
pub(crate) fn events_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{text:?} is no URL: {error}"))?;
    if uri.scheme_str() == Some("http") && uri.host().is_some() {
        return Ok(uri);
    }
    Err(format!("{text:?}: write it as http://127.0.0.1:8787/events"))
}
