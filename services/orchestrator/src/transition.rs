//! What a job becomes: pure decisions, the fence of the whole product.
//!
//! A result counts only for the current attempt of a job that is not final. Everything else is
//! ignored with a reason. Both stores call this between reading rows and writing them, inside one
//! transaction, so that a redelivery is harmless wherever it comes from.

mod backoff;
mod change;
mod current;
mod effects;

pub use backoff::Backoff;
pub use change::{Change, Ignored};
pub use current::Current;
pub use effects::{AttemptEffect, Effects, ResultEffect};

use crate::model::{DeadReason, JobError, State};
use agentforge_message_id::Attempt;
use agentforge_proto::bus::{ErrorClass, Finished, Outcome};
use agentforge_proto::time::Micros;
use std::time::Duration;

/// Applies `change` to `job` in place, or says why it does nothing.
///
/// `now` is the moment of the commit; `jitter` in 0..1 spreads retries.
///
/// # Errors
/// [`Ignored`] when the change comes late, twice, or for another attempt; the job is untouched then.
pub fn apply(
    job: &mut Current,
    change: &Change,
    backoff: &Backoff,
    now: Micros,
    jitter: f64,
) -> Result<Effects, Ignored> {
    let mut effects = Effects::default();
    match change {
        Change::Queued { attempt, stream_seq, at } => {
            let first_word = fence(job, *attempt).map(|()| job.state == State::Accepted)?;
            if !first_word {
                // The report overtook the PubAck, or the same attempt was published twice.
                if job.stream_seq.is_some() {
                    return Err(Ignored::Passed);
                }
                job.stream_seq = Some(*stream_seq);
                return Ok(effects);
            }
            job.state = State::Queued;
            job.queued_at = Some(*at);
            job.stream_seq = Some(*stream_seq);
        }
        Change::Refused { attempt, error, at } => {
            fence(job, *attempt)?;
            if job.state != State::Accepted {
                return Err(Ignored::Passed);
            }
            job.state = State::Failed;
            job.finished_at = Some(now);
            job.error = Some((**error).clone());
            effects.dead = Some(DeadReason::NotRetryable);
            effects.attempt = Some(AttemptEffect {
                attempt: *attempt,
                outcome: "failed",
                error: job.error.clone(),
                worker: None,
                delivery: 0,
                started_at: None,
                finished_at: *at,
                retry_at: None,
            });
        }
        Change::Started(s) => {
            fence(job, s.attempt)?;
            if job.state == State::Running && job.worker.as_deref() == Some(s.worker.as_str()) {
                return Err(Ignored::Passed);
            }
            job.state = State::Running;
            job.started(s.at, now);
            job.worker = Some(s.worker.to_string());
        }
        Change::Finished(f) => {
            fence(job, f.attempt)?;
            finish(job, f, backoff, now, jitter, &mut effects);
        }
        Change::ToolMissing { finished, announced, grace } => {
            fence(job, finished.attempt)?;
            if announced.contains(job.tool.as_str()) || now.since(may_run_since(job)) < *grace {
                effects = without_tool(job, finished, now, jitter);
            } else {
                finish(job, finished, backoff, now, jitter, &mut effects);
            }
        }
        Change::Cancel { at, by, only } => {
            // It was chosen by its state, and has another since.
            if !job.state.is_final() && !only.is_empty() && !only.contains(&job.state) {
                return Err(Ignored::Passed);
            }
            end_without_result(job, State::Cancelled, *at)?;
            job.cancelled_by.clone_from(by);
        }
        Change::Expire { at } => {
            if job.deadline.is_none_or(|d| d > *at) {
                return Err(Ignored::Passed);
            }
            end_without_result(job, State::Expired, *at)?;
            job.error = Some(expired_error());
        }
        Change::Redrive { at } => {
            if !matches!(job.state, State::Dead | State::Failed) {
                return Err(Ignored::Passed);
            }
            put_back(job, *at, None, &mut effects)?;
        }
        Change::Retry { at, lifetime } => {
            if !job.state.may_be_retried() {
                return Err(Ignored::Passed);
            }
            put_back(job, *at, *lifetime, &mut effects)?;
        }
        Change::Republish { attempt, at } => {
            fence(job, *attempt)?;
            if job.state == State::Accepted {
                return Err(Ignored::Passed);
            }
            let times = job.republished + 1;
            await_publish(job, *at, &mut effects);
            job.republished = times;
        }
    }
    job.version += 1;
    Ok(effects)
}

fn fence(job: &Current, attempt: Attempt) -> Result<(), Ignored> {
    if matches!(job.state, State::Cancelled | State::Expired) {
        Err(Ignored::Stopped)
    } else if job.state.is_final() {
        Err(Ignored::Final)
    } else if job.attempt != attempt {
        Err(Ignored::OtherAttempt)
    } else {
        Ok(())
    }
}

/// Attempt numbers keep counting, so that messages still in transit for an earlier one are fenced off.
fn put_back(job: &mut Current, at: Micros, lifetime: Option<Duration>, effects: &mut Effects) -> Result<(), Ignored> {
    if job.key_released {
        return Err(Ignored::KeyTaken);
    }
    let before = job.lifetime.or_else(|| job.deadline.map(|d| d.since(job.created_at)));
    job.attempt = job.attempt.next();
    job.attempt_limit = job.attempt.get().saturating_add(job.max_attempts.saturating_sub(1));
    job.deadline = lifetime.or(before).map(|l| at.plus(l));
    job.finished_at = None;
    job.error = None;
    job.cancelled_by = None;
    await_publish(job, at, effects);
    effects.redriven = true;
    Ok(())
}

fn end_without_result(job: &mut Current, state: State, at: Micros) -> Result<(), Ignored> {
    if job.state.is_final() {
        return Err(Ignored::Final);
    }
    job.state = state;
    job.finished_at = Some(at);
    Ok(())
}

fn await_publish(job: &mut Current, available_at: Micros, effects: &mut Effects) {
    job.state = State::Accepted;
    job.available_at = available_at;
    job.queued_at = None;
    job.stream_seq = None;
    job.republished = 0;
    effects.release_claim = true;
}

fn expired_error() -> JobError {
    JobError {
        class: ErrorClass::Expired,
        message: "the deadline passed before the job was final; submit with a later deadline to allow more".into(),
        log_tail: String::new(),
    }
}

fn finish(job: &mut Current, f: &Finished, backoff: &Backoff, now: Micros, jitter: f64, effects: &mut Effects) {
    job.started(f.started_at, now);
    job.worker = Some(f.worker.to_string());
    let mut record = AttemptEffect {
        attempt: f.attempt,
        outcome: "succeeded",
        error: None,
        worker: Some(f.worker.to_string()),
        delivery: f.delivery,
        started_at: Some(f.started_at),
        finished_at: f.finished_at,
        retry_at: None,
    };
    match &f.outcome {
        Outcome::Succeeded(s) => {
            job.state = State::Succeeded;
            job.finished_at = Some(now);
            job.error = None;
            effects.result = Some(ResultEffect {
                output: s.output.as_ref().map(|o| o.get().to_owned()),
                output_ref: s.output_ref.clone(),
                replay_of: s.idempotent_replay,
            });
        }
        Outcome::Failed(failure) => {
            let error =
                JobError { class: failure.class, message: failure.message.clone(), log_tail: failure.log_tail.clone() };
            record.outcome = if failure.class == ErrorClass::WorkerLost { "worker_lost" } else { "failed" };
            record.error = Some(error.clone());
            job.error = Some(error);
            let may_retry = failure.class.is_retryable();
            if may_retry && job.attempt.get() < job.attempt_limit {
                let wait = backoff.with(job.retry).after(
                    job.attempt,
                    failure.retry_after_ms.map(Duration::from_millis),
                    jitter,
                );
                let retry_at = now.plus(wait);
                record.retry_at = Some(retry_at);
                job.attempt = job.attempt.next();
                await_publish(job, retry_at, effects);
            } else {
                let reason = match failure.class {
                    ErrorClass::WorkerLost => DeadReason::WorkerLost,
                    _ if may_retry => DeadReason::AttemptsExhausted,
                    _ => DeadReason::NotRetryable,
                };
                job.state = if reason == DeadReason::NotRetryable { State::Failed } else { State::Dead };
                job.finished_at = Some(now);
                effects.dead = Some(reason);
            }
        }
        // A cancel is committed before workers hear of it: for an open job it was of an earlier attempt.
        Outcome::Cancelled => {
            record.outcome = "cancelled";
            let message = format!("worker {} took an earlier cancel of the job for this attempt's", f.worker);
            let why = JobError { class: ErrorClass::Cancelled, message, log_tail: String::new() };
            *effects = hand_back(job, record, why, now, jitter);
            return;
        }
        Outcome::Expired if !has_expired(job, now) => {
            record.outcome = "expired";
            let message = format!(
                "worker {} says that the deadline has passed, and it has not: compare the clocks of its host and of \
                 the orchestrator's; the attempt goes out again without the deadline, and none is used up",
                f.worker
            );
            let why = JobError { class: ErrorClass::Expired, message, log_tail: String::new() };
            *effects = hand_back(job, record, why, now, jitter);
            return;
        }
        Outcome::Expired => {
            record.outcome = "expired";
            job.state = State::Expired;
            job.finished_at = Some(now);
            job.error = Some(expired_error());
        }
    }
    effects.attempt = Some(record);
}

/// How far a worker's clock may be ahead of ours without a dispute about a deadline.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);
/// Shortest wait before an attempt that was handed back is published again.
const HAND_BACK_MIN: Duration = Duration::from_secs(1);
/// Longest such wait: however many jobs one wrong worker hands back, they make no load.
const HAND_BACK_MAX: Duration = Duration::from_secs(60);

/// A worker's word that the deadline passed is believed where our clock agrees.
fn has_expired(job: &Current, now: Micros) -> bool {
    job.deadline.is_some_and(|d| d <= now.plus(CLOCK_TOLERANCE))
}

/// The attempt goes to another worker, as the next one (what is late of this one is fenced off), and none is
/// used up. The longer the job is about, the longer it waits: a lone worker that is wrong does not spin it.
fn hand_back(job: &mut Current, record: AttemptEffect, why: JobError, now: Micros, jitter: f64) -> Effects {
    let whole = (now.since(job.created_at) / 2).clamp(HAND_BACK_MIN, HAND_BACK_MAX);
    let retry_at = now.plus(whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)));
    let mut effects = Effects { disputed: true, ..Effects::default() };
    job.error = Some(why.clone());
    job.attempt = job.attempt.next();
    job.attempt_limit = job.attempt_limit.saturating_add(1);
    await_publish(job, retry_at, &mut effects);
    effects.attempt = Some(AttemptEffect { error: Some(why), retry_at: Some(retry_at), ..record });
    effects
}

/// When the job was allowed to run, by its submission or by putting it back.
fn may_run_since(job: &Current) -> Micros {
    match (job.deadline, job.lifetime) {
        (Some(deadline), Some(lifetime)) => deadline.minus(lifetime),
        _ => job.created_at,
    }
}

/// The attempt goes to another worker: this one lacks the tool, as in each update that adds one.
fn without_tool(job: &mut Current, f: &Finished, now: Micros, jitter: f64) -> Effects {
    let message =
        format!("worker {} has no tool {}; the attempt goes to another, and none is used up", f.worker, job.tool);
    let why = JobError { class: ErrorClass::ToolNotFound, message, log_tail: String::new() };
    job.worker = Some(f.worker.to_string());
    let record = AttemptEffect {
        attempt: f.attempt,
        outcome: "failed",
        error: None,
        worker: Some(f.worker.to_string()),
        delivery: f.delivery,
        started_at: Some(f.started_at),
        finished_at: f.finished_at,
        retry_at: None,
    };
    Effects { disputed: false, ..hand_back(job, record, why, now, jitter) }
}

#[cfg(test)]
mod tests;
