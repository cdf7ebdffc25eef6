//! The operator's own surface: `/livez`, `/readyz` with reasons, `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What is wrong now, by place. Told once when it begins, and once when it is over.
#[derive(Debug, Clone, Default)]
pub struct Problems(Arc<Mutex<BTreeMap<String, String>>>);

/// What the surface shows.
#[derive(Debug, Clone)]
pub struct Surface {
    problems: Problems,
    waiting: Arc<Mutex<Vec<String>>>,
    metrics: Metrics,
}

// === impl Problems ===

impl Problems {
    /// Something is wrong at this place.
    pub fn tell(&self, place: &str, problem: &str) {
        let before = self.lock().insert(place.to_owned(), problem.to_owned());
        if before.as_deref() != Some(problem) {
            tracing::warn!(place, problem, "it is tried again");
        }
    }

    /// Nothing is wrong there any more.
    pub fn solved(&self, place: &str) {
        if self.lock().remove(place).is_some() {
            tracing::info!(place, "it works again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Surface ===

impl Surface {
    /// A surface.
    pub fn new(problems: Problems, metrics: Metrics) -> Self {
        Self { problems, waiting: Arc::new(Mutex::new(vec!["starting".to_owned()])), metrics }
    }

    /// What the model still waits for; empty: it is complete.
    pub fn waits_for(&self, what: Vec<String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Serves until it is dropped.
    pub async fn serve(self, listener: TcpListener) {
        loop {
            // Out of file descriptors: the next one may find some.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let surface = self.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let answer = surface.answer(&request);
                    async { Ok::<_, std::convert::Infallible>(answer) }
                });
                // Its errors are the client's.
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(std::time::Duration::from_secs(10))
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.ready(),
            "/metrics" => match self.metrics.encode() {
                Ok(body) => text(StatusCode::OK, body),
                Err(_) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded\n".to_owned())
                }
            },
            _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
        }
    }

    /// Ready once everything was listed. What is wrong later is told, and keeps nobody from being ready:
    /// a restart would not mend it.
    fn ready(&self) -> Response<Full<Bytes>> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let problems = self
            .problems
            .lock()
            .iter()
            .map(|(place, problem)| format!("{place}: {problem}"))
            .collect::<Vec<_>>();
        let status = if waiting.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let lines =
            waiting.iter().map(|what| format!("waiting for {what}")).chain(problems).collect::<Vec<_>>();
        text(status, if lines.is_empty() { "ok\n".to_owned() } else { lines.join("\n") + "\n" })
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
