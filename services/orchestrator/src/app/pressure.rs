//! Back-pressure: what a submission is refused for, with the reason, the limit and the knob.

use super::App;
use super::pauses::PAUSED;
use crate::error::{Code, Error};
use crate::model::NewJob;
use agentforge_proto::time::Micros;
use std::time::Duration;

/// When to try again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// The same where nothing changes soon.
const MUCH_LATER: Duration = Duration::from_secs(60);

impl App {
    /// Refuses what there is no room for. Nothing was stored then.
    pub(super) fn push_back(&self, job: &NewJob) -> Result<(), Error> {
        self.0.queues.admit(&job.queue)?;
        let gauge = &self.0.outbox;
        if job.run_at.is_some_and(|at| at > Micros::now()) {
            let (waiting, max) = (gauge.later(), gauge.later_max());
            if waiting < max {
                return Ok(());
            }
            let message = format!(
                "{waiting} jobs wait for their time (run_at ahead, or a retry), the limit is {max} (SCHEDULED_MAX); \
                 nothing was stored, try again when some of them have become due"
            );
            return Err(Error::new(Code::OutboxFull, message).retry_after(MUCH_LATER));
        }
        self.push_back_all()?;
        let (due, max) = (gauge.get(), gauge.max());
        // A queue that cannot leave uses as much as it leaves free for the others.
        let queue = &job.queue;
        let Some(reason) = self.0.backlog.reason(queue.as_str()) else { return Ok(()) };
        let waiting = gauge.of(queue);
        if waiting <= max.saturating_sub(due) {
            return Ok(());
        }
        let message = format!(
            "{waiting} accepted jobs of queue {queue} wait to be published, and the queue cannot leave ({}); a queue \
             that waits may use as much of OUTBOX_MAX ({max}) as it leaves free for the others; nothing was stored, \
             try again later",
            words(reason)
        );
        Err(Error::new(Code::OutboxFull, message).retry_after(RETRY_INTERVAL))
    }

    /// Refuses all due jobs, as long as too many of them wait.
    pub(super) fn push_back_all(&self) -> Result<(), Error> {
        let gauge = &self.0.outbox;
        if !gauge.is_full() {
            return Ok(());
        }
        let message = format!(
            "{} accepted jobs wait to be published, the limit is {} (OUTBOX_MAX): {}; \
             nothing was stored, try again later",
            gauge.get(),
            gauge.max(),
            self.why_held()
        );
        Err(Error::new(Code::OutboxFull, message).retry_after(RETRY_INTERVAL))
    }

    fn why_held(&self) -> String {
        if !self.0.backlog.is_open() {
            return "NATS is unavailable, or was until now".to_owned();
        }
        match self.0.backlog.any_closed() {
            Some((1, queue, reason)) => format!("queue {queue} cannot leave ({})", words(reason)),
            Some((n, queue, reason)) => format!("{n} queues cannot leave, such as {queue} ({})", words(reason)),
            None => "they come faster than NATS takes them".to_owned(),
        }
    }
}

/// A reason of the relay in words.
fn words(reason: &str) -> &str {
    match reason {
        "full" => "its share of swarm_jobs is full: no worker takes its jobs fast enough, or JOBS_MAX_BYTES is small",
        PAUSED => "an operator paused it; resume it to have its jobs run",
        "no_stream" => "there is no stream swarm_jobs",
        "refused" => "swarm_jobs refuses it; the orchestrator's log says why",
        _ => "NATS does not acknowledge it",
    }
}
