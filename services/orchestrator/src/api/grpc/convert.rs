//! Between the proto's messages and the model. Values only.

use crate::admission::{JobRequest, SubmitInput};
use crate::api::{job, trace};
use crate::app::QueueStats;
use crate::error::Error;
use crate::model::{
    Agent, AttemptRecord, DeadLetter, Job, JobError, JobSpec, KeyReuse, Presence, RetryPolicy, Schedule, State,
};
use crate::operation::{self, NotPutBack, Operation};
use crate::turns::{CatchUp, Overlap};
use agentforge_proto::bus::{ErrorClass, OutputRef};
use agentforge_proto::time::{Micros, duration_from_proto, duration_to_proto};
use agentforge_proto::v1 as pb;

/// What a caller sent as a duration; negative ones are refused. Generic so that only the proto crate names its type.
macro_rules! duration {
    ($field:literal, $value:expr) => {
        $value
            .map(|d| {
                duration_from_proto(&d)
                    .ok_or_else(|| Error::field($field, concat!($field, " is negative or malformed")))
            })
            .transpose()
    };
}
pub(super) use duration;

macro_rules! moment {
    ($field:literal, $value:expr) => {
        $value
            .map(|t| {
                Micros::from_proto(&t)
                    .ok_or_else(|| Error::field($field, concat!($field, " is not a moment of the years -9999 to 9999")))
            })
            .transpose()
    };
}
pub(super) use moment;

/// Empty strings mean "not given".
pub(super) fn given(s: String) -> Option<String> {
    Some(s).filter(|s| !s.is_empty())
}

/// The submission; code that can wait for its end has taken `wait` out.
pub(super) fn submit_input(r: pb::SubmitJobRequest, origin: trace::Origin) -> Result<SubmitInput, Error> {
    if r.wait.is_some() {
        return Err(Error::field("wait", "wait is only for SubmitJob; follow other jobs with GetJob or WatchJob"));
    }
    Ok(SubmitInput {
        request: JobRequest {
            mission: given(r.mission),
            queue: given(r.queue),
            tool: r.tool,
            args: r.args,
            labels: r.labels.into_iter().collect(),
            max_attempts: Some(r.max_attempts).filter(|n| *n > 0),
            timeout: duration!("timeout", r.timeout)?,
            task: given(r.task),
            reuse: r.reuse,
            retry: retry_policy(r.retry)?,
            deadline_in: duration!("deadline_in", r.deadline_in)?,
        },
        id: given(r.id),
        idempotency_key: given(r.idempotency_key),
        key_reuse: key_reuse(r.key_reuse)?,
        run_at: moment!("run_at", r.run_at)?,
        run_in: duration!("run_in", r.run_in)?,
        deadline: moment!("deadline", r.deadline)?,
        traceparent: origin.traceparent,
        request_id: origin.request_id,
        submitted_by: None,
    })
}

fn retry_policy(r: Option<pb::RetryPolicy>) -> Result<RetryPolicy, Error> {
    let r = r.unwrap_or_default();
    Ok(RetryPolicy { base: duration!("retry.base", r.base)?, cap: duration!("retry.cap", r.cap)? })
}

fn retry_to(retry: RetryPolicy) -> Option<pb::RetryPolicy> {
    retry
        .is_set()
        .then(|| pb::RetryPolicy { base: retry.base.map(duration_to_proto), cap: retry.cap.map(duration_to_proto) })
}

fn key_reuse(n: i32) -> Result<KeyReuse, Error> {
    match pb::KeyReuse::try_from(n) {
        Ok(pb::KeyReuse::Unspecified | pb::KeyReuse::Never) => Ok(KeyReuse::Never),
        Ok(pb::KeyReuse::AfterStop) => Ok(KeyReuse::AfterStop),
        Ok(pb::KeyReuse::AfterFailure) => Ok(KeyReuse::AfterFailure),
        Err(_) => Err(Error::field("key_reuse", format!("there is no key_reuse {n}"))),
    }
}

pub(super) fn not_put_back(reasons: Vec<NotPutBack>) -> Vec<pb::NotPutBack> {
    reasons.into_iter().map(|n| pb::NotPutBack { job_id: n.job.to_string(), reason: n.reason }).collect()
}

pub(super) fn operation(o: Operation) -> pb::Operation {
    let progress = o.progress;
    pb::Operation {
        id: o.id.to_string(),
        kind: o.kind.as_str().into(),
        state: operation_state(o.state).into(),
        cancel_asked: o.cancel_asked,
        total: progress.total,
        matched: progress.matched,
        put_back: progress.put_back,
        cancelled: progress.cancelled,
        skipped: progress.skipped,
        not_put_back: not_put_back(progress.reasons),
        created_at: Some(o.created_at.to_proto()),
        started_at: progress.started_at.map(Micros::to_proto),
        ended_at: progress.ended_at.map(Micros::to_proto),
        error: progress.error.unwrap_or_default(),
        started_by: o.started_by,
    }
}

const fn operation_state(state: operation::State) -> pb::OperationState {
    match state {
        operation::State::Waiting => pb::OperationState::Waiting,
        operation::State::Running => pb::OperationState::Running,
        operation::State::Succeeded => pb::OperationState::Succeeded,
        operation::State::Failed => pb::OperationState::Failed,
        operation::State::Cancelled => pb::OperationState::Cancelled,
    }
}

pub(super) fn state_from(n: i32) -> Option<State> {
    Some(match pb::JobState::try_from(n).ok()? {
        pb::JobState::Unspecified => return None,
        pb::JobState::Accepted => State::Accepted,
        pb::JobState::Queued => State::Queued,
        pb::JobState::Running => State::Running,
        pb::JobState::Succeeded => State::Succeeded,
        pb::JobState::Failed => State::Failed,
        pb::JobState::Dead => State::Dead,
        pb::JobState::Cancelled => State::Cancelled,
        pb::JobState::Expired => State::Expired,
    })
}

fn state_to(s: State) -> pb::JobState {
    match s {
        State::Accepted => pb::JobState::Accepted,
        State::Queued => pb::JobState::Queued,
        State::Running => pb::JobState::Running,
        State::Succeeded => pb::JobState::Succeeded,
        State::Failed => pb::JobState::Failed,
        State::Dead => pb::JobState::Dead,
        State::Cancelled => pb::JobState::Cancelled,
        State::Expired => pb::JobState::Expired,
    }
}

fn class_to(c: ErrorClass) -> pb::ErrorClass {
    match c {
        ErrorClass::Transient => pb::ErrorClass::Transient,
        ErrorClass::Network => pb::ErrorClass::Network,
        ErrorClass::Timeout => pb::ErrorClass::Timeout,
        ErrorClass::RateLimited => pb::ErrorClass::RateLimited,
        ErrorClass::Validation => pb::ErrorClass::Validation,
        ErrorClass::ToolNotFound => pb::ErrorClass::ToolNotFound,
        ErrorClass::Permission => pb::ErrorClass::Permission,
        ErrorClass::Runtime => pb::ErrorClass::Runtime,
        ErrorClass::WorkerLost => pb::ErrorClass::WorkerLost,
        ErrorClass::Expired => pb::ErrorClass::Expired,
        ErrorClass::Cancelled => pb::ErrorClass::Cancelled,
        ErrorClass::InvalidMessage => pb::ErrorClass::InvalidMessage,
        ErrorClass::Unknown => pb::ErrorClass::Unspecified,
    }
}

pub(super) fn error(e: JobError) -> pb::JobError {
    pb::JobError { class: class_to(e.class).into(), message: e.message, log_tail: e.log_tail }
}

fn output_ref(o: OutputRef) -> pb::OutputRef {
    pb::OutputRef { bucket: o.bucket, name: o.name, size: o.size, sha256: o.sha256 }
}

pub(super) fn job(j: Job) -> pb::Job {
    let waiting = job::waiting(&j, Micros::now());
    let attempts = job::attempts(&j);
    // Without `..`: what a job is, is shown, or it says here why not.
    let JobSpec {
        id,
        mission,
        queue,
        tool,
        task,
        args,
        labels,
        max_attempts,
        timeout,
        retry,
        run_at,
        reuse,
        idempotency_key,
        schedule_id,
        scheduled_at,
        traceparent,
        // In logs and headers only.
        request_id: _,
        submitted_by,
        created_at,
    } = j.spec;
    pb::Job {
        next_attempt_at: waiting.map(|w| w.1.to_proto()),
        waits_for: waiting.map(|w| w.0.to_owned()).unwrap_or_default(),
        retry: retry_to(retry),
        attempts,
        id: id.to_string(),
        mission: mission.into(),
        queue: queue.into(),
        tool: tool.into(),
        args,
        labels: labels.into_iter().collect(),
        state: state_to(j.state).into(),
        max_attempts,
        result: j.result,
        output_ref: j.output_ref.map(output_ref),
        error: j.error.map(error),
        created_at: Some(created_at.to_proto()),
        queued_at: j.queued_at.map(Micros::to_proto),
        started_at: j.started_at.map(Micros::to_proto),
        finished_at: j.finished_at.map(Micros::to_proto),
        run_at: run_at.map(Micros::to_proto),
        deadline: j.deadline.map(Micros::to_proto),
        timeout: Some(duration_to_proto(timeout)),
        idempotency_key,
        task,
        reuse,
        idempotent_replay: j.replay_of.map(|id| id.to_string()),
        worker: j.worker,
        schedule_id: schedule_id.map(|id| id.to_string()),
        scheduled_at: scheduled_at.map(Micros::to_proto),
        trace_id: traceparent.as_deref().and_then(trace::trace_id).map(str::to_owned),
        version: u64::try_from(j.version).unwrap_or_default(),
        warning: j.warning,
        submitted_by,
        cancelled_by: j.cancelled_by,
    }
}

pub(super) fn attempt(a: AttemptRecord) -> pb::JobAttempt {
    pb::JobAttempt {
        attempt: a.attempt.get(),
        outcome: a.outcome,
        error: a.error.map(error),
        worker: a.worker.unwrap_or_default(),
        delivery: a.delivery,
        started_at: a.started_at.map(Micros::to_proto),
        finished_at: Some(a.finished_at.to_proto()),
        retry_at: a.retry_at.map(Micros::to_proto),
    }
}

pub(super) fn dead_letter(d: DeadLetter) -> pb::DeadLetter {
    pb::DeadLetter {
        id: d.id,
        job_id: d.job.map(|id| id.to_string()).unwrap_or_default(),
        mission: d.mission,
        queue: d.queue,
        tool: d.tool,
        reason: d.reason,
        error: Some(error(d.error)),
        created_at: Some(d.created_at.to_proto()),
        redriven_at: d.redriven_at.map(Micros::to_proto),
    }
}

fn template(t: JobRequest) -> pb::SubmitJobRequest {
    let JobRequest { mission, queue, tool, args, labels, max_attempts, timeout, task, reuse, retry, deadline_in } = t;
    pb::SubmitJobRequest {
        mission: mission.unwrap_or_default(),
        queue: queue.unwrap_or_default(),
        tool,
        args,
        labels: labels.into_iter().collect(),
        max_attempts: max_attempts.unwrap_or_default(),
        timeout: timeout.map(duration_to_proto),
        task: task.unwrap_or_default(),
        reuse,
        retry: retry_to(retry),
        deadline_in: deadline_in.map(duration_to_proto),
        ..Default::default()
    }
}

pub(super) fn schedule(s: Schedule) -> Result<pb::Schedule, Error> {
    let job = crate::api::job::template(&s)?;
    Ok(pb::Schedule {
        id: s.id.to_string(),
        name: s.name,
        cron: s.cron,
        time_zone: s.time_zone,
        job: Some(template(job)),
        paused: s.paused,
        created_at: Some(s.created_at.to_proto()),
        last_run_at: s.last_run_at.map(Micros::to_proto),
        next_run_at: s.next_run_at.map(Micros::to_proto),
        last_job_id: s.last_job_id.map(|id| id.to_string()).unwrap_or_default(),
        overlap: overlap_to_proto(s.overlap).into(),
        catch_up: catch_up_to_proto(s.catch_up).into(),
        deadline: s.deadline.map(duration_to_proto),
        last_scheduled_at: s.last_scheduled_at.map(Micros::to_proto),
        waiting_scheduled_at: s.waiting_turn.map(Micros::to_proto),
        turns_skipped: s.turns_skipped,
        last_skipped: s.last_skipped.map(|skip| pb::SkippedTurn {
            scheduled_at: Some(skip.at.to_proto()),
            reason: skip.reason,
            detail: skip.detail,
        }),
        updated_at: s.updated_at.map(Micros::to_proto),
        created_by: s.created_by,
        updated_by: s.updated_by,
    })
}

const fn overlap_to_proto(overlap: Overlap) -> pb::OverlapPolicy {
    match overlap {
        Overlap::Allow => pb::OverlapPolicy::Allow,
        Overlap::Skip => pb::OverlapPolicy::Skip,
        Overlap::Queue => pb::OverlapPolicy::Queue,
        Overlap::Replace => pb::OverlapPolicy::Replace,
    }
}

const fn catch_up_to_proto(catch_up: CatchUp) -> pb::CatchUpPolicy {
    match catch_up {
        CatchUp::Latest => pb::CatchUpPolicy::Latest,
        CatchUp::All => pb::CatchUpPolicy::All,
        CatchUp::None => pb::CatchUpPolicy::None,
    }
}

/// `None` when nothing was chosen.
pub(super) fn overlap(n: i32) -> Result<Option<Overlap>, Error> {
    if n == 0 {
        return Ok(None);
    }
    let known = Overlap::ALL_OF_THEM.iter().copied().find(|o| i32::from(overlap_to_proto(*o)) == n);
    known.map(Some).ok_or_else(|| Error::field("overlap", format!("there is no overlap policy {n}")))
}

/// `None` when nothing was chosen.
pub(super) fn catch_up(n: i32) -> Result<Option<CatchUp>, Error> {
    if n == 0 {
        return Ok(None);
    }
    let known = CatchUp::ALL_OF_THEM.iter().copied().find(|c| i32::from(catch_up_to_proto(*c)) == n);
    known.map(Some).ok_or_else(|| Error::field("catch_up", format!("there is no catch-up policy {n}")))
}

/// `None` asks for all.
pub(super) fn presence(n: i32) -> Result<Option<Presence>, Error> {
    match pb::AgentStatus::try_from(n) {
        Ok(pb::AgentStatus::Unspecified) => Ok(None),
        Ok(pb::AgentStatus::Online) => Ok(Some(Presence::Online)),
        Ok(pb::AgentStatus::Offline) => Ok(Some(Presence::Offline)),
        Ok(pb::AgentStatus::Left) => Ok(Some(Presence::Left)),
        Err(_) => Err(Error::field("status", format!("there is no status {n}"))),
    }
}

pub(super) fn agent(a: Agent, now: Micros) -> pb::Agent {
    let status = match a.presence(now) {
        Presence::Online => pb::AgentStatus::Online,
        Presence::Offline => pb::AgentStatus::Offline,
        Presence::Left => pb::AgentStatus::Left,
    };
    pb::Agent {
        status: status.into(),
        id: a.id.into(),
        mission: a.mission.into(),
        site: a.site.into(),
        host: a.host,
        version: a.version,
        tools: a.tools,
        queues: a.queues,
        capacity: a.capacity,
        inflight: a.inflight,
        first_seen_at: Some(a.first_seen_at.to_proto()),
        last_seen_at: Some(a.last_seen_at.to_proto()),
        certificate_expires_at: a.certificate_expires_at.map(Micros::to_proto),
        clock_skew_seconds: a.clock_skew_us.map(|us| us as f64 / 1e6),
        unconfined: a.unconfined,
    }
}

/// Counts of a queue, with the age of its oldest waiting job.
pub(super) fn queue(q: QueueStats) -> pb::QueueStats {
    pb::QueueStats {
        mission: q.counts.mission.to_string(),
        queue: q.counts.queue.to_string(),
        accepted: q.counts.accepted,
        delayed: q.counts.delayed,
        queued: q.counts.queued,
        running: q.counts.running,
        oldest_waiting_since: q.counts.oldest.map(Micros::to_proto),
        workers: q.workers,
        capacity: q.capacity,
        ended_per_second: q.ended_per_second,
        drain_seconds: q.drain_seconds(),
        paused: q.paused.map(|p| pb::QueuePause {
            since: Some(p.pause.since.to_proto()),
            by: p.pause.by,
            in_effect: p.in_effect,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_classes_have_the_words_of_the_contract() {
        for s in State::ALL {
            let proto = state_to(s);
            assert_eq!(proto.as_str_name(), format!("JOB_STATE_{}", s.as_str().to_uppercase()));
            assert_eq!(state_from(proto.into()), Some(s));
        }
        assert_eq!((state_from(0), state_from(99)), (None, None));
        for n in 1..=12 {
            let proto = pb::ErrorClass::try_from(n).unwrap();
            let class = ErrorClass::from_word(&proto.as_str_name().trim_start_matches("ERROR_CLASS_").to_lowercase());
            assert_eq!(class_to(class), proto);
        }
    }

    #[test]
    fn what_was_not_given_stays_so() {
        let input =
            submit_input(pb::SubmitJobRequest { tool: "echo".into(), ..Default::default() }, trace::Origin::default())
                .unwrap();
        assert!(input.id.is_none() && input.idempotency_key.is_none());
        assert_eq!(input.request, JobRequest { tool: "echo".into(), ..JobRequest::default() });
    }
}
