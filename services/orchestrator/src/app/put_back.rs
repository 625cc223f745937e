//! Ways back: jobs that ended without success run again, one or many, at a rate.
//!
//! A walk over many stops when its progress is not read any more; an operation (`app/operations.rs`) continues.
//! Running it again is harmless: what was put back is open, and the fence skips it.

use super::asked::some;
use super::jobs::job_id;
use super::walk::{COUNT_PAGE, How, PAGE, Progress, Source, Walk};
use super::{App, JobQuery};
use crate::admission::admit_deadline_in;
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::model::Job;
use crate::store::DeadLetterFilter;
use crate::transition::Ignored;
use agentforge_proto::time::Micros;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Jobs a second when no rate was asked for.
const RATE_DEFAULT: f64 = 50.0;
/// Jobs a second at most.
pub(super) const RATE_MAX: f64 = 1_000.0;
/// Jobs of one walk when no bound was asked for.
pub(super) const LIMIT_DEFAULT: u32 = 10_000;
/// Ids that one call may name.
pub(crate) const IDS_MAX: usize = 10_000;

/// Which dead jobs to put back, as asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RedriveSpec {
    /// These; or, when empty, all that the filters let through.
    pub job_ids: Vec<String>,
    /// Jobs of this mission; empty or none: of all.
    pub mission: Option<String>,
    /// Jobs of this queue; empty or none: of all.
    pub queue: Option<String>,
    /// Jobs with a letter of this reason, by its word; empty or none: any.
    pub reason: Option<String>,
    /// Jobs a second; 0: the default, 50.
    pub rate: f64,
    /// At most so many; 0: the default, 10,000.
    pub limit: u32,
}

/// Which jobs to put back, regardless of how they ended, as requested.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetrySpec {
    /// These; or, when empty, all that the filter lets through.
    pub job_ids: Vec<String>,
    /// The filter; its states must be given. Its page and cursor are not used.
    pub filter: JobQuery,
    /// Jobs a second; 0: the default, 50.
    pub rate: f64,
    /// At most so many; 0: the default, 10,000.
    pub limit: u32,
    /// Counts the jobs that match, and changes none.
    pub dry_run: bool,
    /// From the moment of the retry to the new deadline; `None`: as long as the job had before.
    pub deadline_in: Option<Duration>,
}

impl App {
    /// Puts a job back that failed, died, was cancelled or expired.
    ///
    /// # Errors
    /// `invalid_argument`, `not_found`, `failed_precondition` with the reason, `outbox_full`, `unavailable`.
    pub async fn retry(&self, caller: &Caller, id: &str, deadline_in: Option<Duration>) -> Result<Job, Error> {
        let lifetime = deadline_in.map(admit_deadline_in).transpose();
        let lifetime = self.recorded(caller, "job", Some(id), lifetime).await?;
        let id = self.recorded(caller, "job", Some(id), self.in_reach(id).await).await?;
        self.push_back_all()?;
        let how = How::Retry(lifetime);
        let mut outcome = self.0.committer.change_for(caller, vec![(id, how.change(Micros::now()))]).await?;
        let outcome = outcome.pop().unwrap_or(Err(Ignored::Unknown));
        let job = self.stored(id).await?;
        match outcome {
            Ok(_) => Ok(job),
            Err(ignored) => {
                let reason = how.reason(job.state, ignored);
                Err(Error::new(Code::FailedPrecondition, format!("job {id} cannot be retried: {reason}")))
            }
        }
    }

    /// Puts many jobs back at a rate, and reports progress.
    ///
    /// # Errors
    /// `invalid_argument` at once; `unavailable` and `outbox_full` as the last item of the stream.
    pub async fn retry_many(
        &self,
        caller: &Caller,
        spec: RetrySpec,
    ) -> Result<BoxStream<'static, Result<Progress, Error>>, Error> {
        let walk = self.recorded(caller, "job", None, self.retry_walk(caller, spec.clone())).await?;
        self.record_start(caller, &spec).await?;
        Ok(walk.progress())
    }

    /// The same, to be taken step by step.
    pub(super) fn retry_walk(&self, caller: &Caller, spec: RetrySpec) -> Result<Walk, Error> {
        let lifetime = spec.deadline_in.map(admit_deadline_in).transpose()?;
        let source = if spec.job_ids.is_empty() {
            let page = if spec.dry_run { COUNT_PAGE } else { PAGE };
            let filter = self.limited(JobQuery { limit: page, cursor: None, ..spec.filter })?.filter()?;
            let words = "failed, dead, cancelled or expired";
            if filter.states.is_empty() {
                let message = format!("name job_ids, or states to put back: {words}");
                return Err(Error::field("states", message));
            }
            if let Some(state) = filter.states.iter().find(|s| !s.may_be_retried()) {
                let message = format!("jobs that are {} are not put back; expected {words}", state.as_str());
                return Err(Error::field("states", message));
            }
            Source::Jobs(Some(filter))
        } else {
            Source::Ids
        };
        let rate = rate_of(spec.rate, RATE_DEFAULT)?;
        self.walk(caller, (source, &spec.job_ids), How::Retry(lifetime), (rate, spec.limit), spec.dry_run)
    }

    /// Puts dead jobs back at a rate, and reports progress.
    ///
    /// # Errors
    /// `invalid_argument` at once; `unavailable` and `outbox_full` as the last item of the stream.
    pub async fn redrive(
        &self,
        caller: &Caller,
        spec: RedriveSpec,
    ) -> Result<BoxStream<'static, Result<Progress, Error>>, Error> {
        let walk = self.recorded(caller, "job", None, self.redrive_walk(caller, spec.clone())).await?;
        self.record_start(caller, &spec).await?;
        Ok(walk.progress())
    }

    /// The same, to be taken step by step.
    pub(super) fn redrive_walk(&self, caller: &Caller, spec: RedriveSpec) -> Result<Walk, Error> {
        let source = if spec.job_ids.is_empty() {
            Source::Letters(Some(DeadLetterFilter {
                mission: some(spec.mission.as_ref()).map(str::to_owned),
                queue: some(spec.queue.as_ref()).map(str::to_owned),
                reason: some(spec.reason.as_ref()).map(str::to_owned),
                limit: PAGE,
                ..DeadLetterFilter::default()
            }))
        } else {
            Source::Ids
        };
        let rate = rate_of(spec.rate, RATE_DEFAULT)?;
        self.walk(caller, (source, &spec.job_ids), How::Redrive, (rate, spec.limit), false)
    }

    /// Jobs on their way, newest first, at a rate; or only counted.
    pub(super) fn walk(
        &self,
        caller: &Caller,
        (source, ids): (Source, &[String]),
        how: How,
        (rate, limit): (f64, u32),
        dry_run: bool,
    ) -> Result<Walk, Error> {
        if ids.len() > IDS_MAX {
            let message = format!("{} job_ids were given; at most {IDS_MAX} are allowed", ids.len());
            return Err(Error::too_large("job_ids", message));
        }
        let wrong = |e: Error| Error::field("job_ids", e.message);
        let ids = ids.iter().map(|i| job_id(i).map_err(wrong)).collect::<Result<_, _>>()?;
        let limit = if limit == 0 { LIMIT_DEFAULT } else { limit };
        Ok(Walk::new((self.clone(), caller.clone()), source, ids, how, (rate, limit), dry_run))
    }
}

/// A rate as asked; 0 is `default`.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn rate_of(asked: f64, default: f64) -> Result<f64, Error> {
    match asked {
        0.0 => Ok(default),
        r if r.is_finite() && r > 0.0 && r <= RATE_MAX => Ok(r),
        r => {
            let message = format!("rate is {r}; expected more than 0 and at most {RATE_MAX} a second");
            Err(Error::field("rate", message))
        }
    }
}
