//! How much of the stream of retries may be filled. Values only: who looks, and when, is decided elsewhere.
//! The stream itself has no limit: one that takes schedules may not refuse new messages, and discarding old ones would
//! lose events. So the limit is enforced here, before each store. Replicas see each other's records only through the
//! stream; so of the room that a check found, each uses a sixteenth at most, and soon, before it checks again. The
//! limit may be exceeded by what the others stored since their last check.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Approximate size of a record besides its event: headers, subject, and the store's own.
pub const RECORD_BYTES: usize = 800;
/// Of the room that a check found, one of this many parts is used before the next check.
const SHARES: u64 = 16;
/// The result of a check is used no longer than this: others use the room too.
const STALE: Duration = Duration::from_millis(250);
/// A stream that was found full is not looked at again before this.
const FRESH: Duration = Duration::from_millis(100);

/// Room for retries, and looks at them one at a time.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    seen: Mutex<Seen>,
    /// Held by the task that checks.
    pub looking: tokio::sync::Mutex<()>,
}

/// What is known: the last check, and what was stored since, in bytes. The sums only grow.
#[derive(Debug, Default)]
struct Seen {
    last: Option<Look>,
    /// Given out.
    taken: u64,
    /// Of that, what was stored or given up.
    settled: u64,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    /// In the stream.
    bytes: u64,
    at: Instant,
    /// The sums: what was settled before it began is in `bytes`.
    settled_before: u64,
    taken_after: u64,
}

/// The sums when a check began.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// What comes of asking for room.
#[derive(Debug)]
pub enum Answer<'a> {
    /// Taken; it is known to be stored when this is dropped.
    Taken(Place<'a>),
    /// What is known is too old: look at the stream, and ask again.
    Look,
    /// There is none now.
    Full,
    /// There will never be: it is larger than the whole limit.
    Never,
}

/// Room for one record on its way into the stream.
#[derive(Debug)]
pub struct Place<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.lock().settled += self.bytes;
    }
}

impl Room {
    /// Of a stream that may hold so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, seen: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    /// The bytes that the stream may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A look begins.
    pub fn begin_look(&self) -> Mark {
        Mark(self.lock().settled)
    }

    /// It found so many bytes.
    pub fn end_look(&self, began: Mark, bytes: u64, now: Instant) {
        let mut seen = self.lock();
        seen.last = Some(Look { bytes, at: now, settled_before: began.0, taken_after: seen.taken });
    }

    /// Room for an event of so many bytes and its record.
    pub fn take(&self, event_bytes: usize, now: Instant) -> Answer<'_> {
        let bytes = (event_bytes + RECORD_BYTES) as u64;
        if bytes > self.limit {
            return Answer::Never;
        }
        let mut seen = self.lock();
        let Some(look) = seen.last else { return Answer::Look };
        let free = |taken: u64| self.limit.saturating_sub(look.bytes + (taken - look.settled_before));
        if bytes > free(seen.taken) {
            return if now.duration_since(look.at) < FRESH { Answer::Full } else { Answer::Look };
        }
        if now.duration_since(look.at) >= STALE {
            return Answer::Look;
        }
        let since = seen.taken - look.taken_after;
        // One that is larger than the share is stored right after a check, otherwise it would wait forever.
        if since > 0 && since + bytes > free(look.taken_after) / SHARES {
            return Answer::Look;
        }
        seen.taken += bytes;
        Answer::Taken(Place { room: self, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream, and what a replica does that stores as much as it may.
    fn fill(room: &Room, stored: &mut u64, event: usize, now: Instant) -> Option<u64> {
        let mut looks = 0;
        loop {
            match room.take(event, now) {
                Answer::Taken(_) => *stored += (event + RECORD_BYTES) as u64,
                Answer::Look => {
                    looks += 1;
                    room.end_look(room.begin_look(), *stored, now);
                }
                Answer::Full => return Some(looks),
                Answer::Never => return None,
            }
        }
    }

    #[test]
    fn the_limit_is_reached_and_not_passed_and_few_looks_are_needed() {
        let (room, now, mut stored) = (Room::new(10_000_000), Instant::now(), 0);
        let looks = fill(&room, &mut stored, 200, now).unwrap();
        assert_eq!(stored, 10_000_000, "of a thousand bytes each");
        assert!(looks < 150, "{looks} looks");
        assert!(matches!(room.take(200, now), Answer::Full));
        assert!(matches!(room.take(200, now + FRESH), Answer::Look), "somebody may have made room");
    }

    #[test]
    fn replicas_that_do_not_know_of_each_other_keep_the_limit_together() {
        let (rooms, now, mut stored) = ([0; 3].map(|_| Room::new(1_000_000)), Instant::now(), 0);
        // All look at the same moment, then each stores what it may.
        for _ in 0..200 {
            rooms.iter().for_each(|room| room.end_look(room.begin_look(), stored, now));
            for room in &rooms {
                while let Answer::Taken(_) = room.take(200, now) {
                    stored += 1000;
                }
            }
        }
        assert!((990_000..=1_002_000).contains(&stored), "{stored}: one record of each may be too many");
    }

    #[test]
    fn what_is_on_its_way_during_a_look_counts() {
        let (room, now) = (Room::new(8000), Instant::now());
        room.end_look(room.begin_look(), 0, now);
        let Answer::Taken(on_its_way) = room.take(3200, now) else { panic!("a half is free") };
        let began = room.begin_look();
        drop(on_its_way);
        room.end_look(began, 0, now);
        assert!(matches!(room.take(3201, now), Answer::Full), "the look may not have seen it");
        room.end_look(room.begin_look(), 4000, now);
        assert!(matches!(room.take(3200, now), Answer::Taken(_)), "now it has");
    }

    #[test]
    fn what_is_larger_than_a_share_goes_after_a_look_and_what_is_larger_than_all_never() {
        let (room, now) = (Room::new(10_000), Instant::now());
        assert!(matches!(room.take(0, now), Answer::Look), "nothing is known");
        room.end_look(room.begin_look(), 0, now);
        assert!(matches!(room.take(9200, now), Answer::Taken(_)));
        assert!(matches!(room.take(9201, now), Answer::Never));
        room.end_look(room.begin_look(), u64::from(u32::MAX), now);
        assert!(matches!(room.take(0, now), Answer::Full), "somebody stored more than the limit");
        room.end_look(room.begin_look(), 0, now);
        assert!(matches!(room.take(0, now + STALE), Answer::Look), "others may have used it");
    }
}
