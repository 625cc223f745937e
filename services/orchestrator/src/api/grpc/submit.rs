//! The stream of submissions: many under way at once, answered in order, each in its place.
//!
//! Nothing is spawned per submission: what has arrived goes to the application together, and one task polls all that wait
//! for a commit. The next request is read only when there is room for it.

use super::call::Call;
use super::messages::{Kept, Share};
use super::{convert, guard};
use crate::api::limits::{Budget, STREAM_INFLIGHT_MAX, STREAM_INFLIGHT_MAX_BYTES};
use crate::api::{log_failure, shown};
use crate::app::{App, Stored, TOGETHER};
use crate::caller::Caller;
use crate::error::Error;
use agentforge_proto::time::duration_to_proto;
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::submit_jobs_response::{Accepted, Outcome, Refused};
use futures_util::future;
use futures_util::stream::{self, Stream, StreamExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// One answer a request. An error of the connection, or a stop, ends the stream after the answers to
/// all that was read.
pub(super) fn answers(
    app: App,
    call: Call,
    caller: Caller,
    kept: Kept,
    requests: impl Stream<Item = Result<pb::SubmitJobRequest, Status>> + Send + 'static,
) -> impl Stream<Item = Result<pb::SubmitJobsResponse, Status>> + Send + 'static {
    let budget = Budget::new(STREAM_INFLIGHT_MAX_BYTES);
    let by = Arc::new(Submitter { call, caller, failing: AtomicBool::new(false) });
    let stop = app.stopping().clone();
    let at_stop = by.clone();
    let requests = until_stopped(requests, stop, move || at_stop.call.cut());
    // What follows an error is not read: the reader has lost its place between messages.
    let requests = requests.scan(false, |is_lost, request| {
        let next = (!*is_lost).then_some(request);
        *is_lost |= next.as_ref().is_some_and(Result::is_err);
        future::ready(next)
    });
    requests
        .enumerate()
        .then(move |(index, request)| {
            // Its share of the memory for all bodies, until it is answered.
            let (budget, share) = (budget.clone(), kept.next());
            async move {
                let room = match &request {
                    Ok(r) => Some(budget.wait(r.args.len()).await),
                    Err(_) => None,
                };
                (index, request, (room, share))
            }
        })
        .ready_chunks(TOGETHER)
        .map(move |chunk| {
            let (app, by) = (app.clone(), by.clone());
            async move { submit(&app, &by, chunk).await }
        })
        .buffered(STREAM_INFLIGHT_MAX / TOGETHER)
        .flat_map(stream::iter)
}

/// The caller of one stream.
struct Submitter {
    call: Call,
    caller: Caller,
    /// Whether the submission before failed for a reason of ours: a failing database is logged once.
    failing: AtomicBool,
}

impl Submitter {
    /// The error when reading failed.
    fn lost(&self, status: Status) -> Status {
        if status.code() == tonic::Code::OutOfRange { self.call.refuse(&guard::too_large()) } else { status }
    }

    fn note(&self, outcome: Result<(), &Error>) {
        let ours = outcome.err().filter(|e| e.code.http_status() >= 500);
        let before = self.failing.swap(ours.is_some(), Ordering::Relaxed);
        if let Some(e) = ours.filter(|_| !before) {
            log_failure(e, self.call.operation, self.call.request_id());
        }
    }
}

/// A request with its place, and what it holds until it is answered.
type Read = (usize, Result<pb::SubmitJobRequest, Status>, (Option<OwnedSemaphorePermit>, Share));

/// What had arrived when there was room for it, as one submission to the application.
async fn submit(app: &App, by: &Submitter, chunk: Vec<Read>) -> Vec<Result<pb::SubmitJobsResponse, Status>> {
    let (mut places, mut inputs, mut rooms) = (Vec::new(), Vec::with_capacity(chunk.len()), Vec::new());
    let mut lost = None;
    for (index, request, room) in chunk {
        match request {
            Ok(request) => {
                places.push(index);
                inputs.push(convert::submit_input(request, by.call.origin.clone()));
                rooms.push(room);
            }
            // Nothing comes after it.
            Err(status) => lost = Some(Err(by.lost(status))),
        }
    }
    let answers = app.submit_all(&by.caller, inputs).await;
    drop(rooms);
    let answered = places.into_iter().zip(answers).map(|(index, answer)| {
        by.note(answer.as_ref().map(|_| ()));
        Ok(pb::SubmitJobsResponse { index: index as u64, outcome: Some(outcome(answer)) })
    });
    answered.chain(lost).collect()
}

fn outcome(answer: Result<Stored, Error>) -> Outcome {
    match answer {
        Ok(stored) => Outcome::Accepted(Accepted { id: stored.id.to_string(), created: stored.created }),
        Err(e) => Outcome::Refused(Refused {
            code: e.code.as_str().to_owned(),
            message: shown(&e.message),
            field: e.field.unwrap_or_default().to_owned(),
            retry_after: e.retry_after.map(duration_to_proto),
        }),
    }
}

/// Reads until the caller is done; at a stop, or after an error, one error ends it.
fn until_stopped<T: Send + 'static>(
    requests: impl Stream<Item = Result<T, Status>> + Send + 'static,
    stop: CancellationToken,
    at_stop: impl FnOnce() -> Status + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    let stopped = stop.clone();
    requests.take_until(stop.cancelled_owned()).chain(
        stream::once(async move { stopped.is_cancelled().then(|| Err(at_stop())) })
            .filter_map(|end| async move { end }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_reported_and_an_end_is_not() {
        let stop = CancellationToken::new();
        let run = |stop: CancellationToken, open: bool| async move {
            let sent = stream::iter([Ok(1), Ok(2)]);
            let requests = if open { sent.chain(stream::pending()).boxed() } else { sent.boxed() };
            let read = until_stopped(requests, stop, || Status::unavailable("stop")).map(|r| r.map_err(|s| s.code()));
            read.collect::<Vec<_>>().await
        };
        assert_eq!(run(stop.clone(), false).await, [Ok(1), Ok(2)]);
        let trigger = stop.clone();
        let (read, ()) = tokio::join!(run(stop, true), async move {
            tokio::task::yield_now().await;
            trigger.cancel();
        });
        assert_eq!(read.last(), Some(&Err(tonic::Code::Unavailable)));
    }
}
