//! Jobs and schedules in words, for people: what `view` holds as values.

use agentforge_client::view::{ErrorView, JobView, Moment, ScheduleView, SkippedView};
use agentforge_terminal::{BOLD, DIM, age, bytes, clean, clean_lines, short_duration, state_style, styled};
use jiff::Timestamp;
use std::{fmt::Write, time::Duration};

/// How long ago, for a table; empty when there is no such moment.
pub fn ago(t: Option<Moment>) -> String {
    t.map(|t| age(t.0, Timestamp::now())).unwrap_or_default()
}

/// `class: message`, one line.
pub fn short(error: &ErrorView) -> String {
    clean(&format!("{}: {}", error.class, error.message), 4_000)
}

/// Turns that made no job: how many, and the last of them.
pub fn skipped(last: &SkippedView, all: u64) -> String {
    let at = last.scheduled_at.map(|t| t.0.to_string()).unwrap_or_default();
    format!("{all}, last {at}: {} ({})", last.reason, last.detail)
}

/// The tool of a schedule and its arguments, for a table.
pub fn what(schedule: &ScheduleView) -> String {
    schedule.job.as_ref().map(|job| format!("{} {}", job.tool, job.args.get())).unwrap_or_default()
}

/// Everything about it, a line each, for people.
pub fn describe(job: &JobView) -> String {
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
    put("id", job.id.clone());
    put("state", styled(state_style(job.state), job.state));
    put("warning", clean(job.warning.as_deref().unwrap_or_default(), 400));
    put("waits for", waiting(job, now));
    put("tool", clean(&job.tool, 200));
    put("mission", format!("{} / {}", job.mission, job.queue));
    put("attempts", format!("{} of {}", job.attempts, job.max_attempts));
    put("args", clean(job.args.get(), 400));
    put("labels", job.labels.iter().map(|(k, v)| clean(&format!("{k}={v}"), 120)).collect::<Vec<_>>().join(" "));
    put("created", moment(job.created_at));
    put("run at", moment(job.run_at));
    put("queued", moment(job.queued_at));
    put("started", moment(job.started_at));
    put("finished", moment(job.finished_at));
    put("deadline", moment(job.deadline.filter(|_| job.finished_at.is_none())));
    put("timeout", job.timeout_ms.map(|ms| short_duration(Duration::from_millis(ms))).unwrap_or_default());
    put("worker", clean(job.worker.as_deref().unwrap_or_default(), 120));
    put("key", clean(job.idempotency_key.as_deref().unwrap_or_default(), 260));
    put("task", clean(job.task.as_deref().unwrap_or_default(), 260));
    put("replay of", job.idempotent_replay.clone().unwrap_or_default());
    put("schedule", job.schedule_id.clone().unwrap_or_default());
    put("scheduled", job.scheduled_at.map(|t| t.0.to_string()).unwrap_or_default());
    put("trace", job.trace_id.clone().unwrap_or_default());
    put("result", job.result.as_ref().map(|r| clean(r.get(), 4_000)).unwrap_or_default());
    if let Some(o) = &job.output_ref {
        put("output", format!("{}, sha256 {}; `agentforge job output {}` prints it", bytes(o.size), o.sha256, job.id));
    }
    if let Some(error) = &job.error {
        put("error", format!("{}: {}", error.class, clean_lines(&error.message)));
        if !error.log_tail.is_empty() {
            put("log tail", format!("\n{}", clean_lines(error.log_tail.trim_end())));
        }
    }
    out
}

/// Why it waits and until when, for people.
fn waiting(job: &JobView, now: Timestamp) -> String {
    let Some(at) = job.next_attempt_at else { return String::new() };
    let when = || format!("{:.3} {}", at.0, styled(DIM, format!("({})", age(at.0, now))));
    match job.waits_for.as_deref() {
        Some("retry") => format!("its next try, {}", when()),
        Some("run_at") => format!("its time, {}", when()),
        Some("publish") => "its way to the queue".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_proto::v1;

    #[test]
    fn a_description_cannot_move_the_cursor() {
        let job =
            v1::Job { args: "{\"a\":\"\u{1b}[2J\"}".into(), tool: "x\u{1b}]0;t\u{7}".into(), ..Default::default() };
        let text = anstream::adapter::strip_str(&describe(&JobView::new(&job))).to_string();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    }
}
