//! What a submission contains besides tool and arguments: times, keys and an identity. Pure.

use agentforge_proto::{
    time::{Micros, duration_to_proto},
    v1,
};
use agentforge_terminal::When;
use jiff::Timestamp;
use uuid::Uuid;

/// What counts from now goes out as it is: the orchestrator counts, and knows the submission again.
pub(super) fn set_times(request: &mut v1::SubmitJobRequest, run_at: Option<When>, deadline: Option<When>) {
    let stamp = |t: Timestamp| Micros::from(t).to_proto();
    match run_at {
        Some(When::At(t)) => (request.run_at, request.run_in) = (Some(stamp(t)), None),
        Some(When::In(d)) => (request.run_at, request.run_in) = (None, Some(duration_to_proto(d))),
        None => {}
    }
    match (deadline, run_at) {
        (None, _) => {}
        (Some(When::At(t)), _) => (request.deadline, request.deadline_in) = (Some(stamp(t)), None),
        // The orchestrator counts a deadline from when the job may run.
        (Some(When::In(d)), None) => (request.deadline, request.deadline_in) = (None, Some(duration_to_proto(d))),
        (Some(When::In(d)), Some(When::In(r))) if d > r => {
            (request.deadline, request.deadline_in) = (None, Some(duration_to_proto(d - r)));
        }
        (Some(When::In(d)), Some(_)) => {
            let at = Timestamp::now().checked_add(d).unwrap_or(Timestamp::MAX);
            (request.deadline, request.deadline_in) = (Some(stamp(at)), None);
        }
    }
}

/// The word as the contract has it; with hyphens, as on the command line, or with underscores, as in JSON.
pub(super) fn key_reuse(word: &str) -> v1::KeyReuse {
    match word.replace('-', "_").as_str() {
        "after_stop" => v1::KeyReuse::AfterStop,
        "after_failure" => v1::KeyReuse::AfterFailure,
        _ => v1::KeyReuse::Unspecified,
    }
}

/// A submission must be safe to send twice: without an id or a key of the caller it gets an id here.
pub(super) fn with_identity(mut request: v1::SubmitJobRequest) -> v1::SubmitJobRequest {
    if request.id.is_empty() && request.idempotency_key.is_empty() {
        request.id = Uuid::now_v7().to_string();
    }
    request
}
