//! One delivery from its arrival to its settlement: read, admit, run, report, acknowledge.
//!
//! Relies on `attempt` for every decision and on `worker` for every effect. Each path settles the delivery exactly one
//! way; a panic here leaves it unsettled, and it is redelivered.

use crate::{
    acks::Ack,
    attempt::{Admission, Conclusion, Facts, admit, conclude, handbacks_matter},
    buckets,
    keepalive::KeepAliveHold,
    ledger::{Arrival, Registration, Running},
    markers,
    metrics::{ATTEMPTS_REFUSED, REPLAYS},
    patience::Patience,
    run::{self, STOP_GRACE},
    tools::{Tool, ToolContext, ToolOutput},
    worker::{NotStored, OnRefusal, SIGN_OF_LIFE_MAX, ServedQueue, Worker},
};
use agentforge_jetstream::{
    Delivery, trace,
    trace::{Operation, Parent},
};
use agentforge_message_id::MsgId;
use agentforge_proto::{
    bus::{ErrorClass, Failure, Finished, JobMessage, Outcome, Rejected, Report, Started, Success},
    operation::operation_key,
    time::Micros,
};
use agentforge_signing::Refused;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{Instrument, Span, debug, info_span, warn};

/// A suspect that finds the place taken tries again after this, here or elsewhere.
const SUSPECT_DELAY: Duration = Duration::from_secs(1);
/// Before a suspect runs.
const SUSPECT_PAUSE: Duration = Duration::from_millis(500);
/// Between two signs of life of a second delivery that waits for the first.
const WAIT_TURN: Duration = Duration::from_secs(10);

/// A job's slot; free again when this is dropped.
struct Slot(Arc<Worker>, usize);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.handles.inflight.decrement(1.0);
        self.0.free_slot(self.1);
    }
}

/// Takes a delivery to its settlement. Its slot is free again when this ends, however it ends.
pub(crate) async fn settle(worker: Arc<Worker>, queue: usize, delivery: Delivery) {
    worker.handles.inflight.increment(1.0);
    let slot = Slot(worker.clone(), queue);
    let (worker, queue) = (&worker, &worker.queues[queue]);
    let keep_alive = worker.keepalive.hold(delivery.reply().into(), SIGN_OF_LIFE_MAX);
    if delivery.info().delivered > 1 {
        queue.counters.redeliveries.increment(1);
    }
    let job = match read(worker, queue, &delivery) {
        Ok(job) => job,
        // Seldom: boxed, or every job would hold their futures.
        Err(NoJob::Stale) => return Box::pin(put_aside(worker, queue, &delivery)).await,
        Err(NoJob::Rejected { reason, refused }) => {
            return Box::pin(reject(worker, queue, &delivery, &keep_alive, reason, refused)).await;
        }
    };
    let (span, parent) = span_of(&delivery, &job);
    let task = Task { worker, queue, delivery: &delivery, keep_alive: &keep_alive, job: &job, parent };
    if task.settle().instrument(span).await == Next::Acknowledge {
        // The job is done, so another may come while the server is asked for its word.
        let room = Arc::clone(&worker.acks).try_acquire_owned().ok();
        let slot = if room.is_some() { None } else { Some(slot) };
        worker.acknowledge(queue, Ack::new(delivery.settler(), keep_alive, room, slot)).await;
    }
}

/// The span around a job, and what its messages carry. Most traces are not recorded: then only log lines have it.
fn span_of(delivery: &Delivery, job: &JobMessage<'_>) -> (Span, Parent) {
    macro_rules! span {
        ($($how:tt)*) => {
            info_span!($($how)* job = %job.job, attempt = job.attempt.get(), delivery = delivery.info().delivered, tool = job.tool.as_str(), request_id = trace::request_id(delivery.headers()))
        };
    }
    if let Some(traceparent) = trace::unrecorded(delivery.headers()) {
        let span = span!(target: "agentforge_worker::unrecorded", "job", traceparent,);
        return (span, Parent::unrecorded(traceparent));
    }
    let span = span!("job", otel.kind = "consumer", otel.name = Operation::Process.span_name(delivery.subject()),);
    if delivery.headers().is_some() {
        trace::set_parent(&span, delivery.headers());
    }
    let parent = Parent::of(&span);
    if parent.is_sampled {
        let id = MsgId::attempt(job.job, job.attempt).to_string();
        trace::describe_message(&span, Operation::Process, delivery.subject(), id);
        let consumer = delivery.info().consumer.clone();
        trace::describe(&span, [("messaging.consumer.group.name", consumer.into())]);
    }
    (span, parent)
}

/// What is left to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Its result is stored.
    Acknowledge,
    /// It was given back.
    Nothing,
}

/// Why a message is not run.
enum NoJob {
    /// It is an order, signed too long ago: the orchestrator publishes it again once its message is gone.
    Stale,
    /// It is no order, or no job.
    Rejected { reason: String, refused: Option<Refused> },
}

impl From<String> for NoJob {
    fn from(reason: String) -> Self {
        Self::Rejected { reason, refused: None }
    }
}

/// The message as a job of this queue, or why it is none. Nothing of it is looked at before its signature is.
fn read(worker: &Worker, queue: &ServedQueue, delivery: &Delivery) -> Result<JobMessage<'static>, NoJob> {
    worker.orders.check(delivery, worker.clock.now()).map_err(|refused| match refused {
        Refused::Stale => NoJob::Stale,
        refused => NoJob::Rejected { reason: refused.to_string(), refused: Some(refused) },
    })?;
    let job: JobMessage = serde_json::from_slice(delivery.payload()).map_err(|e| format!("it does not decode: {e}"))?;
    if delivery.subject() != queue.jobs_subject || job.mission != worker.mission || job.queue != queue.name {
        return Err(format!(
            "it says mission {} and queue {}, but came on {}",
            job.mission,
            job.queue,
            delivery.subject()
        )
        .into());
    }
    Ok(job)
}

/// Terminates an order that was signed too long ago. It may be one that somebody kept: it has no other effect.
async fn put_aside(worker: &Worker, queue: &ServedQueue, delivery: &Delivery) {
    warn!(
        sequence = delivery.info().stream_seq,
        "an attempt was signed too long ago; a job that waits is published again"
    );
    ATTEMPTS_REFUSED.inc(&[worker.mission.as_str(), queue.name.as_str(), Refused::Stale.as_str()]);
    if let Err(error) = delivery.term("its signature is too old").await {
        debug!(%error, "an old attempt was not settled; redelivered later");
    }
}

/// Reports a message that is not a job or not an order, once, and terminates it.
async fn reject(
    worker: &Worker,
    queue: &ServedQueue,
    delivery: &Delivery,
    keep_alive: &KeepAliveHold,
    reason: String,
    refused: Option<Refused>,
) {
    if let Some(refused) = refused {
        ATTEMPTS_REFUSED.inc(&[worker.mission.as_str(), queue.name.as_str(), refused.as_str()]);
    }
    let (info, payload) = (delivery.info(), delivery.payload());
    warn!(
        stream = info.stream,
        sequence = info.stream_seq,
        bytes = payload.len(),
        reason,
        "a message that is not a job of the orchestrator"
    );
    queue.counters.rejected.increment(1);
    let kept_bytes = payload.len().min(Rejected::PAYLOAD_MAX_BYTES);
    let rejected = |payload_hex| {
        Report::Rejected(Rejected {
            worker: worker.id.clone(),
            subject: delivery.subject().to_owned(),
            stream: info.stream.clone(),
            sequence: info.stream_seq,
            stored_at_ns: i64::try_from(info.stored_at_ns).unwrap_or(i64::MAX),
            reason: reason.clone(),
            payload_bytes: payload.len() as u64,
            payload_hex,
            at: worker.clock.now(),
            invalid_signature: refused.is_some(),
        })
    };
    let id = MsgId::rejected(&info.stream, info.stream_seq, info.stored_at_ns);
    let whole = rejected(hex::encode(&payload[..kept_bytes]));
    let mut stored = worker.store(queue, keep_alive, &id, &whole, None, OnRefusal::Return).await;
    if matches!(stored, Err(NotStored::Refused(_))) {
        stored = worker.store(queue, keep_alive, &id, &rejected(String::new()), None, OnRefusal::Hold).await;
    }
    let settled = match stored {
        Ok(()) => delivery.term(&reason).await,
        // Nothing of it is lost: the next worker finds and reports it.
        Err(_) => delivery.nak(None).await,
    };
    if let Err(error) = settled {
        debug!(%error, "a rejected message was not settled; redelivered later and is reported under the same id");
    }
}

/// A job that came, with all that its task needs.
struct Task<'a> {
    worker: &'a Arc<Worker>,
    queue: &'a ServedQueue,
    delivery: &'a Delivery,
    keep_alive: &'a KeepAliveHold,
    job: &'a JobMessage<'static>,
    /// The trace that it runs in.
    parent: Parent,
}

impl Task<'_> {
    async fn settle(&self) -> Next {
        let (worker, job) = (self.worker, self.job);
        match worker.ledger.arrive(job.job, job.attempt, self.order()) {
            Arrival::Finished => {
                worker.handles.duplicates.increment(1);
                Next::Acknowledge
            }
            Arrival::Running(first) => {
                worker.handles.duplicates.increment(1);
                if self.wait_for(&first).await { Next::Acknowledge } else { self.hand_back(None).await }
            }
            Arrival::New(_) if worker.draining.is_cancelled() => self.hand_back(None).await,
            Arrival::New(here) => self.attempt(here).await,
        }
    }

    /// What distinguishes the messages of one attempt: how often it was published again, which is signed, so that a copy that
    /// somebody stored is the same order. Without signatures when the stream took it, as that cannot be copied; not its
    /// sequence: a stream that is recreated counts from 1 again.
    fn order(&self) -> i128 {
        if self.worker.orders.are_verified() {
            i128::from(self.delivery.header("Nats-Msg-Id").map_or(0, MsgId::run_of))
        } else {
            self.delivery.info().stored_at_ns
        }
    }

    /// Waits for an earlier delivery of the same attempt; whether its result was stored.
    async fn wait_for(&self, first: &Running) -> bool {
        loop {
            self.keep_alive.extend(SIGN_OF_LIFE_MAX);
            if let Ok(stored) = tokio::time::timeout(WAIT_TURN, first.settled()).await {
                return stored;
            }
        }
    }

    async fn attempt(&self, here: Registration) -> Next {
        let (worker, job) = (self.worker, self.job);
        let (now, delivered) = (worker.clock.now(), self.delivery.info().delivered);
        let tool = worker.tools.get(&job.tool);
        let facts = Facts {
            now,
            deadline: job.deadline,
            delivered,
            handbacks: self.handbacks(delivered).await,
            max_lost: worker.max_lost,
            cancelled: worker.ledger.is_cancelled(job.job, job.attempt),
            tool_known: tool.is_some(),
        };
        let failed = |class, message: String| Outcome::Failed(Failure::new(class, message));
        let outcome = match (admit(&facts), tool) {
            (Admission::Run, Some(tool)) => return self.run(here, tool.as_ref()).await,
            (Admission::RunAsSuspect, Some(tool)) => {
                return match worker.suspects.try_acquire() {
                    Ok(_alone) => {
                        // Those who found the place taken are giving their messages back: a death now would
                        // count against them.
                        tokio::time::sleep(SUSPECT_PAUSE).await;
                        Box::pin(self.run(here, tool.as_ref())).await
                    }
                    Err(_) => self.hand_back(Some(SUSPECT_DELAY)).await,
                };
            }
            (Admission::Cancelled, _) => Outcome::Cancelled,
            (Admission::Expired, _) => Outcome::Expired,
            (Admission::WorkerLost(lost), _) => {
                warn!(lost, "the attempt lost too many workers and is not run again");
                failed(ErrorClass::WorkerLost, format!("{lost} workers were lost while they had this attempt"))
            }
            (Admission::ToolNotFound | Admission::Run | Admission::RunAsSuspect, _) => {
                failed(ErrorClass::ToolNotFound, format!("no tool is named {} on worker {}", job.tool, worker.id))
            }
        };
        self.finish(here, now, outcome).await
    }

    /// How often the attempt was handed back, where that can matter.
    async fn handbacks(&self, delivered: u64) -> Option<u64> {
        if !handbacks_matter(delivered, self.worker.max_lost) {
            return Some(0);
        }
        match Box::pin(self.worker.buckets.handbacks(self.job.job, self.job.attempt)).await {
            Ok(count) => Some(count),
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "hand-backs are unknown; the attempt runs as a suspect"
                );
                None
            }
        }
    }

    async fn run(&self, here: Registration, tool: &dyn Tool) -> Next {
        let (worker, job) = (self.worker, self.job);
        let wants_reuse = job.reuse && !worker.reuse_window.is_zero();
        let key = wants_reuse.then(|| operation_key(&job.tool, &job.args, job.task.as_deref())).flatten();
        let started_at = worker.clock.now();
        if let Some(replay) = self.earlier_success(key.as_deref()).await {
            REPLAYS.inc(&[job.tool.as_str()]);
            return self.finish(here, started_at, Outcome::Succeeded(replay)).await;
        }
        let timeout = Duration::from_millis(job.timeout_ms);
        self.keep_alive
            .extend(timeout.saturating_add(STOP_GRACE + SIGN_OF_LIFE_MAX).min(Duration::from_secs(30 * 24 * 3600)));
        let ctx = ToolContext {
            job: job.job,
            attempt: job.attempt,
            delivery: self.delivery.info().delivered,
            cancel: here.stop.token().clone(),
            timeout,
            scheduled_at: job.scheduled_at,
        };
        let started = Instant::now();
        let report_unconfirmed = async || Box::pin(self.report_started(started_at)).await;
        let span = if self.parent.is_sampled {
            info_span!("tool", tool = job.tool.as_str(), otel.name = format!("tool {}", job.tool))
        } else {
            Span::none()
        };
        let tool_span = span.clone();
        let end = run::run(tool, &ctx, &job.args, &here.stop, worker.started_after, report_unconfirmed)
            .instrument(span)
            .await;
        worker.handles.ran(&job.tool, started.elapsed());
        self.keep_alive.extend(SIGN_OF_LIFE_MAX);
        let outcome = match conclude(end, job.timeout_ms) {
            Conclusion::HandBack => return self.hand_back(None).await,
            Conclusion::Cancelled => Outcome::Cancelled,
            Conclusion::Failed(failure) => {
                trace::describe(&tool_span, [("error.type", failure.class.as_str().into())]);
                debug!(class = failure.class.as_str(), message = failure.message, "the attempt failed");
                Outcome::Failed(failure)
            }
            Conclusion::Succeeded(output) => match self.place(output).await {
                Ok(success) => Outcome::Succeeded(success),
                Err(NotStored::Leaving) => return self.hand_back(None).await,
                Err(NotStored::Refused(error)) => Outcome::Failed(not_storable(error.as_ref())),
            },
        };
        self.finish(here, started_at, outcome).await
    }

    /// The success of an equal operation, if the job may have it. Trouble with the bucket costs a run.
    async fn earlier_success(&self, key: Option<&str>) -> Option<Success> {
        let worker = self.worker;
        let found = Box::pin(worker.buckets.find_operation(key?, &worker.orders, worker.clock.now())).await;
        let mut success = found.unwrap_or_else(|error| {
            debug!(error = &error as &dyn std::error::Error, "earlier successes could not be read");
            None
        })?;
        // Our own success, whose report got lost with its worker, is not a reuse.
        success.idempotent_replay = success.idempotent_replay.filter(|earlier| *earlier != self.job.job);
        Some(success)
    }

    async fn report_started(&self, at: Micros) {
        let (job, delivery, worker) = (self.job, self.delivery.info().delivered, &self.worker.id);
        let started = Started { job: job.job, attempt: job.attempt, delivery, worker: worker.clone(), at };
        let id = MsgId::started(job.job, job.attempt, delivery);
        self.worker.report_unconfirmed(self.queue, &id, &Report::Started(started), job, &self.parent).await;
    }

    /// Puts an output where it belongs: into the result, or into the object store.
    async fn place(&self, output: ToolOutput) -> Result<Success, NotStored> {
        let (worker, job, delivered) = (self.worker, self.job, self.delivery.info().delivered);
        let output = output.into_raw();
        if markers::may_be_in(&output) {
            Box::pin(markers::publish_all(&worker.nats, &worker.site, job, &output)).await;
        }
        // A server with a small max_payload has the last word on what fits into a message.
        let inline_max = worker.output_inline_max_bytes.min(worker.nats.max_payload() / 2);
        if output.get().len() <= inline_max {
            return Ok(Success { output: Some(output), output_ref: None, idempotent_replay: None });
        }
        let (mut held, mut refused, mut patience) = (None, None, Patience::default());
        for attempt in 0.. {
            // Asked at each try: the server that is connected now may take less than the one before.
            let message_max = worker.nats.max_payload();
            let stored =
                Box::pin(worker.buckets.store_output(job.job, job.attempt, delivered, &output, message_max)).await;
            let error = match stored {
                Ok(output_ref) => {
                    return Ok(Success { output: None, output_ref: Some(output_ref), idempotent_replay: None });
                }
                Err(error) => error,
            };
            if patience.is_over(error.answer(), Instant::now()) {
                return Err(NotStored::Refused(Box::new(error)));
            }
            if held.is_none() {
                warn!(error = &error as &dyn std::error::Error, "an output is held until it can be stored");
                held = Some(worker.hold());
            }
            let is_denied = worker.nats.denied().any_below(buckets::OUTPUT_SUBJECTS);
            if let Some(reason) = error.refusal(is_denied) {
                let reason = format!("an output: {reason}");
                let noted = refused.get_or_insert_with(|| worker.refusals.note(buckets::OUTPUT_SUBJECTS, &reason));
                noted.renew(&reason);
            }
            if !worker.pause(self.keep_alive, attempt).await {
                return Err(NotStored::Leaving);
            }
        }
        unreachable!("the tries have no end")
    }

    /// Stores the result; only then may the delivery be acknowledged.
    async fn finish(&self, here: Registration, started_at: Micros, outcome: Outcome) -> Next {
        let (worker, job, delivery) = (self.worker, self.job, self.delivery.info().delivered);
        let request_id = trace::request_id(self.delivery.headers()).map(str::to_owned);
        let report = |outcome| {
            Report::Finished(Finished {
                job: job.job,
                attempt: job.attempt,
                delivery,
                worker: worker.id.clone(),
                started_at,
                finished_at: worker.clock.now(),
                outcome,
                traceparent: self.parent.traceparent.clone(),
                request_id: request_id.clone(),
            })
        };
        let run = self.delivery.header("Nats-Msg-Id").map_or(0, MsgId::run_of);
        let id = MsgId::result_of_run(job.job, job.attempt, run, delivery);
        let whole = report(outcome);
        let mut stored = worker.store(self.queue, self.keep_alive, &id, &whole, Some(job), OnRefusal::Return).await;
        if let Err(NotStored::Refused(error)) = &stored {
            // Without its output it may be taken. If not even that is, the stream refuses everything.
            let failed = report(Outcome::Failed(not_storable(error.as_ref())));
            stored = worker.store(self.queue, self.keep_alive, &id, &failed, Some(job), OnRefusal::Hold).await;
        }
        if stored.is_err() {
            return self.hand_back(None).await;
        }
        debug!("the result is stored");
        here.finished();
        Next::Acknowledge
    }

    async fn hand_back(&self, delay: Option<Duration>) -> Next {
        Box::pin(self.worker.hand_back(self.queue, self.delivery, self.job.job, self.job.attempt, delay)).await;
        Next::Nothing
    }
}

fn not_storable(error: &(dyn std::error::Error + Send + Sync)) -> Failure {
    Failure::new(ErrorClass::Runtime, format!("the result cannot be stored: {error}"))
}
