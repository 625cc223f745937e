//! Connections with TLS: handshakes run in parallel, so that a client that stalls in its own does not delay others.
//!
//! Limits and the cut are those of the connections below.

use super::connection::{Bounded, Connection};
use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::AbortOnDropHandle;

/// A handshake takes two round trips.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Handshakes that are done and wait to be served.
const READY_MAX: usize = 64;

/// A listener whose connections have TLS.
pub(super) struct Tls {
    ready: mpsc::Receiver<(TlsStream<Connection>, SocketAddr)>,
    address: SocketAddr,
    _accept: AbortOnDropHandle<()>,
}

impl Tls {
    /// Starts accepting; connections wait for [`Listener::accept`].
    pub(super) fn start(listener: Bounded, config: Arc<ServerConfig>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (done, ready) = mpsc::channel(READY_MAX);
        let accept = tokio::spawn(accept(listener, TlsAcceptor::from(config), done));
        Ok(Self { ready, address, _accept: AbortOnDropHandle::new(accept) })
    }
}

/// The number of handshakes is bounded by the permits of the connections.
async fn accept(mut listener: Bounded, acceptor: TlsAcceptor, done: mpsc::Sender<(TlsStream<Connection>, SocketAddr)>) {
    loop {
        let (connection, peer) = listener.accept().await;
        let (acceptor, done) = (acceptor.clone(), done.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_MAX, acceptor.accept(connection)).await {
                Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%error, %peer, "a client's TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a client's TLS handshake took too long"),
            }
        });
    }
}

impl Listener for Tls {
    type Io = TlsStream<Connection>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The task that accepts never ends before this listener does.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
