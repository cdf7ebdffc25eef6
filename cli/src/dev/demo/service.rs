//! A service of the demo: takes deliveries, verifies them with the official library, and tells.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;

/// A service at work.
#[derive(Clone)]
pub(super) struct Service {
    name: &'static str,
    key: &'static str,
    port: u16,
    fails: Arc<AtomicBool>,
    told: UnboundedSender<Took>,
}

/// One delivery that a service took, or refused.
#[derive(Debug)]
pub(super) struct Took {
    pub(super) service: &'static str,
    pub(super) event: String,
    pub(super) verified: bool,
    status: u16,
    id: String,
}

// === impl Took ===

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, event, verified, status, id } = self;
        let id = id.get(..12).unwrap_or(id);
        match (verified, status) {
            (true, 200) => write!(f, "   {service:<13} verified {event} ({id}...)"),
            (true, _) => write!(f, "   {service:<13} answered {status} to {event} ({id}...)"),
            (false, _) => write!(f, "   {service:<13} refused {event}: the signature is wrong"),
        }
    }
}

// === impl Service ===

impl Service {
    pub(super) async fn start(
        name: &'static str,
        key: &'static str,
        told: UnboundedSender<Took>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let service = Self { name, key, port, fails: Arc::default(), told };
        tokio::spawn(service.clone().serve(listener));
        Ok(service)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Answers 503 from now on, or 200 again.
    pub(super) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let service = self.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request| service.answer(request));
                // Its errors are the client's, which goes away at the end.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let verified =
            Webhook::new(self.key).is_ok_and(|webhook| webhook.verify(&body, &head.headers).is_ok());
        let status = match (verified, self.fails.load(Ordering::Relaxed)) {
            (false, _) => 401,
            (true, true) => 503,
            (true, false) => 200,
        };
        let event = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let event = event["event"].as_str().unwrap_or("?").to_owned();
        let id =
            head.headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        // Without the tour nobody listens any more.
        let _ = self.told.send(Took { service: self.name, event, verified, status, id });
        let mut response = Response::new(Full::default());
        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
        Ok(response)
    }
}
