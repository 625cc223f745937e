//! Messages that the stores put into the outbox: life-cycle events and dead letters.
//!
//! Pure: rows in, bytes out. Ids are made from the job, its state and its attempt, so that writing
//! the same thing twice is found out.

use super::outbox::{Origin, OutboxMessage};
use crate::model::{AttemptRecord, DeadReason, NewJob, State};
use crate::transition::Current;
use agentforge_jetstream::subjects;
use agentforge_message_id::{AgentId, Attempt, Mission, Queue};
use agentforge_proto::bus::{
    DeadAttempt, DeadJob, DeadLetterMessage, ErrorClass, EventError, JobEvent, JobEventData, Rejected,
};
use agentforge_proto::time::Micros;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What brought an event about, for those who follow it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source<'a> {
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
    /// X-Request-ID of the job's submission.
    pub request_id: Option<&'a str>,
}

/// Arguments above this stay in the store only, bytes.
const DEAD_LETTER_ARGS_MAX_BYTES: usize = 64 * 1024;

/// The part of an error's message in an event, bytes; the store has all of it.
const EVENT_ERROR_BYTES_MAX: usize = 4 * 1024;
/// The same for each of up to a hundred tries in a dead letter, which must fit into one message.
const ATTEMPT_ERROR_BYTES_MAX: usize = 1024;

/// The beginning of a text, whole characters of it.
fn short(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The event of a job that was just accepted.
pub fn accepted(job: &NewJob) -> OutboxMessage {
    let id = format!("{}:{}:{}", job.id, State::Accepted.as_str(), Attempt::FIRST);
    event(
        State::Accepted,
        id,
        job.created_at,
        Source { traceparent: job.traceparent.as_deref(), request_id: job.request_id.as_deref() },
        JobEventData {
            job_id: job.id,
            mission: job.mission.clone(),
            queue: job.queue.clone(),
            tool: job.tool.clone(),
            state: State::Accepted.as_str().into(),
            attempt: Attempt::FIRST,
            labels: Cow::Borrowed(&job.labels),
            submitted_by: job.submitted_by.as_deref().map(Cow::Borrowed),
            error: None,
        },
    )
}

/// The event of a job that entered its state at `at`, by a change that came from `source`.
pub fn changed(job: &Current, at: Micros, source: Source<'_>) -> OutboxMessage {
    // The version distinguishes two entries into one state (a second `queued` after a republish).
    let id = format!("{}:{}:{}:{}", job.id, job.state.as_str(), job.attempt, job.version);
    let labels = job.labels.as_deref().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default();
    let error = job.error.as_ref();
    event(
        job.state,
        id,
        at,
        source,
        JobEventData {
            job_id: job.id,
            mission: job.mission.clone(),
            queue: job.queue.clone(),
            tool: job.tool.clone(),
            state: job.state.as_str().into(),
            attempt: job.attempt,
            labels: Cow::Owned(labels),
            submitted_by: job.submitted_by.as_deref().map(Cow::Borrowed),
            error: error
                .map(|e| EventError { class: e.class, message: short(&e.message, EVENT_ERROR_BYTES_MAX).into() }),
        },
    )
}

/// Most events fit: their buffer does not grow.
const EVENT_BYTES: usize = 640;

fn event(state: State, id: String, at: Micros, source: Source<'_>, data: JobEventData<'_>) -> OutboxMessage {
    let origin = Origin {
        traceparent: source.traceparent.filter(|t| trace_id(t).is_some()).map(str::to_owned),
        requestid: source.request_id.map(str::to_owned),
    };
    let event = JobEvent {
        specversion: "1.0".into(),
        id: id.as_str().into(),
        source: format!("/agentforge/{}", data.mission).into(),
        kind: format!("agentforge.job.{}", state.as_str()).into(),
        subject: data.job_id,
        time: at.timestamp(),
        datacontenttype: "application/json".into(),
        traceparent: origin.traceparent.as_deref().map(Cow::Borrowed),
        requestid: origin.requestid.as_deref().map(Cow::Borrowed),
        data,
    };
    let mut payload = Vec::with_capacity(EVENT_BYTES);
    serde_json::to_writer(&mut payload, &event).expect("events hold strings and numbers only");
    OutboxMessage {
        subject: subjects::event(&event.data.mission, state.as_str()),
        msg_id: id,
        payload: payload.into(),
        origin,
    }
}

/// The key of a job's dead letter: one for each attempt that may end it.
pub fn dead_letter_id(job: &Current) -> String {
    format!("dlq:{}:{}", job.id, job.attempt)
}

/// The dead letter of a job.
pub fn dead_letter(
    job: &Current,
    reason: DeadReason,
    args: &str,
    traceparent: Option<&str>,
    attempts: &[AttemptRecord],
    at: Micros,
) -> OutboxMessage {
    let id = dead_letter_id(job);
    let message = DeadLetterMessage {
        id: id.clone(),
        reason: reason.as_str().into(),
        job: Some(DeadJob {
            id: job.id,
            mission: job.mission.clone(),
            queue: job.queue.clone(),
            tool: job.tool.clone(),
            args: (args.len() <= DEAD_LETTER_ARGS_MAX_BYTES)
                .then(|| RawValue::from_string(args.to_owned()).ok())
                .flatten(),
            labels: job.labels.as_deref().and_then(|l| serde_json::from_str(l).ok()).unwrap_or_default(),
            accepted_at: job.created_at,
        }),
        attempts: attempts
            .iter()
            .map(|a| DeadAttempt {
                attempt: a.attempt,
                class: a.error.as_ref().map_or(ErrorClass::Unknown, |e| e.class),
                message: a
                    .error
                    .as_ref()
                    .map_or_else(String::new, |e| short(&e.message, ATTEMPT_ERROR_BYTES_MAX).to_owned()),
                worker: a.worker.as_deref().and_then(|w| AgentId::new(w).ok()),
                at: a.finished_at,
            })
            .collect(),
        worker: job.worker.as_deref().and_then(|w| AgentId::new(w).ok()),
        trace_id: traceparent.and_then(trace_id).map(str::to_owned),
        rejected: None,
        at,
    };
    OutboxMessage {
        subject: subjects::dlq(&job.mission, &job.queue),
        msg_id: id,
        payload: serde_json::to_vec(&message).expect("dead letters hold strings and numbers only").into(),
        origin: Origin::default(),
    }
}

/// The key of the dead letter of a message that was not a job.
pub fn rejected_id(r: &Rejected) -> String {
    agentforge_message_id::MsgId::rejected(&r.stream, r.sequence, i128::from(r.stored_at_ns)).to_string()
}

/// Why it is a dead letter.
pub fn rejected_reason(r: &Rejected) -> DeadReason {
    if r.invalid_signature { DeadReason::InvalidSignature } else { DeadReason::InvalidMessage }
}

/// Mission and queue that a subject `swarm.jobs.<mission>.<queue>` names, or `unknown`: the subject is what a
/// worker says it was, and becomes a part of the letter's own.
pub fn queue_of(subject: &str) -> (String, String) {
    let mut tokens = subject.split('.').skip(2);
    let mission = tokens.next().and_then(|t| Mission::new(t).ok()).map(|m| m.to_string());
    let queue = tokens.next().and_then(|t| Queue::new(t).ok()).map(|q| q.to_string());
    (mission.unwrap_or_else(|| "unknown".to_owned()), queue.unwrap_or_else(|| "unknown".to_owned()))
}

/// The dead letter of a message that was not a job.
pub fn rejected_letter(r: &Rejected) -> OutboxMessage {
    let id = rejected_id(r);
    let (mission, queue) = queue_of(&r.subject);
    let message = DeadLetterMessage {
        id: id.clone(),
        reason: rejected_reason(r).as_str().into(),
        job: None,
        attempts: vec![],
        worker: Some(r.worker.clone()),
        trace_id: None,
        rejected: Some(r.clone()),
        at: r.at,
    };
    OutboxMessage {
        subject: format!("swarm.dlq.{mission}.{queue}"),
        msg_id: id,
        payload: serde_json::to_vec(&message).expect("dead letters hold strings and numbers only").into(),
        origin: Origin::default(),
    }
}

/// The trace id inside a W3C traceparent (`00-<32 hex>-<16 hex>-<2 hex>`).
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let (id, rest) = traceparent.get(3..)?.split_at_checked(32)?;
    let is_one = traceparent.as_bytes()[2] == b'-' && rest.starts_with('-');
    (is_one && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_come_from_subjects_and_never_surprise() {
        assert_eq!(queue_of("swarm.jobs.dev.default"), ("dev".into(), "default".into()));
        assert_eq!(queue_of("swarm.jobs.dev"), ("dev".into(), "unknown".into()));
        for rubbish in ["", "swarm.jobs.> *.x", "swarm.jobs.*.>", "swarm.jobs..", "swarm.jobs.a b.c\r\nd"] {
            let (mission, queue) = queue_of(rubbish);
            assert!(mission == "unknown" && (queue == "unknown" || queue == "x"), "{rubbish}: {mission} {queue}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!((short("ab", 2), short("aé", 2), short("", 2)), ("ab", "a", ""));
    }

    #[test]
    fn trace_ids_are_read_from_traceparents() {
        assert_eq!(
            trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            Some("0af7651916cd43dd8448eb211c80319c")
        );
        assert_eq!(trace_id("rubbish"), None);
    }
}
