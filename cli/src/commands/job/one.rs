//! One job: its whole id, and how it is shown.

use crate::{context::Context, words::describe};
use agentforge_client::view::JobView;
use agentforge_proto::v1;
use agentforge_terminal::{Explain, Failure, NOT_SUCCEEDED, Result};

/// Digits of a whole id, hyphens left out.
const ID_DIGITS: usize = 32;

/// The id that `given` is, or is the beginning of. What is neither goes to the server as it is, which says so.
pub(super) async fn full_id(given: &str, context: &Context) -> Result<String> {
    let digits = given.chars().filter(|c| *c != '-').count();
    let is_prefix = (4..ID_DIGITS).contains(&digits) && given.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    if !is_prefix {
        return Ok(given.to_owned());
    }
    let request = context.client.request(v1::FindJobsRequest { prefix: given.to_owned() });
    let found = context.client.jobs().find_jobs(request).await;
    let ids = found.map_err(|e| context.client.failure("finding the job", &e))?.into_inner().ids;
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(Failure::new(format!("no job has an id that begins with {given}"))
            .code("not_found")
            .hint("`agentforge job list` shows whole ids")),
        _ => Err(Failure::new(format!("more than one job has an id that begins with {given}: {}", ids.join(" ")))
            .code("ambiguous")
            .hint("give more digits of it")),
    }
}

/// Prints a job and returns its outcome as an exit code.
pub(super) fn show_ended(job: &v1::Job, context: &Context) -> Result {
    show(job, context)?;
    match job.state() {
        v1::JobState::Succeeded => Ok(()),
        _ => Err(Failure::quiet(NOT_SUCCEEDED)),
    }
}

pub(super) fn show(job: &v1::Job, context: &Context) -> Result {
    let view = JobView::new(job);
    if context.out.json { context.out.document(&view) } else { context.out.text(&describe(&view)) }
}
