//! Jobs, attempts and dead letters.

use super::{Moment, at, millis, raw, some};
use crate::output::{BOLD, DIM, age, bytes, clean, clean_lines, short_duration, state_style, styled};
use agentforge_proto::v1;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt::Write};

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

/// The words alone, for the command line.
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
    class: String,
    message: String,
    log_tail: String,
}

impl ErrorView {
    /// From the wire.
    pub fn new(e: &v1::JobError) -> Self {
        Self { class: class_word(e.class()), message: e.message.clone(), log_tail: e.log_tail.clone() }
    }
    /// `class: message`, one line.
    pub fn short(&self) -> String {
        clean(&format!("{}: {}", self.class, self.message), 4_000)
    }
}

fn class_word(class: v1::ErrorClass) -> String {
    class.as_str_name().trim_start_matches("ERROR_CLASS_").to_ascii_lowercase()
}

#[derive(Debug, Serialize)]
struct OutputRefView {
    bucket: String,
    name: String,
    size: u64,
    sha256: String,
}

/// A job.
#[derive(Debug, Serialize)]
pub struct JobView {
    /// Id.
    pub id: String,
    /// Mission.
    pub mission: String,
    /// Queue.
    pub queue: String,
    /// Tool.
    pub tool: String,
    args: Box<RawValue>,
    labels: BTreeMap<String, String>,
    /// State, as a word.
    pub state: &'static str,
    /// Tries begun.
    pub attempts: u32,
    /// Tries granted.
    pub max_attempts: u32,
    /// The one committed result.
    pub result: Option<Box<RawValue>>,
    output_ref: Option<OutputRefView>,
    /// Why it did not succeed, or why the last attempt did not.
    pub error: Option<ErrorView>,
    /// When it was accepted.
    pub created_at: Option<Moment>,
    queued_at: Option<Moment>,
    started_at: Option<Moment>,
    /// When it became final.
    pub finished_at: Option<Moment>,
    run_at: Option<Moment>,
    deadline: Option<Moment>,
    timeout_ms: Option<u64>,
    idempotency_key: Option<String>,
    task: Option<String>,
    reuse: bool,
    idempotent_replay: Option<String>,
    /// The agent that ran it last.
    pub worker: Option<String>,
    schedule_id: Option<String>,
    scheduled_at: Option<Moment>,
    trace_id: Option<String>,
    version: u64,
    /// What is wrong with where it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    next_attempt_at: Option<Moment>,
    waits_for: Option<String>,
    retry: Option<RetryView>,
}

/// Waits between tries, milliseconds; what is not there is the server's.
#[derive(Debug, Serialize)]
struct RetryView {
    base_ms: Option<u64>,
    cap_ms: Option<u64>,
}

impl JobView {
    /// From the wire.
    pub fn new(job: &v1::Job) -> Self {
        Self {
            id: job.id.clone(),
            mission: job.mission.clone(),
            queue: job.queue.clone(),
            tool: job.tool.clone(),
            args: raw(some(&job.args).unwrap_or("{}")),
            labels: job.labels.clone().into_iter().collect(),
            state: state_word(job.state()),
            attempts: job.attempts,
            max_attempts: job.max_attempts,
            result: job.result.as_deref().map(raw),
            output_ref: job.output_ref.as_ref().map(|o| OutputRefView {
                bucket: o.bucket.clone(),
                name: o.name.clone(),
                size: o.size,
                sha256: o.sha256.clone(),
            }),
            error: job.error.as_ref().map(ErrorView::new),
            created_at: at(job.created_at.as_ref()),
            queued_at: at(job.queued_at.as_ref()),
            started_at: at(job.started_at.as_ref()),
            finished_at: at(job.finished_at.as_ref()),
            run_at: at(job.run_at.as_ref()),
            deadline: at(job.deadline.as_ref()),
            timeout_ms: millis(job.timeout.as_ref()),
            idempotency_key: job.idempotency_key.clone(),
            task: job.task.clone(),
            reuse: job.reuse,
            idempotent_replay: job.idempotent_replay.clone(),
            worker: job.worker.clone(),
            schedule_id: job.schedule_id.clone(),
            scheduled_at: at(job.scheduled_at.as_ref()),
            trace_id: job.trace_id.clone(),
            version: job.version,
            warning: job.warning.clone(),
            next_attempt_at: at(job.next_attempt_at.as_ref()),
            waits_for: some(&job.waits_for).map(str::to_owned),
            retry: job
                .retry
                .as_ref()
                .map(|r| RetryView { base_ms: millis(r.base.as_ref()), cap_ms: millis(r.cap.as_ref()) }),
        }
    }

    /// Why it waits and until when, for people.
    fn waiting(&self, now: Timestamp) -> String {
        let Some(at) = self.next_attempt_at else { return String::new() };
        let when = || format!("{:.3} {}", at.0, styled(DIM, format!("({})", age(at.0, now))));
        match self.waits_for.as_deref() {
            Some("retry") => format!("its next try, {}", when()),
            Some("run_at") => format!("its time, {}", when()),
            Some("publish") => "its way to the queue".to_owned(),
            _ => String::new(),
        }
    }

    /// Its arguments, as they were given.
    pub fn args(&self) -> &str {
        self.args.get()
    }

    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Its idempotency key.
    pub fn key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }

    /// Everything about it, a line each, for people.
    pub fn describe(&self) -> String {
        let now = Timestamp::now();
        let mut out = String::new();
        let mut put = |name: &str, value: String| {
            if !value.is_empty() {
                let _ = writeln!(out, "{} {value}", styled(BOLD, format!("{name:<12}")));
            }
        };
        let moment = |t: Option<Moment>| {
            t.map(|t| format!("{:.3} {}", t.0, styled(DIM, format!("({})", age(t.0, now))))).unwrap_or_default()
        };
        put("id", self.id.clone());
        put("state", styled(state_style(self.state), self.state));
        put("warning", clean(self.warning.as_deref().unwrap_or_default(), 400));
        put("waits for", self.waiting(now));
        put("tool", clean(&self.tool, 200));
        put("mission", format!("{} / {}", self.mission, self.queue));
        put("attempts", format!("{} of {}", self.attempts, self.max_attempts));
        put("args", clean(self.args.get(), 400));
        put("labels", self.labels.iter().map(|(k, v)| clean(&format!("{k}={v}"), 120)).collect::<Vec<_>>().join(" "));
        put("created", moment(self.created_at));
        put("run at", moment(self.run_at));
        put("queued", moment(self.queued_at));
        put("started", moment(self.started_at));
        put("finished", moment(self.finished_at));
        put("deadline", moment(self.deadline.filter(|_| self.finished_at.is_none())));
        put(
            "timeout",
            self.timeout_ms.map(|ms| short_duration(std::time::Duration::from_millis(ms))).unwrap_or_default(),
        );
        put("worker", clean(self.worker.as_deref().unwrap_or_default(), 120));
        put("key", clean(self.idempotency_key.as_deref().unwrap_or_default(), 260));
        put("task", clean(self.task.as_deref().unwrap_or_default(), 260));
        put("replay of", self.idempotent_replay.clone().unwrap_or_default());
        put("schedule", self.schedule_id.clone().unwrap_or_default());
        put("scheduled", self.scheduled_at.map(|t| t.0.to_string()).unwrap_or_default());
        put("trace", self.trace_id.clone().unwrap_or_default());
        put("result", self.result.as_ref().map(|r| clean(r.get(), 4_000)).unwrap_or_default());
        if let Some(o) = &self.output_ref {
            put(
                "output",
                format!("{}, sha256 {}; `agentforge job output {}` prints it", bytes(o.size), o.sha256, self.id),
            );
        }
        if let Some(error) = &self.error {
            put("error", format!("{}: {}", error.class, clean_lines(&error.message)));
            if !error.log_tail.is_empty() {
                put("log tail", format!("\n{}", clean_lines(error.log_tail.trim_end())));
            }
        }
        out
    }
}

/// One try at a job.
#[derive(Debug, Serialize)]
pub struct AttemptView {
    /// From 1.
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
    /// Mission.
    pub mission: String,
    /// Queue.
    pub queue: String,
    /// Tool.
    pub tool: String,
    /// Why it is dead.
    pub reason: String,
    /// The last error.
    pub error: Option<ErrorView>,
    /// Since when.
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

    #[test]
    fn a_description_cannot_move_the_cursor() {
        let job =
            v1::Job { args: "{\"a\":\"\u{1b}[2J\"}".into(), tool: "x\u{1b}]0;t\u{7}".into(), ..Default::default() };
        let text = anstream::adapter::strip_str(&JobView::new(&job).describe()).to_string();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    }
}
