//! The orchestrator's metrics: names, labels and the few rules for label values.
//!
//! Labels are bounded: no ids, no paths; missions, queues and tools beyond the first so many are `other`.

use crate::model::{DeadReason, JobSpec, State};
use crate::store::Changed;
use agentforge_message_id::{Mission, Queue, ToolName};
use agentforge_metrics::{Admitted, Bounded, Metric, OTHER, buckets};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// Jobs stored for the first time.
pub const JOBS_SUBMITTED: Metric = Metric::counter(
    "agentforge_jobs_submitted_total",
    &["mission", "queue", "tool"],
    "Jobs accepted and stored; repeated submissions are not counted.",
);
/// Jobs that became final.
pub const JOBS_COMPLETED: Metric = Metric::counter(
    "agentforge_jobs_completed_total",
    &["mission", "queue", "tool", "outcome"],
    "Jobs that reached a final state, by that state. failed, dead and expired count as bad for the SLO.",
);
/// Submit to committed result.
pub const JOB_END_TO_END: Metric = Metric::histogram(
    "agentforge_job_end_to_end_seconds",
    buckets::END_TO_END_SECONDS,
    &["mission"],
    "From acceptance (or run_at, if later) to the commit of a final state other than cancelled.",
);
/// Counts attempts that failed and are followed by another, not jobs that are put back.
pub const JOB_RETRIES: Metric = Metric::counter(
    "agentforge_job_retries_total",
    &["tool", "reason"],
    "Failed attempts that are retried, by error class.",
);
/// Counts retries and redrives that callers asked for.
pub const JOBS_PUT_BACK: Metric = Metric::counter(
    "agentforge_jobs_put_back_total",
    &["from"],
    "Jobs that ended without success and were put back by a retry or a redrive, by the state they were in.",
)
.of(&[&["failed", "dead", "cancelled", "expired"]]);
/// Words of workers that were not believed.
pub const WORKER_DISPUTES: Metric = Metric::counter(
    "agentforge_worker_disputes_total",
    &["about"],
    "Attempts handed back because a worker's report was wrong: expired (its clock differs from ours), cancelled (of an earlier attempt).",
)
.of(&[&["expired", "cancelled"]]);
/// Counts letters when they are made; a redrive or a discard takes nothing off.
pub const DEAD_LETTERS: Metric =
    Metric::counter("agentforge_dead_letters_total", &["mission", "queue", "reason"], "Dead letters made, by reason.")
        .of(&[
            &[],
            &[],
            &["attempts_exhausted", "not_retryable", "worker_lost", "invalid_message", "invalid_signature"],
        ]);
/// Calls that the audit log has an entry of.
pub const AUDIT_CALLS: Metric = Metric::counter(
    "agentforge_audit_calls_total",
    &[],
    "Calls recorded in the audit log: changes, refusals, reads of dead letters and of sensitive payloads. Equal ones of a commit share an entry.",
);
/// Entries of other services.
pub const AUDIT_TAKEN_IN: Metric = Metric::counter(
    "agentforge_audit_taken_in_total",
    &["outcome"],
    "Entries of other services that were read from the stream: stored, known (stored before), invalid (not an entry).",
)
.of(&[&["stored", "known", "invalid"]]);
/// Entries that were verified.
pub const AUDIT_VERIFIED: Metric = Metric::counter(
    "agentforge_audit_verified_total",
    &[],
    "Entries of the audit log that this orchestrator has read and verified: new ones, and once an hour all of them.",
);
/// What the verification found.
pub const AUDIT_FINDINGS: Metric = Metric::gauge(
    "agentforge_audit_findings",
    &[],
    "Entries of the audit log that were changed, removed or moved, as far as the present lap of verification has found them; the log names each.",
);
/// When the verification was at the end.
pub const AUDIT_VERIFIED_AT: Metric = Metric::gauge(
    "agentforge_audit_verified_timestamp_seconds",
    &[],
    "When the verification of the audit log last reached the newest entry, in seconds since 1970.",
);
/// Counts repetitions that exactly-once handling made harmless, by the place that recognised them.
pub const DUPLICATES_SUPPRESSED: Metric = Metric::counter(
    "agentforge_duplicates_suppressed_total",
    &["where"],
    "Repeats that changed nothing: submit (same key or id), publish (duplicate window), result (fenced).",
)
.of(&[&["submit", "publish", "result", "worker"]]);
/// Age of the oldest job that waits.
pub const OLDEST_PENDING: Metric = Metric::gauge(
    "agentforge_oldest_pending_seconds",
    &["mission", "queue"],
    "Age of the oldest job that is due and has not started; 0 when none waits.",
);
/// How many jobs wait for a worker; a scaler reads it.
pub const PENDING: Metric =
    Metric::gauge("agentforge_pending_jobs", &["mission", "queue"], "Jobs that are due and have not started.");
/// What OUTBOX_MAX bounds: jobs that are due and not yet in JetStream.
pub const OUTBOX: Metric = Metric::gauge(
    "agentforge_outbox_jobs",
    &[],
    "Jobs accepted, due and not yet published to JetStream; limited by OUTBOX_MAX.",
);
/// The bound itself, so that a rule can tell how near it is.
pub const OUTBOX_LIMIT: Metric = Metric::gauge("agentforge_outbox_max_jobs", &[], "The value of OUTBOX_MAX.");
/// What SCHEDULED_MAX bounds: jobs with a `run_at` or a retry to come.
pub const SCHEDULED: Metric = Metric::gauge(
    "agentforge_scheduled_jobs",
    &[],
    "Jobs that are not due yet: a future run_at, or a waiting retry; submissions are limited by SCHEDULED_MAX.",
);
/// Counts consumers of queues that had neither a worker nor a job for QUEUE_IDLE_AFTER.
pub const CONSUMERS_REMOVED: Metric = Metric::counter(
    "agentforge_idle_consumers_removed_total",
    &[],
    "Consumers of queues that no worker had announced and that had no job for QUEUE_IDLE_AFTER, removed.",
);
/// Counts submissions that were not stored; back-pressure shows as `outbox_full`.
pub const SUBMITS_REFUSED: Metric =
    Metric::counter("agentforge_submits_refused_total", &["code"], "Submissions refused, by error code.").of(&[&[
        "invalid_argument",
        "too_large",
        "unauthenticated",
        "permission_denied",
        "not_found",
        "conflict",
        "failed_precondition",
        "outbox_full",
        "too_many_requests",
        "unavailable",
        "internal",
    ]]);
/// The relay is held.
pub const RELAY_HELD: Metric = Metric::gauge(
    "agentforge_relay_held",
    &["lane", "queue", "reason"],
    "Queues that the relay cannot publish (lane jobs or outbox; queue * while NATS is unavailable; reason full, unavailable, no_stream, refused, or paused by an operator), else 0.",
);
/// A queue that an operator paused.
pub const QUEUE_PAUSED: Metric = Metric::gauge(
    "agentforge_queue_paused",
    &["mission", "queue"],
    "1 while the queue is paused: what is accepted for it waits until it is resumed. 0 once it was resumed.",
);
/// Streams, consumers and buckets that are not as planned.
pub const STREAMS_AMISS: Metric = Metric::gauge(
    "agentforge_streams_amiss",
    &[],
    "Streams, consumers and buckets that are missing or not as planned, as of the last check; 0 when all is well.",
);
/// Published by the relay.
pub const RELAY_PUBLISHED: Metric =
    Metric::counter("agentforge_relay_published_total", &["lane"], "Messages published with a PubAck, by lane.")
        .of(&[&["jobs", "outbox"]]);
/// Never to be published.
pub const RELAY_REFUSED: Metric = Metric::counter(
    "agentforge_relay_refused_total",
    &["lane", "reason"],
    "Messages that left the relay because NATS can never accept them (reason too_large or refused): jobs end failed, rows of the outbox are parked.",
)
.of(&[&["jobs", "outbox"], &["too_large", "refused"]]);
/// How many rows of the outbox wait for an operator, because NATS can never accept them.
pub const OUTBOX_PARKED: Metric = Metric::gauge(
    "agentforge_outbox_parked",
    &[],
    "Events and dead letters parked because NATS can never accept them; retried or discarded by an operator.",
);
/// Jobs whose message was gone.
pub const REPUBLISHED: Metric = Metric::counter(
    "agentforge_jobs_republished_total",
    &[],
    "Attempts published again because their message was gone without a result.",
);
/// Reports that do not decode.
pub const REPORTS_INVALID: Metric = Metric::counter(
    "agentforge_reports_invalid_total",
    &[],
    "Messages on swarm_results that are not reports; terminated.",
);
/// Reports without the token of their attempt.
pub const REPORTS_REFUSED: Metric = Metric::counter(
    "agentforge_results_refused_total",
    &["reason"],
    "Reports about a job without effect, because their task token is missing (no_token), of no or another attempt (wrong_token), or of another queue than their subject's (other_queue).",
)
.of(&[&["no_token", "wrong_token", "other_queue"]]);
/// Writes in one commit.
pub const COMMIT_GROUP_SIZE: Metric =
    Metric::histogram("agentforge_commit_group_size", buckets::BATCH, &[], "Writes that shared one transaction.");
/// Time of a statement or transaction.
pub const DB_QUERY_DURATION: Metric = Metric::histogram(
    "agentforge_db_query_duration_seconds",
    buckets::STEP_SECONDS,
    &["query"],
    "Time of a database transaction.",
)
.of(&[&["commit"]]);
/// Counts calls that may succeed later; those refused for good are logged as errors.
pub const DB_ERRORS: Metric = Metric::counter(
    "agentforge_db_connection_errors_total",
    &[],
    "Database calls that failed because the database was unavailable.",
);
/// Attempts that met a worker without their tool.
pub const TOOLS_MISSING: Metric = Metric::counter(
    "agentforge_tools_missing_total",
    &[],
    "Attempts that reached a worker without their tool; they go to another while one announces it, and for TOOL_GRACE.",
);
/// How many workers there are, those that left within a day included.
pub const AGENTS: Metric =
    Metric::gauge("agentforge_agents", &["status"], "Workers known, by status: online, offline, left.");
/// The first moment at which a worker of the site is refused by NATS unless its certificate is renewed.
pub const AGENT_CERTIFICATE_EXPIRY: Metric = Metric::gauge(
    "agentforge_agent_certificate_expiry_timestamp_seconds",
    &["site"],
    "When the first client certificate of a site's online workers expires, seconds since 1970.",
);
/// The clock at the site that differs most from ours: deadlines are judged by both.
pub const AGENT_CLOCK_SKEW: Metric = Metric::gauge(
    "agentforge_agent_clock_skew_seconds",
    &["site"],
    "How far the clock of a site's online worker is ahead of the orchestrator's, for the worker with the largest difference. Negative if it is behind.",
);
/// Only what this process observed, since it started.
pub const SLA_UPTIME: Metric = Metric::counter(
    "agentforge_sla_uptime_seconds_total",
    &["service"],
    "Seconds in which this process saw the service up. Replicas overlap: the budget gauges count a second once.",
);
/// Only what this process observed, since it started.
pub const SLA_DOWNTIME: Metric = Metric::counter(
    "agentforge_sla_downtime_seconds_total",
    &["service"],
    "Seconds in which this process saw the service down. Replicas overlap: the budget gauges count a second once.",
);
/// Seconds that were not observed.
pub const SLA_UNKNOWN: Metric = Metric::gauge(
    "agentforge_sla_unknown_seconds",
    &["service"],
    "Seconds of the last 30 days in which the service was not observed; neither up nor down.",
);
/// Budget of an objective in seconds.
pub const ERROR_BUDGET_SECONDS: Metric = Metric::gauge(
    "agentforge_error_budget_seconds",
    &["service", "slo"],
    "Seconds of 30 days in which the service may be down, of objectives in seconds.",
);
/// The part of [`ERROR_BUDGET_SECONDS`] that is spent.
pub const ERROR_BUDGET_USED_SECONDS: Metric = Metric::gauge(
    "agentforge_error_budget_used_seconds",
    &["service", "slo"],
    "Seconds of the last 30 days in which the service was down; seconds observed by several replicas count once.",
);
/// Budget of an objective in events.
pub const ERROR_BUDGET_EVENTS: Metric = Metric::gauge(
    "agentforge_error_budget_events",
    &["service", "slo"],
    "Jobs of the last 30 days that may miss the objective.",
);
/// The part of [`ERROR_BUDGET_EVENTS`] that is spent.
pub const ERROR_BUDGET_USED_EVENTS: Metric = Metric::gauge(
    "agentforge_error_budget_used_events",
    &["service", "slo"],
    "Jobs of the last 30 days that missed the objective; failed, dead and expired ones did.",
);
/// The word on an objective.
pub const SLO_STATUS: Metric = Metric::gauge(
    "agentforge_slo_status",
    &["service", "slo"],
    "1 healthy, 0 at risk (four fifths of the budget spent, or it burns at a rate that pages), -1 breached; absent without data.",
);
/// Counts turns for which a job was made, by whichever replica was first.
pub const SCHEDULES_FIRED: Metric =
    Metric::counter("agentforge_schedules_fired_total", &[], "Turns of schedules taken.");
/// Turns that made no job.
pub const SCHEDULE_TURNS_SKIPPED: Metric = Metric::counter(
    "agentforge_schedule_turns_skipped_total",
    &["reason"],
    "Turns of schedules that made no job: overlap, missed, too_late or refused.",
)
.of(&[&["overlap", "missed", "too_late", "refused"]]);
/// Jobs deleted after JOB_RETENTION.
pub const JOBS_PRUNED: Metric =
    Metric::counter("agentforge_jobs_pruned_total", &[], "Finished jobs deleted after JOB_RETENTION.");
/// Steps back of the wall clock.
pub const CLOCK_SET_BACK: Metric = Metric::counter(
    "agentforge_clock_set_back_total",
    &[],
    "Steps back of the orchestrator's clock by 5 s and more; stored times are adjusted after each.",
);
/// The link of an edge site, as its services experience it; 0 from the start until the first answer.
pub const EDGE_LINK_STATUS: Metric = Metric::gauge(
    "edge_link_status",
    &["site"],
    "1 while the hub answers within 2 s (EDGE_HUB_DOMAIN's JetStream through the leaf, else the connected server), else 0.",
);
/// A site was heard from.
pub const EDGE_SITE_LAST_SEEN: Metric = Metric::gauge(
    "edge_site_last_seen_timestamp_seconds",
    &["site"],
    "At the hub: when a site's orchestrator was last heard from, seconds since 1970.",
);
/// Beats that are not exported.
pub const EDGE_BEATS_IGNORED: Metric = Metric::counter(
    "edge_site_beats_ignored_total",
    &["reason"],
    "At the hub: heartbeats of sites that are not exported: name (not a site's name) or too_many (512 others are known).",
)
.of(&[&["name", "too_many"]]);

/// The catalogue: what is registered at the start and listed in METRICS.md.
pub const ALL: &[Metric] = &[
    AUDIT_CALLS,
    AUDIT_TAKEN_IN,
    AUDIT_VERIFIED,
    AUDIT_FINDINGS,
    AUDIT_VERIFIED_AT,
    JOBS_SUBMITTED,
    JOBS_COMPLETED,
    JOB_END_TO_END,
    JOB_RETRIES,
    JOBS_PUT_BACK,
    WORKER_DISPUTES,
    DEAD_LETTERS,
    DUPLICATES_SUPPRESSED,
    OLDEST_PENDING,
    PENDING,
    OUTBOX,
    OUTBOX_LIMIT,
    SCHEDULED,
    CONSUMERS_REMOVED,
    SUBMITS_REFUSED,
    RELAY_HELD,
    QUEUE_PAUSED,
    STREAMS_AMISS,
    RELAY_PUBLISHED,
    RELAY_REFUSED,
    OUTBOX_PARKED,
    REPUBLISHED,
    REPORTS_INVALID,
    REPORTS_REFUSED,
    COMMIT_GROUP_SIZE,
    DB_QUERY_DURATION,
    DB_ERRORS,
    TOOLS_MISSING,
    AGENTS,
    AGENT_CERTIFICATE_EXPIRY,
    AGENT_CLOCK_SKEW,
    SLA_UPTIME,
    SLA_DOWNTIME,
    SLA_UNKNOWN,
    ERROR_BUDGET_SECONDS,
    ERROR_BUDGET_USED_SECONDS,
    ERROR_BUDGET_EVENTS,
    ERROR_BUDGET_USED_EVENTS,
    SLO_STATUS,
    SCHEDULES_FIRED,
    SCHEDULE_TURNS_SKIPPED,
    JOBS_PRUNED,
    CLOCK_SET_BACK,
    EDGE_LINK_STATUS,
    EDGE_SITE_LAST_SEEN,
    EDGE_BEATS_IGNORED,
];

static MISSIONS: Bounded = Bounded::new(32);
static QUEUES: Bounded = Bounded::new(64);
static TOOLS: Bounded = Bounded::new(128);
static SITES: Bounded = Bounded::new(512);
/// Missions, queues and tools that came together: each would be a series many times over.
static LABEL_SETS: Bounded = Bounded::new(1_000);

/// The mission as a label value.
pub fn mission_label(m: &str) -> &str {
    MISSIONS.label(m)
}

/// The site as a label value.
pub fn site_label(s: &str) -> &str {
    SITES.label(s)
}

/// The queue as a label value.
pub fn queue_label(q: &str) -> &str {
    QUEUES.label(q)
}

/// Counts `n` new jobs of the mission, queue and tool of this one.
pub fn note_submitted(job: &JobSpec, n: u64) {
    JOBS_SUBMITTED.add(&labels(&job.mission, &job.queue, &job.tool), n);
}

/// A job's mission, queue and tool as label values, or three times `other`. With the first of a kind, its
/// dead letters are zero: what begins at one shows no increase.
fn labels<'a>(mission: &'a Mission, queue: &'a Queue, tool: &'a ToolName) -> [&'a str; 3] {
    let labels = [MISSIONS.label(mission.as_str()), QUEUES.label(queue.as_str()), TOOLS.label(tool.as_str())];
    // Shorter than the three names, and the same in every process.
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(labels);
    match LABEL_SETS.admit(&format!("{hash:x}")) {
        Admitted::Known => labels,
        Admitted::Now => {
            DEAD_LETTERS.begin(&labels[..2]);
            labels
        }
        Admitted::Not => [OTHER; 3],
    }
}

/// Counts what a committed change means.
pub fn note_change(c: &Changed) {
    let job = &c.job;
    let is_news = c.failed.is_some() || c.dead.is_some() || job.state.is_final() != c.from.is_final();
    if !is_news {
        return;
    }
    let [mission, queue, tool] = labels(&job.mission, &job.queue, &job.tool);
    match c.failed.filter(|_| job.state == State::Accepted) {
        Some(class) if c.disputed => WORKER_DISPUTES.inc(&[class.as_str()]),
        Some(class) => JOB_RETRIES.inc(&[tool, class.as_str()]),
        None => {}
    }
    if c.from.is_final() && job.state == State::Accepted {
        JOBS_PUT_BACK.inc(&[c.from.as_str()]);
    }
    if let Some(reason) = c.dead {
        note_dead(mission, queue, reason);
    }
    if job.state.is_final() && !c.from.is_final() {
        JOBS_COMPLETED.inc(&[mission, queue, tool, job.state.as_str()]);
        if job.state != State::Cancelled {
            let begun = job.created_at.max(first_due(job));
            JOB_END_TO_END.observe(&[mission], job.finished_at.map_or(0.0, |f| f.since(begun).as_secs_f64()));
        }
    }
}

/// A job of the future is not late before its time; a retry's wait counts.
fn first_due(job: &crate::transition::Current) -> agentforge_proto::time::Micros {
    if job.attempt.get() == 1 { job.available_at } else { job.created_at }
}

fn note_dead(mission: &str, queue: &str, reason: DeadReason) {
    DEAD_LETTERS.inc(&[mission, queue, reason.as_str()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn values_of_labels_are_those_of_the_code() {
        assert_eq!(SUBMITS_REFUSED.values, [Code::ALL.map(Code::as_str)]);
        assert_eq!(DEAD_LETTERS.values[2], DeadReason::ALL.map(DeadReason::as_str));
    }

    #[test]
    fn names_follow_the_conventions() {
        assert_eq!(agentforge_metrics::check(&[ALL]), Vec::<String>::new());
    }
}
