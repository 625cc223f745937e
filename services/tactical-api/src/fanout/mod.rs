//! Fan-out: every event is encoded once, and a few threads write the shared bytes to all sockets.
//!
//! Owns the threads and all sockets of streams. See `docs/adr/0008-fan-out.md` for why there is no task per
//! client. The async side talks to the threads through [`Hub`]; they answer through nothing but the
//! requests for what is older than their ring.

mod client;
mod queue;
mod ring;
mod transport;
mod worker;

use crate::{
    event::{Channel, Epoch, Event, Mark},
    filter::Filter,
    links::Signer,
    slots::Slot,
    source::Source,
};
use agentforge_runtime::http::Socket;
use bytes::Bytes;
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for a worker before publishing pauses.
const INBOX_MAX: usize = 4096;
/// While it pauses.
const PAUSE: Duration = Duration::from_millis(1);
/// More threads than this help no machine: the kernel's side of a write is the same.
const WORKERS_MAX: usize = 16;

/// What a new client gets first.
#[derive(Debug)]
pub enum Start {
    /// What comes from now on.
    Now,
    /// All behind a message; all that there is, if the stream is not the one that had it.
    After(Mark),
    /// These, which are everything up to a sequence, and all behind it.
    Snapshot(Vec<Arc<Event>>, u64),
    /// All since a moment, in unix milliseconds.
    Since(i64),
}

/// A socket for a worker.
#[derive(Debug)]
pub struct Join {
    /// The connection.
    pub socket: Socket,
    /// How it is connected.
    pub channel: Channel,
    /// The first bytes: the answer of HTTP.
    pub greeting: Bytes,
    /// What it becomes.
    pub role: Role,
}

/// What a socket is for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are clients, and each is moved once")]
pub enum Role {
    /// It gets a notice and leaves: a refusal.
    Refused,
    /// It follows the picture.
    Client {
        /// Its place.
        slot: Slot,
        /// What it looks at.
        filter: Filter,
        /// What it gets first.
        start: Start,
        /// A notice before everything else.
        notice: Option<Arc<Event>>,
        /// What it sent already.
        unread: Bytes,
    },
}

/// Which client of which worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRef {
    worker: usize,
    key: usize,
    generation: u64,
}

/// A client needs what is no longer in memory.
#[derive(Debug)]
pub struct Wanted {
    /// Who.
    pub client: ClientRef,
    /// From where.
    pub from: From,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Behind a message, if the stream is the one that had it.
    After(Mark),
    /// At a moment, in unix milliseconds.
    Since(i64),
}

/// What was read for a client.
#[derive(Debug)]
pub struct Found {
    /// In order.
    pub events: Vec<Arc<Event>>,
    /// They are everything up to here.
    pub after: u64,
    /// The stream has nothing behind it.
    pub is_at_end: bool,
}

#[derive(Debug)]
enum Command {
    Begin {
        epoch: Epoch,
        head: Mark,
    },
    Reset {
        epoch: Epoch,
        head: Mark,
        notice: Arc<Event>,
    },
    Publish {
        events: Vec<Arc<Event>>,
        head: Mark,
    },
    Join(Box<Join>),
    /// `None` when it cannot be read.
    Feed(usize, u64, Option<Found>),
    Stop {
        window: Duration,
    },
}

/// What is sent to all workers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Idle time before a heartbeat, SSE and WebSocket.
    pub heartbeats: [Duration; 2],
    /// What may wait for one client, bytes.
    pub client_buffer_bytes: usize,
    /// Renews links.
    pub signer: Signer,
    /// Whether what is new comes.
    pub source: Source,
}

#[derive(Debug)]
struct Inbox {
    commands: Mutex<Vec<Command>>,
    waker: mio::Waker,
}

impl Inbox {
    fn send(&self, command: Command) -> usize {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.push(command);
        let waiting = commands.len();
        drop(commands);
        // One that is awake takes all there is; it cannot miss what came before it looked.
        if waiting == 1 {
            let _ = self.waker.wake();
        }
        waiting
    }

    fn take(&self) -> Vec<Command> {
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn len(&self) -> usize {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The workers, as the async side sees them. Clones share them.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    inboxes: Vec<Arc<Inbox>>,
    next: AtomicUsize,
}

/// Resolves when a worker's thread has ended; an error when it panicked.
pub type Ended = oneshot::Receiver<()>;

impl Hub {
    /// Starts one thread for each processor. They end by [`Hub::stop`].
    ///
    /// # Errors
    /// The system gives no thread or no poll.
    pub fn start(settings: &Settings, wanted: &mpsc::UnboundedSender<Wanted>) -> io::Result<(Self, Vec<Ended>)> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let (mut inboxes, mut ends) = (Vec::new(), Vec::new());
        for index in 0..count {
            let poll = mio::Poll::new()?;
            let waker = mio::Waker::new(poll.registry(), worker::WAKER)?;
            let inbox = Arc::new(Inbox { commands: Mutex::default(), waker });
            let (done, ended) = oneshot::channel();
            let worker = worker::Worker::new(index, poll, inbox.clone(), settings.clone(), wanted.clone());
            std::thread::Builder::new().name(format!("fan-out-{index}")).spawn(move || {
                worker.run();
                let _ = done.send(());
            })?;
            inboxes.push(inbox);
            ends.push(ended);
        }
        Ok((Self(Arc::new(Inner { inboxes, next: AtomicUsize::new(0) })), ends))
    }

    fn all(&self, command: impl Fn() -> Command) {
        for inbox in &self.0.inboxes {
            inbox.send(command());
        }
    }

    /// The picture starts, or continues, behind a sequence of this incarnation.
    pub fn begin(&self, epoch: &Epoch, head: Mark) {
        self.all(|| Command::Begin { epoch: epoch.clone(), head });
    }

    /// The stream is another one: all clients get a notice, and everything in it.
    pub fn reset(&self, epoch: &Epoch, head: Mark, notice: &Arc<Event>) {
        self.all(|| Command::Reset { epoch: epoch.clone(), head, notice: notice.clone() });
    }

    /// Sends it to all clients. `head` is the newest message that was seen.
    pub fn publish(&self, events: &[Arc<Event>], head: Mark) {
        self.all(|| Command::Publish { events: events.to_vec(), head });
    }

    /// Waits while workers are behind with their commands.
    pub async fn has_room(&self) {
        while self.0.inboxes.iter().any(|inbox| inbox.len() > INBOX_MAX) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Hands a socket to a worker, each in turn.
    pub fn join(&self, join: Join) {
        let n = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.inboxes[n % self.0.inboxes.len()].send(Command::Join(Box::new(join)));
    }

    /// Answers a [`Wanted`]. `None`: it cannot be read.
    pub fn feed(&self, client: ClientRef, found: Option<Found>) {
        self.0.inboxes[client.worker].send(Command::Feed(client.key, client.generation, found));
    }

    /// Asks all clients to reconnect elsewhere, spread over the window; the threads end when all have left.
    pub fn stop(&self, window: Duration) {
        self.all(|| Command::Stop { window });
    }
}
