//! Schedules over REST.

use super::extract::{JsonBody, OptionalJsonBody, Query};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::schedules as types;
use super::types::{NextRuns, RunBody, RunView, ScheduleBody, ScheduleChangeBody, ScheduleList, ScheduleView};
use crate::api::trace;
use crate::app::{ScheduleChange, ScheduleInput};
use crate::error::Error;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// Create a schedule
///
/// Its job is checked now, as a submission would be.
#[utoipa::path(
    post, path = "/v1/schedules", tag = "Schedules", operation_id = "CreateSchedule",
    request_body = ScheduleBody,
    responses((status = 201, description = "The schedule", body = ScheduleView, headers(("Location" = String, description = "Where the schedule is read"))))
)]
pub(crate) async fn create(
    State(api): State<Api>,
    JsonBody(body, _held): JsonBody<ScheduleBody>,
) -> Result<Response, Problem> {
    let input = ScheduleInput {
        name: body.name,
        cron: body.cron,
        time_zone: body.time_zone.unwrap_or_default(),
        job: body.job.into_input(trace::Origin::default())?,
        paused: body.paused,
        overlap: types::overlap(body.overlap)?.unwrap_or_default(),
        catch_up: types::catch_up(body.catch_up)?.unwrap_or_default(),
        deadline: types::deadline(body.deadline, body.deadline_ms)?,
    };
    let schedule = api.app.create_schedule(input).await?;
    let location = HeaderValue::from_str(&format!("/v1/schedules/{}", schedule.id)).expect("a UUID is ASCII");
    let body = json(StatusCode::CREATED, &ScheduleView::try_from(schedule)?)?;
    Ok(([(header::LOCATION, location)], body).into_response())
}

/// List schedules
///
/// By name.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "Schedules", operation_id = "ListSchedules",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1000; the default is 100."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, description = "A page of schedules", body = ScheduleList))
)]
pub(crate) async fn list(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["limit", "cursor"])?;
    let page = api.app.schedules(query.limit()?, query.one("cursor")?.as_deref()).await?;
    let schedules = page.items.into_iter().map(ScheduleView::try_from).collect::<Result<_, Error>>()?;
    json(StatusCode::OK, &ScheduleList { schedules, next_cursor: page.next })
}

/// Read a schedule
#[utoipa::path(
    get, path = "/v1/schedules/{id}", tag = "Schedules", operation_id = "GetSchedule",
    params(("id" = String, Path, description = "The schedule's id")),
    responses((status = 200, description = "The schedule", body = ScheduleView))
)]
pub(crate) async fn read(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    json(StatusCode::OK, &ScheduleView::try_from(api.app.schedule(&id).await?)?)
}

/// Change a schedule
///
/// It keeps its id and its history. Absent fields stay unchanged; with another cron or time zone, turns are counted
/// from now.
#[utoipa::path(
    patch, path = "/v1/schedules/{id}", tag = "Schedules", operation_id = "UpdateSchedule",
    params(("id" = String, Path, description = "The schedule's id")),
    request_body = ScheduleChangeBody,
    responses((status = 200, description = "The changed schedule", body = ScheduleView))
)]
pub(crate) async fn update(
    State(api): State<Api>,
    Path(id): Path<String>,
    JsonBody(body, _held): JsonBody<ScheduleChangeBody>,
) -> Result<Response, Problem> {
    let change = ScheduleChange {
        name: body.name,
        cron: body.cron,
        time_zone: body.time_zone,
        job: body.job.map(|job| job.into_input(trace::Origin::default())).transpose()?,
        overlap: types::overlap(body.overlap)?,
        catch_up: types::catch_up(body.catch_up)?,
        deadline: types::deadline(body.deadline, body.deadline_ms)?,
    };
    json(StatusCode::OK, &ScheduleView::try_from(api.app.update_schedule(&id, change).await?)?)
}

/// Run a schedule now
///
/// Whether its turn has come or not, and paused or not. The overlap policy holds: with `skip`, or when another turn
/// waits already, it is refused.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/run", tag = "Schedules", operation_id = "RunSchedule",
    params(("id" = String, Path, description = "The schedule's id")),
    request_body = Option<RunBody>,
    responses((status = 202, description = "The run", body = RunView))
)]
pub(crate) async fn run(
    State(api): State<Api>,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody<RunBody>,
) -> Result<Response, Problem> {
    let run = api.app.run_schedule(&id, &body.idempotency_key).await?;
    let view = RunView { schedule: run.schedule.try_into()?, job_id: run.job.map(|id| id.to_string()) };
    json(StatusCode::ACCEPTED, &view)
}

/// Delete a schedule
///
/// Jobs that it made stay.
#[utoipa::path(
    delete, path = "/v1/schedules/{id}", tag = "Schedules", operation_id = "DeleteSchedule",
    params(("id" = String, Path, description = "The schedule's id")),
    responses((status = 204, description = "It is gone"))
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Query::parse(query.as_deref(), &[])?;
    api.app.delete_schedule(&id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Pause a schedule
///
/// It makes no jobs until it is resumed.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/pause", tag = "Schedules", operation_id = "PauseSchedule",
    params(("id" = String, Path, description = "The schedule's id")),
    responses((status = 200, description = "The paused schedule", body = ScheduleView))
)]
pub(crate) async fn pause(state: State<Api>, id: Path<String>, query: RawQuery) -> Result<Response, Problem> {
    let (State(api), Path(id), RawQuery(query)) = (state, id, query);
    Query::parse(query.as_deref(), &[])?;
    json(StatusCode::OK, &ScheduleView::try_from(api.app.pause_schedule(&id).await?)?)
}

/// Resume a schedule
///
/// From now on; with `catch_up=true` turns missed in the pause are made up for, as the catch-up policy has it.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/resume", tag = "Schedules", operation_id = "ResumeSchedule",
    params(
        ("id" = String, Path, description = "The schedule's id"),
        ("catch_up" = Option<bool>, Query, description = "Make up for turns missed in the pause; the default is false."),
    ),
    responses((status = 200, description = "The resumed schedule", body = ScheduleView))
)]
pub(crate) async fn resume(state: State<Api>, id: Path<String>, query: RawQuery) -> Result<Response, Problem> {
    let (State(api), Path(id), RawQuery(query)) = (state, id, query);
    let query = Query::parse(query.as_deref(), &["catch_up"])?;
    let catch_up = query.parsed::<bool>("catch_up", "true or false")?.unwrap_or(false);
    json(StatusCode::OK, &ScheduleView::try_from(api.app.resume_schedule(&id, catch_up).await?)?)
}

/// List a schedule's next runs
///
/// Also of a paused one: when it would run.
#[utoipa::path(
    get, path = "/v1/schedules/{id}/next-runs", tag = "Schedules", operation_id = "ListNextRuns",
    params(
        ("id" = String, Path, description = "The schedule's id"),
        ("limit" = Option<u32>, Query, description = "1 to 100; the default is 5."),
    ),
    responses((status = 200, description = "The next runs", body = NextRuns))
)]
pub(crate) async fn next_runs(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["limit"])?;
    let runs = api.app.next_runs(&id, query.limit()?).await?.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &NextRuns { runs })
}
