//! An HTTP/1.1 server that a slow or hostile client cannot hold up.
//!
//! In: a listener and a function that answers requests. A request's head must arrive in
//! [`Limits::head`] from its first byte on; the body's deadline is the answering function's. Between
//! requests a connection may rest for [`Limits::idle`], one from outside of the pod for
//! [`Limits::stranger_idle`]. With all places taken, a newcomer gets that of one that does nothing ([`crowd`]).
//!
//! # The end
//! An auth server that sends into a connection which is just being closed has lost that event: it sends
//! once. So at the end no new connection is taken, each answer says `connection: close`, and a
//! connection that rests is closed only after [`Limits::quiet`], by when its sender has let go of it.

mod crowd;
mod watched;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::descriptors;
use crowd::Crowd;
use watched::{ANSWERING, Phase, RESTING, Watched};

/// How often a connection's deadlines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long is waited after the system could not give a connection, as when it has no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often that is logged at the most.
const LOG_EVERY: Duration = Duration::from_secs(10);

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
    /// The same for one that does not come over loopback.
    pub stranger_idle: Duration,
    /// How long a connection must have rested before it is closed at the end, or for a newcomer.
    pub quiet: Duration,
    /// At the end, how long requests under way are waited for.
    pub drain: Duration,
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
        stranger_idle: Duration::from_mins(2),
        quiet: Duration::from_secs(5),
        drain: Duration::from_secs(40),
    };

    /// For the admin port. A kubelet opens a connection for each probe, and Prometheus another one when its
    /// last one was closed.
    pub const ADMIN: Self = Self {
        connections: 64,
        stranger_idle: Duration::from_secs(5),
        quiet: Duration::ZERO,
        drain: Duration::from_secs(2),
        ..Self::EVENTS
    };

    /// The same with no more connections than that many sixteenths of the limit of open files.
    #[must_use]
    pub(crate) fn within_sixteenths(self, part: usize) -> Self {
        Self { connections: descriptors::sixteenths(part, self.connections), ..self }
    }
}

/// Serves until `stop` says so, and then ends in order.
pub async fn serve<A, F>(listener: TcpListener, limits: Limits, stop: watch::Receiver<bool>, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut stopped = stop.clone();
    let (crowd, mut trouble) = (Crowd::new(limits), Trouble::default());
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = told(&mut stopped) => break,
            // Forgets those that ended.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    trouble.pause(&error).await;
                    continue;
                }
            },
        };
        let place = tokio::select! {
            biased;
            () = told(&mut stopped) => break,
            place = crowd.place() => place,
        };
        let phase = Arc::new(Phase::new(Peer(peer).is_local()));
        crowd.joins(&phase);
        let serving = connection(stream, peer, phase, limits, stop.clone(), answer.clone());
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What is left after that is cut off: its requests were not answered.
    let _ = tokio::time::timeout(limits.drain, ended).await;
}

/// When the system last gave no connection.
#[derive(Debug, Default)]
struct Trouble(Option<Instant>);

impl Trouble {
    /// Waits: what is wrong, as a lack of descriptors, is so for a while.
    async fn pause(&mut self, error: &std::io::Error) {
        if self.0.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.0 = Some(Instant::now());
            tracing::warn!(%error, "a connection could not be taken; it is tried again");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Resolves when it is time to end; also when nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<A, F>(
    stream: TcpStream,
    peer: SocketAddr,
    phase: Arc<Phase>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
    answer: A,
) where
    A: Fn(Request<Incoming>) -> F + Send,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    // Each answer is small, and a sender waits for it.
    let _ = stream.set_nodelay(true);
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
            // A request may have come since it was asked to go.
            () = phase.needed.notified() => if phase.may_go(&limits).is_some() {
                return;
            },
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
