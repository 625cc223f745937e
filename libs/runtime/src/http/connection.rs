//! Accepted connections, bounded: in number, in idle time, and in life after the stop.
//!
//! axum waits for every open connection at a graceful shutdown and has no limits of its own. This
//! listener gives each connection a permit, an idle limit and a token that cuts it.

use crate::metrics;
use agentforge_metrics::Gauge;
use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Maximum number of connections of one listener; further ones wait in the kernel's queue. Watchers hold one each, so
/// it is far above what requests would need.
const CONNECTIONS_MAX: usize = 8192;

/// A connection without a byte in either direction for this long is closed. Longer than any long
/// poll (60 s) and than the keep-alive of event streams (15 s).
const IDLE_MAX: Duration = Duration::from_secs(180);

/// A peer that takes nothing of what waits for it for this long holds memory for nothing.
pub(super) const STALLED_MAX: Duration = Duration::from_secs(30);

/// Pause after the system refused to accept (too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A listener whose connections are bounded.
pub(super) struct Bounded {
    listener: TcpListener,
    stalled_max: Duration,
    permits: Arc<Semaphore>,
    cut: CancellationToken,
    open: Gauge,
}

impl Bounded {
    /// `cut` ends every connection.
    pub(super) fn new(listener: TcpListener, cut: CancellationToken) -> Self {
        let open = metrics::HTTP_CONNECTIONS.gauge_handle(&[]);
        Self { listener, stalled_max: IDLE_MAX, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)), cut, open }
    }

    /// Ends connections whose peer takes nothing for this long, where that is sooner than for the idle.
    pub(super) fn without_stalled(self, stalled_max: Duration) -> Self {
        Self { stalled_max, ..self }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permits = self.permits.clone();
        let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Small answers must not wait for the peer's acknowledgement.
                    let _ = stream.set_nodelay(true);
                    let (cut, open) = (self.cut.clone(), self.open.clone());
                    return (Connection::new(stream, self.stalled_max, permit, cut, open), peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// A connection that ends when cut or idle for too long.
pub(super) struct Connection {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    idle: Pin<Box<Sleep>>,
    last_progress: Instant,
    stalled_max: Duration,
    /// Since when bytes wait that the peer does not take.
    stalled_at: Option<Instant>,
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
    fn new(
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
            _counted: Counted::new(open),
            _permit: permit,
        }
    }

    /// The bare socket, in non-blocking mode; limits and cut no longer hold for it.
    pub(super) fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.stream.into_std()
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
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
