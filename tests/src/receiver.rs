//! An endpoint: takes requests on a real socket, answers as it is told, and keeps what came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::until;

/// What came.
#[derive(Debug, Clone)]
pub struct Received {
    /// When.
    pub at: Instant,
    /// On which connection, counted from 0.
    pub connection: usize,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// With a status.
    Status(u16),
    /// With a status and a header.
    With(u16, &'static str, String),
    /// With a status, after a while.
    After(Duration, u16),
    /// Not at all.
    Never,
}

type Behaviour = dyn Fn(usize, &Received) -> Reply + Send + Sync;

/// An endpoint at work; it ends with the test's runtime.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
}

// === impl Received ===

impl Received {
    /// A header's text; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

// === impl Receiver ===

impl Receiver {
    /// Takes everything with 200.
    pub async fn start() -> Self {
        Self::answering(|_, _| Reply::Status(200)).await
    }

    /// Answers the n-th request, from 0, as it is told.
    pub async fn answering(behaviour: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            behaviour: Arc::new(Mutex::new(Arc::new(behaviour))),
        };
        tokio::spawn(receiver.clone().serve(listener));
        receiver
    }

    /// Answers differently from now on.
    pub fn now_answering(&self, behaviour: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What came until now.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many came until now.
    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Waits until at least this many requests came.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        until(&format!("{count} requests at the receiver"), async || {
            Some(self.received()).filter(|received| received.len() >= count)
        })
        .await
    }

    async fn serve(self, listener: TcpListener) {
        for connection in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let receiver = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| receiver.answer(connection, request));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(
        &self,
        connection: usize,
        request: Request<Incoming>,
    ) -> hyper::Result<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let received = Received { at: Instant::now(), connection, headers: head.headers, body };
        let nth = {
            let mut all = self.received.lock().unwrap();
            all.push(received.clone());
            all.len() - 1
        };
        let behaviour = Arc::clone(&self.behaviour.lock().unwrap());
        let reply = behaviour(nth, &received);
        let response = |status: u16| Response::builder().status(status);
        let built = match reply {
            Reply::Status(status) => response(status),
            Reply::With(status, name, value) => response(status).header(name, value),
            Reply::After(wait, status) => {
                tokio::time::sleep(wait).await;
                response(status)
            }
            Reply::Never => std::future::pending().await,
        };
        Ok(built.body(Full::default()).unwrap())
    }
}
