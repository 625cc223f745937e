//! The accept loop of every listener: a bounded number of connections, in all and of one address, each served in a task of
//! its own, with TLS or without, until the stop and the end of the grace period.
//!
//! What is spoken on a connection is the caller's. A client that stalls in its TLS handshake delays no other.

use super::activity::Activity;
use super::client_certificate::ClientCertificate;
use super::connection::{Connection, Limits};
use super::places::Places;
use super::sockets::Sockets;
use super::tls_files::Tls;
use crate::{Error, metrics};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// A handshake takes two round trips.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Pause after the system refused to accept (too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long cut connections may take to be let go.
pub(super) const LET_GO: Duration = Duration::from_millis(200);

/// A connection without TLS, or with it after the handshake. A session is large, and most connections have none.
pub(super) type Io = Either<Connection, Box<TlsStream<Connection>>>;

/// Who is connected, and what the connection does.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) peer: SocketAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) certificate: ClientCertificate,
}

/// A listener, and what its connections may take.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<Tls>,
    /// How many there may be.
    pub(super) sockets: Sockets,
    /// How long they may wait.
    pub(super) limits: Limits,
    /// Whether many requests share a connection from the start.
    pub(super) is_multiplexed: bool,
    /// Ends the accepting. Connections end when they have served what they began.
    pub(super) stop: CancellationToken,
    /// Connections that are still open shortly before its end, counted from the stop, are cut.
    pub(super) grace: Duration,
}

impl Server {
    /// Has each connection served by `serve`. Returns in time for the caller's own deadline.
    ///
    /// # Errors
    /// [`Error::Serve`] if the listener has no address.
    pub(super) async fn run<F>(self, serve: impl Fn(Io, Client) -> F + Clone + Send + 'static) -> Result<(), Error>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, tls, sockets, limits, is_multiplexed, stop, grace } = self;
        let address = listener.local_addr().map_err(Error::Serve)?;
        let (cut, tasks) = (CancellationToken::new(), TaskTracker::new());
        let places = Places::new(sockets.max, sockets.per_address_max);
        let open = metrics::HTTP_CONNECTIONS.gauge_handle(&[]);
        loop {
            let accepted = async {
                let (stream, peer) = accept(&listener).await;
                let (activity, end) = (Activity::new(is_multiplexed), cut.child_token());
                let place = places.take(peer.ip(), &activity, &end, sockets.shared.as_ref()).await;
                (stream, Client { peer, activity, certificate: ClientCertificate::default() }, place, end)
            };
            let (stream, client, place, end) = tokio::select! {
                accepted = accepted => accepted,
                () = stop.cancelled() => break,
            };
            let Some(place) = place else { continue };
            let connection = Connection::new(stream, limits, client.activity.clone(), place, end, open.clone());
            match tls.as_ref().map(Tls::acceptor) {
                None => tasks.spawn(serve(Either::Left(connection), client)),
                Some(tls) => {
                    let (serve, stop) = (serve.clone(), stop.clone());
                    tasks.spawn(async move {
                        if let Some(stream) = handshake(tls, connection, client.peer, stop).await {
                            client.activity.secured();
                            let certificate = ClientCertificate::of(stream.get_ref().1);
                            serve(Either::Right(Box::new(stream)), Client { certificate, ..client }).await;
                        }
                    })
                }
            };
        }
        drop(listener);
        tasks.close();
        if timeout(grace.saturating_sub(margin(grace)), tasks.wait()).await.is_err() {
            let grace_seconds = grace.as_secs_f64();
            warn!(%address, grace_seconds, "connections still open near the end of the grace period are cut");
            cut.cancel();
            // A handler that never yields cannot be cut; its connection dies with the process.
            let _ = timeout(LET_GO, tasks.wait()).await;
        }
        Ok(())
    }
}

/// The part of the grace period kept for the caller: a tenth, at most half a second.
fn margin(grace: Duration) -> Duration {
    (grace / 10).min(Duration::from_millis(500))
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small answers must not wait for the peer's acknowledgement.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            // Of that one connection.
            Err(error) if matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(
    tls: TlsAcceptor,
    connection: Connection,
    peer: SocketAddr,
    stop: CancellationToken,
) -> Option<TlsStream<Connection>> {
    let ended = tokio::select! {
        ended = timeout(HANDSHAKE_MAX, tls.accept(connection)) => ended,
        () = stop.cancelled() => return None,
    };
    match ended {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            metrics::TLS_HANDSHAKE_FAILURES.inc(&["refused"]);
            debug!(%error, %peer, "a client's TLS handshake failed");
        }
        Err(_) => {
            metrics::TLS_HANDSHAKE_FAILURES.inc(&["timeout"]);
            debug!(%peer, "a client's TLS handshake took too long");
        }
    }
    None
}
