//! Schedules.

use super::{Moment, at, millis, raw, some};
use agentforge_proto::v1;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
struct TemplateView {
    mission: Option<String>,
    queue: Option<String>,
    tool: String,
    args: Box<RawValue>,
    labels: BTreeMap<String, String>,
    max_attempts: Option<u32>,
    timeout_ms: Option<u64>,
    task: Option<String>,
    reuse: bool,
}

/// Jobs made by the clock.
#[derive(Debug, Serialize)]
pub struct ScheduleView {
    /// Id.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Five fields.
    pub cron: String,
    /// IANA name.
    pub time_zone: String,
    job: Option<TemplateView>,
    /// Whether it makes no jobs for now.
    pub paused: bool,
    created_at: Option<Moment>,
    /// When it made its last job.
    pub last_run_at: Option<Moment>,
    /// When it will make the next.
    pub next_run_at: Option<Moment>,
    /// The last job it made.
    pub last_job_id: Option<String>,
}

impl ScheduleView {
    /// From the wire.
    pub fn new(s: &v1::Schedule) -> Self {
        let own = |text: &str| some(text).map(str::to_owned);
        Self {
            id: s.id.clone(),
            name: s.name.clone(),
            cron: s.cron.clone(),
            time_zone: s.time_zone.clone(),
            job: s.job.as_ref().map(|j| TemplateView {
                mission: own(&j.mission),
                queue: own(&j.queue),
                tool: j.tool.clone(),
                args: raw(some(&j.args).unwrap_or("{}")),
                labels: j.labels.clone().into_iter().collect(),
                max_attempts: (j.max_attempts > 0).then_some(j.max_attempts),
                timeout_ms: millis(j.timeout.as_ref()),
                task: own(&j.task),
                reuse: j.reuse,
            }),
            paused: s.paused,
            created_at: at(s.created_at.as_ref()),
            last_run_at: at(s.last_run_at.as_ref()),
            next_run_at: at(s.next_run_at.as_ref()),
            last_job_id: own(&s.last_job_id),
        }
    }

    /// The tool and its arguments, for a table.
    pub fn what(&self) -> String {
        self.job.as_ref().map(|j| format!("{} {}", j.tool, j.args.get())).unwrap_or_default()
    }

    /// The state as a word.
    pub fn state(&self) -> &'static str {
        if self.paused { "paused" } else { "active" }
    }
}
