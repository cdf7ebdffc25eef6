//! A service of the demo: takes deliveries, verifies them with the official library, and tells.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tidings_sidecar::serve::{Limits, serve};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use crate::demo::delivery::Delivery;

/// A service at work.
#[derive(Clone)]
pub(super) struct Service {
    name: &'static str,
    key: &'static str,
    port: u16,
    fails: Arc<AtomicBool>,
    told: UnboundedSender<Took>,
    /// It serves as long as this is there.
    stop: watch::Sender<bool>,
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
        let service = Self { name, key, port, fails: Arc::default(), told, stop: watch::Sender::new(false) };
        let (answering, stop) = (service.clone(), service.stop.subscribe());
        tokio::spawn(serve(listener, Limits::ADMIN, stop, move |request| {
            let service = answering.clone();
            async move { service.answer(request).await }
        }));
        Ok(service)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Answers 503 from now on, or 200 again.
    pub(super) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let mut response = Response::new(Full::default());
        // A body that breaks off is no delivery, and nobody waits for its answer.
        let Ok(body) = body.collect().await else { return response };
        let Delivery { verified, event, webhook_id: id, .. } =
            Delivery::read(self.key, &head.headers, &body.to_bytes());
        let status = match (verified, self.fails.load(Ordering::Relaxed)) {
            (false, _) => StatusCode::UNAUTHORIZED,
            (true, true) => StatusCode::SERVICE_UNAVAILABLE,
            (true, false) => StatusCode::OK,
        };
        // Without the tour nobody listens any more.
        let _ = self.told.send(Took { service: self.name, event, verified, status: status.as_u16(), id });
        *response.status_mut() = status;
        response
    }
}
