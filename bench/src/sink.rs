//! The receiver: hyper, answers 200, and notes when each event came first.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::load;

/// A receiver at work.
#[derive(Clone)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    count: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
    /// One in so many is answered 500; 0: none.
    fails_one_in: Arc<AtomicUsize>,
    times: Arc<Mutex<Vec<(usize, Instant)>>>,
    keeps_times: bool,
}

// === impl Sink ===

impl Sink {
    /// Counts.
    pub async fn start() -> Self {
        Self::with(false).await
    }

    /// Counts, and notes times.
    pub async fn timed() -> Self {
        Self::with(true).await
    }

    async fn with(keeps_times: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let sink = Self {
            address,
            count: Arc::default(),
            hangs: Arc::default(),
            fails_one_in: Arc::default(),
            times: Arc::default(),
            keeps_times,
        };
        tokio::spawn(sink.clone().serve(listener));
        sink
    }

    /// Answers nothing from now on, or again.
    pub fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// Answers one request in so many with 500 from now on.
    pub fn fail_one_in(&self, requests: usize) {
        self.fails_one_in.store(requests, Ordering::Relaxed);
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many came, for as long as some come.
    pub async fn wait_for(&self, count: usize) {
        let (mut seen, mut at) = (0, Instant::now());
        while self.count() < count {
            if self.count() > seen {
                (seen, at) = (self.count(), Instant::now());
            }
            assert!(at.elapsed() < Duration::from_mins(1), "{seen} of {count} came, and no more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What came since the last call: number and time.
    pub fn take_times(&self) -> Vec<(usize, Instant)> {
        std::mem::take(&mut self.times.lock().expect("no panic"))
    }

    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let sink = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| sink.answer(request));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        let body = request.into_body().collect().await?.to_bytes();
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if let (true, Some(number)) = (self.keeps_times, load::number(&body)) {
            self.times.lock().expect("no panic").push((number, Instant::now()));
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Full::default());
        if number.checked_rem(self.fails_one_in.load(Ordering::Relaxed)) == Some(0) {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        Ok(response)
    }
}
