//! What a connection is doing, and since when, as its stream shows it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Limits;

/// A connection that did something so long ago may be at it yet.
const JUST_NOW: Duration = Duration::from_millis(250);

/// After this time a head that is not complete gives way to a newcomer. Whoever means it sends one at once.
const SLOW_HEAD: Duration = Duration::from_secs(1);

pub(super) const RESTING: u8 = 0;
pub(super) const READING_HEAD: u8 = 1;
pub(super) const ANSWERING: u8 = 2;

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(super) struct Phase {
    now: AtomicU8,
    since_ms: AtomicU64,
    opened: Instant,
    is_local: bool,
    /// Told when a newcomer needs the place.
    pub(super) needed: Notify,
}

/// A stream that notes when a request begins.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    pub(super) phase: Arc<Phase>,
}

// === impl Phase ===

impl Phase {
    pub(super) fn new(is_local: bool) -> Self {
        Self {
            now: AtomicU8::new(RESTING),
            since_ms: AtomicU64::new(0),
            opened: Instant::now(),
            is_local,
            needed: Notify::new(),
        }
    }

    pub(super) fn enter(&self, phase: u8) {
        self.now.store(phase, Ordering::Relaxed);
        let since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(since, Ordering::Relaxed);
    }

    /// Notes that an answer goes out: the rest begins with its end.
    fn goes_on(&self) {
        if self.is(RESTING) {
            self.enter(RESTING);
        }
    }

    pub(super) fn is(&self, phase: u8) -> bool {
        self.now.load(Ordering::Relaxed) == phase
    }

    pub(super) fn lasts(&self) -> Duration {
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.since_ms.load(Ordering::Relaxed)))
    }

    /// Whether the connection has used up its time.
    pub(super) fn is_over(&self, limits: &Limits) -> bool {
        let idle = if self.is_local { limits.idle } else { limits.stranger_idle };
        (self.is(READING_HEAD) && self.lasts() > limits.head) || (self.is(RESTING) && self.lasts() > idle)
    }

    /// Whether the connection may be closed for a newcomer, and how readily: strangers first, then those
    /// that did nothing for the longest time.
    pub(super) fn may_go(&self, limits: &Limits) -> Option<(bool, Duration)> {
        let lasts = self.lasts();
        let does_nothing = (self.is(RESTING) && lasts >= limits.quiet.max(JUST_NOW))
            || (self.is(READING_HEAD) && lasts >= SLOW_HEAD);
        does_nothing.then_some((!self.is_local, lasts))
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
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.phase.goes_on();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.phase.goes_on();
        Poll::Ready(Ok(written))
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
