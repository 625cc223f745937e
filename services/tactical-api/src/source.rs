//! Whether the stream is heard, which distinguishes "nothing happens" from "nothing arrives".
//!
//! The server of the stream sends a sign of life every second. Tasks that wait for events ask here how long ago the
//! last one was.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// After this long without a sign of life the source is unavailable: longer than it takes to notice a lost consumer and
/// to create another.
const AWAY_AFTER: Duration = Duration::from_secs(6);

/// When the stream was last heard. Clones share it.
#[derive(Clone, Debug)]
pub struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// Since then, milliseconds.
    heard_ms: AtomicU64,
}

impl Source {
    /// One that is heard now.
    pub fn new() -> Self {
        Self(Arc::new(Inner { began: Instant::now(), heard_ms: AtomicU64::new(0) }))
    }

    /// It is heard now.
    pub fn heard(&self) {
        let ms = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// How it is now.
    pub fn state(&self) -> State {
        let heard = Duration::from_millis(self.0.heard_ms.load(Ordering::Relaxed));
        State::of_age(self.0.began.elapsed().saturating_sub(heard))
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::new()
    }
}

/// How the stream was at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// It was not heard for too long.
    pub is_away: bool,
    /// When it was last heard.
    pub age: Duration,
}

impl State {
    fn of_age(age: Duration) -> Self {
        Self { is_away: age >= AWAY_AFTER, age }
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        if self.is_away { "away" } else { "live" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_away_when_it_was_not_heard_for_too_long() {
        assert_eq!(State::of_age(AWAY_AFTER).as_str(), "away");
        assert_eq!(State::of_age(AWAY_AFTER - Duration::from_millis(1)).as_str(), "live");
        assert!(!Source::new().state().is_away);
    }
}
