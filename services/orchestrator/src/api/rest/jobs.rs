//! Jobs over REST: submit, list, read, attempts, output, cancel.

use super::extract::{JsonBody, Query};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::{AttemptList, JobList, JobView, SubmitBody, parse_moment};
use crate::admission::SubmitInput;
use crate::api::{job, trace};
use crate::app::JobQuery;
use crate::error::Error;
use crate::model::State as JobState;
use crate::store::Times;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use std::time::Duration;

/// The header that carries a submission's key.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

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
        ("wait" = Option<String>, Query, description = "Such as `30s`; at most 60 s."),
    ),
    request_body = SubmitBody,
    responses(
        (status = 202, description = "Stored now", body = JobView, headers(("Location" = String, description = "Where the job is read"))),
        (status = 200, description = "The same submission was stored before: the job in its current state", body = JobView,
            headers(("Location" = String, description = "Where the job is read"))),
    )
)]
pub(crate) async fn submit(
    State(api): State<Api>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    JsonBody(body, _held): JsonBody<SubmitBody>,
) -> Result<Response, Problem> {
    let wait = wait_asked_for(query.as_deref())?;
    let input = with_key(body.into_input(trace::Origin::of(&headers))?, &headers)?;
    let answer = match wait {
        Some(wait) => api.app.submit_and_wait(input, wait).await?,
        None => api.app.submit(input).await?,
    };
    let status = if answer.created { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", answer.job.id)).expect("a UUID is ASCII");
    let body = json(status, &JobView::try_from(answer.job)?)?;
    Ok(([(header::LOCATION, location)], body).into_response())
}

/// `?wait=` as a time to wait; 0 is none.
fn wait_asked_for(query: Option<&str>) -> Result<Option<Duration>, Problem> {
    let wait = Query::parse(query, &["wait"])?.one("wait")?;
    let wait = wait
        .map(|w| agentforge_config::parse_duration(&w).map_err(|e| Problem::field("wait", format!("wait {w:?} {e}"))))
        .transpose()?;
    Ok(wait.filter(|w| !w.is_zero()))
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

/// List jobs
///
/// Newest first. All filters must match.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "Jobs", operation_id = "ListJobs",
    params(
        ("mission" = Option<String>, Query, description = "Of this mission."),
        ("queue" = Option<String>, Query, description = "Of this queue."),
        ("tool" = Option<String>, Query, description = "Of this tool."),
        ("state" = Option<Vec<String>>, Query, description = "In any of these states; repeated, or a comma-separated list."),
        ("label" = Option<Vec<String>>, Query, description = "With all of these labels, `key=value`; repeated, or a comma-separated list. A comma inside a value is written `%2C`."),
        ("created_after" = Option<String>, Query, format = DateTime, description = "Accepted at this moment or later (RFC 3339)."),
        ("created_before" = Option<String>, Query, format = DateTime, description = "Accepted before it."),
        ("finished_after" = Option<String>, Query, format = DateTime, description = "Final since this moment or later."),
        ("finished_before" = Option<String>, Query, format = DateTime, description = "Final before it."),
        ("limit" = Option<u32>, Query, description = "1 to 1000; the default is 100."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page of jobs", body = JobList))
)]
pub(crate) async fn list(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let known = [
        "mission",
        "queue",
        "tool",
        "state",
        "label",
        "created_after",
        "created_before",
        "finished_after",
        "finished_before",
        "limit",
        "cursor",
    ];
    let query = Query::parse(query.as_deref(), &known)?;
    let moment = |name| Ok::<_, Problem>(parse_moment(name, query.one(name)?.as_deref())?);
    let page = api
        .app
        .jobs(JobQuery {
            mission: query.one("mission")?,
            queue: query.one("queue")?,
            tool: query.one("tool")?,
            states: query.many("state").iter().map(|w| state(w)).collect::<Result<_, _>>()?,
            labels: query.many("label"),
            times: Times {
                created_after: moment("created_after")?,
                created_before: moment("created_before")?,
                finished_after: moment("finished_after")?,
                finished_before: moment("finished_before")?,
            },
            limit: query.limit()?,
            cursor: query.one("cursor")?,
        })
        .await?;
    let page = job::cut(page);
    let jobs = page.items.into_iter().map(JobView::try_from).collect::<Result<_, _>>()?;
    json(StatusCode::OK, &JobList { jobs, next_cursor: page.next })
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
        ("wait" = Option<String>, Query, description = "Such as `30s`; at most 60 s."),
    ),
    responses((status = 200, description = "The job", body = JobView))
)]
pub(crate) async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let job = match wait_asked_for(query.as_deref())? {
        Some(wait) => api.app.wait(&id, wait).await?,
        None => api.app.job(&id).await?,
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
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    let attempts = api.app.attempts(&id).await?.into_iter().map(Into::into).collect();
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
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    let output = api.app.output(&id).await?;
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
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    json(StatusCode::OK, &JobView::try_from(api.app.cancel(&id).await?)?)
}
