//! The load generator: reqwest over kept connections, as an auth server's own client would be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidings_signature::SigningKey;

/// The key that signs what goes in.
pub const INGEST_KEY: &str = "bench-ingest-key-of-enough-bytes";

/// The size of a body, in bytes.
const BODY_BYTES: usize = 1024;

/// The event's name, where no other one is asked for.
const EVENT: &str = "User.Data.Updated";

/// The body of the n-th event; its number stands at a fixed place.
fn body(number: usize, event: &str) -> Bytes {
    let mut body = format!(r#"{{"number":"{number:012}","event":"{event}","createdAt":"t{number}","fill":""#)
        .into_bytes();
    body.resize(BODY_BYTES - 2, b'x');
    body.extend_from_slice(b"\"}");
    body.into()
}

/// The number of an event's body.
pub fn number(body: &[u8]) -> Option<usize> {
    std::str::from_utf8(body.get(11..23)?).ok()?.parse().ok()
}

/// Sends events.
#[derive(Clone)]
pub struct Load {
    client: reqwest::Client,
    key: Arc<SigningKey>,
    url: String,
    events: Arc<[String]>,
    next: Arc<AtomicUsize>,
}

// === impl Load ===

impl Load {
    /// To an address.
    pub fn to(address: SocketAddr) -> Self {
        Self::of(address, [EVENT.to_owned()].into())
    }

    /// To an address, with events of these names in turn.
    pub fn of(address: SocketAddr, events: Arc<[String]>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().http1_only().build().expect("a client");
        let key = Arc::new(SigningKey::new(INGEST_KEY).expect("a key"));
        Self { client, key, url: format!("http://{address}/events"), events, next: Arc::default() }
    }

    /// Sends the next event, and waits for the answer; false when it is not 2xx.
    pub async fn send(&self) -> bool {
        self.send_numbered(self.next.fetch_add(1, Ordering::Relaxed)).await
    }

    /// Sends one event.
    pub async fn send_numbered(&self, number: usize) -> bool {
        let body = body(number, &self.events[number % self.events.len()]);
        let signature = self.key.logto_signature(&body);
        let request = self.client.post(&self.url).header("logto-signature-sha-256", signature);
        let answer = request.header("content-type", "application/json").body(body).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Sends this many events over so many connections, as fast as they are answered; how long it took.
    pub async fn flood(&self, events: usize, connections: usize) -> Duration {
        let began = Instant::now();
        let last = self.next.load(Ordering::Relaxed) + events;
        let senders: Vec<_> = (0..connections)
            .map(|_| {
                let load = self.clone();
                tokio::spawn(async move {
                    while load.next.load(Ordering::Relaxed) < last {
                        assert!(load.send().await, "an event was refused");
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.expect("a sender ends");
        }
        began.elapsed()
    }

    /// Sends this many events in a second for so long, whatever the answers take; when each was sent.
    pub async fn pace(&self, per_second: u32, seconds: u32) -> Vec<Instant> {
        let first = self.next.load(Ordering::Relaxed);
        let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
        let (mut sent, mut sending) = (Vec::new(), Vec::new());
        for at in 0..usize::try_from(per_second * seconds).expect("a count") {
            tick.tick().await;
            let load = self.clone();
            sent.push(Instant::now());
            sending.push(tokio::spawn(async move { load.send_numbered(first + at).await }));
        }
        for one in sending {
            assert!(one.await.expect("a sender ends"), "an event was refused");
        }
        self.next.fetch_add(sent.len(), Ordering::Relaxed);
        sent
    }
}
