//! The newest events, once for all clients of a worker. A client is a place in it, not a queue of its own.

use crate::{
    event::{Event, Mark},
    links::Signer,
};
use std::{collections::VecDeque, sync::Arc, time::Instant};

/// Maximum number of events, regardless of their size.
const EVENTS_MAX: usize = 65_536;

/// Events in the order of the stream, oldest first. Places are counted from the start of the worker.
#[derive(Debug)]
pub struct Ring {
    /// The place of the first event.
    first: u64,
    /// Each with the bytes of all events up to and including it.
    events: VecDeque<(Arc<Event>, u64)>,
    /// Bytes of all events that ever were.
    total: u64,
    bytes_max: u64,
    /// Every event with at least this sequence is here.
    covered_from: u64,
    /// The newest message that was seen, whether it became an event or not.
    head: Mark,
}

impl Ring {
    /// An empty one that keeps at most this many bytes of frames.
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max as u64;
        Self { first: 0, events: VecDeque::new(), total: 0, bytes_max, covered_from: 1, head: Mark::default() }
    }

    /// Starts again behind a message; positions keep counting.
    pub fn begin(&mut self, head: Mark) {
        self.first += self.events.len() as u64;
        self.events.clear();
        (self.head, self.covered_from) = (head, head.seq + 1);
    }

    /// Adds one; the oldest go when there is no room.
    pub fn push(&mut self, event: Arc<Event>) {
        self.total += event.weight() as u64;
        if event.notice().is_none() {
            self.head = self.head.max(Mark::of(event.seq, event.stored_unix_ms));
        }
        self.events.push_back((event, self.total));
        while self.events.len() > EVENTS_MAX || self.weight_from(self.first) > self.bytes_max {
            let Some((oldest, _)) = self.events.pop_front() else { break };
            self.covered_from = self.covered_from.max(oldest.seq + 1);
            self.first += 1;
        }
    }

    /// Everything up to this message was seen.
    pub fn seen(&mut self, head: Mark) {
        self.head = self.head.max(head);
    }

    /// The newest message that was seen.
    pub fn head(&self) -> Mark {
        self.head
    }

    /// Whether a client that saw this message saw what is here; `None` when it is not known here.
    pub fn knows(&self, mark: Mark) -> Option<bool> {
        let given = mark.stored_unix_ms?;
        if mark.seq == self.head.seq {
            return self.head.stored_unix_ms.map(|stored| stored == given);
        }
        let at = self.events.partition_point(|(event, _)| event.seq < mark.seq);
        let mut of_seq = self.events.iter().skip(at).map(|(event, _)| event).take_while(|e| e.seq == mark.seq);
        of_seq.find(|event| event.notice().is_none()).map(|event| event.stored_unix_ms == given)
    }

    /// The place behind the newest event.
    pub fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The event at a place; `None` at the end. What is gone already is not asked for.
    pub fn get(&self, place: u64) -> Option<&Arc<Event>> {
        let at = usize::try_from(place.checked_sub(self.first)?).ok()?;
        self.events.get(at).map(|(event, _)| event)
    }

    /// Whether the event at a place is gone.
    pub fn has_lost(&self, place: u64) -> bool {
        place < self.first
    }

    /// Bytes from a place to the end.
    pub fn weight_from(&self, place: u64) -> u64 {
        match usize::try_from(place.saturating_sub(self.first)).ok().and_then(|at| self.events.get(at)) {
            Some((event, upto)) => self.total - (upto - event.weight() as u64),
            None => 0,
        }
    }

    /// The place of the first event behind a sequence; `None` when some of them are not here any more, or
    /// the sequence was not seen yet.
    pub fn place_after(&self, seq: u64) -> Option<u64> {
        let is_covered = seq + 1 >= self.covered_from && seq <= self.head.seq;
        is_covered.then(|| self.first + self.events.partition_point(|(event, _)| event.seq <= seq) as u64)
    }

    /// Renews links that have lost half of their time.
    pub fn refresh(&mut self, signer: &Signer, now: Instant) {
        for (event, _) in &mut self.events {
            if let Some(fresh) = event.refreshed(signer, now) {
                *event = fresh;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Before, Epoch, EventId},
        sanitise::sanitise,
    };

    fn event(seq: u64) -> Arc<Event> {
        let change = sanitise("tactical.markers.a.b", b"", jiff::Timestamp::UNIX_EPOCH).unwrap();
        let id = EventId { epoch: Epoch::of(1_000), mark: Mark::of(seq, seq as i64 * 10) };
        let signer = Signer::new(["s"], std::time::Duration::from_secs(300));
        Arc::new(Event::of_change(change, Before::Nothing, &id, seq as i64 * 10, &signer))
    }

    #[test]
    fn places_are_found_by_sequence_and_lost_ones_are_known() {
        let mut ring = Ring::new(event(10).weight() * 3);
        ring.begin(Mark::bare(9));
        assert_eq!((ring.place_after(9), ring.place_after(8), ring.place_after(10)), (Some(0), None, None));
        for seq in [10, 11, 13] {
            ring.push(event(seq));
        }
        assert_eq!(ring.place_after(9), Some(0));
        assert_eq!(ring.place_after(11), Some(2));
        assert_eq!(ring.place_after(12), Some(2));
        assert_eq!(ring.place_after(13), Some(3));
        ring.seen(Mark::of(20, 200));
        assert_eq!(ring.place_after(20), Some(3));
        ring.push(event(21));
        assert!(ring.has_lost(0) && !ring.has_lost(1));
        assert_eq!((ring.place_after(9), ring.place_after(10)), (None, Some(1)));
        assert_eq!(ring.weight_from(1), 3 * event(10).weight() as u64);
        assert_eq!(ring.weight_from(ring.end()), 0);
        ring.begin(Mark::of(5, 50));
        assert_eq!((ring.end(), ring.place_after(5)), (4, Some(4)));
        assert!(ring.get(4).is_none());
    }

    #[test]
    fn a_message_is_known_by_its_moment() {
        let mut ring = Ring::new(1 << 20);
        ring.begin(Mark::of(9, 90));
        for seq in [10, 11, 13] {
            ring.push(event(seq));
        }
        ring.seen(Mark::of(14, 140));
        for (seq, moment, known) in [
            (9, 90, None),
            (10, 100, Some(true)),
            (11, 111, Some(false)),
            (12, 120, None),
            (13, 130, Some(true)),
            (14, 140, Some(true)),
            (14, 141, Some(false)),
            (15, 150, None),
        ] {
            assert_eq!(ring.knows(Mark::of(seq, moment)), known, "{seq} {moment}");
        }
        assert_eq!(ring.knows(Mark::bare(10)), None);
    }
}
