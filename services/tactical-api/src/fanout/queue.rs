//! What waits for one client, and where it is: a half-written frame, a backlog of its own (only while it
//! catches up or was slow), and a place in the ring. Never owns a copy of what others get too. No I/O.

use super::ring::Ring;
use crate::{
    event::{Channel, Epoch, Event, EventId, Frames, Notice, Sight},
    filter::Filter,
    links::Signer,
    source::State,
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{HashMap, VecDeque},
    io::IoSlice,
    sync::Arc,
    time::Instant,
};

/// Frames in one write.
pub const FRAMES_AT_ONCE: usize = 32;
/// Bytes in one write, about: a client with much to get must not hold up the others.
const BYTES_AT_ONCE: usize = 256 << 10;
/// Answers to pings that may wait.
const URGENT_MAX_BYTES: usize = 4096;

/// What a client gets next.
#[derive(Debug)]
pub enum Phase {
    /// The ring, as it grows.
    Live,
    /// Its backlog, and behind it everything after a sequence.
    CatchingUp {
        /// All up to it is in the backlog or was written.
        after: u64,
        /// The stream has nothing behind it.
        is_at_end: bool,
        /// More was asked for and has not come.
        is_waiting: bool,
    },
    /// Nothing but its last words.
    Leaving {
        /// It has had its time.
        by: Instant,
        /// The last words are out.
        is_told: bool,
    },
}

/// What was written, for the counters.
#[derive(Debug, Default)]
pub struct WriteStats {
    /// Events, by channel.
    pub events: [u64; 2],
    /// Notices, by kind.
    pub notices: [u64; 5],
    /// Moments of events that were written to clients that are looked at, by channel.
    pub stored_unix_ms: Vec<(Channel, i64)>,
    /// Whether the client at hand is looked at.
    pub is_sampling: bool,
    /// States that were passed over.
    pub conflated: u64,
}

impl WriteStats {
    fn count(&mut self, channel: Channel, event: &Event) {
        match event.notice() {
            Some(notice) => self.notices[notice as usize] += 1,
            None => {
                self.events[channel as usize] += 1;
                if self.is_sampling {
                    self.stored_unix_ms.push((channel, event.stored_unix_ms));
                }
            }
        }
    }
}

/// What waits for a client.
#[derive(Debug)]
pub struct Queue {
    /// How it is connected.
    pub channel: Channel,
    /// What it gets next.
    pub phase: Phase,
    /// What it looks at.
    pub filter: Option<Box<Filter>>,
    /// Whether it gets links to evidence. Set once, before the first event: a frame half written must stay the same.
    pub sight: Sight,
    /// Its place in the ring while live.
    pub next: u64,
    /// Events up to this sequence are not for it.
    pub skip_to: u64,
    /// The newest sequence that was written or passed by.
    pub written: u64,
    partial: Bytes,
    urgent: Bytes,
    backlog: VecDeque<Arc<Event>>,
    backlog_bytes: usize,
}

impl Queue {
    /// One whose first words are `greeting`.
    pub fn new(channel: Channel, greeting: Bytes, phase: Phase) -> Self {
        Self {
            channel,
            phase,
            filter: None,
            sight: Sight::default(),
            next: 0,
            skip_to: 0,
            written: 0,
            partial: greeting,
            urgent: Bytes::new(),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
        }
    }

    /// Adds to what it gets before anything of the ring.
    pub fn give(&mut self, events: impl IntoIterator<Item = Arc<Event>>) {
        for event in events {
            self.backlog_bytes += event.weight();
            self.backlog.push_back(event);
        }
    }

    fn pop(&mut self) {
        if let Some(event) = self.backlog.pop_front() {
            self.backlog_bytes = self.backlog_bytes.saturating_sub(event.weight());
        }
        if self.backlog.is_empty() {
            // Most clients never have one again.
            (self.backlog, self.backlog_bytes) = (VecDeque::new(), 0);
        }
    }

    /// Forgets the backlog and what was to be said in between.
    pub fn clear(&mut self) {
        (self.backlog, self.backlog_bytes, self.urgent) = (VecDeque::new(), 0, Bytes::new());
    }

    /// Leaves the ring: everything behind what was written is to come from the stream.
    pub fn fall_back(&mut self) {
        (self.backlog, self.backlog_bytes) = (VecDeque::new(), 0);
        self.phase = Phase::CatchingUp { after: self.written, is_at_end: false, is_waiting: false };
    }

    /// Whether everything before the ring was written.
    pub fn is_drained(&self) -> bool {
        self.partial.is_empty() && self.urgent.is_empty() && self.backlog.is_empty()
    }

    /// Whether it has everything there is.
    pub fn is_up_to_date(&self, ring: &Ring) -> bool {
        self.is_live() && self.is_drained() && self.next >= ring.end()
    }

    /// Whether it follows the ring.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Bytes that wait.
    pub fn pending_bytes(&self, ring: &Ring) -> usize {
        let in_ring = if self.is_live() { ring.weight_from(self.next) } else { 0 };
        self.partial.len() + self.backlog_bytes + usize::try_from(in_ring).unwrap_or(usize::MAX)
    }

    /// What this client gets of an event, if anything.
    fn frame<'a>(&self, event: &'a Event) -> Option<&'a Bytes> {
        let is_old = event.seq <= self.skip_to && event.notice().is_none();
        if is_old { None } else { event.frame(self.channel, self.filter.as_deref(), self.sight) }
    }

    /// The parts of the next write: how many there are and their bytes.
    pub fn gather<'a>(&'a self, ring: &'a Ring, parts: &mut [IoSlice<'a>; FRAMES_AT_ONCE]) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        let mut add = |frame: &'a Bytes| {
            parts[count] = IoSlice::new(frame);
            count += 1;
            bytes += frame.len();
            count < FRAMES_AT_ONCE && bytes < BYTES_AT_ONCE
        };
        let held = [&self.partial, &self.urgent].into_iter().filter(|held| !held.is_empty());
        let of_backlog = self.backlog.iter().filter_map(|event| self.frame(event));
        let places = if self.is_live() { self.next..ring.end() } else { 0..0 };
        let of_ring = places.filter_map(|place| ring.get(place)).filter_map(|event| self.frame(event));
        for frame in held.chain(of_backlog).chain(of_ring) {
            if !add(frame) {
                break;
            }
        }
        (count, bytes)
    }

    /// Takes note of bytes that were written, in the order in which they were gathered.
    pub fn consume(&mut self, mut written: usize, ring: &Ring, tally: &mut WriteStats) {
        for held in [&mut self.partial, &mut self.urgent] {
            let n = written.min(held.len());
            *held = if n == held.len() { Bytes::new() } else { held.slice(n..) };
            written -= n;
            if !held.is_empty() {
                return;
            }
        }
        while let Some(event) = self.backlog.front().cloned() {
            if !self.passes(&event, &mut written, tally) {
                return;
            }
            self.pop();
            if !self.partial.is_empty() {
                return;
            }
        }
        while self.is_live()
            && let Some(event) = ring.get(self.next)
        {
            if !self.passes(event, &mut written, tally) {
                return;
            }
            self.next += 1;
            if !self.partial.is_empty() {
                return;
            }
        }
    }

    /// Whether an event was written, at least in part, or is not for this client. What is left of it becomes
    /// the partial frame, so it is counted now.
    fn passes(&mut self, event: &Event, written: &mut usize, tally: &mut WriteStats) -> bool {
        if let Some(frame) = self.frame(event) {
            if *written == 0 {
                return false;
            }
            tally.count(self.channel, event);
            let n = frame.len().min(*written);
            *written -= n;
            self.partial = if n == frame.len() { Bytes::new() } else { frame.slice(n..) };
        }
        if event.notice().is_none() {
            self.written = self.written.max(event.seq);
        }
        true
    }

    /// Keeps only the newest waiting state of every marker, and records that. Returns the remaining bytes.
    pub fn conflate(&mut self, ring: &Ring, epoch: &Epoch, tally: &mut WriteStats, unix_ms: i64) -> usize {
        let mut waiting: Vec<Arc<Event>> = std::mem::take(&mut self.backlog).into();
        self.backlog_bytes = 0;
        while let Some(event) = ring.get(self.next) {
            waiting.push(event.clone());
            self.next += 1;
        }
        waiting.retain(|event| self.frame(event).is_some());
        let mut newest = HashMap::new();
        for (at, event) in waiting.iter().enumerate() {
            if let Some(key) = event.key() {
                newest.insert(key.clone(), at);
            }
        }
        let ends = waiting.first().zip(waiting.last()).map(|(first, last)| (first.seq, last.seq));
        let before = waiting.len();
        let is_newest = |at: usize, event: &Event| event.key().is_none_or(|key| newest.get(key) == Some(&at));
        let kept = waiting.into_iter().enumerate().filter(|(at, event)| is_newest(*at, event));
        let kept: Vec<_> = kept.map(|(_, event)| event).collect();
        let missing = (before - kept.len()) as u64;
        if let Some((from, to)) = ends.filter(|_| missing > 0) {
            let id = |seq| EventId::bare(epoch, seq);
            self.give([Arc::new(Event::gap(Notice::Conflated, &id(from), &id(to), missing, unix_ms))]);
            tally.conflated += missing;
        }
        self.give(kept);
        self.partial.len() + self.backlog_bytes
    }

    /// Renews links that have lost half of their time.
    pub fn refresh(&mut self, signer: &Signer, now: Instant) {
        for event in &mut self.backlog {
            if let Some(fresh) = event.refreshed(signer, now) {
                *event = fresh;
            }
        }
    }

    /// Sends something small between two frames, such as the answer to a ping.
    pub fn interject(&mut self, bytes: &Bytes) {
        if self.urgent.len() + bytes.len() <= URGENT_MAX_BYTES {
            self.urgent = joined(&self.urgent, bytes);
        }
    }

    /// Nothing follows but these words. A frame that was begun ends first, or they would be part of it.
    pub fn end_with(&mut self, words: &Bytes) {
        self.clear();
        self.partial = joined(&self.partial, words);
    }

    /// The keep-alive of a client that is not up to date: it names what it has.
    pub fn own_heartbeat(&self, epoch: &Epoch, source: State, unix_ms: i64) -> Bytes {
        let id = match self.channel {
            Channel::Sse => String::new(),
            Channel::Ws => EventId::bare(epoch, self.written).to_string(),
        };
        Frames::heartbeat(&id, source, unix_ms).of(self.channel).clone()
    }
}

fn joined(first: &Bytes, second: &Bytes) -> Bytes {
    if first.is_empty() {
        return second.clone();
    }
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    both.freeze()
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
