//! Accepted connections, bounded in every wait: for a request's head, for the next request, for a peer that takes
//! nothing, and in life after the stop.
//!
//! No crate does that: time limits of crates count reads and writes apart, an event stream reads nothing for hours, and
//! a limit for heads must not end a connection that is kept for the next request.

use super::activity::{Activity, Waits};
use super::places::Place;
use crate::metrics::CONNECTIONS_ENDED;
use agentforge_metrics::Gauge;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A connection without a byte in either direction for this long is closed. Longer than any long
/// poll (60 s) and than the keep-alive of event streams (15 s).
pub(super) const IDLE_MAX: Duration = Duration::from_secs(180);

/// How long what a connection is made of may last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A peer that takes nothing of what waits for it for this long is cut.
    pub(super) stalled: Duration,
    /// Outside requests.
    pub(super) waits: Waits,
}

/// A connection that ends when cut or when it waits for too long.
pub(super) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    timer: Pin<Box<Sleep>>,
    last_progress: Instant,
    limits: Limits,
    activity: Arc<Activity>,
    /// Since when bytes wait that the peer does not take.
    stalled_at: Option<Instant>,
    /// Whether everything that was written has left: HTTP and TLS flush only when their own buffers are empty.
    is_flushed: bool,
    _counted: Counted,
    _place: Place,
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
    /// Ends by its limits, and by `cut`.
    pub(super) fn new(
        stream: TcpStream,
        limits: Limits,
        activity: Arc<Activity>,
        place: Place,
        cut: CancellationToken,
        open: Gauge,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            cut: Box::pin(cut.cancelled_owned()),
            timer: Box::pin(sleep_until(now + limits.waits.silent)),
            last_progress: now,
            limits,
            activity,
            stalled_at: None,
            is_flushed: true,
            _counted: Counted::new(open),
            _place: place,
        }
    }

    /// The bare socket, in non-blocking mode; limits and cut no longer hold for it. `None` if something that was written
    /// is still on its way.
    pub(super) fn into_bare(self) -> Option<std::net::TcpStream> {
        if self.is_flushed { self.stream.into_std().ok() } else { None }
    }

    /// Whether the connection must end; registers for being woken when it must.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Some(io::Error::new(io::ErrorKind::ConnectionAborted, "the listener ended the connection"));
        }
        // The timer is set again only when it fires: progress costs no timer operation.
        while self.timer.as_mut().poll(cx).is_ready() {
            let (limit, reason) = self.limit();
            if limit <= Instant::now() {
                CONNECTIONS_ENDED.inc(&[reason]);
                return Some(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            self.timer.as_mut().reset(limit);
        }
        None
    }

    fn limit(&self) -> (Instant, &'static str) {
        let waiting = self.activity.limit(&self.limits.waits);
        // In a request its handler decides how long it lasts; here only silence in both directions ends it.
        let limit = waiting.unwrap_or((self.last_progress + IDLE_MAX, "idle"));
        match self.stalled_at.map(|since| since + self.limits.stalled) {
            Some(stalled) if stalled < limit.0 => (stalled, "stalled"),
            _ => limit,
        }
    }

    /// Has the timer fire in time for a limit that is sooner than it knew.
    fn hurry(&mut self, cx: &mut Context<'_>) {
        let (limit, _) = self.limit();
        if limit < self.timer.deadline() {
            self.timer.as_mut().reset(limit);
            // To be woken then; it is not over yet.
            let _ = self.timer.as_mut().poll(cx);
        }
    }

    /// Notes whether the peer takes what is written.
    fn wrote(&mut self, poll: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &poll {
            Poll::Ready(_) => self.stalled_at = None,
            Poll::Pending if self.stalled_at.is_none() => {
                self.stalled_at = Some(Instant::now());
                self.hurry(cx);
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
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &poll {
            Poll::Ready(_) if buf.filled().len() > before => self.activity.heard(),
            Poll::Ready(_) => {}
            // A head that came whole is a request by now, and needs no timer of its own.
            Poll::Pending => self.hurry(cx),
        }
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
