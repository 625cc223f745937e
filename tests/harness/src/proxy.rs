//! A TCP proxy with a stable port that can cut, swallow or delay what passes through it.

use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Chunks on their way through one direction of one connection; with a delay this bounds memory to 4 MiB.
const IN_TRANSIT: usize = 256;

#[derive(Clone, Copy, PartialEq)]
enum Link {
    /// Bytes pass in both directions.
    Open,
    /// Connections are closed and new ones end at once.
    Cut,
    /// Connections stay or are accepted, and no byte moves.
    Blackhole,
}

struct State {
    backend: watch::Sender<String>,
    link: watch::Sender<Link>,
    delay: watch::Sender<Duration>,
    /// Fires when the connections of now must end; replaced for those that come later.
    drop_now: watch::Sender<CancellationToken>,
}

/// Stands before one backend (`host:port`). Dropping it ends all its connections.
pub struct TcpProxy {
    address: SocketAddr,
    state: Arc<State>,
    _accept: AbortOnDropHandle<()>,
}

impl TcpProxy {
    /// Listens on a free port of 127.0.0.1; the backend need not be up.
    pub async fn start(backend: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State {
            backend: watch::Sender::new(backend.into()),
            link: watch::Sender::new(Link::Open),
            delay: watch::Sender::new(Duration::ZERO),
            drop_now: watch::Sender::new(CancellationToken::new()),
        });
        let accept = tokio::spawn(accept(listener, state.clone()));
        Self { address, state, _accept: AbortOnDropHandle::new(accept) }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// `nats://…` of [`Self::address`].
    pub fn nats_url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Leads new connections to another backend; those that are open stay where they are.
    pub fn lead_to(&self, backend: impl Into<String>) {
        self.state.backend.send_replace(backend.into());
    }

    /// Drops all connections and ends new ones at once, as a host whose service is down.
    pub fn cut(&self) {
        self.state.link.send_replace(Link::Cut);
        self.drop_connections();
    }
    /// Keeps connections open but lets no byte through, as a link that is gone without a word.
    pub fn blackhole(&self) {
        self.state.link.send_replace(Link::Blackhole);
    }
    /// Lets bytes through again. What a blackhole held back is delivered.
    pub fn restore(&self) {
        self.state.link.send_replace(Link::Open);
    }
    /// Drops the connections of now; new ones are served.
    pub fn drop_connections(&self) {
        self.state.drop_now.send_replace(CancellationToken::new()).cancel();
    }
    /// Delays each byte by this much in each direction, without limiting the rate. Zero for none.
    pub fn delay(&self, one_way: Duration) {
        self.state.delay.send_replace(one_way);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.drop_connections();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        // Taken before the link is read: a cut between the two still ends this connection.
        let drop_now = state.drop_now.borrow().clone();
        if *state.link.borrow() == Link::Cut {
            continue;
        }
        let (backend, state) = (state.backend.borrow().clone(), state.clone());
        tokio::spawn(async move {
            let serve = async {
                wait_open(&mut state.link.subscribe()).await;
                let Ok(server) = TcpStream::connect(&backend).await else { return };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                // One direction's end closes both: half-closed connections hide broken links.
                tokio::select! {
                    () = pump(from_client, to_server, &state) => (),
                    () = pump(from_server, to_client, &state) => (),
                }
            };
            let _ = drop_now.run_until_cancelled(serve).await;
        });
    }
}

async fn wait_open(link: &mut watch::Receiver<Link>) {
    // An error means that the proxy is gone; its token ends this connection then.
    let _ = link.wait_for(|l| *l == Link::Open).await;
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let (queue, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(IN_TRANSIT);
    let read = async {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            let n = from.read(&mut chunk).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            chunk.truncate(n);
            let at = Instant::now() + *state.delay.borrow();
            if queue.send((at, chunk)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        let mut link = state.link.subscribe();
        while let Some((at, chunk)) = due.recv().await {
            sleep_until(at).await;
            wait_open(&mut link).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = read => (), () = write => () }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut r, mut w) = stream.split();
                    let _ = tokio::io::copy(&mut r, &mut w).await;
                });
            }
        });
        address
    }

    async fn round_trip(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x").await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn cuts_swallows_delays_and_restores_on_one_port() {
        let proxy = TcpProxy::start(echo().await).await;
        let mut one = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(round_trip(&mut one).await.unwrap(), b'x');

        proxy.delay(Duration::from_millis(60));
        let before = Instant::now();
        round_trip(&mut one).await.unwrap();
        assert!(before.elapsed() >= Duration::from_millis(120), "{:?}", before.elapsed());
        proxy.delay(Duration::ZERO);

        proxy.blackhole();
        one.write_all(b"y").await.unwrap();
        assert!(timeout(Duration::from_millis(100), one.read_u8()).await.is_err(), "a blackhole answered");
        proxy.restore();
        assert_eq!(timeout(Duration::from_secs(5), one.read_u8()).await.unwrap().unwrap(), b'y');

        proxy.cut();
        let broken = timeout(Duration::from_secs(5), one.read_u8()).await.unwrap();
        assert!(broken.is_err(), "the connection outlived a cut");
        let mut two = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(timeout(Duration::from_secs(5), round_trip(&mut two)).await.unwrap().is_err());
        proxy.restore();
        let mut three = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(round_trip(&mut three).await.unwrap(), b'x');
    }
}
