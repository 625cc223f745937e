//! Serves a router, and lets its owner take single connections out of HTTP.
//!
//! Thousands of streams that stay open for hours must not each keep an HTTP connection's task and buffers.
//! A request that [`Takeover::wants`] is handed over with its bare socket, and nothing of HTTP is left
//! behind. Limits, cut and drain of all other connections are those of [`super::serve_http`].

use super::activity::Waits;
use super::connection::{IDLE_MAX, Limits};
use super::exchange::{Counting, exchange};
use super::host;
use super::listen::{HEAD_MAX, SILENT_MAX};
use super::server::{Client, Io, LET_GO, Server};
use super::sockets::Sockets;
use super::tls_files::Tls;
use crate::Error;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, request::Parts};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{pending, poll_fn, ready};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConnection;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

/// A peer that takes nothing of what waits for it for this long holds memory for nothing.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// Whose requests leave HTTP.
pub trait Takeover: Clone + Send + Sync + Unpin + 'static {
    /// Whether the connection of this request is taken.
    fn wants(&self, head: &Parts) -> bool;
    /// What has to be waited for before it is taken, such as who its caller is; the result goes into the head's
    /// extensions. Meanwhile the connection keeps its place among those of the listener.
    fn prepare(&self, head: &mut Parts, peer: SocketAddr) -> impl Future<Output = ()> + Send {
        let _ = (head, peer);
        ready(())
    }
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
    /// A connection without TLS: what is written is sent as it is.
    Plain(TcpStream),
    /// With TLS, after the handshake.
    Tls(TcpStream, Box<ServerConnection>),
}

/// How much of an answer waits for a peer in addition to the kernel's buffer, bytes; also the longest head of a
/// request.
const BUFFER_BYTES: usize = 64 << 10;

/// As [`super::serve_http`], with TLS where `tls` is given; connections that `takeover` wants are given away.
/// HTTP/1.1 only; a peer that takes nothing of its answer for 30 s is cut. Handlers find the peer as
/// `ConnectInfo<SocketAddr>`, and its certificate as [`ClientCertificate`](super::ClientCertificate), which the head of a
/// connection that is taken has too.
///
/// # Errors
/// [`Error::Serve`] if the listener has no address.
pub async fn serve_with_takeover(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    takeover: impl Takeover,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let on_stop = stop.clone();
    let waits = Waits { silent: SILENT_MAX, head: HEAD_MAX, between: IDLE_MAX, unknown: None };
    let limits = Limits { stalled: STALLED_MAX, waits };
    let server = Server { listener, tls, sockets: Sockets::for_callers(), limits, is_multiplexed: false, stop, grace };
    server.run(move |io, client| connection(io, client, router.clone(), takeover.clone(), on_stop.clone())).await
}

type Wanted = Arc<Mutex<Option<Parts>>>;

async fn connection(io: Io, client: Client, router: Router, takeover: impl Takeover, stop: CancellationToken) {
    let (wanted, peer) = (Wanted::default(), client.peer);
    let certificate = client.certificate.clone();
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
            let request = Request::from_parts(parts, body);
            exchange(client.clone(), Counting::Whole, request, router.clone()).boxed()
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None).half_close(false).max_buf_size(BUFFER_BYTES);
    let mut http = builder.serve_connection(TokioIo::new(io), service);
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
    let mut io = parts.io.into_inner();
    match head {
        Some(mut head) => {
            head.extensions.insert(certificate);
            takeover.prepare(&mut head, peer).await;
            // None behind an answer that is not out yet: the caller of such a pipelined request is not one of ours.
            if let Some(socket) = bare(io) {
                takeover.take(Taken { head, peer, socket, unread: parts.read_buf });
            }
        }
        None => drop(tokio::time::timeout(LET_GO, tokio::io::AsyncWriteExt::shutdown(&mut io)).await),
    }
}

/// The connection without its wrapping.
fn bare(io: Io) -> Option<Socket> {
    match io {
        Either::Left(connection) => connection.into_bare().map(Socket::Plain),
        Either::Right(tls) => {
            let (connection, session) = (*tls).into_inner();
            Some(Socket::Tls(connection.into_bare()?, Box::new(session)))
        }
    }
}
