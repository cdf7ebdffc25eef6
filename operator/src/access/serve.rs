//! The HTTPS server of the API: a certificate of its own, and clients that cannot hold it up.
//!
//! The API server's proxy does not verify the certificate of a Service, so one that is made at start serves; it keeps
//! tokens from whoever reads along in the pod network. In: a listener. Out: requests, their heads whole and bounded; a
//! body is never read.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::Access;

/// Connections at once; more wait in the system's queue.
const CONNECTIONS: usize = 256;

/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// From the wait for a request to its head's last byte: what rests longer is closed.
const HEAD: Duration = Duration::from_secs(10);

/// The most bytes of a head: a token is some kilobytes.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// How long is waited after the system could not give a connection, as when it has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No certificate could be made.
    #[error("the certificate of the API cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS cannot be set up.
    #[error("TLS of the API cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A server.
pub(super) struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
}

// === impl Server ===

impl Server {
    pub(super) fn new(listener: TcpListener) -> Result<Self, ServeError> {
        Ok(Self { listener, tls: TlsAcceptor::from(Arc::new(config()?)) })
    }

    /// Serves until it is dropped.
    pub(super) async fn run(self, access: Arc<Access>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        // Dropped with the server, and with it every connection.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (tls, access) = (self.tls.clone(), Arc::clone(&access));
            connections.spawn(async move {
                connection(tls, stream, access).await;
                drop(slot);
            });
        }
    }
}

/// One connection, to its end. Its errors are the client's.
async fn connection(tls: TlsAcceptor, stream: TcpStream, access: Arc<Access>) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        let access = Arc::clone(&access);
        async move { Ok::<_, std::convert::Infallible>(access.answer(&request).await) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn config() -> Result<ServerConfig, ServeError> {
    let made = rcgen::generate_simple_self_signed(vec!["tidings-operator".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    Ok(config)
}
