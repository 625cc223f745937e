//! Opens a listener and serves a router on it until the stop, never longer than the grace period.

use super::activity::Waits;
use super::connection::{IDLE_MAX, Limits};
use super::exchange::{Counting, exchange};
use super::host::named;
use super::linger::linger;
use super::server::{Client, Io, Server};
use super::sockets::Sockets;
use super::tls_files::Tls;
use crate::Error;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use futures_util::StreamExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How long a request's head may take, from its first byte to its last.
pub(super) const HEAD_MAX: Duration = Duration::from_secs(10);

/// A client may connect this long before it has anything to say, as browsers and balancers do.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(60);

/// Bytes of all headers of a request of HTTP/2; HTTP/1 has bounds of its own.
pub(super) const HEADERS_MAX_BYTES: u32 = 16 << 10;

/// Opens a listener; `setting` is the key that chose the port and is named when it cannot be had.
///
/// # Errors
/// [`Error::Bind`] with the address, the setting and what to do.
pub async fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "; another process has that port: choose another one, or 0 for a free one",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose a higher one",
            io::ErrorKind::AddrNotAvailable => "; BIND_ADDR is not an address of this machine",
            _ => "",
        };
        Error::Bind { address, setting, hint, source }
    })
}

/// Serves `router` until `stop` fires; then accepts nothing new, ends event streams, and lets
/// requests finish. Connections still open shortly before `grace` is over are cut, so that this
/// returns in time for the caller's own deadline. Handlers find the peer as `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// [`Error::Serve`] if the listener has no address.
pub async fn serve_http(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    serve(listener, None, Sockets::for_callers(), router, stop, grace).await
}

/// Like [`serve_http`], for what must answer regardless of the callers of other listeners: probes and metrics. Its places
/// are few and its own.
///
/// # Errors
/// [`Error::Serve`] if the listener has no address.
pub(crate) async fn serve_probes(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    serve(listener, tls, Sockets::for_probes(), router, stop, grace).await
}

/// Like [`serve_http`], with TLS where `tls` is given. A client has 10 s for its handshake and does not delay others.
///
/// # Errors
/// [`Error::Serve`] if the listener has no address.
pub async fn serve_https(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    serve(listener, tls, Sockets::for_callers(), router, stop, grace).await
}

async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    sockets: Sockets,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let on_stop = stop.clone();
    let router = router.layer(from_fn(move |request, next| end_event_streams(on_stop.clone(), request, next)));
    let router = router.layer(from_fn(linger)).layer(from_fn(named));
    let on_stop = stop.clone();
    let waits = Waits { silent: SILENT_MAX, head: HEAD_MAX, between: IDLE_MAX, unknown: None };
    let limits = Limits { stalled: IDLE_MAX, waits };
    let server = Server { listener, tls, sockets, limits, is_multiplexed: false, stop, grace };
    server.run(move |io, client| connection(io, client, router.clone(), on_stop.clone())).await
}

/// HTTP/1.1 or HTTP/2 on one connection, until it ends or is idle at the stop.
async fn connection(io: Io, client: Client, router: Router, stop: CancellationToken) {
    let peer = client.peer;
    let service = service_fn(move |request| exchange(client.clone(), Counting::Whole, request, router.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The connection has timers of its own, which separate a slow head from a connection that is kept.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(HEADERS_MAX_BYTES);
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = stop.cancelled() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a connection ended");
    }
}

/// An event stream has no end of its own and would hold up the shutdown; at the stop it ends properly and the client
/// connects to the next available server.
async fn end_event_streams(stop: CancellationToken, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_event_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    if !is_event_stream {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = body.into_data_stream().take_until(stop.cancelled_owned());
    Response::from_parts(parts, Body::from_stream(body))
}
