//! An HTTP/1.1 server that a slow or hostile client cannot hold up.
//!
//! In: a listener and a function that answers requests. A request's head must arrive in
//! [`Limits::head`] from its first byte on; the body's deadline is the answering function's. Between
//! requests a connection may rest for [`Limits::idle`].
//!
//! # The end
//! An auth server that sends into a connection which is just being closed has lost that event: it sends
//! once. So at the end no new connection is taken, each answer says `connection: close`, and a
//! connection that rests is closed only after [`Limits::quiet`], by when its sender has let go of it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often a connection's deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long is waited after the system could not give a connection, as when it has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who sent a request: an extension of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(SocketAddr);

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// From a head's first byte to its last.
    pub head: Duration,
    /// How long a connection may rest between requests.
    pub idle: Duration,
    /// At the end, how long a connection must have rested before it is closed.
    pub quiet: Duration,
    /// At the end, how long requests under way are waited for.
    pub drain: Duration,
}

const RESTING: u8 = 0;
const READING_HEAD: u8 = 1;
const ANSWERING: u8 = 2;

/// What a connection is doing, and since when.
#[derive(Debug)]
struct Phase {
    now: AtomicU8,
    since_ms: AtomicU64,
    opened: Instant,
}

/// A stream that notes when a request begins.
struct Watched {
    stream: TcpStream,
    phase: Arc<Phase>,
}

// === impl Peer ===

impl Peer {
    /// Whether it is in the same network namespace, which in Kubernetes is the pod; so `kubectl port-forward` is.
    pub(crate) fn is_local(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

// === impl Limits ===

impl Limits {
    /// For the events port. Logto lets go of a connection that rested for 4 s.
    pub const EVENTS: Self = Self {
        connections: 1024,
        head: Duration::from_secs(10),
        idle: Duration::from_mins(2),
        quiet: Duration::from_secs(5),
        drain: Duration::from_secs(40),
    };

    /// For the admin port.
    pub const ADMIN: Self =
        Self { connections: 64, quiet: Duration::ZERO, drain: Duration::from_secs(2), ..Self::EVENTS };
}

// === impl Phase ===

impl Phase {
    fn new() -> Self {
        Self { now: AtomicU8::new(RESTING), since_ms: AtomicU64::new(0), opened: Instant::now() }
    }

    fn enter(&self, phase: u8) {
        self.now.store(phase, Ordering::Relaxed);
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(since, Ordering::Relaxed);
    }

    fn is(&self, phase: u8) -> bool {
        self.now.load(Ordering::Relaxed) == phase
    }

    fn lasts(&self) -> Duration {
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.since_ms.load(Ordering::Relaxed)))
    }

    /// Whether the connection has used up its time.
    fn is_over(&self, limits: &Limits) -> bool {
        (self.is(READING_HEAD) && self.lasts() > limits.head)
            || (self.is(RESTING) && self.lasts() > limits.idle)
    }
}

// === impl Watched ===

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before && self.phase.is(RESTING) {
            self.phase.enter(READING_HEAD);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Serves until `stop` says so, and then ends in order.
pub async fn serve<A, F>(listener: TcpListener, limits: Limits, stop: watch::Receiver<bool>, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut stopped = stop.clone();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = told(&mut stopped) => break,
            // Forgets those that ended.
            Some(_) = connections.join_next() => {}
            (slot, stream) = accepted => match stream {
                Ok((stream, peer)) => {
                    let serving = connection(stream, peer, limits, stop.clone(), answer.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is left after that is cut off: its requests were not answered.
    let _ = tokio::time::timeout(limits.drain, ended).await;
}

/// Resolves when it is time to end; also when nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<A, F>(
    stream: TcpStream,
    peer: SocketAddr,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    answer: A,
) where
    A: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    // Each answer is small, and a sender waits for it.
    let _ = stream.set_nodelay(true);
    let phase = Arc::new(Phase::new());
    let io = TokioIo::new(Watched { stream, phase: Arc::clone(&phase) });
    let (stopping, of_service) = (stop.clone(), (Arc::clone(&phase), stop.clone()));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (phase, stopping) = of_service.clone();
        phase.enter(ANSWERING);
        request.extensions_mut().insert(Peer(peer));
        let answering = answer(request);
        async move {
            let mut response = answering.await;
            if *stopping.borrow() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            phase.enter(RESTING);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let serving = http1::Builder::new().max_buf_size(64 << 10).serve_connection(io, service);
    let mut serving = std::pin::pin!(serving);
    let mut look = tokio::time::interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            // Its errors are the client's: it went away, or spoke no HTTP.
            _ = serving.as_mut() => return,
            () = told(&mut stop), if limits.quiet.is_zero() => break,
            _ = look.tick() => {
                if phase.is_over(&limits) {
                    return;
                }
                if *stopping.borrow() && phase.is(RESTING) && phase.lasts() >= limits.quiet {
                    break;
                }
            }
        }
    }
    serving.as_mut().graceful_shutdown();
    let _ = serving.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_the_same_pod_is_local_and_the_node_is_not() {
        let local = |address: &str| Peer(address.parse().unwrap()).is_local();
        assert!(local("127.0.0.1:1") && local("[::1]:1") && local("[::ffff:127.0.0.1]:1"));
        assert!(!local("10.85.0.1:1") && !local("[fd00::1]:1") && !local("[::ffff:10.85.0.1]:1"));
    }
}
