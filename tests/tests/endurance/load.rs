//! Numbered events over two connections, at a rate that one machine bears for half an hour, to whichever process
//! is there.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings_signature::SigningKey;
use tidings_tests::capture;
use tidings_tests::client::Client;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How many connections send.
const SENDERS: u64 = 2;

/// How long a sender waits behind an answer: some 100 events/s in all.
const PACE: Duration = Duration::from_millis(20);

/// How many ordering keys there are.
pub(crate) const KEYS: u64 = 8;

pub(crate) struct Load {
    acknowledged: Arc<Mutex<HashSet<u64>>>,
    address: watch::Sender<Option<SocketAddr>>,
    stop: watch::Sender<bool>,
    senders: Vec<JoinHandle<()>>,
}

// === impl Load ===

impl Load {
    pub(crate) fn start() -> Self {
        let (acknowledged, address, stop) =
            (Arc::default(), watch::Sender::new(None), watch::Sender::new(false));
        let senders = (0..SENDERS).map(|first| {
            tokio::spawn(send(first, Arc::clone(&acknowledged), address.subscribe(), stop.subscribe()))
        });
        let senders = senders.collect();
        Self { acknowledged, address, stop, senders }
    }

    pub(crate) fn send_to(&self, address: Option<SocketAddr>) {
        self.address.send_replace(address);
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    pub(crate) async fn stop(self) -> HashSet<u64> {
        self.stop.send_replace(true);
        for sender in self.senders {
            sender.await.unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

async fn send(
    first: u64,
    acknowledged: Arc<Mutex<HashSet<u64>>>,
    mut address: watch::Receiver<Option<SocketAddr>>,
    stop: watch::Receiver<bool>,
) {
    let key = SigningKey::new(&capture::signing_key()).unwrap();
    let mut number = first;
    while !*stop.borrow() {
        let to = *address.borrow_and_update();
        let connected = match to {
            Some(to) => TcpStream::connect(to).await.ok().zip(Some(to)),
            None => None,
        };
        let Some((probe, to)) = connected else {
            let _ = tokio::time::timeout(PACE, address.changed()).await;
            continue;
        };
        drop(probe);
        // Whoever is killed in between ends this connection's task, not the test.
        let Ok(mut client) = tokio::spawn(Client::connect(to)).await else { continue };
        while !*stop.borrow() && *address.borrow() == Some(to) {
            number += SENDERS;
            let body = event(number);
            let headers = format!("logto-signature-sha-256: {}\r\n", key.logto_signature(body.as_bytes()));
            match client.post("/events", &headers, body.as_bytes()).await {
                Some(answer) if answer.status == 200 => drop(acknowledged.lock().unwrap().insert(number)),
                Some(_) => {}
                // Killed: this one was not answered, and nothing is claimed of it.
                None => break,
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

fn event(number: u64) -> String {
    let key = number % KEYS;
    format!(r#"{{"event":"User.Data.Updated","createdAt":"t{number}","userId":"u{key}","number":{number}}}"#)
}
