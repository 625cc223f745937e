//! Schedules over REST.

use super::extract::{JsonBody, OptionalJsonBody};
use super::params::{NoParams, PageParams, Params};
use super::problem::Problem;
use super::response::json;
use super::state::Api;
use super::types::schedules as types;
use super::types::{NextRuns, RunBody, RunView, ScheduleBody, ScheduleChangeBody, ScheduleList, ScheduleView};
use crate::api::trace;
use crate::app::{ScheduleChange, ScheduleInput};
use crate::caller::Caller;
use crate::error::Error;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;

/// Create a schedule
///
/// Its job is checked now, as a submission would be.
#[utoipa::path(
    post, path = "/v1/schedules", tag = "Schedules", operation_id = "CreateSchedule",
    request_body = ScheduleBody,
    responses((status = 201, description = "The schedule", body = ScheduleView, headers(("Location" = String, description = "Where the schedule is read"))))
)]
pub(crate) async fn create(
    api: Api,
    caller: Caller,
    JsonBody(body): JsonBody<ScheduleBody>,
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
    let schedule = api.app.create_schedule(&caller, input).await?;
    let location = HeaderValue::from_str(&format!("/v1/schedules/{}", schedule.id)).expect("a UUID is ASCII");
    let body = json(StatusCode::CREATED, &ScheduleView::try_from(schedule)?)?;
    Ok(([(header::LOCATION, location)], body).into_response())
}

/// List schedules
///
/// By name.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "Schedules", operation_id = "ListSchedules",
    params(PageParams),
    responses((status = 200, description = "A page of schedules", body = ScheduleList))
)]
pub(crate) async fn list(api: Api, caller: Caller, Params(page): Params<PageParams>) -> Result<Response, Problem> {
    let page = api.app.read_schedules(&caller, page.limit, page.cursor.as_deref()).await?;
    let schedules = page.items.into_iter().map(ScheduleView::try_from).collect::<Result<_, Error>>()?;
    json(StatusCode::OK, &ScheduleList { schedules, next_cursor: page.next })
}

/// Read a schedule
///
/// With when it runs next.
#[utoipa::path(
    get, path = "/v1/schedules/{id}", tag = "Schedules", operation_id = "GetSchedule",
    params(("id" = String, Path, description = "The schedule's id")),
    responses((status = 200, description = "The schedule", body = ScheduleView))
)]
pub(crate) async fn read(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &ScheduleView::try_from(api.app.read_schedule(&caller, &id).await?)?)
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
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<ScheduleChangeBody>,
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
    json(StatusCode::OK, &ScheduleView::try_from(api.app.update_schedule(&caller, &id, change).await?)?)
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
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody<RunBody>,
) -> Result<Response, Problem> {
    let run = api.app.run_schedule(&caller, &id, &body.idempotency_key).await?;
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
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    api.app.delete_schedule(&caller, &id).await?;
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
pub(crate) async fn pause(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    _: Params<NoParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &ScheduleView::try_from(api.app.pause_schedule(&caller, &id).await?)?)
}

/// How a schedule is resumed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ResumeParams {
    /// Make up for turns missed in the pause; the default is false.
    #[serde(default)]
    catch_up: bool,
}

/// Resume a schedule
///
/// From now on; with `catch_up=true` turns missed in the pause are made up for, as the catch-up policy has it.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/resume", tag = "Schedules", operation_id = "ResumeSchedule",
    params(
        ("id" = String, Path, description = "The schedule's id"),
        ResumeParams,
    ),
    responses((status = 200, description = "The resumed schedule", body = ScheduleView))
)]
pub(crate) async fn resume(
    api: Api,
    caller: Caller,
    Path(id): Path<String>,
    Params(how): Params<ResumeParams>,
) -> Result<Response, Problem> {
    json(StatusCode::OK, &ScheduleView::try_from(api.app.resume_schedule(&caller, &id, how.catch_up).await?)?)
}

/// How many runs.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct NextRunsParams {
    /// 1 to 100; the default is 5.
    #[serde(default)]
    limit: u32,
}

/// List a schedule's next runs
///
/// Also of a paused one: when it would run.
#[utoipa::path(
    get, path = "/v1/schedules/{id}/next-runs", tag = "Schedules", operation_id = "ListNextRuns",
    params(
        ("id" = String, Path, description = "The schedule's id"),
        NextRunsParams,
    ),
    responses((status = 200, description = "The next runs", body = NextRuns))
)]
pub(crate) async fn next_runs(
    api: Api,
    Path(id): Path<String>,
    Params(which): Params<NextRunsParams>,
) -> Result<Response, Problem> {
    let runs = api.app.next_runs(&id, which.limit).await?.into_iter().map(Into::into).collect();
    json(StatusCode::OK, &NextRuns { runs })
}
