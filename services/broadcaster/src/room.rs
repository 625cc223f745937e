//! How much of the stream of retries may be filled with what waits. Values only.
//!
//! A parked retry needs room to become due: the server stores it anew before it removes the old one. A stream
//! that is full of parked retries would stand still for ever, so a part is kept free for that.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of so many parts of the stream one is kept free.
const PARTS: u64 = 8;
/// What a record takes beside its event, about: headers, subject, and the store's own.
const RECORD_BYTES: usize = 800;

/// Room for retries. What others wrote since the last look is not known; the part that is kept free is for
/// that, too.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// Of a stream that takes so many bytes.
    pub fn new(stream_bytes: u64) -> Self {
        Self { limit: stream_bytes - stream_bytes / PARTS, used: AtomicU64::new(0) }
    }

    /// So much is in the stream now.
    pub fn measured(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Whether an event of so many bytes may be put into it; if so, it counts.
    pub fn take(&self, event_bytes: usize) -> bool {
        let bytes = (event_bytes + RECORD_BYTES) as u64;
        let take = |used: u64| (used + bytes <= self.limit).then_some(used + bytes);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_is_kept_free_until_a_look_finds_room() {
        let room = Room::new(80_000);
        let taken = (0..1000).filter(|_| room.take(200)).count();
        assert_eq!(taken, 70, "of 80, a thousand bytes each");
        room.measured(69_500);
        assert!(!room.take(200) && !room.take(0));
        room.measured(1000);
        assert!(room.take(200));
        room.measured(u64::from(u32::MAX));
        assert!(!room.take(0));
    }
}
