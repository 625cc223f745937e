//! Jobs over REST: submit, list, read, attempts, output, cancel.

use super::extract::JsonBody;
use super::params::{NoParams, Params};
use super::problem::Problem;
use super::response::{json, json_to};
use super::state::Api;
use super::types::{AttemptList, JobList, JobView, SubmitBody, parse_moment};
use crate::admission::SubmitInput;
use crate::api::trace;
use crate::app::JobQuery;
use crate::caller::Caller;
use crate::error::Error;
use crate::model::State as JobState;
use crate::store::Times;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// The header that carries a submission's key.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Whether the answer waits for the end.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// Such as `30s`; at most 60 s.
    wait: Option<String>,
}

impl WaitParams {
    /// The time to wait; 0 is none.
    fn wait(self) -> Result<Option<Duration>, Problem> {
        let wait = self.wait.map(|w| {
            agentforge_config::parse_duration(&w).map_err(|e| Problem::field("wait", format!("wait {w:?} {e}")))
        });
        Ok(wait.transpose()?.filter(|w| !w.is_zero()))
    }
}

/// Submit a job
///
/// Stores a job. The answer comes after the commit: an answered job is never lost. With an `id` or an idempotency key
/// the same submission may be sent again; it is stored once. With `wait` the answer comes when the job is final, or
/// after that time in its current state.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "Jobs", operation_id = "SubmitJob",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The same as `idempotency_key` in the body; taken literally, at most 256 bytes."),
        ("traceparent" = Option<String>, Header, description = "W3C trace context; the job and its tool calls join the trace."),
        WaitParams,
    ),
    request_body = SubmitBody,
    responses(
        (status = 202, description = "Stored now", body = JobView, headers(("Location" = String, description = "Where the job is read"))),
        (status = 200, description = "The same submission was stored before: the job in its current state", body = JobView,
            headers(("Location" = String, description = "Where the job is read"))),
    )
)]
pub(crate) async fn submit(
    api: Api,
    caller: Caller,
    headers: HeaderMap,
    Params(asked): Params<WaitParams>,
    JsonBody(body): JsonBody<SubmitBody>,
) -> Result<Response, Problem> {
    let wait = asked.wait()?;
    let input = with_key(body.into_input(trace::Origin::of(&headers))?, &headers)?;
    let answer = api.app.submit_and_show(&caller, input, wait).await?;
    let status = if answer.created { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", answer.job.id)).expect("a UUID is ASCII");
    let body = json(status, &JobView::try_from(answer.job)?)?;
    Ok(([(header::LOCATION, location)], body).into_response())
}

/// Takes the key from the header, which must not say otherwise than the body.
fn with_key(mut input: SubmitInput, headers: &HeaderMap) -> Result<SubmitInput, Error> {
    let Some(header) = headers.get(IDEMPOTENCY_KEY) else { return Ok(input) };
    let key = std::str::from_utf8(header.as_bytes())
        .map_err(|_| Error::field("idempotency_key", "the header Idempotency-Key is not UTF-8"))?;
    match input.idempotency_key.as_deref() {
        None | Some("") => input.idempotency_key = Some(key.to_owned()),
        Some(same) if same == key => {}
        Some(_) => {
            let message = "the header Idempotency-Key and idempotency_key in the body differ; give one of them";
            return Err(Error::field("idempotency_key", message));
        }
    }
    Ok(input)
}

/// Which jobs.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobParams {
    /// Of this mission.
    mission: Option<String>,
    /// Of this queue.
    queue: Option<String>,
    /// Of this tool.
    tool: Option<String>,
    /// In any of these states; repeated, or a comma-separated list.
    #[serde(default)]
    state: Vec<String>,
    /// Submitted with the token of this name.
    submitted_by: Option<String>,
    /// Ended without success, with an error that has this text, of at most 256 bytes: it is searched as `class: message`, and
    /// ASCII letters are alike in both cases. Of sensitive jobs only those are found whose error you may read.
    error: Option<String>,
    /// With all of these labels, `key=value`; repeated, or a comma-separated list. A comma inside a value is written `%2C`.
    #[serde(default)]
    label: Vec<String>,
    /// Accepted at this moment or later (RFC 3339).
    #[param(format = DateTime)]
    created_after: Option<String>,
    /// Accepted before it.
    #[param(format = DateTime)]
    created_before: Option<String>,
    /// Final since this moment or later.
    #[param(format = DateTime)]
    finished_after: Option<String>,
    /// Final before it.
    #[param(format = DateTime)]
    finished_before: Option<String>,
    /// 1 to 1000; the default is 100.
    #[serde(default)]
    limit: u32,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List jobs
///
/// Newest first. All filters must match. A page may be shorter than `limit`; `next_cursor` continues. It is never empty while
/// jobs match, unless looking for the first takes longer than five seconds.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "Jobs", operation_id = "ListJobs",
    params(JobParams),
    responses((status = 200, description = "A page of jobs", body = JobList))
)]
pub(crate) async fn list(api: Api, caller: Caller, Params(which): Params<JobParams>) -> Result<Response, Problem> {
    let moment = |name, given: Option<String>| parse_moment(name, given.as_deref());
    let query = JobQuery {
        mission: which.mission,
        queue: which.queue,
        tool: which.tool,
        states: which.state.iter().map(|w| state(w)).collect::<Result<_, _>>()?,
        submitted_by: which.submitted_by,
        error: which.error,
        labels: which.label,
        times: Times {
            created_after: moment("created_after", which.created_after)?,
            created_before: moment("created_before", which.created_before)?,
            finished_after: moment("finished_after", which.finished_after)?,
            finished_before: moment("finished_before", which.finished_before)?,
        },
        limit: which.limit,
        cursor: which.cursor,
    };
    let page = api.app.jobs(&caller, query).await?;
    let jobs = page.items.into_iter().map(JobView::try_from).collect::<Result<_, _>>()?;
    json_to(api.app.shows_all_alike(), &JobList { jobs, next_cursor: page.next })
}

fn state(word: &str) -> Result<JobState, Problem> {
    JobState::from_word(word).ok_or_else(|| {
        let words = JobState::ALL.map(JobState::as_str).join(", ");
        Problem::field("state", format!("there is no state {word:?}; expected {words}"))
    })
}

/// Read a job
///
/// With `wait` the answer comes when the job is final, or after that time in its current state.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "Jobs", operation_id = "GetJob",
    params(
        ("id" = String, Path, description = "The job's id"),
        WaitParams,
    ),
    responses((status = 200, description = "The job", body = JobView))
)]
pub(crate) async fn read(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    Params(asked): Params<WaitParams>,
) -> Result<Response, Problem> {
    let job = match asked.wait()? {
        Some(wait) => api.app.wait(&caller, &id, wait).await?,
        None => api.app.job(&caller, &id).await?,
    };
    json(StatusCode::OK, &JobView::try_from(job)?)
}

/// List the attempts at a job
///
/// Oldest first. An attempt appears when it is over.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/attempts", tag = "Jobs", operation_id = "ListAttempts",
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The attempts", body = AttemptList))
)]
pub(crate) async fn attempts(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    let attempts = api.app.attempts(&caller, &id).await?.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &AttemptList { attempts })
}

/// Read a job's result as it is
///
/// The JSON that the tool returned, regardless of its size: even if it is too large for `result`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/output", tag = "Jobs", operation_id = "GetJobOutput",
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The result", body = serde_json::Value))
)]
pub(crate) async fn output(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    let output = api.app.output(&caller, &id).await?;
    let mut response = Body::from_stream(output.stream).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(length) = output.content_length {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

/// Cancel a job
///
/// Before its start it never runs; while running its tool is stopped. Cancelling again is not an error.
#[utoipa::path(
    post, path = "/v1/jobs/{id}/cancel", tag = "Jobs", operation_id = "CancelJob",
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The cancelled job", body = JobView))
)]
pub(crate) async fn cancel(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &JobView::try_from(api.app.cancel(&caller, &id).await?)?)
}
