//! Schedules as callers use them, and the tick that makes their jobs.

use super::{App, Page, page, page_limit};
use crate::admission::{SubmitInput, Template, admit};
use crate::cron::Clockwork;
use crate::error::{Code, Error};
use crate::model::Schedule;
use crate::store::{CommitContext, Firing};
use agentforge_message_id::ScheduleId;
use agentforge_proto::time::Micros;
use tracing::{info, warn};

/// Schedules looked at in one tick.
const TICK_MAX: u32 = 100;
/// Longest name, bytes.
const NAME_MAX_BYTES: usize = 128;

/// A schedule, as asked for.
#[derive(Clone, Debug, Default)]
pub struct ScheduleInput {
    /// Unique.
    pub name: String,
    /// Five fields.
    pub cron: String,
    /// IANA name; empty is UTC.
    pub time_zone: String,
    /// The submission to repeat.
    pub job: SubmitInput,
    /// Begin paused.
    pub paused: bool,
}

fn schedule_id(id: &str) -> Result<ScheduleId, Error> {
    id.parse().map_err(|e: agentforge_message_id::NameError| Error::field("id", e.to_string()))
}

impl App {
    /// Stores a schedule. Its job is checked now, as a submission would be.
    ///
    /// # Errors
    /// `invalid_argument`, `conflict` when the name is taken, `unavailable`.
    pub async fn create_schedule(&self, input: ScheduleInput) -> Result<Schedule, Error> {
        let now = Micros::now();
        let name_fits = (1..=NAME_MAX_BYTES).contains(&input.name.len()) && !input.name.chars().any(char::is_control);
        if !name_fits {
            return Err(Error::field(
                "name",
                format!("name must have 1 to {NAME_MAX_BYTES} bytes and no control characters"),
            ));
        }
        let clockwork = Clockwork::new(&input.cron, &input.time_zone)?;
        let template = Template::from_input(input.job)?;
        admit(template.to_input("check".into()), &self.limits(), now, None)?;
        let schedule = Schedule {
            id: ScheduleId::generate(),
            name: input.name,
            cron: input.cron,
            time_zone: if input.time_zone.is_empty() { "UTC".into() } else { input.time_zone },
            template: serde_json::to_string(&template).expect("templates hold strings and numbers only"),
            paused: input.paused,
            created_at: now,
            last_run_at: None,
            last_job_id: None,
            next_run_at: if input.paused { None } else { clockwork.after(now) },
        };
        if self.0.store.create_schedule(&schedule).await? {
            Ok(schedule)
        } else {
            let e = Error::new(Code::Conflict, format!("a schedule named {:?} exists already", schedule.name));
            Err(Error { field: Some("name"), ..e })
        }
    }

    /// One schedule.
    ///
    /// # Errors
    /// `invalid_argument`, `not_found`, `unavailable`.
    pub async fn schedule(&self, id: &str) -> Result<Schedule, Error> {
        let id = schedule_id(id)?;
        self.0.store.schedule(id).await?.ok_or_else(|| Error::not_found("schedule", id))
    }

    /// Schedules, by name.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn schedules(&self, limit: u32, cursor: Option<&str>) -> Result<Page<Schedule>, Error> {
        let limit = page_limit(limit)?;
        let items = self.0.store.schedules(cursor.filter(|c| !c.is_empty()), limit + 1).await?;
        Ok(page(items, limit, |s| s.name.clone()))
    }

    /// Pauses, or resumes from now on: turns missed while paused are not made up for.
    ///
    /// # Errors
    /// As [`App::schedule`].
    pub async fn set_schedule_paused(&self, id: &str, paused: bool) -> Result<Schedule, Error> {
        let mut schedule = self.schedule(id).await?;
        let next =
            if paused { None } else { Clockwork::new(&schedule.cron, &schedule.time_zone)?.after(Micros::now()) };
        if !self.0.store.set_schedule_paused(schedule.id, paused, next).await? {
            return Err(Error::not_found("schedule", id));
        }
        schedule.paused = paused;
        schedule.next_run_at = next;
        Ok(schedule)
    }

    /// Removes a schedule. Jobs that it made stay.
    ///
    /// # Errors
    /// As [`App::schedule`].
    pub async fn delete_schedule(&self, id: &str) -> Result<(), Error> {
        let id = schedule_id(id)?;
        if self.0.store.delete_schedule(id).await? { Ok(()) } else { Err(Error::not_found("schedule", id)) }
    }

    /// The next times a schedule would run, paused or not.
    ///
    /// # Errors
    /// As [`App::schedule`].
    pub async fn next_runs(&self, id: &str, limit: u32) -> Result<Vec<Micros>, Error> {
        let n = match limit {
            0 => 5,
            n if n <= 100 => n as usize,
            n => return Err(Error::field("limit", format!("limit is {n}; at most 100 are allowed"))),
        };
        let s = self.schedule(id).await?;
        Ok(Clockwork::new(&s.cron, &s.time_zone)?.next_runs(Micros::now(), n))
    }

    /// Makes the jobs whose turn has come. A turn is taken by one replica; turns missed while
    /// nobody ran become one job, made now.
    ///
    /// # Errors
    /// `unavailable`: the next tick tries again.
    pub async fn tick_schedules(&self, now: Micros, ctx: CommitContext<'_>) -> Result<usize, Error> {
        let mut fired = 0;
        for s in self.0.store.due_schedules(now, TICK_MAX).await? {
            let Some(turn) = s.next_run_at else { continue };
            let firing = self.firing(&s, turn, now);
            if self.0.store.fire_schedule(firing, ctx).await? {
                fired += 1;
                info!(schedule = %s.id, name = s.name, turn = %turn.timestamp(), "schedule fired");
            }
        }
        Ok(fired)
    }

    fn firing(&self, s: &Schedule, turn: Micros, now: Micros) -> Firing {
        let next = Clockwork::new(&s.cron, &s.time_zone).ok().and_then(|c| c.after(now));
        let job = serde_json::from_str::<Template>(&s.template)
            .map_err(|e| e.to_string())
            .and_then(|t| {
                let key = format!("schedule:{}:{}", s.id, turn.0);
                admit(t.to_input(key), &self.limits(), now, Some(s.id)).map_err(|e| e.message)
            })
            .inspect_err(|problem| warn!(schedule = %s.id, problem, "a schedule's job is refused; the turn is skipped"))
            .ok();
        Firing { id: s.id, expected: turn, next, job }
    }
}
