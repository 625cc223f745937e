//! Accepted connections, bounded in idle time, in the time that a peer lets bytes wait, and in life after the stop.
//!
//! No crate does that: time limits of crates count reads and writes apart, and an event stream reads nothing for hours.

use agentforge_metrics::Gauge;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A connection without a byte in either direction for this long is closed. Longer than any long
/// poll (60 s) and than the keep-alive of event streams (15 s).
pub(super) const IDLE_MAX: Duration = Duration::from_secs(180);

/// A connection that ends when cut or idle for too long.
pub(super) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    idle: Pin<Box<Sleep>>,
    last_progress: Instant,
    stalled_max: Duration,
    /// Since when bytes wait that the peer does not take.
    stalled_at: Option<Instant>,
    /// Whether everything that was written has left: HTTP and TLS flush only when their own buffers are empty.
    is_flushed: bool,
    _counted: Counted,
    _permit: OwnedSemaphorePermit,
}

/// Counts a connection as open for as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn new(open: Gauge) -> Self {
        open.increment(1.0);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl Connection {
    /// Ends when a peer takes nothing of what waits for `stalled_max`, and by `cut`.
    pub(super) fn new(
        stream: TcpStream,
        stalled_max: Duration,
        permit: OwnedSemaphorePermit,
        cut: CancellationToken,
        open: Gauge,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            cut: Box::pin(cut.cancelled_owned()),
            idle: Box::pin(sleep_until(now + IDLE_MAX)),
            last_progress: now,
            stalled_max,
            stalled_at: None,
            is_flushed: true,
            _counted: Counted::new(open),
            _permit: permit,
        }
    }

    /// The bare socket, in non-blocking mode; limits and cut no longer hold for it. `None` if something that was written
    /// is still on its way.
    pub(super) fn into_bare(self) -> Option<std::net::TcpStream> {
        if self.is_flushed { self.stream.into_std().ok() } else { None }
    }

    /// Whether the connection must end; registers for being woken when it must.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        use std::future::Future;
        if self.cut.as_mut().poll(cx).is_ready() {
            return Some(io::Error::new(io::ErrorKind::ConnectionAborted, "the listener is closing"));
        }
        // The timer is set again only when it fires: progress costs no timer operation.
        while self.idle.as_mut().poll(cx).is_ready() {
            let limit = self.limit();
            if limit <= Instant::now() {
                return Some(io::Error::new(io::ErrorKind::TimedOut, "idle for too long"));
            }
            self.idle.as_mut().reset(limit);
        }
        None
    }

    fn limit(&self) -> Instant {
        let idle = self.last_progress + IDLE_MAX;
        self.stalled_at.map_or(idle, |since| idle.min(since + self.stalled_max))
    }

    /// Notes whether the peer takes what is written.
    fn wrote(&mut self, poll: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &poll {
            Poll::Ready(_) => self.stalled_at = None,
            Poll::Pending if self.stalled_at.is_none() => {
                self.stalled_at = Some(Instant::now());
                let limit = self.limit();
                if limit < self.idle.deadline() {
                    self.idle.as_mut().reset(limit);
                    // To be woken then; it is not over yet.
                    let _ = self.idle.as_mut().poll(cx);
                }
            }
            Poll::Pending => {}
        }
        self.is_flushed = false;
        self.progress(poll)
    }

    fn progress<T>(&mut self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(poll, Poll::Ready(Ok(_))) {
            self.last_progress = Instant::now();
        }
        poll
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.progress(poll)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(poll, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(poll, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.is_flushed |= matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
