//! Schedules as callers use them.

use super::{App, Page, page, page_limit};
use crate::admission::{JobRequest, SubmitInput, admit};
use crate::caller::Caller;
use crate::cron::Clockwork;
use crate::error::{Code, Error};
use crate::model::Schedule;
use crate::store::Order;
use crate::turns::{CatchUp, Overlap};
use agentforge_audit::Hash;
use agentforge_message_id::ScheduleId;
use agentforge_proto::time::Micros;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Longest name, bytes.
const NAME_MAX_BYTES: usize = 128;
/// Longest deadline of a turn.
const DEADLINE_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A schedule, as asked for.
#[derive(Clone, Debug, Default)]
pub struct ScheduleInput {
    /// Unique among all schedules, 1 to 128 bytes.
    pub name: String,
    /// Cron expression of five fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// IANA name; empty is UTC.
    pub time_zone: String,
    /// The submission to repeat.
    pub job: SubmitInput,
    /// Takes no turn until it is resumed.
    pub paused: bool,
    /// What becomes of a turn while an earlier one is not over.
    pub overlap: Overlap,
    /// What becomes of missed turns.
    pub catch_up: CatchUp,
    /// How long after its time a turn's job may end; `None` is the default deadline from its start.
    pub deadline: Option<Duration>,
}

/// What is changed of a schedule; `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct ScheduleChange {
    /// Unique among all schedules, 1 to 128 bytes.
    pub name: Option<String>,
    /// Cron expression of five fields: minute, hour, day of month, month, day of week.
    pub cron: Option<String>,
    /// IANA name; empty is UTC.
    pub time_zone: Option<String>,
    /// The submission to repeat, whole.
    pub job: Option<SubmitInput>,
    /// What becomes of a turn while an earlier one is not over.
    pub overlap: Option<Overlap>,
    /// What becomes of missed turns.
    pub catch_up: Option<CatchUp>,
    /// Deadline of a turn; zero is none.
    pub deadline: Option<Duration>,
}

pub(super) fn schedule_id(id: &str) -> Result<ScheduleId, Error> {
    id.parse().map_err(|e: agentforge_message_id::NameError| Error::field("id", e.to_string()))
}

fn check_name(name: &str) -> Result<(), Error> {
    let fits = (1..=NAME_MAX_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    let rule = || format!("name must have 1 to {NAME_MAX_BYTES} bytes and no control characters");
    if fits { Ok(()) } else { Err(Error::field("name", rule())) }
}

fn check_deadline(deadline: Option<Duration>) -> Result<Option<Duration>, Error> {
    match deadline.filter(|d| !d.is_zero()) {
        Some(d) if d > DEADLINE_MAX => {
            Err(Error::field("deadline", format!("deadline is {} s; at most 366 days are allowed", d.as_secs())))
        }
        other => Ok(other),
    }
}

fn zone(name: String) -> String {
    if name.is_empty() { "UTC".into() } else { name }
}

fn name_taken(name: &str) -> Error {
    let e = Error::new(Code::Conflict, format!("a schedule named {name:?} exists already"));
    Error { field: Some("name"), ..e }
}

/// What the audit log keeps of a schedule: never the job's args.
fn described(s: &Schedule) -> Value {
    let template: Value = serde_json::from_str(&s.template).unwrap_or_default();
    json!({
        "name": s.name, "cron": s.cron, "time_zone": s.time_zone, "paused": s.paused, "overlap": s.overlap.as_str(),
        "tool": template["tool"], "queue": template["queue"],
        "template_sha256": Hash(Sha256::digest(&s.template).into()),
    })
}

impl App {
    /// The template of a submission, checked as one.
    fn template(&self, job: SubmitInput, now: Micros) -> Result<String, Error> {
        let template = serde_json::to_string(&JobRequest::repeatable(job)?).expect("it holds strings and numbers only");
        // As it will be read: in whole milliseconds.
        let stored: JobRequest = serde_json::from_str(&template).expect("it was written a line ago");
        let job = admit(stored.of_turn("check".into()), &self.limits(), now, None)?;
        self.may_submit(&job.spec)?;
        Ok(template)
    }

    /// Stores a schedule. Its job is checked now, as a submission would be.
    ///
    /// # Errors
    /// `invalid_argument`, `conflict` when the name is taken, `unavailable`.
    pub async fn create_schedule(&self, caller: &Caller, input: ScheduleInput) -> Result<Schedule, Error> {
        let schedule = self.recorded(caller, "schedule", None, self.new_schedule(caller, input)).await?;
        let entry = caller.entry().about("schedule", Some(schedule.id.to_string())).with(&described(&schedule));
        let created = self.order(Order::CreateSchedule(Box::new(schedule.clone())), entry).await?;
        let stored = if created > 0 { Ok(schedule) } else { Err(name_taken(&schedule.name)) };
        self.recorded(caller, "schedule", None, stored).await
    }

    fn new_schedule(&self, caller: &Caller, input: ScheduleInput) -> Result<Schedule, Error> {
        let now = Micros::now();
        check_name(&input.name)?;
        let clockwork = Clockwork::new(&input.cron, &input.time_zone)?;
        Ok(Schedule {
            id: ScheduleId::generate(),
            name: input.name,
            cron: input.cron,
            time_zone: zone(input.time_zone),
            template: self.template(input.job, now)?,
            paused: input.paused,
            created_at: now,
            last_run_at: None,
            last_job_id: None,
            next_run_at: if input.paused { None } else { clockwork.after(now) },
            overlap: input.overlap,
            catch_up: input.catch_up,
            deadline: check_deadline(input.deadline)?,
            updated_at: None,
            last_scheduled_at: None,
            waiting_turn: None,
            paused_turn: None,
            turns_skipped: 0,
            last_skipped: None,
            rewinds: 0,
            created_by: Some(caller.name().to_owned()),
            updated_by: None,
        })
    }

    /// Changes what a schedule does and when. It keeps its id, its history, and whether it is paused. With another cron
    /// or zone, turns are counted from now.
    ///
    /// # Errors
    /// As [`App::create_schedule`], `not_found`, and `failed_precondition` when somebody else changed it meanwhile.
    pub async fn update_schedule(&self, caller: &Caller, id: &str, change: ScheduleChange) -> Result<Schedule, Error> {
        let updated = self.try_update_schedule(caller, id, change).await;
        self.recorded(caller, "schedule", Some(id), updated).await
    }

    async fn try_update_schedule(&self, caller: &Caller, id: &str, change: ScheduleChange) -> Result<Schedule, Error> {
        let now = Micros::now();
        let stored = self.schedule(id).await?;
        let read_at = stored.updated_at;
        let retime = change.cron.is_some() || change.time_zone.is_some();
        let mut new = stored.clone();
        if let Some(name) = change.name {
            check_name(&name)?;
            new.name = name;
        }
        new.cron = change.cron.unwrap_or(new.cron);
        new.time_zone = change.time_zone.map_or(new.time_zone, zone);
        if retime {
            new.next_run_at = Clockwork::new(&new.cron, &new.time_zone)?.after(now);
        }
        if let Some(job) = change.job {
            new.template = self.template(job, now)?;
        }
        new.overlap = change.overlap.unwrap_or(new.overlap);
        new.catch_up = change.catch_up.unwrap_or(new.catch_up);
        if change.deadline.is_some() {
            new.deadline = check_deadline(change.deadline)?;
        }
        // Never the same twice, so that of two that read the same row one is refused.
        new.updated_at = Some(read_at.map_or(now, |read| now.max(Micros(read.0 + 1))));
        new.updated_by = Some(caller.name().to_owned());
        let detail = json!({"before": described(&stored), "after": described(&new)});
        let entry = caller.entry().about("schedule", Some(stored.id.to_string())).with(&detail);
        let order = Order::UpdateSchedule { schedule: Box::new(new.clone()), read_at, retime };
        if self.order(order, entry).await? > 0 {
            return self.schedule(id).await;
        }
        if self.schedule(id).await?.updated_at == read_at {
            return Err(name_taken(&new.name));
        }
        let message = format!("schedule {id} was changed by somebody else; read it and try again");
        Err(Error::new(Code::FailedPrecondition, message))
    }

    /// One schedule.
    ///
    /// # Errors
    /// `invalid_argument`, `not_found`, `unavailable`.
    pub(super) async fn schedule(&self, id: &str) -> Result<Schedule, Error> {
        let id = schedule_id(id)?;
        let found = self.0.store.schedule(id).await?.filter(|schedule| self.has_schedule(schedule));
        found.ok_or_else(|| Error::not_found("schedule", id))
    }

    /// Schedules, by name.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub(super) async fn schedules(&self, limit: u32, cursor: Option<&str>) -> Result<Page<Schedule>, Error> {
        let limit = page_limit(limit)?;
        let items = self.0.store.schedules(cursor.filter(|c| !c.is_empty()), limit + 1).await?;
        let mut page = page(items, limit, |s| s.name.clone());
        page.items.retain(|schedule| self.has_schedule(schedule));
        Ok(page)
    }

    /// Pauses. A waiting turn keeps waiting.
    ///
    /// # Errors
    /// As `App::schedule`.
    pub async fn pause_schedule(&self, caller: &Caller, id: &str) -> Result<Schedule, Error> {
        let known = self.recorded(caller, "schedule", Some(id), self.schedule(id).await).await?;
        self.set_schedule_paused(caller, known, true, None).await
    }

    /// Resumes: from now on, or from the first turn that was missed in the pause, which the catch-up policy judges.
    ///
    /// # Errors
    /// As `App::schedule`.
    pub async fn resume_schedule(&self, caller: &Caller, id: &str, catch_up: bool) -> Result<Schedule, Error> {
        let schedule = self.recorded(caller, "schedule", Some(id), self.schedule(id).await).await?;
        let clockwork = Clockwork::stored(&schedule.cron, &schedule.time_zone)?;
        let first = schedule.paused_turn.filter(|_| catch_up && schedule.paused);
        let next = first.or_else(|| clockwork.after(Micros::now()));
        self.set_schedule_paused(caller, schedule, false, next).await
    }

    async fn set_schedule_paused(
        &self,
        caller: &Caller,
        s: Schedule,
        paused: bool,
        next: Option<Micros>,
    ) -> Result<Schedule, Error> {
        let detail = json!({"before": {"paused": s.paused}, "after": {"paused": paused}});
        let entry = caller.entry().about("schedule", Some(s.id.to_string())).with(&detail);
        if self.order(Order::PauseSchedule { id: s.id, paused, next }, entry).await? == 0 {
            return Err(Error::not_found("schedule", s.id));
        }
        self.schedule(&s.id.to_string()).await
    }

    /// Removes a schedule. Jobs that it made stay.
    ///
    /// # Errors
    /// As `App::schedule`.
    pub async fn delete_schedule(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        let known = self.recorded(caller, "schedule", Some(id), self.schedule(id).await).await?;
        let entry = caller.entry().about("schedule", Some(known.id.to_string())).with(&described(&known));
        let deleted = self.order(Order::DeleteSchedule(known.id), entry).await?;
        if deleted > 0 { Ok(()) } else { Err(Error::not_found("schedule", known.id)) }
    }

    /// The next times a schedule would run, paused or not.
    ///
    /// # Errors
    /// As `App::schedule`.
    pub async fn next_runs(&self, id: &str, limit: u32) -> Result<Vec<Micros>, Error> {
        let n = match limit {
            0 => 5,
            n if n <= 100 => n as usize,
            n => return Err(Error::field("limit", format!("limit is {n}; at most 100 are allowed"))),
        };
        let s = self.schedule(id).await?;
        Ok(Clockwork::stored(&s.cron, &s.time_zone)?.next_runs(Micros::now(), n))
    }
}
