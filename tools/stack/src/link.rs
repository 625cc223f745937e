//! The link between an edge site and its hub in `dev --edge`: a TCP forwarder that can be cut.
//!
//! Lives in the process of `dev`. `agentforge link down|up|status` reach it through a socket in the
//! data directory, so only those can who may write there. Knows nothing of NATS: bytes pass, or not.

use agentforge_terminal::{Failure, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// A leaf has one connection, and a second while the first is being given up.
const CONNECTIONS_MAX: usize = 16;
/// The longest order, its line end included.
const ORDER_BYTES: u64 = 16;
/// For one order and its answer.
const ORDER_MAX: Duration = Duration::from_secs(5);
/// For open connections to end after a cut.
const CUT_MAX: Duration = Duration::from_secs(1);
/// After an accept that failed, such as for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What can be asked of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Cut the link: open connections are closed, new ones are refused.
    Down,
    /// Restore the link: connections pass again.
    Up,
    /// Leave it as it is.
    Status,
}

impl Order {
    const ALL: [Self; 3] = [Self::Down, Self::Up, Self::Status];

    fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
            Self::Status => "status",
        }
    }

    fn read(line: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.word() == line.trim_end())
    }
}

/// How a link is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LinkState {
    /// Whether bytes pass.
    pub up: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// Connections that are open over it.
    pub connections: usize,
}

/// The link. It ends, and its socket is removed, when it is dropped.
pub struct Link {
    address: SocketAddr,
    socket: PathBuf,
    _tasks: [AbortOnDropHandle<()>; 2],
}

struct Shared {
    backend: SocketAddr,
    /// Whether it is up, and since when.
    state: watch::Sender<(bool, Timestamp)>,
    room: Arc<Semaphore>,
}

impl Link {
    /// Listens on a free port of this machine and forwards to `backend`, which need not be there yet.
    ///
    /// # Errors
    /// No port, or no socket in the data directory.
    pub async fn open(data: &Path, backend: SocketAddr) -> Result<Self> {
        let socket = socket_of(data);
        // The data directory is locked: what is there was left behind.
        let _ = std::fs::remove_file(&socket);
        let failed = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| Failure::new(format!("the link to the hub cannot be made: {what}: {e}"))
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed("no free port"))?;
        let address = listener.local_addr().map_err(failed("no address"))?;
        let orders = UnixListener::bind(&socket).map_err(|e| {
            failed(&socket.display().to_string())(e)
                .hint("a socket's path is at most 107 bytes long; try a shorter --data-dir")
        })?;
        let shared = Arc::new(Shared {
            backend,
            state: watch::Sender::new((true, Timestamp::now())),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        });
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(forward(listener, shared.clone()))),
            AbortOnDropHandle::new(tokio::spawn(obey(orders, shared))),
        ];
        Ok(Self { address, socket, _tasks: tasks })
    }

    /// Where the site's end is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Gives an order to the link of the `dev --edge` that runs with this data directory.
///
/// # Errors
/// None runs there, or it does not answer.
pub async fn order(data: &Path, order: Order) -> Result<LinkState> {
    let absent = |e: io::Error| {
        Failure::new(format!("no `agentforge dev --edge` runs with the data directory {}: {e}", data.display()))
            .code("not_running")
            .hint("start one, or name its data directory with --data-dir")
    };
    let mut stream = UnixStream::connect(socket_of(data)).await.map_err(absent)?;
    let talk = async {
        stream.write_all(format!("{}\n", order.word()).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<LinkState, io::Error>(serde_json::from_slice(&answer)?)
    };
    match timeout(ORDER_MAX, talk).await {
        Ok(told) => told.map_err(|e| Failure::new(format!("the link's answer cannot be read: {e}"))),
        Err(_) => Err(Failure::new("the link does not answer")),
    }
}

fn socket_of(data: &Path) -> PathBuf {
    data.join("run/link.sock")
}

async fn forward(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((site, _)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let Ok(permit) = shared.room.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut state = shared.state.subscribe();
            // Asked here too: a cut before the subscription is not a change after it.
            if state.borrow_and_update().0 {
                tokio::select! {
                    () = pass(site, shared.backend) => {}
                    _ = state.wait_for(|(up, _)| !up) => {}
                }
            }
            drop(permit);
        });
    }
}

async fn pass(mut site: TcpStream, backend: SocketAddr) {
    let Ok(mut hub) = TcpStream::connect(backend).await else { return };
    let _ = (site.set_nodelay(true), hub.set_nodelay(true));
    // Its end is all that can be known of it; both sides are closed with it.
    let _ = copy_bidirectional(&mut site, &mut hub).await;
}

/// One order after the other: they come from a person's hand.
async fn obey(orders: UnixListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = orders.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let _ = timeout(ORDER_MAX, answer(stream, &shared)).await;
    }
}

async fn answer(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new((&mut stream).take(ORDER_BYTES)).read_line(&mut line).await?;
    let Some(order) = Order::read(&line) else { return Ok(()) };
    if order != Order::Status {
        let wanted = order == Order::Up;
        shared.state.send_if_modified(|(up, since)| {
            let changes = *up != wanted;
            if changes {
                (*up, *since) = (wanted, Timestamp::now());
            }
            changes
        });
    }
    if order == Order::Down {
        // Told when it is true: connections end in tasks of their own.
        let _ = timeout(CUT_MAX, shared.room.acquire_many(CONNECTIONS_MAX as u32)).await;
    }
    let (up, since) = *shared.state.borrow();
    let connections = CONNECTIONS_MAX - shared.room.available_permits();
    stream.write_all(&serde_json::to_vec(&LinkState { up, since, connections })?).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                });
            }
        });
        address
    }

    /// Whether a byte comes back.
    async fn passes(stream: &mut TcpStream) -> bool {
        let trip = async {
            stream.write_all(b"x").await?;
            stream.read_u8().await
        };
        matches!(timeout(Duration::from_secs(10), trip).await, Ok(Ok(b'x')))
    }

    #[tokio::test]
    async fn a_link_is_cut_and_restored_by_orders() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("run")).unwrap();
        let link = Link::open(home.path(), echo().await).await.unwrap();
        let mut one = TcpStream::connect(link.address()).await.unwrap();
        assert!(passes(&mut one).await);
        let told = order(home.path(), Order::Status).await.unwrap();
        assert!(told.up && told.connections == 1, "{told:?}");

        let cut = order(home.path(), Order::Down).await.unwrap();
        assert!(!cut.up && cut.since > told.since && cut.connections == 0, "{cut:?}");
        assert!(!passes(&mut one).await, "an open connection outlived the cut");
        assert!(!passes(&mut TcpStream::connect(link.address()).await.unwrap()).await, "a new one passed");
        assert_eq!(order(home.path(), Order::Down).await.unwrap().since, cut.since, "it was down already");

        assert!(order(home.path(), Order::Up).await.unwrap().up);
        assert!(passes(&mut TcpStream::connect(link.address()).await.unwrap()).await);
        drop(link);
        let failure = order(home.path(), Order::Status).await.unwrap_err();
        assert_eq!(failure.code.as_deref(), Some("not_running"));
    }

    #[test]
    fn orders_are_three_words() {
        for order in Order::ALL {
            assert_eq!(Order::read(&format!("{}\n", order.word())), Some(order));
        }
        for other in ["", "Down", "upp", "GET / HTTP/1.1\r\n"] {
            assert_eq!(Order::read(other), None, "{other}");
        }
    }
}
