//! What the worker counts. Names and labels are an interface: `docs/METRICS.md` is made from here.
//!
//! A tool's label is one of the tools this worker has, or `other`; missions and queues are those it
//! serves. Handles that are used per job are made once.

use crate::tools::Toolbox;
use agentforge_message_id::{Mission, Queue, ToolName};
use agentforge_metrics::{Counter, Gauge, Histogram, Metric, OTHER, buckets};
use agentforge_signing::Refused;
use std::{collections::HashMap, time::Duration};

/// How long tools run.
pub const JOB_DURATION: Metric = Metric::histogram(
    "agentforge_job_duration_seconds",
    buckets::RUN_SECONDS,
    &["tool"],
    "How long an attempt's tool ran, from start to end, regardless of the outcome.",
);
/// Second and later deliveries.
pub const REDELIVERIES: Metric = Metric::counter(
    "agentforge_job_redeliveries_total",
    &["mission", "queue"],
    "Deliveries of an attempt after its first: a worker was lost, or handed it back.",
);
/// Jobs that this worker has taken and not settled.
pub const INFLIGHT: Metric =
    Metric::gauge("agentforge_worker_inflight", &[], "Jobs that this worker has taken and not yet settled.");
/// How many fit.
pub const CAPACITY: Metric =
    Metric::gauge("agentforge_worker_capacity", &[], "Maximum number of jobs that this worker runs at once.");
/// Attempts that came twice. The orchestrator counts here too, so the words are the same in both.
pub const DUPLICATES: Metric = Metric::counter(
    "agentforge_duplicates_suppressed_total",
    &["where"],
    "Repeats that changed nothing: submit (same key or id), publish (duplicate window), result (fenced).",
)
.of(&[&["submit", "publish", "result", "worker"]]);
/// Heartbeats without an answer.
pub const HEARTBEAT_FAILURES: Metric =
    Metric::counter("agentforge_heartbeat_failures_total", &[], "Heartbeats that no orchestrator answered.");
/// Results that cannot be stored now.
pub const RESULTS_HELD: Metric = Metric::gauge(
    "agentforge_results_held",
    &[],
    "Results kept in memory because NATS is unavailable or its stream is full; each keeps its slot.",
);
/// Reports that the stream does not take.
pub const REPORTS_REFUSED: Metric = Metric::counter(
    "agentforge_reports_refused_total",
    &["code"],
    "Reports that NATS refuses as they are: too_large, refused (the stream's settings), denied (permissions). Another is sent in place of one, or it is held.",
)
.of(&[&["too_large", "refused", "denied"]]);
/// Messages that are not jobs.
pub const REJECTED: Metric = Metric::counter(
    "agentforge_messages_rejected_total",
    &["mission", "queue"],
    "Messages on a job queue that are not jobs; each is terminated and reported once.",
);
/// Messages that are not orders.
pub const ATTEMPTS_REFUSED: Metric = Metric::counter(
    "agentforge_attempts_refused_total",
    &["mission", "queue", "reason"],
    "Messages on a job queue that are not run because of their signature: unsigned, malformed, unknown_key, wrong (of another message), stale (too old; the job is published again).",
)
.of(&[&[], &[], &Refused::WORDS]);
/// Jobs given back.
pub const HANDBACKS: Metric = Metric::counter(
    "agentforge_job_handbacks_total",
    &["mission", "queue"],
    "Deliveries handed back on purpose: by a drain, or because another suspect was running.",
);
/// Acknowledgements without an answer.
pub const ACKS_UNCONFIRMED: Metric = Metric::counter(
    "agentforge_acks_unconfirmed_total",
    &["mission", "queue"],
    "Acknowledgements that the server did not confirm; the message is redelivered and recognised.",
);
/// Results found instead of made.
pub const REPLAYS: Metric = Metric::counter(
    "agentforge_job_replays_total",
    &["tool"],
    "Jobs answered with an equal earlier success instead of a run.",
);

/// Kept successes that are not the orchestrator's.
pub const OPERATIONS_REFUSED: Metric = Metric::counter(
    "agentforge_operations_refused_total",
    &["reason"],
    "Kept successes that were not used because of their signature, by the reasons of agentforge_attempts_refused_total; the job was run.",
)
.of(&[&Refused::WORDS]);

/// All of them.
pub const METRICS: &[Metric] = &[
    JOB_DURATION,
    REDELIVERIES,
    INFLIGHT,
    CAPACITY,
    DUPLICATES,
    HEARTBEAT_FAILURES,
    RESULTS_HELD,
    REPORTS_REFUSED,
    REJECTED,
    ATTEMPTS_REFUSED,
    HANDBACKS,
    ACKS_UNCONFIRMED,
    REPLAYS,
    OPERATIONS_REFUSED,
];

/// Handles that are used for every job.
pub struct Handles {
    durations: HashMap<ToolName, Histogram>,
    duration_other: Histogram,
    /// Jobs that this worker has taken and not settled.
    pub inflight: Gauge,
    /// Results that wait.
    pub held: Gauge,
    /// Attempts that were redelivered after they were finished here.
    pub duplicates: Counter,
}

impl Handles {
    /// Makes the handles; every tool has its series from the start.
    pub fn new(tools: &Toolbox) -> Self {
        tools.names().for_each(|name| REPLAYS.begin(&[name.as_str()]));
        let durations = tools.names().map(|name| (name.clone(), JOB_DURATION.histogram_handle(&[name.as_str()])));
        Self {
            durations: durations.collect(),
            duration_other: JOB_DURATION.histogram_handle(&[OTHER]),
            inflight: INFLIGHT.gauge_handle(&[]),
            held: RESULTS_HELD.gauge_handle(&[]),
            duplicates: DUPLICATES.counter_handle(&["worker"]),
        }
    }

    /// Records a run.
    pub fn ran(&self, tool: &ToolName, took: Duration) {
        self.durations.get(tool).unwrap_or(&self.duration_other).record(took.as_secs_f64());
    }
}

/// Counters of one queue.
pub struct QueueCounters {
    /// Deliveries after the first.
    pub redeliveries: Counter,
    /// Messages that are not jobs.
    pub rejected: Counter,
    /// Deliveries given back.
    pub handbacks: Counter,
    /// Acknowledgements without an answer.
    pub acks_unconfirmed: Counter,
}

impl QueueCounters {
    /// Makes the handles.
    pub fn new(mission: &Mission, queue: &Queue) -> Self {
        let labels = [mission.as_str(), queue.as_str()];
        ATTEMPTS_REFUSED.begin(&labels);
        Self {
            redeliveries: REDELIVERIES.counter_handle(&labels),
            rejected: REJECTED.counter_handle(&labels),
            handbacks: HANDBACKS.counter_handle(&labels),
            acks_unconfirmed: ACKS_UNCONFIRMED.counter_handle(&labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&[METRICS]), Vec::<String>::new());
    }
}
