//! What workers are asked for, and what they ask for themselves.

use crate::{
    event::{Channel, Epoch, Event, Mark, Sight},
    filter::Filter,
    links::Signer,
    slots::Slot,
    source::Source,
};
use agentforge_runtime::http::Socket;
use bytes::Bytes;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
    /// The connection, taken out of HTTP in non-blocking mode.
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
    /// It gets an answer and is closed: a refusal.
    Refused,
    /// It follows the picture.
    Client {
        /// Its place among the clients; given back when this is dropped.
        slot: Slot,
        /// What it looks at.
        filter: Filter,
        /// Whether it gets links to evidence.
        sight: Sight,
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
    /// The index of its worker.
    pub worker: usize,
    /// Its place there.
    pub key: usize,
    /// Which of those that had the place.
    pub generation: u64,
}

/// A client needs what is no longer in memory.
#[derive(Debug)]
pub struct ReplayRequest {
    /// The client that asks.
    pub client: ClientRef,
    /// From where on.
    pub from: ReplayStart,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStart {
    /// Behind a message, if the stream is the one that had it.
    After(Mark),
    /// At a moment, in unix milliseconds.
    Since(i64),
}

/// What was read for a client.
#[derive(Debug)]
pub struct ReplayBatch {
    /// The events in the order of the stream.
    pub events: Vec<Arc<Event>>,
    /// They are everything up to here.
    pub after: u64,
    /// The stream has nothing behind it.
    pub is_at_end: bool,
}

/// What a worker is asked for.
#[derive(Debug)]
pub enum Command {
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
    Feed(usize, u64, Option<ReplayBatch>),
    Stop {
        window: Duration,
    },
}

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Idle time before a heartbeat, SSE and WebSocket.
    pub heartbeats: [Duration; 2],
    /// What may wait for one client, bytes.
    pub client_buffer_bytes: usize,
    /// Signs the links to evidence again before they end.
    pub signer: Signer,
    /// Whether what is new comes.
    pub source: Source,
}

/// The commands that wait for a worker.
#[derive(Debug)]
pub struct Inbox {
    commands: Mutex<Vec<Command>>,
    waker: mio::Waker,
}

impl Inbox {
    /// An empty one.
    pub fn new(waker: mio::Waker) -> Self {
        Self { commands: Mutex::default(), waker }
    }

    /// Adds a command and wakes the worker. Gives how many wait.
    pub fn send(&self, command: Command) -> usize {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.push(command);
        let waiting = commands.len();
        drop(commands);
        // One that is awake takes all there is; it cannot miss what came before it checked.
        if waiting == 1 {
            let _ = self.waker.wake();
        }
        waiting
    }

    /// Takes all that wait.
    pub fn take(&self) -> Vec<Command> {
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
