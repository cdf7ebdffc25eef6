//! HTTP with one sidecar's admin port: over a TCP connection, or over a forwarded port.
//!
//! A connection is kept and used again, since `deliveries --watch` asks each second and forwarding a port
//! is dear. Every wait has an end, and an answer has a size.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::connect::{Ask, Failure};

/// The admin port of a sidecar in a pod.
pub(super) const ADMIN_PORT: u16 = 8788;

/// How long it may take to reach a sidecar.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a page may take.
pub(super) const PAGE: Duration = Duration::from_secs(10);

/// The most bytes of an answer: a thousand dead letters are a quarter of a megabyte.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Where an admin surface is: `http://HOST:PORT`, with a path before its pages where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminUrl {
    host: String,
    port: u16,
    prefix: String,
}

/// One sidecar.
pub(super) struct Sidecar {
    /// By which its user knows it: the pod's name, or the address.
    pub(super) name: String,
    way: Way,
    connection: Mutex<Option<SendRequest<Empty<Bytes>>>>,
}

enum Way {
    Address(AdminUrl),
    Pod { pods: Box<Api<Pod>>, namespace: String },
}

/// Why a sidecar did not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SidecarFailure {
    #[error("{0}")]
    Cluster(#[from] Failure),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("{message}")]
    Refused { reason: String, message: String },
    #[error("its answer cannot be read: {0}; is this the admin port of a sidecar?")]
    Unreadable(String),
}

/// How the admin surface refuses.
#[derive(Debug, Deserialize)]
struct Refusal {
    reason: String,
    message: String,
}

// === impl AdminUrl ===

impl AdminUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refused =
            || format!("{text:?} is no admin address: write http://HOST:PORT, as in http://127.0.0.1:8788");
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| refused())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refused)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(refused());
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(ADMIN_PORT),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    fn authority(&self) -> String {
        let Self { host, port, prefix: _ } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.authority(), self.prefix)
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// The sidecar behind an address.
    pub(super) fn at(address: AdminUrl) -> Self {
        Self { name: address.to_string(), way: Way::Address(address), connection: Mutex::default() }
    }

    /// The sidecar in a pod, whose admin port is forwarded.
    pub(super) fn in_pod(pods: Api<Pod>, namespace: &str, pod: &str) -> Self {
        let way = Way::Pod { pods: Box::new(pods), namespace: namespace.to_owned() };
        Self { name: pod.to_owned(), way, connection: Mutex::default() }
    }

    /// Gets a page.
    pub(super) async fn get<T: DeserializeOwned>(&self, page: &str) -> Result<T, SidecarFailure> {
        self.ask(Method::GET, page, PAGE).await
    }

    /// Asks for an action; `patience` is how long it may take.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        page: &str,
        patience: Duration,
    ) -> Result<T, SidecarFailure> {
        self.ask(Method::POST, page, patience).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        page: &str,
        patience: Duration,
    ) -> Result<T, SidecarFailure> {
        let mut connection = self.connection.lock().await;
        let mut sender = match connection.take() {
            Some(kept) if kept.is_ready() => kept,
            _ => tokio::time::timeout(CONNECT, self.connect())
                .await
                .map_err(|_| SidecarFailure::Timeout(CONNECT))??,
        };
        let request = self.request(method, page)?;
        let (status, body) = tokio::time::timeout(patience, exchange(&mut sender, request))
            .await
            .map_err(|_| SidecarFailure::Timeout(patience))??;
        if sender.ready().await.is_ok() {
            *connection = Some(sender);
        }
        read(status, &body)
    }

    fn request(&self, method: Method, page: &str) -> Result<Request<Empty<Bytes>>, SidecarFailure> {
        let (host, prefix) = match &self.way {
            Way::Address(url) => (url.authority(), url.prefix.as_str()),
            Way::Pod { .. } => (format!("localhost:{ADMIN_PORT}"), ""),
        };
        Request::builder()
            .method(method)
            .uri(format!("{prefix}{page}"))
            .header(header::HOST, host)
            .body(Empty::new())
            .map_err(|error| SidecarFailure::Unreachable(error.to_string()))
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, SidecarFailure> {
        match &self.way {
            Way::Address(AdminUrl { host, port, prefix: _ }) => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| SidecarFailure::Unreachable(error.to_string()))?;
                speak(stream).await
            }
            Way::Pod { pods, namespace } => {
                let ask =
                    || Ask::new("get and create", "", "pods/portforward").within(namespace).of(&self.name);
                let mut forwarded =
                    pods.portforward(&self.name, &[ADMIN_PORT]).await.map_err(|error| ask().failed(error))?;
                let stream = forwarded
                    .take_stream(ADMIN_PORT)
                    .ok_or_else(|| SidecarFailure::Unreachable("the port is not forwarded".to_owned()))?;
                if let Some(error) = forwarded.take_error(ADMIN_PORT) {
                    let name = self.name.clone();
                    tokio::spawn(async move {
                        if let Some(message) = error.await {
                            tracing::warn!(pod = name, message, "the forwarded port broke");
                        }
                    });
                }
                speak(stream).await
            }
        }
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<Empty<Bytes>>, SidecarFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| SidecarFailure::Unreachable(error.to_string());
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Its errors are seen by whoever waits for an answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), SidecarFailure> {
    let broken = |error: hyper::Error| SidecarFailure::Unreachable(error.to_string());
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| SidecarFailure::Unreadable(error.to_string()))?;
    Ok((head.status, body.to_bytes()))
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, SidecarFailure> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|error| SidecarFailure::Unreadable(error.to_string()));
    }
    match serde_json::from_slice(body) {
        Ok(Refusal { reason, message }) => Err(SidecarFailure::Refused { reason, message }),
        Err(_) => Err(SidecarFailure::Unreadable(format!("it answered {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_plain_http_with_8788_where_no_port_is_written() {
        let cases = [
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://localhost/", "localhost:8788"),
            ("http://[::1]:9000", "[::1]:9000"),
            (
                "http://127.0.0.1:8001/api/v1/namespaces/auth/pods/logto-0:8788/proxy/",
                "127.0.0.1:8001/api/v1/namespaces/auth/pods/logto-0:8788/proxy",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(AdminUrl::parse(text).unwrap().to_string(), expected);
        }
        for text in ["https://127.0.0.1", "", "http://", "http://x/?a=b", "http://a b"] {
            assert!(AdminUrl::parse(text).unwrap_err().contains("write http://HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_sidecars_own_words() {
        let refused: Result<(), _> =
            read(StatusCode::NOT_FOUND, br#"{"reason":"UnknownWebhook","message":"no Webhook shop/mail"}"#);
        assert_eq!(refused.unwrap_err().to_string(), "no Webhook shop/mail");
        let other: Result<(), _> = read(StatusCode::NOT_FOUND, b"404 page not found");
        assert!(other.unwrap_err().to_string().contains("is this the admin port of a sidecar?"));
    }
}
