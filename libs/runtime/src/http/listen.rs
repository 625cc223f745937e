//! Opens a listener and serves a router on it until the stop, never longer than the grace period.

use super::connection::Bounded;
use super::host::named;
use super::linger::linger;
use super::tls::Tls;
use crate::Error;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::serve::{Listener, ListenerExt};
use futures_util::StreamExt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long cut connections may take to be let go.
pub(super) const LET_GO: Duration = Duration::from_millis(200);

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
/// [`Error::Serve`] if the listener fails.
pub async fn serve_http(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let cut = CancellationToken::new();
    let listener = Bounded::new(listener, cut.clone());
    serve(listener, cut, router, stop, grace).await
}

/// Like [`serve_http`], with TLS. A client has 10 s for its handshake and does not delay others.
///
/// # Errors
/// [`Error::Serve`] if the listener fails.
pub async fn serve_https(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let cut = CancellationToken::new();
    let listener = Tls::start(Bounded::new(listener, cut.clone()), tls).map_err(Error::Serve)?;
    serve(listener, cut, router, stop, grace).await
}

/// `cut` ends the listener's connections.
async fn serve<L: Listener<Addr = SocketAddr>>(
    listener: L,
    cut: CancellationToken,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Serve)?;
    let on_stop = stop.clone();
    let router = router.layer(from_fn(move |request, next| end_event_streams(on_stop.clone(), request, next)));
    let router = router.layer(from_fn(linger)).layer(from_fn(named));
    // tap_io lets axum know the peer's address for a listener of our own.
    let listener = listener.tap_io(|_| {});
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serve = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut serve = std::pin::pin!(serve.into_future());
    let limit = async {
        stop.cancelled().await;
        tokio::time::sleep(grace.saturating_sub(margin(grace))).await;
    };
    tokio::select! {
        served = &mut serve => return served.map_err(Error::Serve),
        () = limit => {}
    }
    warn!(%address, grace_seconds = grace.as_secs_f64(), "connections still open near the end of the grace period are cut");
    cut.cancel();
    // A handler that never yields cannot be cut; its connection dies with the process.
    let _ = tokio::time::timeout(LET_GO, serve).await;
    Ok(())
}

/// The part of the grace period kept for the caller: a tenth, at most half a second.
pub(super) fn margin(grace: Duration) -> Duration {
    (grace / 10).min(Duration::from_millis(500))
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
