//! Ways back: jobs that ended without success run again, one or many, at a rate.
//!
//! A walk over many stops when nobody reads its progress. Running it again is harmless: what was put back is
//! open, and the fence skips it.

use super::jobs::{job_id, some};
use super::{App, JobQuery};
use crate::admission::admit_deadline_in;
use crate::error::{Code, Error};
use crate::model::{Job, State};
use crate::store::{DeadLetterFilter, JobFilter};
use crate::transition::{Change, Ignored};
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Jobs a second when no rate was asked for.
const RATE_DEFAULT: f64 = 50.0;
/// Jobs a second at most.
const RATE_MAX: f64 = 1_000.0;
/// Jobs of one walk when no bound was asked for.
pub(super) const LIMIT_DEFAULT: u32 = 10_000;
/// Jobs read in one step.
const PAGE: u32 = 100;
/// Jobs counted in one step of a dry run.
const COUNT_PAGE: u32 = 1_000;
/// Reasons told in one walk; the rest is counted.
const REASONS_MAX: usize = 100;
/// Ids that one call may name.
pub(crate) const IDS_MAX: usize = 10_000;

/// Which dead jobs to put back, as asked.
#[derive(Clone, Debug, Default)]
pub struct RedriveSpec {
    /// These; or, when empty, all that the filters let through.
    pub job_ids: Vec<String>,
    /// Mission.
    pub mission: Option<String>,
    /// Queue.
    pub queue: Option<String>,
    /// Reason word.
    pub reason: Option<String>,
    /// Jobs a second; 0: the default, 50.
    pub rate: f64,
    /// At most so many; 0: the default, 10,000.
    pub limit: u32,
}

/// Which jobs to put back, whatever ended them, as asked.
#[derive(Clone, Debug, Default)]
pub struct RetrySpec {
    /// These; or, when empty, all that the filter lets through.
    pub job_ids: Vec<String>,
    /// The filter; its states must be given. Its page and cursor are not used.
    pub filter: JobQuery,
    /// Jobs a second; 0: the default, 50.
    pub rate: f64,
    /// At most so many; 0: the default, 10,000.
    pub limit: u32,
    /// Only count.
    pub dry_run: bool,
    /// From the moment of the retry to the new deadline; `None`: as long as the job had before.
    pub deadline_in: Option<Duration>,
}

/// How far a walk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Looked at and found to match.
    pub matched: u64,
    /// Put back.
    pub put_back: u64,
    /// Not put back: in no such state any more, or unknown.
    pub skipped: u64,
    /// Whether this is the last word.
    pub done: bool,
    /// Why jobs were skipped: those since the word before, at most 100 of a walk.
    pub reasons: Vec<NotPutBack>,
}

/// A job that was not put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPutBack {
    /// The job.
    pub job: JobId,
    /// Why not.
    pub reason: String,
}

/// How a job is put back.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Dead and failed ones.
    Redrive,
    /// Whatever ended without success.
    Retry(Option<Duration>),
}

impl How {
    fn change(self, at: Micros) -> Change {
        match self {
            Self::Redrive => Change::Redrive { at },
            Self::Retry(lifetime) => Change::Retry { at, lifetime },
        }
    }

    /// Why a job in this state is not put back so.
    fn reason(self, state: State, ignored: Ignored) -> String {
        let word = state.as_str();
        match (self, ignored) {
            (_, Ignored::Unknown) => "there is no such job".into(),
            (_, Ignored::KeyTaken) => "its idempotency_key belongs to a newer job, which does the same work".into(),
            (_, _) if !state.is_final() => format!("it is {word}: it still runs, or was put back already"),
            (Self::Redrive, _) if state.may_be_retried() => {
                format!("it is {word} and no dead letter; a retry puts it back")
            }
            (_, _) => format!("it is {word}"),
        }
    }
}

enum Source {
    Ids,
    Letters(Option<DeadLetterFilter>),
    Jobs(Option<JobFilter>),
}

impl App {
    /// Puts a job back that failed, died, was cancelled or expired.
    ///
    /// # Errors
    /// `invalid_argument`, `not_found`, `failed_precondition` with the reason, `outbox_full`, `unavailable`.
    pub async fn retry(&self, id: &str, deadline_in: Option<Duration>) -> Result<Job, Error> {
        let id = job_id(id)?;
        let lifetime = deadline_in.map(admit_deadline_in).transpose()?;
        self.push_back_all()?;
        let how = How::Retry(lifetime);
        let mut outcome = self.0.committer.change(vec![(id, how.change(Micros::now()))], vec![]).await?;
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

    /// Puts many jobs back at a rate, and tells how far it is.
    ///
    /// # Errors
    /// `invalid_argument` at once; `unavailable` and `outbox_full` as the last item of the stream.
    pub fn retry_many(&self, spec: RetrySpec) -> Result<BoxStream<'static, Result<Progress, Error>>, Error> {
        let lifetime = spec.deadline_in.map(admit_deadline_in).transpose()?;
        let source = if spec.job_ids.is_empty() {
            let filter = JobQuery { limit: if spec.dry_run { COUNT_PAGE } else { PAGE }, ..spec.filter }.filter()?;
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
        self.walk(source, &spec.job_ids, How::Retry(lifetime), (spec.rate, spec.limit), spec.dry_run)
    }

    /// Puts dead jobs back at a rate, and tells how far it is.
    ///
    /// # Errors
    /// `invalid_argument` at once; `unavailable` and `outbox_full` as the last item of the stream.
    pub fn redrive(&self, spec: RedriveSpec) -> Result<BoxStream<'static, Result<Progress, Error>>, Error> {
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
        self.walk(source, &spec.job_ids, How::Redrive, (spec.rate, spec.limit), false)
    }

    fn walk(
        &self,
        source: Source,
        ids: &[String],
        how: How,
        (rate, limit): (f64, u32),
        dry_run: bool,
    ) -> Result<BoxStream<'static, Result<Progress, Error>>, Error> {
        let rate = match rate {
            0.0 => RATE_DEFAULT,
            r if r.is_finite() && r > 0.0 && r <= RATE_MAX => r,
            r => {
                let message = format!("rate is {r}; expected more than 0 and at most {RATE_MAX} a second");
                return Err(Error::field("rate", message));
            }
        };
        if ids.len() > IDS_MAX {
            let message = format!("{} job_ids were given; at most {IDS_MAX} are allowed", ids.len());
            return Err(Error::too_large("job_ids", message));
        }
        let wrong = |e: Error| Error::field("job_ids", e.message);
        let walk = Walk {
            app: self.clone(),
            ids: ids.iter().map(|i| job_id(i).map_err(wrong)).collect::<Result<_, _>>()?,
            source,
            how,
            left: if limit == 0 { LIMIT_DEFAULT } else { limit },
            rate,
            dry_run,
            progress: Progress::default(),
            told: 0,
            over: false,
        };
        Ok(stream::unfold(walk, |w| async move { if w.over { None } else { Some(w.step().await) } }).boxed())
    }
}

struct Walk {
    app: App,
    ids: VecDeque<JobId>,
    source: Source,
    how: How,
    left: u32,
    rate: f64,
    dry_run: bool,
    progress: Progress,
    told: usize,
    over: bool,
}

impl Walk {
    /// One tenth of a second's worth, then a rest.
    async fn step(mut self) -> (Result<Progress, Error>, Self) {
        let share = if self.dry_run { COUNT_PAGE as usize } else { ((self.rate / 10.0).ceil() as usize).clamp(1, 100) };
        let begun = Instant::now();
        let outcome = self.one_share(share).await;
        match outcome {
            Ok(None) => {
                self.over = true;
                self.progress.done = true;
            }
            Ok(Some(taken)) if !self.dry_run => {
                let pause = Duration::from_secs_f64(taken as f64 / self.rate).saturating_sub(begun.elapsed());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.app.0.stopping.cancelled() => self.over = true,
                }
            }
            Ok(Some(_)) => {}
            Err(e) => {
                self.over = true;
                return (Err(e), self);
            }
        }
        let reasons = std::mem::take(&mut self.progress.reasons);
        (Ok(Progress { reasons, ..self.progress.clone() }), self)
    }

    /// How many were taken on; `None` at the end.
    async fn one_share(&mut self, share: usize) -> Result<Option<usize>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.ids.is_empty() && self.more().await? && self.ids.is_empty() {
            return Ok(Some(0));
        }
        let take = share.min(self.ids.len()).min(self.left as usize);
        if take == 0 {
            return Ok(None);
        }
        let ids: Vec<JobId> = self.ids.drain(..take).collect();
        self.left -= u32::try_from(take).unwrap_or(u32::MAX);
        if self.dry_run {
            return self.count(&ids).await.map(|()| Some(take));
        }
        self.app.push_back_all()?;
        let change = self.how.change(Micros::now());
        let changes = ids.iter().map(|id| (*id, change.clone())).collect();
        let outcomes = self.app.0.committer.change(changes, vec![]).await?;
        let mut refused = Vec::new();
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                Ok(_) => {
                    (self.progress.matched, self.progress.put_back) =
                        (self.progress.matched + 1, self.progress.put_back + 1)
                }
                Err(ignored) => refused.push((id, ignored)),
            }
        }
        self.refuse(refused).await?;
        Ok(Some(take))
    }

    /// Reads the next candidates; whether there may be more behind them.
    async fn more(&mut self) -> Result<bool, Error> {
        let next = match &mut self.source {
            Source::Ids | Source::Letters(None) | Source::Jobs(None) => return Ok(false),
            Source::Letters(Some(filter)) => {
                let found = self.app.0.store.dead_letters(filter).await?;
                self.progress.skipped += found.items.iter().filter(|d| d.job.is_none()).count() as u64;
                self.ids.extend(found.items.iter().filter_map(|d| d.job));
                filter.before = found.next;
                found.next
            }
            Source::Jobs(Some(filter)) => {
                let found = self.app.0.store.jobs(filter).await?;
                self.ids.extend(found.items.iter().map(|j| j.id));
                filter.before = found.next;
                found.next
            }
        };
        if next.is_none() {
            self.source = Source::Ids;
        }
        Ok(next.is_some())
    }

    async fn count(&mut self, ids: &[JobId]) -> Result<(), Error> {
        let known = self.app.0.store.versions(ids).await?;
        let mut refused = Vec::new();
        for id in ids {
            match known.iter().find(|(known, ..)| known == id) {
                Some((_, state, _)) if state.may_be_retried() => self.progress.matched += 1,
                Some(_) => refused.push((*id, Ignored::Passed)),
                None => refused.push((*id, Ignored::Unknown)),
            }
        }
        self.refuse(refused).await
    }

    /// Counts jobs that were not put back, and says why of the first of them.
    async fn refuse(&mut self, refused: Vec<(JobId, Ignored)>) -> Result<(), Error> {
        self.progress.skipped += refused.len() as u64;
        let room = REASONS_MAX.saturating_sub(self.told).min(refused.len());
        let tell = &refused[..room];
        if tell.is_empty() {
            return Ok(());
        }
        self.told += tell.len();
        let ids: Vec<JobId> = tell.iter().map(|(id, _)| *id).collect();
        let known = self.app.0.store.versions(&ids).await?;
        for (job, ignored) in tell {
            let state = known.iter().find(|(id, ..)| id == job).map(|(_, state, _)| *state);
            // Unknown is said whatever the state, which is not known then.
            let ignored = if state.is_some() { *ignored } else { Ignored::Unknown };
            let reason = self.how.reason(state.unwrap_or(State::Accepted), ignored);
            self.progress.reasons.push(NotPutBack { job: *job, reason });
        }
        Ok(())
    }
}
