//! One attempt: a signed request to an endpoint, and what came of it.
//!
//! ```text
//! Endpoint -> judge URL -> EndpointClient; Envelope -> pool, or [resolve, judge each address] -> connect -> TLS
//!   -> send -> wait -> read 16 KiB -> Attempt
//! ```
//!
//! The address that was judged is the address that is dialled: names are resolved by [`resolve`] alone,
//! which hands out only what the policy lets pass. The client follows no redirect and knows no proxy. One
//! deadline spans everything. A connection is used again where it can be ([`pool`]).
//!
//! An endpoint decides what it answers, so what an answer may take is bounded: [`MAX_HEAD_BYTES`] of a head,
//! [`MAX_ANSWER_BYTES`] of a body, and a connection of which more is to come is closed.
//!
//! It must never put a URL's query, a header's value or any of the answer's body into a message.

mod failure;
mod lookup;
mod pool;
mod resolve;
mod tls;
mod trace;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tidings_egress::{Blocked, Egress};
use tidings_plan::{Endpoint, Tls, dns, header as reserved};
use tower_service::Service as _;
use url::Url;

use crate::descriptors;
use crate::envelope::Envelope;
use pool::{Place, Pool, Sender};
use resolve::JudgingResolver;
use trace::{Opened, Secured, TRACE, Trace};

pub use failure::FailureReason;
pub use trace::Phase;

/// How much of an answer is read, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// How much of an answer's head is read, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// How many connections rest at once at the most, over all endpoints.
const MOST_RESTING: usize = 1024;

/// How long a connection may take to be ready for the next request once an answer was read.
const READY_AGAIN: Duration = Duration::from_millis(100);

/// Connects under one policy.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    egress: Arc<Egress>,
    pool: Arc<Pool>,
    connectors: Mutex<HashMap<ConnectorKey, Weak<Connector>>>,
    next_connector: AtomicU64,
}

/// Endpoints that agree in this share one connector, and of one host the connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ConnectorKey {
    in_cluster: bool,
    addresses: Option<Arc<[IpAddr]>>,
    https: bool,
    tls: Tls,
}

/// Opens connections under one set of TLS settings.
struct Connector {
    number: u64,
    layers: Secured<HttpsConnector<Opened<HttpConnector<JudgingResolver>>>>,
}

/// The way to one endpoint.
pub struct EndpointClient {
    namespace: Arc<str>,
    pool: Arc<Pool>,
    place: Arc<Place>,
    connector: Arc<Connector>,
    uri: Uri,
    headers: HeaderMap,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no way to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL is none.
    #[error("the URL is not valid: {0}")]
    Url(#[from] url::ParseError),
    /// The plan has a Service of the Webhook's namespace where the URL names another host.
    #[error(
        "the endpoint is not a Service of namespace {namespace}: write the Service's name alone in serviceRef.name, and upgrade the operator, which should have refused it"
    )]
    NotAService {
        /// The Webhook's namespace.
        namespace: String,
    },
    /// The policy forbids it.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// A header cannot be sent.
    #[error("the header {name:?} has a name or a value that HTTP does not allow")]
    Header {
        /// Its name.
        name: String,
    },
    /// A header is not the user's to set.
    #[error("the header {name:?} is written by Tidings or by HTTP itself: remove it from endpoint.headers")]
    ReservedHeader {
        /// Its name.
        name: String,
    },
    /// The TLS material cannot be used.
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
    /// The URL is one, and cannot be sent in a request.
    #[error("the URL cannot be sent in a request: {0}")]
    Uri(#[from] http::uri::InvalidUri),
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// How long it might have taken.
    pub deadline: Duration,
    /// Whether it went over a connection that was open before; `None` where it did not come so far.
    pub reused_connection: Option<bool>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer.
    Status {
        /// Its status.
        code: u16,
        /// Its `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No answer, or none that could be read.
    Failed {
        /// How far it came.
        phase: Phase,
        /// Why.
        reason: FailureReason,
        /// A sentence for a person.
        message: String,
    },
}

// === impl Dialer ===

impl Dialer {
    /// A dialer under this policy.
    pub fn new(egress: Egress) -> Self {
        Self(Arc::new(Inner {
            egress: Arc::new(egress),
            pool: Pool::new(descriptors::sixteenths(3, MOST_RESTING)),
            connectors: Mutex::default(),
            next_connector: AtomicU64::new(0),
        }))
    }

    /// The way to an endpoint of a Webhook of this namespace; checks its URL, and the address where the URL
    /// holds one. What is open to a Service of the namespace alone is open to no other host.
    pub fn client_for(&self, namespace: &str, endpoint: &Endpoint) -> Result<EndpointClient, DialError> {
        let Endpoint { url, in_cluster, addresses, headers, tls } = endpoint;
        let url = Url::parse(url)?;
        if *in_cluster && !url.domain().is_some_and(|host| dns::is_service_of(namespace, host)) {
            return Err(DialError::NotAService { namespace: namespace.to_owned() });
        }
        self.0.egress.judge_url(&url, *in_cluster)?;
        let mut made = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            if reserved::is_reserved(name) {
                return Err(DialError::ReservedHeader { name: name.clone() });
            }
            let refused = || DialError::Header { name: name.clone() };
            let mut value = HeaderValue::try_from(value.reveal()).map_err(|_| refused())?;
            value.set_sensitive(true);
            made.insert(HeaderName::try_from(name).map_err(|_| refused())?, value);
        }
        let uri: Uri = url.as_str().parse()?;
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        if let Ok(host) = HeaderValue::from_str(&authority) {
            made.insert(header::HOST, host);
        }
        let addresses = addresses.as_deref().filter(|_| *in_cluster).map(Arc::from);
        let https = url.scheme() == "https";
        let key = ConnectorKey { in_cluster: *in_cluster, addresses, https, tls: tls.clone() };
        let connector = self.connector(key)?;
        Ok(EndpointClient {
            namespace: namespace.into(),
            pool: Arc::clone(&self.0.pool),
            place: Arc::new(Place { connector: connector.number, authority }),
            connector,
            uri,
            headers: made,
        })
    }

    fn connector(&self, key: ConnectorKey) -> Result<Arc<Connector>, DialError> {
        let mut connectors = self.0.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = connectors.get(&key).and_then(Weak::upgrade) {
            return Ok(connector);
        }
        let connector = Arc::new(self.build(&key)?);
        connectors.retain(|_, connector| connector.strong_count() > 0);
        connectors.insert(key, Arc::downgrade(&connector));
        Ok(connector)
    }

    fn build(&self, key: &ConnectorKey) -> Result<Connector, DialError> {
        let mut tcp = HttpConnector::new_with_resolver(JudgingResolver::new(
            Arc::clone(&self.0.egress),
            key.in_cluster,
            key.addresses.clone(),
        ));
        // The policy has judged the scheme; TLS goes on top of it.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let mut connector =
            HttpsConnectorBuilder::new().with_tls_config(tls::config(&key.tls, key.https)?).https_or_http();
        if let Some(name) = key.tls.server_name.clone() {
            let name = ServerName::try_from(name).map_err(|_| tls::TlsError::ServerName)?;
            connector = connector.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let layers = Secured(connector.enable_http1().wrap_connector(Opened(tcp)));
        Ok(Connector { number: self.0.next_connector.fetch_add(1, Ordering::Relaxed), layers })
    }
}

// === impl EndpointClient ===

impl EndpointClient {
    /// Makes one attempt; `deadline` spans all of it.
    pub async fn send(&self, envelope: Envelope, deadline: Duration) -> Attempt {
        let trace = Arc::new(Trace::new(Arc::clone(&self.namespace)));
        let began = Instant::now();
        let exchange = TRACE.scope(Arc::clone(&trace), self.exchange(envelope));
        let outcome = tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| {
            let phase = trace.phase();
            let message = format!(
                "no answer within {} s; the time ran out while {}",
                deadline.as_secs(),
                phase.doing()
            );
            Outcome::Failed { phase, reason: FailureReason::Timeout, message }
        });
        let (duration, reused_connection) = (began.elapsed(), trace.reused_connection());
        Attempt { outcome, duration, deadline, reused_connection }
    }

    async fn exchange(&self, Envelope { headers, body }: Envelope) -> Outcome {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target();
        *request.headers_mut() = headers;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let (response, mut sender) = match self.request(request).await {
            Ok(answered) => answered,
            Err(error) => return failure::outcome(&*error, now(Phase::Waiting)),
        };
        trace::reached(Phase::Reading);
        let code = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let (mut body, mut read) = (response.into_body(), 0);
        while read < MAX_ANSWER_BYTES {
            match body.frame().await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                None => {
                    if let Ok(Ok(())) = tokio::time::timeout(READY_AGAIN, sender.ready()).await {
                        self.pool.put(&self.place, sender);
                    }
                    break;
                }
                Some(Err(error)) => return failure::outcome(&error, Phase::Reading),
            }
        }
        Outcome::Status { code, retry_after }
    }

    /// The path and query, which is all of the URL that a request line holds (RFC 9112, 3.2.1).
    fn target(&self) -> Uri {
        let target = self.uri.path_and_query().cloned();
        target.map_or_else(|| Uri::from_static("/"), Uri::from)
    }

    /// Sends over a connection that rested, else over a new one. One that its endpoint closed before any of
    /// the request was written gives the request back: that is no failure.
    async fn request(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), BoxError> {
        while let Some(mut sender) = self.pool.take(&self.place) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        Ok((sender.send_request(request).await?, sender))
    }

    async fn connect(&self) -> Result<Sender, BoxError> {
        let connection = self.connector.layers.clone().call(self.uri.clone()).await?;
        let (sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(connection).await?;
        // Its errors are told to the request.
        tokio::spawn(async { drop(connection.await) });
        Ok(sender)
    }
}

impl fmt::Debug for EndpointClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointClient({})", self.uri.host().unwrap_or_default())
    }
}

/// The phase of the attempt under way; at least `least` once a connection is there.
fn now(least: Phase) -> Phase {
    TRACE.try_with(|trace| trace.phase()).unwrap_or(least)
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}
