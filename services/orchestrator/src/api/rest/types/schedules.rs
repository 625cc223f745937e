//! Schedules as JSON.

use super::job::{SubmitBody, TemplateView};
use super::{Moment, moment};
use crate::api::job;
use crate::error::Error;
use crate::model::Schedule;
use crate::turns::{CatchUp, Overlap};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// A schedule to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateScheduleRequest, example = json!({"name": "nightly", "cron": "0 3 * * *", "time_zone": "Europe/Vienna", "job": {"tool": "echo"}}))]
pub struct ScheduleBody {
    /// Unique among schedules; 1 to 128 bytes.
    #[serde(default)]
    #[schema(required)]
    pub name: String,
    /// Five fields: minute hour day-of-month month day-of-week.
    #[serde(default)]
    #[schema(required)]
    pub cron: String,
    /// IANA name, such as Europe/Vienna. Absent: UTC.
    pub time_zone: Option<String>,
    /// The job it makes; id, idempotency_key, run_at and deadline must be absent.
    #[serde(default)]
    #[schema(required)]
    pub job: SubmitBody,
    /// Begin paused.
    #[serde(default)]
    pub paused: bool,
    /// What becomes of a turn while the job of an earlier turn is not over: `allow` (the default), `skip`, `queue`
    /// (one turn waits at most) or `replace` (the earlier job is cancelled).
    pub overlap: Option<String>,
    /// What happens to turns missed while no orchestrator ran: `latest` (the default), `all` (the latest 100 at most)
    /// or `none` (nothing older than a minute).
    pub catch_up: Option<String>,
    /// How long after its time a turn's job may end, such as `50m`. Or give `deadline_ms`.
    pub deadline: Option<String>,
    /// The same in milliseconds.
    pub deadline_ms: Option<u64>,
}

/// What is changed of a schedule; what is absent stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateScheduleRequest, example = json!({"cron": "0 4 * * *", "overlap": "skip"}))]
pub struct ScheduleChangeBody {
    /// Unique among schedules; 1 to 128 bytes.
    pub name: Option<String>,
    /// Five fields: minute hour day-of-month month day-of-week.
    pub cron: Option<String>,
    /// IANA name, such as Europe/Vienna; empty: UTC.
    pub time_zone: Option<String>,
    /// The job it makes, whole.
    pub job: Option<SubmitBody>,
    /// `allow`, `skip`, `queue` or `replace`.
    pub overlap: Option<String>,
    /// `latest`, `all` or `none`.
    pub catch_up: Option<String>,
    /// How long after its time a turn's job may end; `0s` takes it away. Or give `deadline_ms`.
    pub deadline: Option<String>,
    /// The same in milliseconds.
    pub deadline_ms: Option<u64>,
}

/// A run that is asked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunScheduleRequest, example = json!({"idempotency_key": "after-the-fix"}))]
pub struct RunBody {
    /// Asked again under the same key, the run is the first one; at most 128 bytes.
    #[serde(default)]
    pub idempotency_key: String,
}

/// A run that was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunScheduleResponse)]
pub struct RunView {
    /// The schedule after it.
    pub(crate) schedule: ScheduleView,
    /// Its job; null while the run waits for an earlier one.
    pub(crate) job_id: Option<String>,
}

pub(crate) fn overlap(word: Option<String>) -> Result<Option<Overlap>, Error> {
    let Some(word) = word.filter(|w| !w.is_empty()) else { return Ok(None) };
    let known = Overlap::from_word(&word).map(Some);
    known.ok_or_else(|| Error::field("overlap", format!("overlap {word:?} is none of allow, skip, queue, replace")))
}

pub(crate) fn catch_up(word: Option<String>) -> Result<Option<CatchUp>, Error> {
    let Some(word) = word.filter(|w| !w.is_empty()) else { return Ok(None) };
    let known = CatchUp::from_word(&word).map(Some);
    known.ok_or_else(|| Error::field("catch_up", format!("catch_up {word:?} is none of latest, all, none")))
}

pub(crate) fn deadline(text: Option<String>, ms: Option<u64>) -> Result<Option<Duration>, Error> {
    match (text.filter(|t| !t.is_empty()), ms) {
        (Some(_), Some(_)) => Err(Error::field("deadline", "give deadline or deadline_ms, not both")),
        (Some(text), None) => agentforge_config::parse_duration(&text)
            .map(Some)
            .map_err(|e| Error::field("deadline", format!("deadline {text:?} {e}"))),
        (None, ms) => Ok(ms.map(Duration::from_millis)),
    }
}

/// A turn that made no job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SkippedTurn)]
pub struct SkippedTurnView {
    /// The time it stood for.
    #[schema(value_type = String, format = DateTime)]
    scheduled_at: Moment,
    /// overlap, missed, too_late or refused.
    reason: String,
    /// The same for people.
    detail: String,
}

/// Jobs made by the clock.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Schedule)]
pub struct ScheduleView {
    /// UUID.
    id: String,
    /// Unique name.
    name: String,
    /// Five fields.
    cron: String,
    /// IANA name.
    time_zone: String,
    /// The job it makes.
    job: TemplateView,
    /// Makes no jobs while true.
    paused: bool,
    /// Created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    /// When it last made a job.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_run_at: Option<Moment>,
    /// When it makes the next; null while paused.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_run_at: Option<Moment>,
    /// The job it made last.
    last_job_id: Option<String>,
    /// The time that the last job stands for; last_run_at is when it was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_scheduled_at: Option<Moment>,
    /// What becomes of a turn while an earlier one is not over: allow, skip, queue or replace.
    overlap: &'static str,
    /// What becomes of missed turns: latest, all or none.
    catch_up: &'static str,
    /// How long after its time a turn's job may end, milliseconds; null is the default deadline, from its start.
    deadline_ms: Option<u64>,
    /// The turn that waits for the end of the one before.
    #[schema(value_type = Option<String>, format = DateTime)]
    waiting_scheduled_at: Option<Moment>,
    /// Turns that made no job, since the schedule was made.
    turns_skipped: u64,
    /// The last of them.
    last_skipped: Option<SkippedTurnView>,
    /// Last changed.
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Moment>,
    /// The name of the token that created it; its jobs are submitted in this name.
    created_by: Option<String>,
    /// The name of the token that changed it last.
    updated_by: Option<String>,
}

impl TryFrom<Schedule> for ScheduleView {
    type Error = Error;

    fn try_from(s: Schedule) -> Result<Self, Error> {
        Ok(Self {
            job: job::template(&s)?.try_into()?,
            id: s.id.to_string(),
            name: s.name,
            cron: s.cron,
            time_zone: s.time_zone,
            paused: s.paused,
            created_at: Moment(s.created_at),
            last_run_at: moment(s.last_run_at),
            next_run_at: moment(s.next_run_at),
            last_job_id: s.last_job_id.map(|id| id.to_string()),
            last_scheduled_at: moment(s.last_scheduled_at),
            overlap: s.overlap.as_str(),
            catch_up: s.catch_up.as_str(),
            deadline_ms: s.deadline.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            waiting_scheduled_at: moment(s.waiting_turn),
            turns_skipped: s.turns_skipped,
            last_skipped: s.last_skipped.map(|skip| SkippedTurnView {
                scheduled_at: Moment(skip.at),
                reason: skip.reason,
                detail: skip.detail,
            }),
            updated_at: moment(s.updated_at),
            created_by: s.created_by,
            updated_by: s.updated_by,
        })
    }
}

/// A page of schedules, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleList {
    /// The schedules.
    pub(crate) schedules: Vec<ScheduleView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

/// When a schedule would run next.
#[derive(Debug, Serialize, ToSchema)]
pub struct NextRuns {
    /// The moments, soonest first.
    #[schema(value_type = Vec<String>)]
    pub(crate) runs: Vec<Moment>,
}
