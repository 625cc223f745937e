//! Stopping one run: a token that fires, and why. The first cause is kept.
//!
//! Values only; the code that runs the tool watches the token, the code that stops it gives the cause.

use std::sync::atomic::{AtomicU8, Ordering};
use tokio_util::sync::CancellationToken;

/// Why a run was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The job was cancelled, or is final already.
    Cancelled,
    /// It ran longer than its timeout.
    TimedOut,
    /// The worker leaves and its grace is over.
    Draining,
}

/// The stop of one run.
#[derive(Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    cause: AtomicU8,
}

const NONE: u8 = 0;

impl Stop {
    /// Fires the token. Later causes change nothing.
    pub fn stop(&self, cause: Cause) {
        let code = match cause {
            Cause::Cancelled => 1,
            Cause::TimedOut => 2,
            Cause::Draining => 3,
        };
        let _ = self.cause.compare_exchange(NONE, code, Ordering::AcqRel, Ordering::Acquire);
        self.token.cancel();
    }

    /// The token; a tool gets a clone.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Why it was stopped, if it was.
    pub fn cause(&self) -> Option<Cause> {
        match self.cause.load(Ordering::Acquire) {
            1 => Some(Cause::Cancelled),
            2 => Some(Cause::TimedOut),
            3 => Some(Cause::Draining),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_stands() {
        let stop = Stop::default();
        assert_eq!(stop.cause(), None);
        stop.stop(Cause::Cancelled);
        stop.stop(Cause::Draining);
        assert_eq!(stop.cause(), Some(Cause::Cancelled));
        assert!(stop.token().is_cancelled());
    }
}
