//! The Jobs service.

use super::call::Call;
use super::guard::Place;
use super::messages::Kept;
use super::{convert, filters, submit};
use crate::api::stream::until_last;
use crate::app::{App, DeadLetterQuery, DiscardSpec, RedriveSpec};
use crate::error::Error;
use agentforge_proto::time::duration_from_proto;
use agentforge_proto::v1 as pb;
use agentforge_proto::v1::jobs_server::Jobs;
use bytes::Bytes;
use convert::{duration, given};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) struct Service {
    pub(super) app: App,
}

/// Bytes of an output in one message, at most; well below what clients take by default (4 MiB).
const OUTPUT_CHUNK_BYTES: usize = 256 * 1024;

/// Cuts bytes into pieces of one message each.
fn split(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let size = bytes.len().min(OUTPUT_CHUNK_BYTES);
        (size > 0).then(|| bytes.split_to(size))
    })
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Jobs for Service {
    async fn submit_job(
        &self,
        request: Request<pb::SubmitJobRequest>,
    ) -> Result<Response<pb::SubmitJobResponse>, Status> {
        let call = Call::of("SubmitJob", &request);
        let mut request = request.into_inner();
        let wait = duration!("wait", request.wait.take()).map_err(|e| call.refuse(&e))?;
        let input = convert::submit_input(request, call.origin.clone()).map_err(|e| call.refuse(&e))?;
        let wait = wait.filter(|wait| !wait.is_zero());
        let answer = call.app(&self.app).submit_and_show(call.caller()?, input, wait).await;
        let answer = answer.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::SubmitJobResponse { job: Some(convert::job(answer.job)), created: answer.created }))
    }

    type SubmitJobsStream = Answers<pb::SubmitJobsResponse>;

    async fn submit_jobs(
        &self,
        request: Request<Streaming<pb::SubmitJobRequest>>,
    ) -> Result<Response<Self::SubmitJobsStream>, Status> {
        let call = Call::of("SubmitJobs", &request);
        let place = request.extensions().get::<Place>().cloned();
        let kept = request.extensions().get::<Kept>().cloned().unwrap_or_default();
        let caller = call.caller()?.clone();
        let answers = submit::answers(call.app(&self.app), call, caller, kept, request.into_inner());
        // The stream keeps its place among the calls served at once.
        Ok(Response::new(
            answers
                .inspect(move |_| {
                    let _held = &place;
                })
                .boxed(),
        ))
    }

    async fn get_job(&self, request: Request<pb::GetJobRequest>) -> Result<Response<pb::Job>, Status> {
        let call = Call::of("GetJob", &request);
        let request = request.into_inner();
        let wait = duration!("wait", request.wait).map_err(|e| call.refuse(&e))?;
        let job = match wait {
            Some(wait) if !wait.is_zero() => call.app(&self.app).wait(call.caller()?, &request.id, wait).await,
            _ => call.app(&self.app).job(call.caller()?, &request.id).await,
        };
        job.map(|j| Response::new(convert::job(j))).map_err(|e| call.refuse(&e))
    }

    async fn list_jobs(&self, request: Request<pb::ListJobsRequest>) -> Result<Response<pb::ListJobsResponse>, Status> {
        let call = Call::of("ListJobs", &request);
        let query = filters::job_query(request.into_inner()).map_err(|e| call.refuse(&e))?;
        let page = call.app(&self.app).jobs(call.caller()?, query).await.map_err(|e| call.refuse(&e))?;
        let jobs = page.items.into_iter().map(convert::job).collect();
        Ok(Response::new(pb::ListJobsResponse { jobs, next_cursor: page.next.unwrap_or_default() }))
    }

    type WatchJobStream = Answers<pb::Job>;

    async fn watch_job(&self, request: Request<pb::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let call = Call::of("WatchJob", &request);
        let jobs = call.app(&self.app).watch(call.caller()?, &request.get_ref().id).await;
        let jobs = jobs.map_err(|e| call.refuse(&e))?;
        let at_cut = call.clone();
        let jobs = jobs.map(move |j| j.map_err(|e| call.refuse(&e))).boxed();
        let jobs = until_last(jobs, self.app.stopping().clone(), |j| j.state.is_final(), move || at_cut.cut());
        Ok(Response::new(jobs.map(|j| j.map(convert::job)).boxed()))
    }

    type GetJobOutputStream = Answers<pb::JobOutputChunk>;

    async fn get_job_output(
        &self,
        request: Request<pb::GetJobOutputRequest>,
    ) -> Result<Response<Self::GetJobOutputStream>, Status> {
        let call = Call::of("GetJobOutput", &request);
        let place = request.extensions().get::<Place>().cloned();
        let output = call.app(&self.app).output(call.caller()?, &request.get_ref().id).await;
        let output = output.map_err(|e| call.refuse(&e))?;
        let chunks = output.stream.flat_map(move |piece| {
            let _held = &place;
            let pieces = match piece {
                // A result of any size goes out in messages that every client takes.
                Ok(bytes) => split(bytes).map(|data| Ok(pb::JobOutputChunk { data: data.into() })).collect::<Vec<_>>(),
                Err(e) => vec![Err(Status::unavailable(format!("the output broke off: {e}; ask again")))],
            };
            futures_util::stream::iter(pieces)
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn cancel_job(&self, request: Request<pb::CancelJobRequest>) -> Result<Response<pb::Job>, Status> {
        let call = Call::of("CancelJob", &request);
        let job = call.app(&self.app).cancel(call.caller()?, &request.get_ref().id).await;
        job.map(|j| Response::new(convert::job(j))).map_err(|e| call.refuse(&e))
    }

    type CancelJobsStream = Answers<pb::CancelProgress>;

    async fn cancel_jobs(
        &self,
        request: Request<pb::CancelJobsRequest>,
    ) -> Result<Response<Self::CancelJobsStream>, Status> {
        let call = Call::of("CancelJobs", &request);
        let request = request.into_inner();
        let detached = request.r#async;
        let spec = filters::cancel_spec(request).map_err(|e| call.refuse(&e))?;
        if detached {
            let operation =
                call.app(&self.app).start_cancel(call.caller()?, spec).await.map_err(|e| call.refuse(&e))?;
            let named = pb::CancelProgress { operation_id: operation.id.to_string(), ..Default::default() };
            return Ok(Response::new(futures_util::stream::once(async { Ok(named) }).boxed()));
        }
        let progress = call.app(&self.app).cancel_many(call.caller()?, spec).await.map_err(|e| call.refuse(&e))?;
        let at_cut = call.clone();
        let answers = progress.map(move |p| {
            p.map(|p| pb::CancelProgress {
                matched: p.matched,
                cancelled: p.cancelled,
                skipped: p.skipped,
                done: p.done,
                not_cancelled: convert::not_put_back(p.reasons),
                operation_id: String::new(),
            })
            .map_err(|e| call.refuse(&e))
        });
        let answers = until_last(answers.boxed(), self.app.stopping().clone(), |p| p.done, move || at_cut.cut());
        Ok(Response::new(answers.boxed()))
    }

    async fn retry_job(&self, request: Request<pb::RetryJobRequest>) -> Result<Response<pb::Job>, Status> {
        let call = Call::of("RetryJob", &request);
        let request = request.into_inner();
        let deadline_in = duration!("deadline_in", request.deadline_in).map_err(|e| call.refuse(&e))?;
        let job = call.app(&self.app).retry(call.caller()?, &request.id, deadline_in).await;
        job.map(|j| Response::new(convert::job(j))).map_err(|e| call.refuse(&e))
    }

    type RetryJobsStream = Answers<pb::RetryProgress>;

    async fn retry_jobs(
        &self,
        request: Request<pb::RetryJobsRequest>,
    ) -> Result<Response<Self::RetryJobsStream>, Status> {
        let call = Call::of("RetryJobs", &request);
        let request = request.into_inner();
        let detached = request.r#async;
        let spec = filters::retry_spec(request).map_err(|e| call.refuse(&e))?;
        if detached {
            let operation = call.app(&self.app).start_retry(call.caller()?, spec).await.map_err(|e| call.refuse(&e))?;
            let named = pb::RetryProgress { operation_id: operation.id.to_string(), ..Default::default() };
            return Ok(Response::new(futures_util::stream::once(async { Ok(named) }).boxed()));
        }
        let progress = call.app(&self.app).retry_many(call.caller()?, spec).await.map_err(|e| call.refuse(&e))?;
        let at_cut = call.clone();
        let answers = progress.map(move |p| {
            p.map(|p| pb::RetryProgress {
                matched: p.matched,
                retried: p.put_back,
                skipped: p.skipped,
                done: p.done,
                not_put_back: convert::not_put_back(p.reasons),
                operation_id: String::new(),
            })
            .map_err(|e| call.refuse(&e))
        });
        let answers = until_last(answers.boxed(), self.app.stopping().clone(), |p| p.done, move || at_cut.cut());
        Ok(Response::new(answers.boxed()))
    }

    async fn list_attempts(
        &self,
        request: Request<pb::ListAttemptsRequest>,
    ) -> Result<Response<pb::ListAttemptsResponse>, Status> {
        let call = Call::of("ListAttempts", &request);
        let attempts = call.app(&self.app).attempts(call.caller()?, &request.get_ref().id).await;
        let attempts = attempts.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ListAttemptsResponse { attempts: attempts.into_iter().map(convert::attempt).collect() }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let call = Call::of("ListDeadLetters", &request);
        let r = request.into_inner();
        let query = DeadLetterQuery {
            mission: given(r.mission),
            queue: given(r.queue),
            reason: given(r.reason),
            include_redriven: r.include_redriven,
            limit: r.limit,
            cursor: given(r.cursor),
        };
        let page = call.app(&self.app).dead_letters(call.caller()?, query).await.map_err(|e| call.refuse(&e))?;
        let dead_letters = page.items.into_iter().map(convert::dead_letter).collect();
        Ok(Response::new(pb::ListDeadLettersResponse { dead_letters, next_cursor: page.next.unwrap_or_default() }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<pb::GetDeadLetterRequest>,
    ) -> Result<Response<pb::DeadLetter>, Status> {
        let call = Call::of("GetDeadLetter", &request);
        let letter = call.app(&self.app).dead_letter(call.caller()?, &request.get_ref().id).await;
        letter.map(|d| Response::new(convert::dead_letter(d))).map_err(|e| call.refuse(&e))
    }

    async fn discard_dead_letters(
        &self,
        request: Request<pb::DiscardDeadLettersRequest>,
    ) -> Result<Response<pb::DiscardDeadLettersResponse>, Status> {
        let call = Call::of("DiscardDeadLetters", &request);
        let r = request.into_inner();
        let (mission, queue, reason) = (given(r.mission), given(r.queue), given(r.reason));
        let spec = DiscardSpec { ids: r.ids, mission, queue, reason, limit: r.limit };
        let discarded = call.app(&self.app).discard_letters(call.caller()?, spec).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::DiscardDeadLettersResponse { discarded }))
    }

    async fn find_jobs(&self, request: Request<pb::FindJobsRequest>) -> Result<Response<pb::FindJobsResponse>, Status> {
        let call = Call::of("FindJobs", &request);
        let ids = call.app(&self.app).find_jobs(&request.get_ref().prefix).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::FindJobsResponse { ids: ids.iter().map(ToString::to_string).collect() }))
    }

    async fn get_job_counts(
        &self,
        request: Request<pb::GetJobCountsRequest>,
    ) -> Result<Response<pb::JobCounts>, Status> {
        let call = Call::of("GetJobCounts", &request);
        let counts = call.app(&self.app).job_counts().await.map_err(|e| call.refuse(&e))?;
        let [accepted, queued, running, succeeded, failed, dead, cancelled, expired] = counts.of.map(|(_, n)| n);
        let counted_at = Some(counts.at.to_proto());
        Ok(Response::new(pb::JobCounts {
            accepted,
            queued,
            running,
            succeeded,
            failed,
            dead,
            cancelled,
            expired,
            counted_at,
        }))
    }

    async fn list_queues(
        &self,
        request: Request<pb::ListQueuesRequest>,
    ) -> Result<Response<pb::ListQueuesResponse>, Status> {
        let call = Call::of("ListQueues", &request);
        let mission = given(request.into_inner().mission);
        let queues = call.app(&self.app).queue_stats(mission.as_deref()).await.map_err(|e| call.refuse(&e))?;
        Ok(Response::new(pb::ListQueuesResponse { queues: queues.into_iter().map(convert::queue).collect() }))
    }

    async fn pause_queue(&self, request: Request<pb::PauseQueueRequest>) -> Result<Response<pb::QueueStats>, Status> {
        let call = Call::of("PauseQueue", &request);
        let queue = call.app(&self.app).pause_queue(call.caller()?, &request.get_ref().queue).await;
        queue.map(|q| Response::new(convert::queue(q))).map_err(|e| call.refuse(&e))
    }

    async fn resume_queue(&self, request: Request<pb::ResumeQueueRequest>) -> Result<Response<pb::QueueStats>, Status> {
        let call = Call::of("ResumeQueue", &request);
        let queue = call.app(&self.app).resume_queue(call.caller()?, &request.get_ref().queue).await;
        queue.map(|q| Response::new(convert::queue(q))).map_err(|e| call.refuse(&e))
    }

    type RedriveDeadLettersStream = Answers<pb::RedriveProgress>;

    async fn redrive_dead_letters(
        &self,
        request: Request<pb::RedriveDeadLettersRequest>,
    ) -> Result<Response<Self::RedriveDeadLettersStream>, Status> {
        let call = Call::of("RedriveDeadLetters", &request);
        let r = request.into_inner();
        let spec = RedriveSpec {
            job_ids: r.job_ids,
            mission: given(r.mission),
            queue: given(r.queue),
            reason: given(r.reason),
            rate: r.rate,
            limit: r.limit,
        };
        if r.r#async {
            let operation =
                call.app(&self.app).start_redrive(call.caller()?, spec).await.map_err(|e| call.refuse(&e))?;
            let named = pb::RedriveProgress { operation_id: operation.id.to_string(), ..Default::default() };
            return Ok(Response::new(futures_util::stream::once(async { Ok(named) }).boxed()));
        }
        let progress = call.app(&self.app).redrive(call.caller()?, spec).await.map_err(|e| call.refuse(&e))?;
        let at_cut = call.clone();
        let answers = progress.map(move |p| {
            p.map(|p| pb::RedriveProgress {
                redriven: p.put_back,
                skipped: p.skipped,
                done: p.done,
                not_put_back: convert::not_put_back(p.reasons),
                operation_id: String::new(),
            })
            .map_err(|e| call.refuse(&e))
        });
        let answers = until_last(answers.boxed(), self.app.stopping().clone(), |p| p.done, move || at_cut.cut());
        Ok(Response::new(answers.boxed()))
    }
}
