//! A sender on a raw socket: the very bytes, one after another on one connection.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::capture::Capture;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, in lower case.
    pub head: String,
    /// Its body.
    pub body: String,
}

// === impl Client ===

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends a captured request, and reads the answer.
    pub async fn send(&mut self, capture: &Capture) -> Answer {
        self.write(&capture.bytes()).await.unwrap();
        self.read().await.expect("an answer")
    }

    /// Posts a body as an event.
    pub async fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Option<Answer> {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
        self.write(&[head.as_bytes(), body].concat()).await.ok()?;
        self.read().await
    }

    /// Gets a page.
    pub async fn get(&mut self, path: &str) -> Option<Answer> {
        self.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.ok()?;
        self.read().await
    }

    /// Reads one answer; `None` when the connection ends before it is whole.
    pub async fn read(&mut self) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let head = head.to_ascii_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        // RFC 9110, section 8.6: an answer 204 has no length, since it has no body.
        let length = if status == 204 { 0 } else { length?.trim().parse().ok()? };
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// Gets a page over a connection of its own; `None` when nobody answers.
pub async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    Client { stream: BufReader::new(stream) }.get(path).await
}

/// Gets a JSON page.
pub async fn get_json(address: SocketAddr, path: &str) -> serde_json::Value {
    let answer = get(address, path).await.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}
