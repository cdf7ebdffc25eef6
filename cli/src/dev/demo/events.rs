//! The demo's auth server: sends what a real Logto sent, with the time of now.

use std::net::SocketAddr;

use tidings_signature::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The key of the demo's hook, as in its manifests.
const HOOK_KEY: &str = "demo-key-of-the-hook-in-logto";

macro_rules! captured {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/logto/", $name, ".body"))
    };
}

const SIGN_IN: &str = captured!("31-PostSignIn");

/// What the trickle is made of.
const VARIED: [&str; 6] = [
    captured!("30-PostRegister"),
    captured!("29-User.Created"),
    captured!("02-User.Data.Updated"),
    SIGN_IN,
    captured!("14-Organization.Created"),
    captured!("16-Organization.Membership.Updated"),
];

/// Sends events to an address.
pub(super) struct AuthServer {
    events: SocketAddr,
}

// === impl AuthServer ===

impl AuthServer {
    pub(super) fn new(events: SocketAddr) -> Self {
        Self { events }
    }

    /// The picture's event.
    pub(super) async fn send_sign_in(&self) -> Result<(), String> {
        self.send(SIGN_IN).await
    }

    /// One event of the trickle.
    pub(super) async fn send_next(&self, number: usize) -> Result<(), String> {
        self.send(VARIED[number % VARIED.len()]).await
    }

    async fn send(&self, body: &str) -> Result<(), String> {
        let body = with_time_of_now(body);
        let signature =
            SigningKey::new(HOOK_KEY).map_err(|error| error.to_string())?.logto_signature(body.as_bytes());
        let request = format!(
            "POST /events HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             logto-signature-sha-256: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
            self.events,
            body.len()
        );
        let answer = exchange(self.events, request.as_bytes()).await.map_err(|error| error.to_string())?;
        let status = answer.lines().next().unwrap_or_default().to_owned();
        if status.contains(" 200 ") { Ok(()) } else { Err(format!("the event was refused: {status}")) }
    }
}

async fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// An event that is sent again is known by its body; a new one has a time of its own.
fn with_time_of_now(body: &str) -> String {
    const FIELD: &str = "\"createdAt\":\"";
    let Some(start) = body.find(FIELD).map(|at| at + FIELD.len()) else { return body.to_owned() };
    let Some(end) = body[start..].find('"').map(|length| start + length) else { return body.to_owned() };
    format!("{}{:.3}{}", &body[..start], jiff::Timestamp::now(), &body[end..])
}
