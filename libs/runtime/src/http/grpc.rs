//! Serves gRPC: HTTP/2 only, under the same bounds as every listener, and those that long-lived connections need.
//!
//! A connection without a known caller ends soon, an idle one later, an old one when its calls are over; a peer that is
//! gone is found by pings. The bounds of messages are the service's, which knows its calls.

use super::activity::Waits;
use super::connection::{IDLE_MAX, Limits};
use super::exchange::{Counting, exchange};
use super::listen::{HEADERS_MAX_BYTES, SILENT_MAX};
use super::server::{Client, Io, Server};
use super::sockets::Sockets;
use super::tls_files::Tls;
use crate::Error;
use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::pin::pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// A ping is sent after this long a silence, and a peer that does not answer in time is disconnected.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection without a call of a known caller ends then, unless a call is open.
const UNKNOWN_MAX: Duration = Duration::from_secs(60);

/// A connection without a call ends then; clients connect again when they have one.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 60);

/// A connection takes no new calls after this time, so that clients spread over what was added since; calls under way
/// are finished.
const AGE_MAX: Duration = Duration::from_secs(2 * 3600);

/// Bytes a peer may send ahead, of one stream and of a connection: all that a stalled handler can cost.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Serves the gRPC services in `router`, with TLS where `tls` is given, until `stop` fires; then calls under way are
/// finished, for at most `grace`. One connection has at most `streams_max` calls at once. A handler that knows its caller
/// says so ([`super::Caller::is_known`]).
///
/// # Errors
/// [`Error::Serve`] if the listener has no address.
pub async fn serve_grpc(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    streams_max: u32,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let waits = Waits { silent: SILENT_MAX, head: SILENT_MAX, between: UNUSED_MAX, unknown: Some(UNKNOWN_MAX) };
    let limits = Limits { stalled: IDLE_MAX, waits };
    let sockets = Sockets::for_callers();
    let on_stop = stop.clone();
    let server = Server { listener, tls, sockets, limits, is_multiplexed: true, stop, grace };
    server.run(move |io, client| connection(io, client, router.clone(), streams_max, on_stop.clone())).await
}

async fn connection(io: Io, client: Client, router: Router, streams_max: u32, stop: CancellationToken) {
    let peer = client.peer;
    let service = service_fn(move |request| exchange(client.clone(), Counting::ByHandler, request, router.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(streams_max)
        .max_header_list_size(HEADERS_MAX_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(AGE_MAX) => {}
            }
        } => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, %peer, "a gRPC connection ended");
    }
}
