//! How far an attempt came, noted by those who take it there.
//!
//! The client polls its connector within the attempt's own task, so a task-local value reaches the
//! resolver and the connectors without any of them knowing of attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use tower_service::Service;

use crate::words::words;

words! {
    /// How far an attempt came.
    Phase {
        /// Resolving the host's name.
        Dns: "Look at the pod's DNS and the host's name.",
        /// Opening the TCP connection.
        Connect: "Look whether the receiver listens, and at NetworkPolicies and firewalls.",
        /// In the TLS handshake.
        Tls: "Look at the certificate, and whether the port speaks TLS at all.",
        /// Connected: sending the request, or waiting for the answer.
        Waiting: "Look at the receiver: it has the connection and does not answer.",
        /// Reading the answer.
        Reading: "Look at the receiver: it began to answer and did not end.",
    }
}

/// One attempt's trace.
#[derive(Debug)]
pub(super) struct Trace {
    /// Who makes it.
    namespace: Arc<str>,
    phase: AtomicU8,
    connected: AtomicBool,
}

tokio::task_local! {
    /// The trace of the attempt under way.
    pub(super) static TRACE: Arc<Trace>;
}

/// A connector of which the beginning and the end are noted: TCP.
#[derive(Debug, Clone)]
pub(super) struct Opened<S>(pub(super) S);

/// A connector of which the end is noted: TCP, and TLS where the URL asks for it.
#[derive(Debug, Clone)]
pub(super) struct Secured<S>(pub(super) S);

// === impl Phase ===

impl Phase {
    /// What was done, to end a sentence with.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Dns => "resolving the host's name",
            Self::Connect => "opening the connection",
            Self::Tls => "in the TLS handshake",
            Self::Waiting => "waiting for the answer",
            Self::Reading => "reading the answer",
        }
    }
}

// === impl Trace ===

impl Trace {
    /// Until a connection is opened, the attempt waits on one that is there.
    pub(super) fn new(namespace: Arc<str>) -> Self {
        Self { namespace, phase: AtomicU8::new(Phase::Waiting as u8), connected: AtomicBool::new(false) }
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed)).min(Phase::ALL.len() - 1)]
    }

    /// Whether the request went over a connection that was open before.
    pub(super) fn reused_connection(&self) -> Option<bool> {
        let connected = self.connected.load(Ordering::Relaxed);
        let got_there = matches!(self.phase(), Phase::Waiting | Phase::Reading);
        got_there.then_some(!connected)
    }

    fn reach(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// Notes that the attempt under way, if any, came so far.
pub(super) fn reached(phase: Phase) {
    let _ = TRACE.try_with(|trace| trace.reach(phase));
}

/// The namespace of the attempt under way.
pub(super) fn namespace() -> Arc<str> {
    TRACE.try_with(|trace| Arc::clone(&trace.namespace)).unwrap_or_default()
}

// === impl Opened ===

impl<S> Service<Uri> for Opened<S>
where
    S: Service<Uri>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let connecting = self.0.call(uri);
        Box::pin(async move {
            reached(Phase::Connect);
            let connection = connecting.await?;
            reached(if is_https { Phase::Tls } else { Phase::Waiting });
            Ok(connection)
        })
    }
}

// === impl Secured ===

impl<S> Service<Uri> for Secured<S>
where
    S: Service<Uri>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            let connection = connecting.await?;
            let _ = TRACE.try_with(|trace| trace.connected.store(true, Ordering::Relaxed));
            reached(Phase::Waiting);
            Ok(connection)
        })
    }
}
