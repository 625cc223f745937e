//! Schedules.

use super::job::TemplateView;
use super::wire::{Moment, at, millis, some};
use agentforge_proto::v1;
use serde::Serialize;

/// Jobs made by the clock.
#[derive(Debug, Serialize)]
pub struct ScheduleView {
    /// The schedule's id, a UUID.
    pub id: String,
    /// A name that no other schedule has; it can be changed.
    pub name: String,
    /// The times of its turns: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// The time zone that `cron` is read in, by its IANA name, such as Europe/Berlin.
    pub time_zone: String,
    /// What it submits.
    pub job: Option<TemplateView>,
    /// Whether it makes no jobs for now.
    pub paused: bool,
    /// When it was made.
    pub created_at: Option<Moment>,
    /// When it made its last job.
    pub last_run_at: Option<Moment>,
    /// When it will make the next.
    pub next_run_at: Option<Moment>,
    /// The last job it made.
    pub last_job_id: Option<String>,
    /// The turn of the last job.
    pub last_scheduled_at: Option<Moment>,
    /// What becomes of turns that overlap.
    pub overlap: &'static str,
    /// What becomes of missed turns.
    pub catch_up: &'static str,
    /// How long after its time a turn's job may end.
    pub deadline_ms: Option<u64>,
    /// The turn that waits for the one before.
    pub waiting_scheduled_at: Option<Moment>,
    /// Turns that made no job.
    pub turns_skipped: u64,
    /// The last of them.
    pub last_skipped: Option<SkippedView>,
    /// When it was changed last.
    pub updated_at: Option<Moment>,
    /// The name of the token that created it.
    pub created_by: Option<String>,
    /// The name of the token that changed it last.
    pub updated_by: Option<String>,
}

/// A turn that made no job.
#[derive(Debug, Serialize)]
pub struct SkippedView {
    /// The time of the turn.
    pub scheduled_at: Option<Moment>,
    /// Why, as a word.
    pub reason: String,
    /// Why, in a sentence.
    pub detail: String,
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
            job: s.job.as_ref().map(TemplateView::new),
            paused: s.paused,
            created_at: at(s.created_at.as_ref()),
            last_run_at: at(s.last_run_at.as_ref()),
            next_run_at: at(s.next_run_at.as_ref()),
            last_job_id: own(&s.last_job_id),
            last_scheduled_at: at(s.last_scheduled_at.as_ref()),
            overlap: match s.overlap() {
                v1::OverlapPolicy::Skip => "skip",
                v1::OverlapPolicy::Queue => "queue",
                v1::OverlapPolicy::Replace => "replace",
                // An orchestrator without policies lets turns overlap.
                v1::OverlapPolicy::Allow | v1::OverlapPolicy::Unspecified => "allow",
            },
            catch_up: match s.catch_up() {
                v1::CatchUpPolicy::All => "all",
                v1::CatchUpPolicy::None => "none",
                v1::CatchUpPolicy::Latest | v1::CatchUpPolicy::Unspecified => "latest",
            },
            deadline_ms: millis(s.deadline.as_ref()),
            waiting_scheduled_at: at(s.waiting_scheduled_at.as_ref()),
            turns_skipped: s.turns_skipped,
            last_skipped: s.last_skipped.as_ref().map(|skip| SkippedView {
                scheduled_at: at(skip.scheduled_at.as_ref()),
                reason: skip.reason.clone(),
                detail: skip.detail.clone(),
            }),
            updated_at: at(s.updated_at.as_ref()),
            created_by: s.created_by.clone(),
            updated_by: s.updated_by.clone(),
        }
    }
}
