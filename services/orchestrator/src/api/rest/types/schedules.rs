//! Schedules as JSON.

use super::{Moment, SubmitBody, moment, raw};
use crate::admission::Template;
use crate::api::job;
use crate::error::Error;
use crate::model::Schedule;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
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
}

/// What a schedule repeats.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobTemplate)]
pub struct TemplateView {
    /// Mission; null is the orchestrator's own.
    mission: Option<String>,
    /// Queue; null is `default`.
    queue: Option<String>,
    /// Tool.
    tool: String,
    /// Passed to the tool.
    #[schema(value_type = Object)]
    args: Box<RawValue>,
    /// Labels.
    labels: BTreeMap<String, String>,
    /// Tries granted; null is the default.
    max_attempts: Option<u32>,
    /// Bound of one try, milliseconds; null is the default.
    timeout_ms: Option<u64>,
    /// Part of the operation key.
    task: Option<String>,
    /// An equal earlier success may be returned.
    reuse: bool,
}

impl TryFrom<Template> for TemplateView {
    type Error = Error;

    fn try_from(t: Template) -> Result<Self, Error> {
        let args = if t.args.is_empty() { "{}".to_owned() } else { t.args };
        Ok(Self {
            mission: t.mission,
            queue: t.queue,
            tool: t.tool,
            args: raw("schedule's args", args)?,
            labels: t.labels,
            max_attempts: t.max_attempts,
            timeout_ms: t.timeout_ms,
            task: t.task,
            reuse: t.reuse,
        })
    }
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
