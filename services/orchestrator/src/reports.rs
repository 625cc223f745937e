//! Whether all reports up to a moment were read and committed: what must be known before a job is given up.
//!
//! A worker's report lies in `swarm_results` before the job's message is acknowledged. So when a message is gone,
//! or a deadline has passed, the answer may lie there unread: because results are many, because their reader was
//! removed, because the orchestrator just started. Nothing that was done may end expired or run again for that.

use agentforge_jetstream::{Nats, subjects};
use agentforge_message_id::Mission;
use agentforge_proto::time::Micros;
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use std::time::Duration;

/// A job whose reports cannot be read is waited for this long after its deadline, and no longer.
const UNREAD_MAX: Duration = Duration::from_secs(600);
/// Between two checks while waiting.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How far the reader of results has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// The last message of the stream.
    last: u64,
    /// Everything up to here is committed.
    done: u64,
    /// Nothing waits and nothing is in work.
    drained: bool,
}

impl Reading {
    /// Whether everything up to `fence` is committed. Of several missions on one stream, only ours is counted:
    /// a reader with nothing left has read all that there was for it.
    const fn has_passed(self, fence: u64) -> bool {
        self.drained || self.done >= fence
    }
}

/// The moment up to which deadlines may be acted upon.
#[derive(Debug)]
pub struct Horizon {
    /// All reports that were stored before this are committed.
    read_to: Micros,
    /// A moment, and the last message of the stream then: once that is read, `read_to` is the moment.
    fence: Option<(Micros, u64)>,
}

impl Horizon {
    /// Nothing is known to be read.
    pub const fn new() -> Self {
        Self { read_to: Micros(i64::MIN), fence: None }
    }

    /// Checks once. Deadlines before the answer may be acted upon; those of jobs that are not published
    /// have nothing to wait for.
    pub async fn advance(&mut self, nats: &Nats, mission: &Mission, now: Micros) -> Micros {
        if nats.is_connected()
            && let Ok(reading) = read(nats, mission).await
        {
            self.step(reading, now);
        }
        self.read_to.max(now.minus(UNREAD_MAX))
    }

    fn step(&mut self, reading: Reading, now: Micros) {
        if self.read_to > now {
            // The clock went back.
            *self = Self::new();
        }
        let (moment, fence) = *self.fence.get_or_insert((now, reading.last));
        if reading.has_passed(fence) {
            self.read_to = self.read_to.max(moment);
            self.fence = None;
        }
        if reading.drained {
            self.read_to = self.read_to.max(now);
        }
    }
}

/// Waits until every report that is stored now is committed.
///
/// # Errors
/// What keeps them from being read; or that it took longer than `limit`.
pub async fn caught_up(nats: &Nats, mission: &Mission, limit: Duration) -> Result<(), String> {
    let fence = read(nats, mission).await?.last;
    let wait = async {
        loop {
            if read(nats, mission).await?.has_passed(fence) {
                return Ok(());
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    };
    let late = |_| Err(format!("reports in {} are not read to their end yet", subjects::STREAM_RESULTS));
    tokio::time::timeout(limit, wait).await.unwrap_or_else(late)
}

async fn read(nats: &Nats, mission: &Mission) -> Result<Reading, String> {
    let name = subjects::STREAM_RESULTS;
    // The stream first: what comes in between only makes the reader look further behind than it is.
    let stream = nats.jetstream().get_stream(name).await.map_err(|e| {
        if matches!(e.kind(), GetStreamErrorKind::JetStream(_)) {
            nats.missing().note(name);
        }
        format!("{name}: {e}")
    })?;
    let last = stream.cached_info().state.last_sequence;
    let durable = subjects::orchestrator_durable(mission);
    let info = stream.consumer_info(&durable).await.map_err(|e| {
        if matches!(e.kind(), ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound) {
            nats.missing().note(&durable);
        }
        format!("{durable}: {e}")
    })?;
    let drained = info.num_pending == 0 && info.num_ack_pending == 0;
    Ok(Reading { last, done: info.ack_floor.stream_sequence, drained })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_counts_once_all_that_was_stored_by_then_is_committed() {
        let at = |s: i64| Micros(s * 1_000_000);
        let reading = |last, done, drained| Reading { last, done, drained };
        let mut horizon = Horizon::new();
        horizon.step(reading(10, 4, false), at(1));
        assert_eq!(horizon.read_to, Micros(i64::MIN), "six reports are still to be read");
        horizon.step(reading(25, 9, false), at(2));
        assert_eq!(horizon.read_to, Micros(i64::MIN));
        horizon.step(reading(40, 11, false), at(3));
        assert_eq!(horizon.read_to, at(1), "under load, what was there at the first check is what counts");
        horizon.step(reading(41, 12, true), at(4));
        assert_eq!(horizon.read_to, at(4), "nothing is left");
    }
}
