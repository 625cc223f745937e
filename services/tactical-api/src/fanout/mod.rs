//! Fan-out: every event is encoded once, and a few threads write the shared bytes to all sockets.
//!
//! Owns the threads and all sockets of streams. See `docs/adr/0008-fan-out.md` for why there is no task per
//! client. The async side talks to the threads through [`Fanout`]; they answer through nothing but the
//! requests for what is older than their ring.

mod client;
mod command;
mod queue;
mod request;
mod ring;
mod transport;
mod worker;

pub use command::{ClientRef, Join, ReplayBatch, ReplayRequest, ReplayStart, Role, Settings, Start};

use crate::event::{Epoch, Event, Mark};
use command::{Command, Inbox};
use std::{
    io,
    sync::{
        Arc,
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

/// The workers, as the async side sees them. Clones share them.
#[derive(Clone, Debug)]
pub struct Fanout(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    inboxes: Vec<Arc<Inbox>>,
    next: AtomicUsize,
}

/// Resolves when a worker's thread has ended; an error when it panicked.
pub type Ended = oneshot::Receiver<()>;

impl Fanout {
    /// Starts one thread for each processor. They end by [`Fanout::stop`].
    ///
    /// # Errors
    /// The system gives no thread or no poll.
    pub fn start(settings: &Settings, wanted: &mpsc::Sender<ReplayRequest>) -> io::Result<(Self, Vec<Ended>)> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX);
        let (mut inboxes, mut ends) = (Vec::new(), Vec::new());
        for index in 0..count {
            let poll = mio::Poll::new()?;
            let waker = mio::Waker::new(poll.registry(), worker::WAKER)?;
            let inbox = Arc::new(Inbox::new(waker));
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

    /// Answers a [`ReplayRequest`]. `None`: it cannot be read.
    pub fn feed(&self, client: ClientRef, found: Option<ReplayBatch>) {
        self.0.inboxes[client.worker].send(Command::Feed(client.key, client.generation, found));
    }

    /// Asks all clients to reconnect elsewhere, spread over the window; the threads end when all have left.
    pub fn stop(&self, window: Duration) {
        self.all(|| Command::Stop { window });
    }
}
