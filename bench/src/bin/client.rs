//! What reqwest costs against hyper-util's client underneath it: the same POSTs to the same receiver, in
//! turns, over 16 connections each.
//!
//! `cargo run --release -p tidings-bench --bin client`. The difference for one request is to be set
//! against the time that one event takes end to end (`--bin e2e rate`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const REQUESTS: usize = 60_000;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;

/// Posts one body, and reads the answer to its end.
trait Post: Clone + Send + Sync + 'static {
    fn post(&self, body: Bytes) -> impl Future<Output = ()> + Send;
}

#[derive(Clone)]
struct Reqwest(reqwest::Client, reqwest::Url);

#[derive(Clone)]
struct Hyper(Client<HttpConnector, Full<Bytes>>, hyper::Uri);

impl Post for Reqwest {
    async fn post(&self, body: Bytes) {
        let mut request = reqwest::Request::new(reqwest::Method::POST, self.1.clone());
        *request.body_mut() = Some(body.into());
        let answer = self.0.execute(request).await.expect("an answer");
        assert!(answer.bytes().await.expect("a body").is_empty());
    }
}

impl Post for Hyper {
    async fn post(&self, body: Bytes) {
        let request = Request::post(self.1.clone()).body(Full::new(body)).expect("a request");
        let answer = self.0.request(request).await.expect("an answer");
        assert!(answer.into_body().collect().await.expect("a body").to_bytes().is_empty());
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let address = receiver().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://{address}/hook");
    let reqwest = reqwest::Client::builder().no_proxy().http1_only().build().expect("a client");
    let reqwest = Reqwest(reqwest, url.parse().expect("a URL"));
    let hyper = Hyper(Client::builder(TokioExecutor::new()).build_http(), url.parse().expect("a URL"));
    let (mut slower, mut faster) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        slower.push(micros(&reqwest).await);
        faster.push(micros(&hyper).await);
    }
    let (reqwest, hyper) = (median(slower), median(faster));
    println!("{:<28} {reqwest:>8.2} us a request", "reqwest");
    println!("{:<28} {hyper:>8.2} us a request", "hyper-util's client");
    println!("{:<28} {:>8.2} us", "reqwest costs more", reqwest - hyper);
}

/// Microseconds a request takes, receiver included.
#[expect(clippy::cast_precision_loss, reason = "a small count")]
async fn micros(client: &impl Post) -> f64 {
    let body = Bytes::from(vec![b'x'; 1024]);
    let left = Arc::new(AtomicUsize::new(REQUESTS));
    let began = Instant::now();
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (client, body, left) = (client.clone(), body.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    client.post(body.clone()).await;
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("a sender ends");
    }
    began.elapsed().as_secs_f64() * 1e6 / REQUESTS as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

async fn receiver() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<hyper::body::Incoming>| async {
                request.into_body().collect().await?;
                Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
            });
            tokio::spawn(async move {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    address
}
