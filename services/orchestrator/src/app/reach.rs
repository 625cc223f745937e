//! What a caller's scopes let it see and do: the application on its behalf.
//!
//! What is outside of them and asked for by id does not exist for the caller (`not_found`: ids are not secrets, and a refusal
//! would say that there is such a job). What it names itself, such as a queue, is refused by name (`permission_denied`).
//! Lists leave out what is outside, so their pages may be short.

use super::{App, JobQuery};
use crate::admission::JobRequest;
use crate::error::{Code, Error};
use crate::model::{DeadLetter, Job, JobSpec, Schedule};
use agentforge_access::{Kind, Scopes};
use agentforge_message_id::Queue;

impl App {
    /// The application for a caller with these scopes.
    pub fn within(&self, scopes: &Scopes) -> Self {
        Self(self.0.clone(), scopes.clone())
    }

    /// Whether it acts for a caller that may not do everything.
    pub(super) fn is_scoped(&self) -> bool {
        !self.1.is_all()
    }

    pub(super) fn has_job(&self, job: &Job) -> bool {
        self.has_spec(&job.spec)
    }

    fn has_spec(&self, spec: &JobSpec) -> bool {
        self.1.has_job(spec.mission.as_str(), spec.queue.as_str(), spec.tool.as_str())
    }

    pub(super) fn has_letter(&self, letter: &DeadLetter) -> bool {
        self.1.has_job(&letter.mission, &letter.queue, &letter.tool)
    }

    pub(super) fn has_queue(&self, mission: &str, queue: &str) -> bool {
        self.1.has(Kind::Mission, mission) && self.1.has(Kind::Queue, queue)
    }

    /// Whether the jobs of a schedule are within the scopes.
    pub(super) fn has_schedule(&self, schedule: &Schedule) -> bool {
        if !self.is_scoped() {
            return true;
        }
        // One that cannot be read is in no scope.
        serde_json::from_str::<JobRequest>(&schedule.template).is_ok_and(|job| self.has_request(&job))
    }

    fn has_request(&self, job: &JobRequest) -> bool {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mission = given(&job.mission).unwrap_or_else(|| self.mission().as_str().to_owned());
        let queue = given(&job.queue).unwrap_or_else(|| Queue::default().as_str().to_owned());
        self.1.has_job(&mission, &queue, &job.tool)
    }

    /// Refuses a job that the caller may not submit.
    ///
    /// # Errors
    /// `permission_denied`.
    pub(super) fn may_submit(&self, job: &JobSpec) -> Result<(), Error> {
        if self.has_spec(job) {
            return Ok(());
        }
        let (mission, queue, tool) = (&job.mission, &job.queue, &job.tool);
        Err(self.outside(&format!("a job of tool {tool} in queue {queue} of mission {mission}")))
    }

    /// Limits a listing to what the scopes name, as far as a filter can; the rest is left out of its pages.
    ///
    /// # Errors
    /// `permission_denied` for a name outside of them.
    pub(super) fn limited(&self, mut query: JobQuery) -> Result<JobQuery, Error> {
        if !self.is_scoped() {
            return Ok(query);
        }
        self.limit(Kind::Mission, &mut query.mission)?;
        self.limit(Kind::Queue, &mut query.queue)?;
        self.limit(Kind::Tool, &mut query.tool)?;
        Ok(query)
    }

    /// The same for one name of a filter.
    ///
    /// # Errors
    /// `permission_denied` for a name outside of the scopes.
    pub(super) fn limit(&self, kind: Kind, asked: &mut Option<String>) -> Result<(), Error> {
        match asked.as_deref().filter(|name| !name.is_empty()) {
            Some(name) if self.1.has(kind, name) => {}
            Some(name) => return Err(self.outside(&format!("{} {name}", kind.as_str()))),
            None if !self.1.is_for_jobs() => return Err(self.outside("jobs")),
            None => *asked = self.1.only(kind).map(str::to_owned),
        }
        Ok(())
    }

    fn outside(&self, what: &str) -> Error {
        Error::new(Code::PermissionDenied, format!("the token's scopes ({}) do not include {what}", self.1))
    }
}
