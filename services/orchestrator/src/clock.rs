//! Whether the wall clock went back, seen against one that cannot.
//!
//! Stored times are on the wall clock: the ends of claims, waits for retries, deadlines. A clock that is set back by an
//! hour would hold all of it up for an hour. So its step is measured and reported to the store, once.

use crate::app::App;
use crate::metrics;
use crate::reconcile::pause;
use agentforge_proto::time::Micros;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often the clocks are compared.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A step back that is reported; a smaller one holds nothing up for long, and may be the clock being slewed.
const STEP_MIN: Duration = Duration::from_secs(5);
/// The same for a step made while no process ran, which only the newest job reveals.
const STEP_UNSEEN_MIN: Duration = Duration::from_secs(60);

/// Both clocks at the last check.
#[derive(Debug)]
pub(crate) struct Steps {
    wall: Micros,
    at: Instant,
}

impl Steps {
    /// From now on.
    pub(crate) fn begin() -> Self {
        Self { wall: Micros::now(), at: Instant::now() }
    }

    /// How far the wall clock went back since the last check.
    pub(crate) fn check(&mut self, wall: Micros, at: Instant) -> Option<Duration> {
        let expected = self.wall.plus(at.saturating_duration_since(self.at));
        *self = Self { wall, at };
        Some(expected.since(wall)).filter(|back| *back >= STEP_MIN)
    }
}

/// Reports each step back to the store, until `stop` fires.
///
/// # Errors
/// Never; the type is the supervisor's.
pub async fn steps_loop(app: App, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let mut steps = Steps::begin();
    // Of replicas with clocks of their own, the newest job says nothing about ours.
    let mut owed = if app.has_replicas() { None } else { unseen(&app).await };
    loop {
        if let Some(back) = owed {
            match app.set_back(Micros::now(), back).await {
                Ok(jobs) => {
                    owed = None;
                    metrics::CLOCK_SET_BACK.inc(&[]);
                    warn!(seconds = back.as_secs(), jobs, "clock set back; claims, retries and deadlines follow");
                }
                Err(e) => {
                    warn!(error = &e as &dyn std::error::Error, "a step of the clock was not stored; trying again")
                }
            }
        }
        if !pause(&stop, CHECK_INTERVAL).await {
            return Ok(());
        }
        if let Some(back) = steps.check(Micros::now(), Instant::now()) {
            owed = Some(owed.unwrap_or_default() + back);
        }
    }
}

async fn unseen(app: &App) -> Option<Duration> {
    let newest = app.newest_accepted().await.ok().flatten()?;
    Some(newest.since(Micros::now())).filter(|ahead| *ahead >= STEP_UNSEEN_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_back_is_reported_and_once() {
        let (second, at) = (Duration::from_secs(1), Instant::now());
        let mut steps = Steps { wall: Micros(10_000_000_000), at };
        assert_eq!(steps.check(Micros(10_001_000_000), at + second), None);
        // Set forward by an hour: nothing waits for that.
        assert_eq!(steps.check(Micros(13_602_000_000), at + 2 * second), None);
        // Set back by an hour and a second.
        assert_eq!(steps.check(Micros(10_002_000_000), at + 3 * second), Some(second * 3_601));
        assert_eq!(steps.check(Micros(10_003_000_000), at + 4 * second), None);
        assert_eq!(steps.check(Micros(10_002_000_000), at + 5 * second), None, "two seconds are slewing");
    }
}
