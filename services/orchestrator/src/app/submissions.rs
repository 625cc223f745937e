//! Submissions: one that is answered with its job, or many that are answered with their ids.

use super::jobs::wait_until;
use super::{App, SubmitAnswer};
use crate::admission::{Limits, SubmitInput, admit};
use crate::caller::Caller;
use crate::error::{Code, Error};
use crate::metrics;
use crate::model::{Job, JobSpec, NewJob};
use crate::store::{Clash, Submitted};
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use futures_util::future::join_all;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;

/// Submissions that go to the committer as one: what they share (limits, the clock, metrics, a wake-up) is done once, and a
/// commit still gathers several callers.
pub(crate) const TOGETHER: usize = 64;

/// What became of one of many submissions.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The job.
    pub id: JobId,
    /// False when the same submission was stored before.
    pub created: bool,
}

fn count_refusal(e: &Error) {
    metrics::SUBMITS_REFUSED.inc(&[e.code.as_str()]);
}

fn conflict(existing: JobId, clash: Clash) -> Error {
    let message = format!("job {existing} {}", clash.reason());
    Error { field: Some(clash.field()), ..Error::new(Code::Conflict, message) }
}

impl App {
    /// Stores a job; the answer comes after the commit.
    ///
    /// # Errors
    /// `invalid_argument`, `too_large`, `conflict`, `outbox_full` (with a wait), `unavailable`.
    pub async fn submit(&self, caller: &Caller, input: SubmitInput) -> Result<SubmitAnswer, Error> {
        let stored = async { self.store_new(caller, self.admitted(caller, input).await?).await };
        stored.await.inspect_err(count_refusal)
    }

    /// As [`App::submit`], for an answer that shows the job: with a `wait` (at most 60 s) once it is final or that is over, from
    /// the commit of its result, without a read in between. Once the job is stored there is an answer.
    ///
    /// # Errors
    /// As [`App::submit`], and `too_many_requests`: nothing was stored.
    pub async fn submit_and_show(
        &self,
        caller: &Caller,
        input: SubmitInput,
        wait: Option<Duration>,
    ) -> Result<SubmitAnswer, Error> {
        let answer = match wait {
            Some(wait) => self.store_and_wait(caller, input, wait).await.inspect_err(count_refusal)?,
            None => self.submit(caller, input).await?,
        };
        let job = &answer.job;
        // What the caller just sent is not a read; what came of it, or was stored before, is.
        if answer.created && job.result.is_none() && job.output_ref.is_none() && job.error.is_none() {
            return Ok(answer);
        }
        Ok(SubmitAnswer { job: self.shown_answer(caller, answer.job).await, ..answer })
    }

    async fn store_and_wait(&self, caller: &Caller, input: SubmitInput, wait: Duration) -> Result<SubmitAnswer, Error> {
        let until = wait_until(wait)?;
        let job = self.admitted(caller, input).await?;
        let _permit = self.watch_permit()?;
        // Before the commit, so that no word of it is missed.
        let mut subscription = self.0.watchers.listen(job.id);
        let mut answer = self.store_new(caller, job).await?;
        if subscription.id() != answer.job.id {
            // An earlier submission under the same key.
            subscription = self.0.watchers.listen(answer.job.id);
        }
        if let Err(e) = self.until_final(&mut answer.job, subscription, until).await {
            debug!(error = &e as &dyn std::error::Error, "the wait for a stored job ended early");
        }
        Ok(answer)
    }

    /// Stores many jobs, in as few commits as there are; each answer comes after its commit, index by index. What is an
    /// error already is answered as it is, in its place.
    ///
    /// # Errors
    /// Each as that of [`App::submit`].
    pub async fn submit_all<E: From<Error>>(
        &self,
        caller: &Caller,
        inputs: Vec<Result<SubmitInput, E>>,
    ) -> Vec<Result<Stored, E>> {
        if inputs.len() <= TOGETHER {
            return self.submit_together(caller, inputs).await;
        }
        let mut inputs = inputs.into_iter();
        let chunks = std::iter::from_fn(|| {
            let chunk: Vec<_> = inputs.by_ref().take(TOGETHER).collect();
            (!chunk.is_empty()).then(|| self.submit_together(caller, chunk))
        });
        join_all(chunks).await.into_iter().flatten().collect()
    }

    async fn submit_together<E: From<Error>>(
        &self,
        caller: &Caller,
        inputs: Vec<Result<SubmitInput, E>>,
    ) -> Vec<Result<Stored, E>> {
        let (limits, now) = (self.limits(), Micros::now());
        let (mut jobs, mut refused) = (Vec::with_capacity(inputs.len()), Vec::new());
        // What became of each: none is one of `jobs`, in their order.
        let mut known: Vec<Option<Result<Stored, E>>> = Vec::with_capacity(inputs.len());
        for input in inputs {
            known.push(match input.map(|input| self.checked(caller, input, &limits, now)) {
                Ok(Ok(job)) => match self.push_back(&job) {
                    Ok(()) => {
                        jobs.push(job);
                        None
                    }
                    Err(e) => Some(Err(e)),
                }
                .map(|refusal| refusal.inspect_err(count_refusal).map_err(E::from)),
                Ok(Err(e)) => {
                    count_refusal(&e);
                    refused.push(e.again());
                    Some(Err(e.into()))
                }
                Err(e) => Some(Err(e)),
            });
        }
        join_all(refused.into_iter().map(|e| self.recorded::<Infallible>(caller, "job", None, Err(e)))).await;
        let mut stored = if jobs.is_empty() { vec![] } else { self.store_all(caller, jobs).await }.into_iter();
        let unanswered = || Err(Error::new(Code::Internal, "the commit has no answer for this job"));
        let of = |known: Option<_>, next: &mut dyn Iterator<Item = Result<Stored, Error>>| {
            known.unwrap_or_else(|| next.next().unwrap_or_else(unanswered).inspect_err(count_refusal).map_err(E::from))
        };
        known.into_iter().map(|known| of(known, &mut stored)).collect()
    }

    /// One commit; an answer for each.
    async fn store_all(&self, caller: &Caller, jobs: Vec<NewJob>) -> Vec<Result<Stored, Error>> {
        let count = jobs.len();
        let submitted = match self.0.committer.submit_all(jobs, caller).await {
            Ok(submitted) => submitted,
            Err(e) => return (0..count).map(|_| Err(e.again())).collect(),
        };
        let mut new = Counted::default();
        let stored = submitted.into_iter().map(|submitted| match submitted {
            Submitted::Created(c) => {
                new.add(&c.job.spec);
                debug!(job = %c.job.id, "the job is stored");
                Ok(Stored { id: c.job.id, created: true })
            }
            Submitted::Existing(job) => {
                metrics::DUPLICATES_SUPPRESSED.inc(&["submit"]);
                Ok(Stored { id: job.id, created: false })
            }
            Submitted::Conflict { existing, clash } => Err(conflict(existing, clash)),
        });
        let stored = stored.collect();
        new.note();
        stored
    }

    fn checked(&self, caller: &Caller, input: SubmitInput, limits: &Limits, now: Micros) -> Result<NewJob, Error> {
        let input = SubmitInput { submitted_by: Some(caller.name().to_owned()), ..input };
        let job = admit(input, limits, now, None)?;
        self.may_submit(&job.spec)?;
        Ok(job)
    }

    async fn admitted(&self, caller: &Caller, input: SubmitInput) -> Result<NewJob, Error> {
        let job = match self.checked(caller, input, &self.limits(), Micros::now()) {
            Ok(job) => job,
            Err(e) => self.recorded(caller, "job", None, Err(e)).await?,
        };
        self.push_back(&job)?;
        Ok(job)
    }

    async fn store_new(&self, caller: &Caller, job: NewJob) -> Result<SubmitAnswer, Error> {
        match self.0.committer.submit(job, caller).await? {
            Submitted::Created(c) => {
                metrics::note_submitted(&c.job.spec, 1);
                debug!(job = %c.job.id, "the job is stored");
                Ok(SubmitAnswer { job: self.with_warning(Job::accepted(c.seq, c.job)), created: true })
            }
            Submitted::Existing(job) => {
                metrics::DUPLICATES_SUPPRESSED.inc(&["submit"]);
                Ok(SubmitAnswer { job: self.with_warning(*job), created: false })
            }
            Submitted::Conflict { existing, clash } => Err(conflict(existing, clash)),
        }
    }
}

/// New jobs, counted by what their metric tells apart: those of one caller are mostly alike.
#[derive(Default)]
struct Counted(Option<(Arc<JobSpec>, u64)>);

impl Counted {
    fn add(&mut self, job: &Arc<JobSpec>) {
        match &mut self.0 {
            Some((alike, n))
                if (&alike.mission, &alike.queue, &alike.tool) == (&job.mission, &job.queue, &job.tool) =>
            {
                *n += 1;
            }
            _ => {
                self.note();
                self.0 = Some((Arc::clone(job), 1));
            }
        }
    }

    fn note(&mut self) {
        if let Some((job, n)) = self.0.take() {
            metrics::note_submitted(&job, n);
        }
    }
}
