//! Jobs as callers use them: submit, read, wait, watch, cancel, redrive.

use super::asked::{DeadLetterQuery, JobQuery, row_cursor, some};
use super::shown::cut;
use super::{App, OutputStream, Page, Subscription, WAIT_MAX, page_limit};
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::model::{AttemptRecord, DeadLetter, Job, State};
use crate::sensitive::Payload;
use crate::store::{Changed, DeadLetterFilter};
use crate::transition::{Change, Current, Ignored};
use agentforge_access::Kind;
use agentforge_message_id::JobId;
use agentforge_proto::bus::Rejected;
use agentforge_proto::time::Micros;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How often a watcher reads the store itself, in case a notification was missed.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How long a page with nothing in it is looked for: then it is given empty, with the cursor to continue.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// A job's result as bytes.
pub struct JobOutput {
    /// Bytes in all, where they are known beforehand.
    pub content_length: Option<u64>,
    /// JSON text in chunks.
    pub stream: OutputStream,
}

pub(super) fn job_id(id: &str) -> Result<JobId, Error> {
    id.parse().map_err(|e: agentforge_message_id::NameError| Error::field("id", e.to_string()))
}

/// The end of a wait that begins now.
pub(super) fn wait_until(wait: Duration) -> Result<Instant, Error> {
    if wait > WAIT_MAX {
        let max = WAIT_MAX.as_secs();
        return Err(Error::field(
            "wait",
            format!("wait is {} s; at most {max} s are allowed: ask again after it", wait.as_secs()),
        ));
    }
    Ok(Instant::now() + wait)
}

impl App {
    /// One job.
    ///
    /// # Errors
    /// `invalid_argument`, `not_found`, `unavailable`.
    pub async fn job(&self, caller: &Caller, id: &str) -> Result<Job, Error> {
        self.shown(caller, self.stored(job_id(id)?).await?).await
    }

    /// A job's state and version.
    ///
    /// # Errors
    /// As [`App::job`].
    pub async fn version(&self, id: &str) -> Result<(State, i64), Error> {
        let job = self.stored(job_id(id)?).await?;
        Ok((job.state, job.version))
    }

    pub(super) fn watch_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.0.watches.clone().try_acquire_owned().map_err(|_| {
            Error::new(Code::TooManyRequests, "too many waits and watches are open (WATCHES_MAX); try again later")
                .retry_after(Duration::from_secs(1))
        })
    }

    /// One job, once it is final or `wait` (at most 60 s) is over.
    ///
    /// # Errors
    /// As [`App::job`], and `too_many_requests`.
    pub async fn wait(&self, caller: &Caller, id: &str, wait: Duration) -> Result<Job, Error> {
        let until = wait_until(wait)?;
        let id = job_id(id)?;
        let _permit = self.watch_permit()?;
        let subscription = self.0.watchers.listen(id);
        let mut job = self.stored(id).await?;
        self.until_final(&mut job, subscription, until).await?;
        self.shown(caller, job).await
    }

    pub(super) async fn stored(&self, id: JobId) -> Result<Job, Error> {
        let found = self.0.store.job(id).await?.filter(|job| self.has_job(job));
        found.map(|job| self.with_warning(job)).ok_or_else(|| Error::not_found("job", id))
    }

    /// The job with what is known of where it waits.
    pub(super) fn with_warning(&self, job: Job) -> Job {
        Job { warning: self.warning(&job), ..job }
    }

    /// Keeps `job` as it is known to be, until it is final, `until`, or the service stops. `subscription` began to
    /// listen before `job` was read.
    pub(super) async fn until_final(
        &self,
        job: &mut Job,
        mut subscription: Subscription,
        until: Instant,
    ) -> Result<(), Error> {
        while !job.state.is_final() && Instant::now() < until && !self.0.stopping.is_cancelled() {
            let update = tokio::select! {
                update = subscription.heard() => update,
                () = tokio::time::sleep_until(until) => None,
                () = tokio::time::sleep(POLL_INTERVAL) => None,
                () = self.0.stopping.cancelled() => None,
            };
            match update {
                Some(update) => update.job.bring_up(job, update.result.as_ref()),
                None => *job = self.stored(job.id).await?,
            }
        }
        job.warning = self.warning(job);
        Ok(())
    }

    /// The job now and after each change, until it is final. Quick changes may be folded into one.
    ///
    /// # Errors
    /// As [`App::job`], and `too_many_requests`.
    pub async fn watch(&self, caller: &Caller, id: &str) -> Result<BoxStream<'static, Result<Job, Error>>, Error> {
        let permit = self.watch_permit()?;
        let id = job_id(id)?;
        let subscription = self.0.watchers.listen(id);
        let first = self.stored(id).await?;
        let is_hidden = self.begin_watch(caller, &first).await?;
        let state = (self.clone(), subscription, permit, Some(first), i64::MIN, false);
        let jobs = stream::unfold(state, move |(app, mut subscription, permit, next, mut version, over)| async move {
            if over {
                return None;
            }
            let mut next = next;
            loop {
                let job = match next.take() {
                    Some(job) => Ok(job),
                    None => match app.0.store.job(id).await {
                        Ok(Some(job)) => Ok(app.with_warning(job)),
                        Ok(None) => return None,
                        Err(e) => Err(Error::from(e)),
                    },
                };
                match job {
                    Ok(job) if job.version > version => {
                        version = job.version;
                        let over = job.state.is_final();
                        return Some((Ok(job), (app, subscription, permit, None, version, over)));
                    }
                    Ok(_) => {}
                    Err(e) => return Some((Err(e), (app, subscription, permit, None, version, true))),
                }
                tokio::select! {
                    _ = subscription.heard() => {}
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                    () = app.0.stopping.cancelled() => return None,
                }
            }
        });
        let shown = move |mut job: Job| {
            if is_hidden {
                job.hide();
            }
            job
        };
        Ok(jobs.map(move |job| job.map(shown)).boxed())
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn jobs(&self, caller: &Caller, query: JobQuery) -> Result<Page<Job>, Error> {
        let mut filter = self.limited(query)?.filter()?;
        let looked = Instant::now();
        let (within, next) = loop {
            let found = self.0.store.jobs(&filter).await?;
            // An error that the caller may not read is not found by its words either.
            let tells = |job: &Job| filter.error.is_none() || !self.is_hidden(caller, job);
            let within: Vec<Job> = found.items.into_iter().filter(|job| self.has_job(job) && tells(job)).collect();
            if within.is_empty() && found.next.is_some() && looked.elapsed() < LOOK_MAX {
                filter.before = found.next;
                continue;
            }
            break (within, found.next);
        };
        let items = within.into_iter().map(|job| self.with_warning(job)).collect();
        let mut page = cut(Page { items, next: next.map(|n| n.to_string()) });
        self.show(caller, &mut page.items).await?;
        Ok(page)
    }

    /// The tries at a job, oldest first.
    ///
    /// # Errors
    /// As [`App::job`].
    pub async fn attempts(&self, caller: &Caller, id: &str) -> Result<Vec<AttemptRecord>, Error> {
        let id = job_id(id)?;
        let attempts = self.0.store.attempts(id).await?;
        if attempts.is_empty() || self.is_scoped() {
            self.stored(id).await?;
        }
        self.shown_attempts(caller, id, attempts).await
    }

    /// The id of a job that the caller may see. Without scopes the change itself finds whether it exists.
    pub(super) async fn in_reach(&self, id: &str) -> Result<JobId, Error> {
        let id = job_id(id)?;
        if self.is_scoped() {
            self.stored(id).await?;
        }
        Ok(id)
    }

    /// Stops a job. Cancelling a cancelled job again is not an error.
    ///
    /// # Errors
    /// `not_found`, `failed_precondition` when it is final already, `unavailable`.
    pub async fn cancel(&self, caller: &Caller, id: &str) -> Result<Job, Error> {
        let id = self.recorded(caller, "job", Some(id), self.in_reach(id).await).await?;
        let change = Change::Cancel { at: Micros::now(), by: Some(caller.name().to_owned()), only: [].into() };
        let mut outcome = self.0.committer.change_for(caller, vec![(id, change)]).await?;
        let outcome = outcome.pop().unwrap_or(Err(Ignored::Unknown));
        if let Ok(changed) = &outcome {
            self.0.cancels.send(stopped(&changed.job));
        }
        let job = self.stored(id).await?;
        match outcome {
            Ok(_) => Ok(job),
            Err(_) if job.state == State::Cancelled => Ok(job),
            Err(_) => {
                let message = format!("job {id} is {} already and cannot be cancelled", job.state.as_str());
                Err(Error::new(Code::FailedPrecondition, message))
            }
        }
    }

    /// Applies what workers reported, and what the timers found.
    ///
    /// # Errors
    /// `unavailable`: nothing was stored.
    pub async fn apply_reports(
        &self,
        changes: Vec<(JobId, Change)>,
        rejects: Vec<Rejected>,
    ) -> Result<Vec<Result<Changed, Ignored>>, Error> {
        if changes.is_empty() && rejects.is_empty() {
            return Ok(vec![]);
        }
        self.0.committer.change(changes, rejects).await
    }

    /// Ends jobs whose deadline passed, and has their workers notified.
    ///
    /// # Errors
    /// `unavailable`: nothing was stored.
    pub async fn expire(&self, ids: Vec<JobId>, at: Micros) -> Result<(), Error> {
        let changes = ids.into_iter().map(|id| (id, Change::Expire { at })).collect();
        for changed in self.apply_reports(changes, vec![]).await?.into_iter().flatten() {
            self.0.cancels.send(stopped(&changed.job));
        }
        Ok(())
    }

    /// The result as bytes, from the store or from where the worker put it.
    ///
    /// # Errors
    /// `not_found`, `permission_denied`, `failed_precondition` when there is no result, `unavailable`.
    pub async fn output(&self, caller: &Caller, id: &str) -> Result<JobOutput, Error> {
        let job = self.stored(job_id(id)?).await?;
        self.may_read_output(caller, &job).await?;
        let has_output = job.output_ref.is_some() || job.result.is_some();
        let job = if has_output { self.shown(caller, job).await? } else { job };
        if let Some(reference) = &job.output_ref {
            let stream = self.0.outputs.open(reference).await?;
            return Ok(JobOutput { content_length: Some(reference.size), stream });
        }
        match job.result {
            Some(text) => {
                let content_length = Some(text.len() as u64);
                let stream = stream::once(async move { Ok(bytes::Bytes::from(text)) }).boxed();
                Ok(JobOutput { content_length, stream })
            }
            None => {
                let message = format!("job {id} is {} and has no result", job.state.as_str());
                Err(Error::new(Code::FailedPrecondition, message))
            }
        }
    }

    /// A page of dead letters, newest first.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn dead_letters(&self, caller: &Caller, mut query: DeadLetterQuery) -> Result<Page<DeadLetter>, Error> {
        if self.is_scoped() {
            self.limit(Kind::Mission, &mut query.mission)?;
            self.limit(Kind::Queue, &mut query.queue)?;
        }
        let limit = page_limit(query.limit)?;
        let mut filter = DeadLetterFilter {
            mission: some(query.mission.as_ref()).map(str::to_owned),
            queue: some(query.queue.as_ref()).map(str::to_owned),
            reason: some(query.reason.as_ref()).map(str::to_owned),
            include_redriven: query.include_redriven,
            before: row_cursor(query.cursor.as_ref())?,
            limit,
        };
        let looked = Instant::now();
        let (mut items, next) = loop {
            let found = self.0.store.dead_letters(&filter).await?;
            let within: Vec<_> = found.items.into_iter().filter(|letter| self.has_letter(letter)).collect();
            if within.is_empty() && found.next.is_some() && looked.elapsed() < LOOK_MAX {
                filter.before = found.next;
                continue;
            }
            break (within, found.next);
        };
        self.show(caller, &mut items).await?;
        Ok(Page { items, next: next.map(|n| n.to_string()) })
    }
}

/// The message to workers about a job that was stopped.
pub(super) fn stopped(job: &Current) -> crate::control::Cancelled {
    (job.id, job.attempt, job.seq, job.stream_seq)
}
