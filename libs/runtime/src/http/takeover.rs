//! Serves a router, and lets its owner take single connections out of HTTP.
//!
//! Thousands of streams that stay open for hours must not each keep an HTTP connection's task and buffers.
//! A request that [`Takeover::wants`] is handed over with its bare socket, and nothing of HTTP is left
//! behind. Limits, cut and drain of all other connections are those of [`super::serve_http`].

use super::connection::{Bounded, Connection, STALLED_MAX};
use super::host;
use super::listen::{LET_GO, margin};
use super::tls::Tls;
use crate::Error;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, request::Parts};
use axum::serve::Listener;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{pending, poll_fn, ready};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_rustls::rustls::{ServerConfig, ServerConnection};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// How long a request's head may take.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// Whose requests leave HTTP.
pub trait Takeover: Clone + Send + Sync + Unpin + 'static {
    /// Whether the connection of this request is taken.
    fn wants(&self, head: &Parts) -> bool;
    /// Takes it. Nothing was answered yet. Must not block.
    fn take(&self, taken: Taken);
}

/// A connection that was taken out of HTTP.
#[derive(Debug)]
pub struct Taken {
    /// The request that took it.
    pub head: Parts,
    /// Who is connected.
    pub peer: SocketAddr,
    /// The connection, in non-blocking mode.
    pub socket: Socket,
    /// What was read behind the head.
    pub unread: Bytes,
}

/// A bare connection, in non-blocking mode.
#[derive(Debug)]
pub enum Socket {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, after the handshake.
    Tls(TcpStream, Box<ServerConnection>),
}

/// How much of an answer waits for a peer in addition to the kernel's buffer, bytes; also the longest head of a
/// request.
const BUFFER_BYTES: usize = 64 << 10;

/// As [`super::serve_http`], with TLS where `tls` is given; connections that `takeover` wants are given away.
/// HTTP/1.1 only; a peer that takes nothing of its answer for 30 s is cut. Handlers find the peer as `ConnectInfo<SocketAddr>`, and with TLS whether the client has a
/// certificate as [`ClientCertificate`].
///
/// # Errors
/// [`Error::Serve`] if the listener has no address.
pub async fn serve_with_takeover(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    takeover: impl Takeover,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let cut = CancellationToken::new();
    let listener = Bounded::new(listener, cut.clone()).without_stalled(STALLED_MAX);
    let address = listener.local_addr().map_err(Error::Serve)?;
    let served = match tls {
        None => accept(listener, &router, &takeover, &stop).await,
        Some(tls) => {
            let listener = Tls::start(listener, tls).map_err(Error::Serve)?;
            accept(listener, &router, &takeover, &stop).await
        }
    };
    served.close();
    if tokio::time::timeout(grace.saturating_sub(margin(grace)), served.wait()).await.is_err() {
        tracing::warn!(%address, "connections still open near the end of the grace period are cut");
        cut.cancel();
        let _ = tokio::time::timeout(LET_GO, served.wait()).await;
    }
    Ok(())
}

/// Whether a client showed a certificate that our authorities signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCertificate(pub bool);

async fn accept<L: Listener<Addr = SocketAddr>>(
    mut listener: L,
    router: &Router,
    takeover: &impl Takeover,
    stop: &CancellationToken,
) -> TaskTracker
where
    L::Io: Bare,
{
    let tasks = TaskTracker::new();
    loop {
        tokio::select! {
            (io, peer) = listener.accept() => {
                tasks.spawn(connection(io, peer, router.clone(), takeover.clone(), stop.clone()));
            }
            () = stop.cancelled() => return tasks,
        }
    }
}

type Wanted = Arc<Mutex<Option<Parts>>>;

async fn connection<I: Bare>(
    io: I,
    peer: SocketAddr,
    router: Router,
    takeover: impl Takeover,
    stop: CancellationToken,
) {
    let wanted = Wanted::default();
    let certificate = ClientCertificate(io.has_certificate());
    let service = hyper::service::service_fn({
        let (wanted, takeover) = (wanted.clone(), takeover.clone());
        move |request: Request<Incoming>| -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
            let (parts, body) = request.into_parts();
            if !host::has_host(parts.version, &parts.headers) {
                return ready(Ok(host::refusal())).boxed();
            }
            if takeover.wants(&parts) {
                *wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts);
                // The connection is taken below; this answer is never waited for.
                return pending().boxed();
            }
            let mut request = Request::from_parts(parts, Body::new(body));
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(certificate);
            router.clone().oneshot(request).boxed()
        }
    });
    let io = TokioIo::new(Tracked { io, is_flushed: true });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).half_close(false).max_buf_size(BUFFER_BYTES);
    let mut http = builder.serve_connection(io, service);
    let mut stopping = std::pin::pin!(stop.cancelled());
    let mut is_stopping = false;
    let head = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut http).graceful_shutdown();
        }
        let ended = http.poll_without_shutdown(cx);
        match wanted.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(head) => Poll::Ready(Some(head)),
            None => ended.map(|_| None),
        }
    });
    let head = head.await;
    let parts = http.into_parts();
    let Tracked { mut io, is_flushed } = parts.io.into_inner();
    match head {
        // A pipelined request behind an answer that is not out yet: its caller is not one of ours.
        Some(_) if !is_flushed => {}
        Some(head) => {
            if let Ok(socket) = io.bare() {
                takeover.take(Taken { head, peer, socket, unread: parts.read_buf });
            }
        }
        None => drop(tokio::time::timeout(LET_GO, tokio::io::AsyncWriteExt::shutdown(&mut io)).await),
    }
}

/// A connection that can be had without its wrapping.
trait Bare: AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static {
    fn has_certificate(&self) -> bool;
    fn bare(self) -> io::Result<Socket>;
}

impl Bare for Connection {
    fn has_certificate(&self) -> bool {
        false
    }
    fn bare(self) -> io::Result<Socket> {
        self.into_std().map(Socket::Plain)
    }
}

impl Bare for TlsStream<Connection> {
    fn has_certificate(&self) -> bool {
        self.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty())
    }
    fn bare(self) -> io::Result<Socket> {
        let (connection, session) = self.into_inner();
        Ok(Socket::Tls(connection.into_std()?, Box::new(session)))
    }
}

/// Knows whether everything that was written has left.
struct Tracked<I> {
    io: I,
    is_flushed: bool,
}

impl<I: Bare> AsyncRead for Tracked<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: Bare> AsyncWrite for Tracked<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        // HTTP flushes only when its own buffer is empty.
        self.is_flushed |= matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
