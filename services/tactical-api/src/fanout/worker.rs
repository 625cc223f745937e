//! A thread that writes events to its share of the clients. It never waits for one of them.
//!
//! A client is either live or catching up. A live one has a position in the ring, which the thread fills with events
//! that all its clients share; writing is copying from that position to the end. One that is catching up is fed from
//! the stream, batch by batch, and joins the ring at the first event that it has not got. It falls back when the ring
//! has dropped events that it still needs. So memory does not grow with slow clients: what they miss is in the stream.
//!
//! Sockets are watched edge-triggered: after a write that would block, nothing is written until the poll reports room
//! (`is_blocked`). A client with more to write than one turn allows is in `unfinished`, and while there is one, the poll
//! does not wait. A key of the slab is used again for later clients, so answers to requests carry the generation of the
//! client that asked, and are dropped when it is another one now.
//!
//! The loop: wait for sockets or commands, take them, write to everybody who has something to get, look
//! after the idle. What a client sends is read here too, so that its end is noticed.

#[cfg(test)]
mod tests;
mod upkeep;

use super::{
    client::{Client, CloseReason, Disconnected},
    command::{ClientRef, Command, Inbox, Join, ReplayBatch, ReplayRequest, ReplayStart, Role, Settings, Start},
    queue::{Phase, Queue, WriteStats},
    request::filter_of,
    ring::Ring,
    transport::Transport,
};
use crate::{
    event::{Channel, Epoch, Event, Mark},
    metrics,
    ws::{self, Incoming},
};
use agentforge_access::Scopes;
use mio::{Events, Poll, Token};
use slab::Slab;
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{self, error::TrySendError};

/// The token of the inbox.
pub const WAKER: Token = Token(usize::MAX);
/// Socket events taken at once.
const EVENTS_AT_ONCE: usize = 1024;
/// Between two checks of idle clients; shorter where heartbeats are.
const TICK_MAX: Duration = Duration::from_millis(250);
const TICK_MIN: Duration = Duration::from_millis(10);
/// A client that takes nothing for this long is disconnected even if little waits for it.
const STALLED_MAX: Duration = Duration::from_secs(30);
/// How much a client may send without being asked.
const IGNORED_MAX_BYTES: usize = 64 << 10;
/// What is read at once.
const READ_BYTES: usize = 16 << 10;
/// Clients whose lag is looked at, in each pass over all.
const SAMPLES: usize = 16;
/// The ring holds this many times what one client may have waiting, so that who is slow is noticed first.
const RING_BUFFERS: usize = 16;
/// Sockets of refused clients that may linger; beyond it they are closed without waiting.
const REFUSED_MAX: usize = 1024;
/// When the service stops, one worker asks at most this many clients per second to leave.
const LEAVE_PER_SECOND: u32 = 50;

/// A worker's state.
pub struct Worker {
    index: usize,
    poll: Poll,
    inbox: Arc<Inbox>,
    settings: Settings,
    wanted: mpsc::Sender<ReplayRequest>,
    clients: Slab<Client>,
    ring: Ring,
    epoch: Option<Epoch>,
    generation: u64,
    refused: usize,
    is_stopping: bool,
    /// Clients got a notice that the source is unavailable.
    is_away: bool,
    /// Clients with more to write than is written in one go.
    unfinished: Vec<usize>,
    tally: WriteStats,
    handles: metrics::Handles,
    buffer: Vec<u8>,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        poll: Poll,
        inbox: Arc<Inbox>,
        settings: Settings,
        wanted: mpsc::Sender<ReplayRequest>,
    ) -> Self {
        let ring = Ring::new(settings.client_buffer_bytes * RING_BUFFERS);
        Self {
            index,
            poll,
            inbox,
            settings,
            wanted,
            clients: Slab::new(),
            ring,
            epoch: None,
            generation: 0,
            refused: 0,
            is_stopping: false,
            is_away: false,
            unfinished: Vec::new(),
            tally: WriteStats::default(),
            handles: metrics::Handles::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Runs until it is asked to stop and all clients have left.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_AT_ONCE);
        let tick = (*self.settings.heartbeats.iter().min().unwrap_or(&TICK_MAX) / 4).clamp(TICK_MIN, TICK_MAX);
        let mut next_tick = Instant::now() + tick;
        while !(self.is_stopping && self.clients.is_empty()) {
            let wait = if self.unfinished.is_empty() {
                next_tick.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "sockets cannot be waited for");
                return;
            }
            let now = Instant::now();
            // Sockets before commands: a client that has closed is gone before events are written to it.
            for event in &events {
                if event.token() == WAKER {
                    // The commands are taken below, in every turn.
                    continue;
                }
                let key = event.token().0;
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(key, now);
                }
                if event.is_writable() {
                    self.writable(key, now);
                }
            }
            for key in std::mem::take(&mut self.unfinished) {
                self.advance(key, now);
            }
            self.run_commands(now);
            let now = Instant::now();
            if now >= next_tick {
                self.tick(now);
                next_tick = now + if self.is_stopping { TICK_MIN } else { tick };
            }
            self.report();
        }
    }

    fn run_commands(&mut self, now: Instant) {
        let mut is_news = false;
        // All commands first, then one pass over the clients: many events cost one write for each client.
        for command in self.inbox.take() {
            match command {
                Command::Begin { epoch, head } => {
                    self.epoch = Some(epoch);
                    self.ring.begin(head);
                    is_news = true;
                }
                Command::Reset { epoch, head, notice } => self.reset(epoch, head, &notice),
                Command::Publish { events, head } => {
                    for event in events {
                        self.ring.push(event);
                    }
                    self.ring.seen(head);
                    is_news = true;
                }
                Command::Join(join) => self.join(*join, now),
                Command::Feed(key, generation, found) => self.feed(key, generation, found, now),
                Command::Stop { window } => self.stop(window, now),
            }
        }
        if is_news {
            self.write_to_all(now);
        }
    }

    /// One pass over everybody. Who cannot take more is looked at for what waits.
    fn write_to_all(&mut self, now: Instant) {
        let stride = self.clients.len().div_ceil(SAMPLES).max(1);
        let unix_ms = unix_ms();
        let (mut gone, mut slow) = (Vec::new(), Vec::new());
        let buffer = self.settings.client_buffer_bytes;
        for (n, (key, client)) in self.clients.iter_mut().enumerate() {
            if !client.queue.is_live() {
                continue;
            }
            if self.ring.has_lost(client.queue.next) {
                // More came at once than the ring holds: the stream has it.
                client.queue.fall_back();
                self.unfinished.push(key);
                continue;
            }
            // Lag is measured on a few clients, spread over all: a clock reading for each would cost more than the write.
            self.tally.is_sampling = n % stride == 0;
            if !client.is_blocked {
                match client.flush(&self.ring, &mut self.tally, now) {
                    Ok(false) => {}
                    Ok(true) => self.unfinished.push(key),
                    Err(Disconnected) => {
                        gone.push(key);
                        continue;
                    }
                }
            }
            // Only what is still waiting after the write counts, so a fast client is never conflated.
            if client.queue.pending_bytes(&self.ring) > buffer
                && let Some(epoch) = &self.epoch
            {
                // Half of the buffer must be won, or it would be done again for every event.
                let left = client.queue.conflate(&self.ring, epoch, &mut self.tally, unix_ms);
                if left > buffer / 2 {
                    slow.push(key);
                }
            }
        }
        self.tally.is_sampling = false;
        for key in slow {
            self.dismiss(key, CloseReason::Slow, now);
        }
        for key in gone {
            self.remove(key);
        }
    }

    fn writable(&mut self, key: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.is_blocked = false;
        self.advance(key, now);
    }

    /// Writes to one client, and takes it a step further when all of that is out.
    fn advance(&mut self, key: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.flush(&self.ring, &mut self.tally, now) {
            Ok(false) => {}
            Ok(true) => return self.unfinished.push(key),
            Err(Disconnected) => return self.remove(key),
        }
        if client.is_blocked || !client.queue.is_drained() {
            return;
        }
        let generation = client.generation;
        match &mut client.queue.phase {
            Phase::Live => {}
            Phase::Leaving { is_told, .. } => {
                if !*is_told {
                    *is_told = true;
                    // The client closes when it has read the last words; see `read`.
                    client.transport.finish();
                }
            }
            Phase::CatchingUp { is_waiting: true, .. } => {}
            Phase::CatchingUp { after, is_at_end, is_waiting } => {
                let (after, is_ahead) = (*after, *is_at_end && *after > self.ring.head().seq);
                // The ring has the next event, or the client is ahead of the ring because the stream was read later than
                // the ring was filled: then it waits at the end of the ring, and skips what it has already.
                let place = self.ring.place_after(after).or(is_ahead.then(|| self.ring.end()));
                match place {
                    Some(place) => {
                        client.queue.phase = Phase::Live;
                        (client.queue.next, client.queue.skip_to) = (place, after);
                        client.queue.written = client.queue.written.max(after);
                        self.advance(key, now);
                    }
                    None => {
                        *is_waiting = true;
                        self.request(key, generation, ReplayStart::After(Mark::bare(after)), now);
                    }
                }
            }
        }
    }

    /// Puts a client in the queue of those that need the stream. Where that is full the client is asked to connect again:
    /// what it missed is in the stream, and it finds another instance, or a shorter queue.
    fn request(&mut self, key: usize, generation: u64, from: ReplayStart, now: Instant) {
        let client = ClientRef { worker: self.index, key, generation };
        match self.wanted.try_send(ReplayRequest { client, from }) {
            // It is closed when the service stops; then all clients are asked to leave.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => self.dismiss(key, CloseReason::Busy, now),
        }
    }

    fn join(&mut self, join: Join, now: Instant) {
        let Join { socket, channel, greeting, role } = join;
        let is_refusal = matches!(role, Role::Refused);
        if is_refusal && self.refused >= REFUSED_MAX {
            return;
        }
        self.generation += 1;
        let mut client = Client {
            transport: Transport::new(socket),
            queue: Queue::new(channel, greeting, Client::leaving(now)),
            slot: None,
            decoder: (channel == Channel::Ws).then(Box::default),
            wrote_at: now,
            leave_at: None,
            generation: self.generation,
            is_blocked: false,
            ignored_bytes: 0,
            is_refused: is_refusal,
        };
        let mut wanted = None;
        let mut said = bytes::Bytes::new();
        if let Role::Client { slot, filter, sight, start, notice, unread } = role {
            client.slot = Some(slot);
            client.queue.sight = sight;
            client.queue.filter = (!filter.is_empty()).then(|| Box::new(filter));
            let source = self.settings.source.state();
            if self.is_away && source.is_away {
                client.queue.give([Arc::new(Event::source(source, unix_ms()))]);
            }
            client.queue.give(notice);
            let catching_up = |after| Phase::CatchingUp { after, is_at_end: false, is_waiting: false };
            let waiting = Phase::CatchingUp { after: 0, is_at_end: false, is_waiting: true };
            client.queue.phase = match start {
                Start::Now => catching_up(self.ring.head().seq),
                Start::Snapshot(events, after) => {
                    client.queue.give(events);
                    catching_up(after)
                }
                Start::After(mark) if mark.stored_unix_ms.is_none() => catching_up(mark.seq),
                Start::After(mark) => match self.ring.knows(mark) {
                    Some(true) => catching_up(mark.seq),
                    Some(false) => {
                        client.queue.give(self.epoch.as_ref().map(|epoch| Arc::new(Event::reset(epoch, unix_ms()))));
                        catching_up(0)
                    }
                    None => {
                        wanted = Some(ReplayStart::After(mark));
                        waiting
                    }
                },
                Start::Since(moment) => {
                    wanted = Some(ReplayStart::Since(moment));
                    waiting
                }
            };
            said = unread;
        }
        let entry = self.clients.vacant_entry();
        let key = entry.key();
        let generation = client.generation;
        if client.transport.register(self.poll.registry(), Token(key)).is_err() {
            return;
        }
        entry.insert(client);
        self.refused += usize::from(is_refusal);
        if self.is_stopping && !is_refusal {
            return self.dismiss(key, CloseReason::Restart, now);
        }
        if let Some(from) = wanted {
            self.request(key, generation, from, now);
        }
        if !said.is_empty() {
            self.receive(key, &said, now);
        }
        self.advance(key, now);
    }

    fn feed(&mut self, key: usize, generation: u64, found: Option<ReplayBatch>, now: Instant) {
        let Some(client) = self.clients.get_mut(key).filter(|client| client.generation == generation) else { return };
        let Phase::CatchingUp { after, is_at_end, is_waiting } = &mut client.queue.phase else { return };
        match found {
            Some(found) => {
                (*after, *is_at_end, *is_waiting) = (found.after, found.is_at_end, false);
                client.queue.give(found.events);
                self.advance(key, now);
            }
            None => self.dismiss(key, CloseReason::Unavailable, now),
        }
    }

    /// Everybody gets the notice, and then the new stream from its start.
    fn reset(&mut self, epoch: Epoch, head: Mark, notice: &Arc<Event>) {
        self.epoch = Some(epoch);
        self.ring.begin(head);
        let now = Instant::now();
        for key in self.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if matches!(client.queue.phase, Phase::Leaving { .. }) {
                continue;
            }
            // What was asked for is of the old stream: its answer must not be taken.
            self.generation += 1;
            client.generation = self.generation;
            client.queue.give([notice.clone()]);
            (client.queue.skip_to, client.queue.written) = (0, 0);
            client.queue.phase = Phase::CatchingUp { after: 0, is_at_end: false, is_waiting: false };
            self.advance(key, now);
        }
    }

    /// What a socket has for us.
    fn read(&mut self, key: usize, now: Instant) {
        loop {
            let Some(client) = self.clients.get_mut(key) else { return };
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = client.transport.read(&mut buffer);
            match &read {
                Ok(0) => self.remove(key),
                Ok(n) => self.receive(key, &buffer[..*n], now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.remove(key),
            }
            self.buffer = buffer;
            let again = match read {
                Ok(n) => n > 0,
                Err(error) => error.kind() == io::ErrorKind::Interrupted,
            };
            if !again {
                return;
            }
        }
    }

    fn receive(&mut self, key: usize, bytes: &[u8], now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let is_leaving = matches!(client.queue.phase, Phase::Leaving { .. });
        let Some(decoder) = client.decoder.as_mut().filter(|_| !is_leaving) else {
            client.ignored_bytes += bytes.len();
            if client.ignored_bytes > IGNORED_MAX_BYTES {
                self.remove(key);
            }
            return;
        };
        // The client is found again for each message: handling one may remove it.
        for said in decoder.feed(bytes) {
            let Some(client) = self.clients.get_mut(key) else { return };
            match said {
                Incoming::Text(text) => match filter_of(&text) {
                    Some(filter) => {
                        // What a client may see stays, regardless of what it asks for.
                        let scopes = client.queue.filter.as_ref().map_or(Scopes::ALL, |before| before.scopes().clone());
                        let filter = filter.within(scopes);
                        client.queue.filter = (!filter.is_empty()).then(|| Box::new(filter));
                    }
                    None => {
                        let reason = CloseReason::Closed(ws::code::UNSUPPORTED, "only {\"filter\":{…}} is understood");
                        return self.dismiss(key, reason, now);
                    }
                },
                Incoming::Ping(payload) => client.queue.interject(&ws::frame(ws::PONG, &payload)),
                Incoming::Pong => {}
                Incoming::Close(_) => {
                    return self.dismiss(key, CloseReason::Closed(ws::code::NORMAL, ""), now);
                }
                Incoming::Fault(code, reason) => return self.dismiss(key, CloseReason::Closed(code, reason), now),
            }
        }
        self.advance(key, now);
    }

    fn dismiss(&mut self, key: usize, reason: CloseReason, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Some(label) = reason.label() {
            metrics::DROPPED.inc(&[client.queue.channel.as_str(), label]);
        }
        client.leave(reason, now);
        if !client.is_blocked {
            self.advance(key, now);
        }
    }

    fn remove(&mut self, key: usize) {
        if let Some(mut client) = self.clients.try_remove(key) {
            client.transport.deregister(self.poll.registry());
            self.refused -= usize::from(client.is_refused);
        }
        if self.clients.is_empty() && self.clients.capacity() > EVENTS_AT_ONCE {
            self.clients.shrink_to_fit();
        }
    }

    fn keys(&self) -> Vec<usize> {
        self.clients.iter().map(|(key, _)| key).collect()
    }
}

fn unix_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
