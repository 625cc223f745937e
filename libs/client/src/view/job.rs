//! Jobs, what schedules repeat of them, attempts and dead letters.

use super::wire::{Moment, at, millis, raw, some};
use agentforge_proto::v1;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The words of the states, in the order of a life.
pub const STATES: [(v1::JobState, &str); 8] = [
    (v1::JobState::Accepted, "accepted"),
    (v1::JobState::Queued, "queued"),
    (v1::JobState::Running, "running"),
    (v1::JobState::Succeeded, "succeeded"),
    (v1::JobState::Failed, "failed"),
    (v1::JobState::Dead, "dead"),
    (v1::JobState::Cancelled, "cancelled"),
    (v1::JobState::Expired, "expired"),
];

/// Only the words, for the command line.
pub fn states() -> impl Iterator<Item = &'static str> {
    STATES.iter().map(|(_, word)| *word)
}

/// The state of a word.
pub fn parse_state(word: &str) -> Option<v1::JobState> {
    STATES.iter().find(|(_, w)| *w == word).map(|(state, _)| *state)
}

/// The word of a state.
pub fn state_word(state: v1::JobState) -> &'static str {
    STATES.iter().find(|(s, _)| *s == state).map_or("unknown", |(_, word)| word)
}

/// Whether nothing can follow but a redrive.
pub fn is_final(state: v1::JobState) -> bool {
    state as i32 >= v1::JobState::Succeeded as i32
}

/// An error of a job or an attempt.
#[derive(Debug, Serialize)]
pub struct ErrorView {
    /// Its class, as a word.
    pub class: String,
    /// What went wrong.
    pub message: String,
    /// The end of what the tool logged.
    pub log_tail: String,
}

impl ErrorView {
    /// From the wire.
    pub fn new(e: &v1::JobError) -> Self {
        Self { class: class_word(e.class()), message: e.message.clone(), log_tail: e.log_tail.clone() }
    }
}

fn class_word(class: v1::ErrorClass) -> String {
    class.as_str_name().trim_start_matches("ERROR_CLASS_").to_ascii_lowercase()
}

/// A result that is kept outside of the job.
#[derive(Debug, Serialize)]
pub struct OutputRefView {
    /// The bucket of the object store.
    pub bucket: String,
    /// The object's name.
    pub name: String,
    /// Size of the content, in bytes.
    pub size: u64,
    /// Of the content, in hexadecimal.
    pub sha256: String,
}

/// A job as commands print it and REST answers it: field names and order are an interface.
#[derive(Debug, Serialize)]
pub struct JobView {
    /// The job's id, a UUID.
    pub id: String,
    /// The mission that it belongs to; only workers of the same mission run it.
    pub mission: String,
    /// The queue that it waits in.
    pub queue: String,
    /// The name of the tool that runs it.
    pub tool: String,
    /// Its arguments, as they were given.
    pub args: Box<RawValue>,
    /// Labels of the submission; lists filter by them.
    pub labels: BTreeMap<String, String>,
    /// State, as a word.
    pub state: &'static str,
    /// How many tries were begun, lost ones included.
    pub attempts: u32,
    /// How many tries it may have.
    pub max_attempts: u32,
    /// The one committed result.
    pub result: Option<Box<RawValue>>,
    /// Where the result is, when it is large.
    pub output_ref: Option<OutputRefView>,
    /// Why it did not succeed, or why the last attempt did not.
    pub error: Option<ErrorView>,
    /// When it was accepted.
    pub created_at: Option<Moment>,
    /// When it went to the queue.
    pub queued_at: Option<Moment>,
    /// When its last try began.
    pub started_at: Option<Moment>,
    /// When it became final.
    pub finished_at: Option<Moment>,
    /// The time before which it is not published; absent when it was due at once.
    pub run_at: Option<Moment>,
    /// The time after which it is not begun any more; absent when there is none.
    pub deadline: Option<Moment>,
    /// How long one try may take.
    pub timeout_ms: Option<u64>,
    /// The key that it was submitted under.
    pub idempotency_key: Option<String>,
    /// The task that it is a try at.
    pub task: Option<String>,
    /// Whether an earlier result of the task will do.
    pub reuse: bool,
    /// The job whose result it took.
    pub idempotent_replay: Option<String>,
    /// The agent that ran it last.
    pub worker: Option<String>,
    /// The schedule that made it.
    pub schedule_id: Option<String>,
    /// The turn that it was made for.
    pub scheduled_at: Option<Moment>,
    /// The W3C trace id of the submission, 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// Counts its changes.
    pub version: u64,
    /// What is wrong with where it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The name of the token that submitted it.
    pub submitted_by: Option<String>,
    /// The name of the token that cancelled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// When it continues.
    pub next_attempt_at: Option<Moment>,
    /// What it waits for: `retry`, `run_at`, `publish`.
    pub waits_for: Option<String>,
    /// How long it waits between tries.
    pub retry: Option<RetryView>,
}

/// Waits between tries, milliseconds; what is not there is the server's.
#[derive(Debug, Serialize)]
pub struct RetryView {
    /// The wait before the second try.
    pub base_ms: Option<u64>,
    /// The longest wait between two tries.
    pub cap_ms: Option<u64>,
}

impl RetryView {
    fn new(r: &v1::RetryPolicy) -> Self {
        Self { base_ms: millis(r.base.as_ref()), cap_ms: millis(r.cap.as_ref()) }
    }
}

impl JobView {
    /// From the wire.
    pub fn new(job: &v1::Job) -> Self {
        // Without `..`: what the contract has, the view has.
        let v1::Job {
            id,
            mission,
            queue,
            tool,
            args,
            labels,
            state: _,
            attempts,
            max_attempts,
            result,
            output_ref,
            error,
            created_at,
            queued_at,
            started_at,
            finished_at,
            run_at,
            deadline,
            timeout,
            idempotency_key,
            task,
            reuse,
            idempotent_replay,
            worker,
            schedule_id,
            scheduled_at,
            trace_id,
            version,
            warning,
            next_attempt_at,
            waits_for,
            retry,
            submitted_by,
            cancelled_by,
        } = job;
        Self {
            id: id.clone(),
            mission: mission.clone(),
            queue: queue.clone(),
            tool: tool.clone(),
            args: raw(some(args).unwrap_or("{}")),
            labels: labels.clone().into_iter().collect(),
            state: state_word(job.state()),
            attempts: *attempts,
            max_attempts: *max_attempts,
            result: result.as_deref().map(raw),
            output_ref: output_ref.as_ref().map(|o| OutputRefView {
                bucket: o.bucket.clone(),
                name: o.name.clone(),
                size: o.size,
                sha256: o.sha256.clone(),
            }),
            error: error.as_ref().map(ErrorView::new),
            created_at: at(created_at.as_ref()),
            queued_at: at(queued_at.as_ref()),
            started_at: at(started_at.as_ref()),
            finished_at: at(finished_at.as_ref()),
            run_at: at(run_at.as_ref()),
            deadline: at(deadline.as_ref()),
            timeout_ms: millis(timeout.as_ref()),
            idempotency_key: idempotency_key.clone(),
            task: task.clone(),
            reuse: *reuse,
            idempotent_replay: idempotent_replay.clone(),
            worker: worker.clone(),
            schedule_id: schedule_id.clone(),
            scheduled_at: at(scheduled_at.as_ref()),
            trace_id: trace_id.clone(),
            version: *version,
            warning: warning.clone(),
            submitted_by: submitted_by.clone(),
            cancelled_by: cancelled_by.clone(),
            next_attempt_at: at(next_attempt_at.as_ref()),
            waits_for: some(waits_for).map(str::to_owned),
            retry: retry.as_ref().map(RetryView::new),
        }
    }
}

/// What each turn of a schedule submits.
#[derive(Debug, Serialize)]
pub struct TemplateView {
    /// The mission of its jobs; absent for the orchestrator's own.
    pub mission: Option<String>,
    /// The queue of its jobs; absent for the default one.
    pub queue: Option<String>,
    /// The name of the tool that each job runs.
    pub tool: String,
    /// Its arguments, as they were given.
    pub args: Box<RawValue>,
    /// Labels that each job gets.
    pub labels: BTreeMap<String, String>,
    /// How many tries each job may have; absent for the server's default.
    pub max_attempts: Option<u32>,
    /// How long one try may take.
    pub timeout_ms: Option<u64>,
    /// The task that it is a try at.
    pub task: Option<String>,
    /// Whether an earlier result of the task will do.
    pub reuse: bool,
    /// How long it waits between tries.
    pub retry: Option<RetryView>,
    /// From a turn to the deadline of its job, milliseconds.
    pub deadline_in_ms: Option<u64>,
}

impl TemplateView {
    /// From the wire.
    pub fn new(job: &v1::SubmitJobRequest) -> Self {
        let own = |text: &str| some(text).map(str::to_owned);
        // Without `..`: what a schedule may repeat, the view has.
        let v1::SubmitJobRequest {
            mission,
            queue,
            tool,
            args,
            labels,
            max_attempts,
            timeout,
            task,
            reuse,
            retry,
            deadline_in,
            // Of one submission only.
            id: _,
            idempotency_key: _,
            key_reuse: _,
            run_at: _,
            run_in: _,
            deadline: _,
            wait: _,
        } = job;
        Self {
            mission: own(mission),
            queue: own(queue),
            tool: tool.clone(),
            args: raw(some(args).unwrap_or("{}")),
            labels: labels.clone().into_iter().collect(),
            max_attempts: (*max_attempts > 0).then_some(*max_attempts),
            timeout_ms: millis(timeout.as_ref()),
            task: own(task),
            reuse: *reuse,
            retry: retry.as_ref().map(RetryView::new),
            deadline_in_ms: millis(deadline_in.as_ref()),
        }
    }
}

/// One try at a job.
#[derive(Debug, Serialize)]
pub struct AttemptView {
    /// The number of the try, from 1.
    pub attempt: u32,
    /// How it ended; empty while it runs.
    pub outcome: String,
    /// Why it did not succeed.
    pub error: Option<ErrorView>,
    /// The agent that ran it.
    pub worker: Option<String>,
    /// The hand-over by JetStream that ran.
    pub delivery: u64,
    /// When it began.
    pub started_at: Option<Moment>,
    /// When it ended.
    pub finished_at: Option<Moment>,
    /// When the next one follows.
    pub retry_at: Option<Moment>,
}

impl AttemptView {
    /// From the wire.
    pub fn new(a: &v1::JobAttempt) -> Self {
        Self {
            attempt: a.attempt,
            outcome: a.outcome.clone(),
            error: a.error.as_ref().map(ErrorView::new),
            worker: some(&a.worker).map(str::to_owned),
            delivery: a.delivery,
            started_at: at(a.started_at.as_ref()),
            finished_at: at(a.finished_at.as_ref()),
            retry_at: at(a.retry_at.as_ref()),
        }
    }
}

/// A job that can never succeed as it is.
#[derive(Debug, Serialize)]
pub struct DeadLetterView {
    /// Id of the letter.
    pub id: String,
    /// Its job; null for bytes that were none.
    pub job_id: Option<String>,
    /// The mission of its job.
    pub mission: String,
    /// The queue that its job was in.
    pub queue: String,
    /// The tool of its job.
    pub tool: String,
    /// Why it is dead.
    pub reason: String,
    /// The last error.
    pub error: Option<ErrorView>,
    /// When the letter was written.
    pub created_at: Option<Moment>,
    /// When it was put back.
    pub redriven_at: Option<Moment>,
}

impl DeadLetterView {
    /// From the wire.
    pub fn new(d: &v1::DeadLetter) -> Self {
        Self {
            id: d.id.clone(),
            job_id: some(&d.job_id).map(str::to_owned),
            mission: d.mission.clone(),
            queue: d.queue.clone(),
            tool: d.tool.clone(),
            reason: d.reason.clone(),
            error: d.error.as_ref().map(ErrorView::new),
            created_at: at(d.created_at.as_ref()),
            redriven_at: at(d.redriven_at.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_contract_has_a_word_and_back() {
        for n in 1..=8 {
            let state = v1::JobState::try_from(n).unwrap();
            assert_eq!(parse_state(state_word(state)), Some(state));
            assert_eq!(is_final(state), n >= 4);
        }
        assert!(v1::JobState::try_from(9).is_err(), "a new state needs a word");
    }

    #[test]
    fn arguments_keep_every_digit_and_times_are_rfc_3339() {
        let job = v1::Job {
            id: "j".into(),
            args: r#"{"n":12345678901234567890123}"#.into(),
            state: v1::JobState::Dead as i32,
            created_at: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 5_000_000 }),
            error: Some(v1::JobError { class: 4, message: "slow down".into(), log_tail: String::new() }),
            ..Default::default()
        };
        let json = serde_json::to_string(&JobView::new(&job)).unwrap();
        assert!(json.contains(r#""args":{"n":12345678901234567890123}"#), "{json}");
        assert!(json.contains(r#""created_at":"2026-01-01T00:00:00.005000Z""#), "{json}");
        assert!(json.contains(r#""error":{"class":"rate_limited","message":"slow down","log_tail":""}"#), "{json}");
        assert!(json.contains(r#""state":"dead""#) && json.contains(r#""result":null"#), "{json}");
    }
}
