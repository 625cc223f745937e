//! What REST and gRPC show of a job in the same way.

use crate::admission::JobRequest;
use crate::error::Error;
use crate::model::{Job, Schedule, State};
use agentforge_proto::time::Micros;

/// Tries begun or under way: a job that waits to be published, or that ended while it waited, has
/// not begun its current attempt.
pub(crate) fn attempts(job: &Job) -> u32 {
    let attempt = job.attempt.get();
    let unbegun = job.state == State::Accepted || (job.state.is_final() && job.queued_at.is_none());
    if unbegun { attempt - 1 } else { attempt }
}

/// Why an accepted job waits, and until when: for its time, for a retry, or for nothing but its publish.
pub(crate) fn waiting(job: &Job, now: Micros) -> Option<(&'static str, Micros)> {
    let why = match () {
        () if job.state != State::Accepted => return None,
        () if job.available_at <= now => "publish",
        () if job.attempt.get() > 1 => "retry",
        () => "run_at",
    };
    Some((why, job.available_at))
}

/// The stored template of a schedule.
pub(crate) fn template(schedule: &Schedule) -> Result<JobRequest, Error> {
    serde_json::from_str(&schedule.template)
        .map_err(|e| Error::from(crate::store::Error::Corrupt { what: "schedule's job", problem: e.to_string() }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::admission::{SubmitInput, admit, tests::limits};
    use agentforge_message_id::Attempt;
    use std::time::Duration;

    pub(crate) fn job(seq: i64, args: &str) -> Job {
        let request =
            JobRequest { tool: "echo".into(), timeout: Some(Duration::from_millis(1500)), ..JobRequest::default() };
        let input = SubmitInput { request, ..SubmitInput::default() };
        let mut new = admit(input, &limits(), Micros(1_700_000_000_123_456), None).unwrap();
        std::sync::Arc::make_mut(&mut new.spec).args = args.to_owned();
        new.deadline = None;
        Job { available_at: Micros(0), ..Job::accepted(seq, new) }
    }

    #[test]
    fn an_attempt_counts_once_it_is_published() {
        let at = Some(Micros(1));
        let second = Attempt::FIRST.next();
        let table = [
            (State::Accepted, Attempt::FIRST, None, 0),
            (State::Queued, Attempt::FIRST, at, 1),
            (State::Running, Attempt::FIRST, at, 1),
            (State::Accepted, second, None, 1),
            (State::Cancelled, Attempt::FIRST, None, 0),
            (State::Expired, second, None, 1),
            (State::Cancelled, second, at, 2),
            (State::Succeeded, second, at, 2),
        ];
        for (state, attempt, queued_at, want) in table {
            assert_eq!(attempts(&Job { state, attempt, queued_at, ..job(1, "{}") }), want, "{state:?} {attempt}");
        }
    }

    #[test]
    fn what_an_accepted_job_waits_for_is_told() {
        let (now, later) = (Micros(100), Micros(200));
        let second = Attempt::FIRST.next();
        let table = [
            (State::Accepted, Attempt::FIRST, now, Some(("publish", now))),
            (State::Accepted, Attempt::FIRST, later, Some(("run_at", later))),
            (State::Accepted, second, later, Some(("retry", later))),
            (State::Accepted, second, now, Some(("publish", now))),
            (State::Queued, second, later, None),
            (State::Expired, second, later, None),
        ];
        for (state, attempt, available_at, want) in table {
            assert_eq!(
                waiting(&Job { state, attempt, available_at, ..job(1, "{}") }, now),
                want,
                "{state:?} {attempt}"
            );
        }
    }
}
