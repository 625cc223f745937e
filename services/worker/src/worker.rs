//! The running worker: what every job's task shares, and the steps that all of them take.
//!
//! Owns storing a report until the stream has it, handing a delivery back, and acknowledging it. The order is fixed:
//! result first, then the acknowledgement. Whenever something fails in between, the message is redelivered, and then
//! the ledger, the message id or the orchestrator's fence recognises it.

use crate::{
    acks::{Ack, Acks},
    buckets::Buckets,
    bundle::{Bundler, REPORT_BYTES_MAX},
    clock::Clock,
    keepalive::{KeepAlive, KeepAliveHold},
    ledger::Ledger,
    metrics::{Handles, QueueCounters, REPORTS_REFUSED},
    orders::Orders,
    patience::{Answer, Patience},
    refusals::Refusals,
    slots::Pool,
    tools::Toolbox,
};
use agentforge_jetstream::{Delivery, HeaderMap, Nats, Slots, publish, trace};
use agentforge_message_id::{AgentId, Attempt, JobId, Mission, MsgId, Queue, Site};
use agentforge_proto::{
    bus::{Bundled, Finished, JobMessage, Report, TASK_TOKEN},
    operation::REUSABLE,
};
use async_nats::HeaderValue;
use bytes::Bytes;
use rand::Rng;
use serde_json::value::to_raw_value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// An acknowledgement waits for the next arrival, so that it travels with that one's messages, and so that the stream
/// is not empty in between: the server deletes the file of a stream that runs empty, and recreates it, which costs as
/// much as the message did. No longer than this: if the worker is killed meanwhile, the job runs twice.
const ACK_AFTER: Duration = Duration::from_millis(10);
/// How long to wait until the server confirms an acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a delivery is kept alive without a sign of its task.
pub(crate) const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(60);
/// Between two tries to store a report: about this, doubled each time …
const STORE_PAUSE: Duration = Duration::from_millis(100);
/// … up to this.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// A message that reports a start is not waited for any longer.
const STARTED_TIMEOUT: Duration = Duration::from_millis(100);

/// What all jobs of a worker share.
pub(crate) struct Worker {
    pub(crate) id: AgentId,
    pub(crate) mission: Mission,
    pub(crate) site: Site,
    pub(crate) nats: Nats,
    pub(crate) tools: Toolbox,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) keepalive: Arc<KeepAlive>,
    /// The orchestrator's time: deadlines and reports use it.
    pub(crate) clock: Arc<Clock>,
    pub(crate) buckets: Buckets,
    pub(crate) handles: Handles,
    /// What NATS refuses and is held.
    pub(crate) refusals: Refusals,
    /// What says whether a message is an order.
    pub(crate) orders: Arc<Orders>,
    pub(crate) queues: Vec<ServedQueue>,
    pub(crate) pool: Mutex<Pool>,
    /// One at a time: see `attempt::SUSPECT_AFTER_LOST`.
    pub(crate) suspects: Semaphore,
    /// Acknowledgements under way whose jobs have given their slots back.
    pub(crate) acks: Arc<Semaphore>,
    /// Notifies of each delivery that arrives.
    pub(crate) arrivals: Notify,
    pub(crate) max_lost: u64,
    pub(crate) started_after: Duration,
    pub(crate) reuse_window: Duration,
    pub(crate) output_inline_max_bytes: usize,
    /// No further job is started.
    pub(crate) draining: CancellationToken,
    /// The grace is over: results that cannot be stored are given up.
    pub(crate) leaving: CancellationToken,
}

/// One queue that is served.
pub(crate) struct ServedQueue {
    pub(crate) name: Queue,
    pub(crate) jobs_subject: String,
    pub(crate) results_subject: String,
    pub(crate) counters: QueueCounters,
    pub(crate) bundler: Bundler,
    pub(crate) acks: Acks,
    pub(crate) slots: Slots,
}

/// Why a report was not stored.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The worker leaves, and there is no time for another try.
    Leaving,
    /// No stream or bucket takes it as it is, however often it is sent.
    Refused(Box<dyn std::error::Error + Send + Sync>),
}

/// What becomes of a report that the stream refuses for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnRefusal {
    /// The caller has something else to report instead.
    Return,
    /// There is nothing else: it is held until an operator puts the stream right.
    Hold,
}

impl Worker {
    /// Stores a report: retries forever, keeping it in memory, until the stream has it or the worker
    /// leaves. The delivery is kept alive meanwhile and its slot stays taken, which is the bound.
    ///
    /// A refusal that would meet this very report each time is returned, unless there is nothing else to report. One
    /// that may come from the stream's settings is waited out first: the stream's owner puts them right within
    /// [`REFUSAL_PATIENCE`](crate::patience::REFUSAL_PATIENCE), and a job that was done must not end as failed for that.
    pub(crate) async fn store(
        &self,
        queue: &ServedQueue,
        keep_alive: &KeepAliveHold,
        id: &MsgId,
        report: &Report,
        order: Option<&JobMessage<'_>>,
        on_refusal: OnRefusal,
    ) -> Result<(), NotStored> {
        let text = to_raw_value(report).expect("a report of plain values serializes");
        let reusable = order.is_some_and(|job| job.reuse) && report.is_a_run_that_succeeded();
        // What is reported because the first report was refused goes by itself, and so does a part of a trace that is
        // recorded: its message is a part too.
        if let Some(token) = order.and_then(|job| job.token.clone())
            && on_refusal == OnRefusal::Return
            && text.get().len() <= REPORT_BYTES_MAX
            && !report.is_traced()
            && queue.bundler.store(&self.nats, Bundled { token, reusable, report: text }).await
        {
            return Ok(());
        }
        // Seldom, and large as a future: each job would hold it.
        Box::pin(self.store_by_itself(queue, keep_alive, id, report, order, on_refusal)).await
    }

    async fn store_by_itself(
        &self,
        queue: &ServedQueue,
        keep_alive: &KeepAliveHold,
        id: &MsgId,
        report: &Report,
        order: Option<&JobMessage<'_>>,
        on_refusal: OnRefusal,
    ) -> Result<(), NotStored> {
        let reusable = order.is_some_and(|job| job.reuse) && report.is_a_run_that_succeeded();
        let payload: Bytes = serde_json::to_vec(report).expect("a report of plain values serializes").into();
        let mut headers = returning(order);
        if reusable {
            headers.insert(REUSABLE, "1");
        }
        if let Report::Finished(Finished { traceparent, request_id, .. }) = report {
            if let Some(traceparent) = traceparent {
                headers.insert(trace::TRACEPARENT, traceparent.as_str());
            }
            if let Some(id) = request_id {
                headers.insert(trace::REQUEST_ID, id.as_str());
            }
        }
        let (mut held, mut refused, mut patience) = (None, None, Patience::default());
        for attempt in 0.. {
            let subject = queue.results_subject.clone();
            let Err(error) = publish(&self.nats, subject, id.clone(), headers.clone(), payload.clone()).await else {
                return Ok(());
            };
            let is_for_good = patience.is_over(Answer::from(&error), Instant::now());
            if is_for_good && on_refusal == OnRefusal::Return {
                warn!(%error, "a report is refused for good");
                // Counted once, also when it was held before.
                if refused.is_none() {
                    REPORTS_REFUSED.inc(&[error.code()]);
                }
                return Err(NotStored::Refused(Box::new(error)));
            }
            if held.is_none() {
                warn!(%error, "a report is held until it can be stored");
                held = Some(self.hold());
            }
            let is_denied = || self.nats.denied().any_below(&queue.results_subject);
            if !error.is_retryable() || is_denied() {
                let reason = error.to_string();
                let noted = refused.get_or_insert_with(|| {
                    REPORTS_REFUSED.inc(&[if error.is_retryable() { "denied" } else { error.code() }]);
                    self.refusals.note(&queue.results_subject, &reason)
                });
                noted.renew(&reason);
            }
            if !self.pause(keep_alive, attempt).await {
                return Err(NotStored::Leaving);
            }
        }
        unreachable!("the tries have no end")
    }

    /// Counts something that waits for NATS, for as long as the guard lives.
    pub(crate) fn hold(&self) -> impl Drop + use<> {
        struct Held(agentforge_metrics::Gauge);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.decrement(1.0);
            }
        }
        self.handles.held.increment(1.0);
        Held(self.handles.held.clone())
    }

    /// Waits before another try, with full jitter; `false` when the worker leaves instead.
    pub(crate) async fn pause(&self, keep_alive: &KeepAliveHold, attempt: u32) -> bool {
        keep_alive.extend(SIGN_OF_LIFE_MAX);
        let ceiling = STORE_PAUSE.saturating_mul(1 << attempt.min(10)).min(STORE_PAUSE_MAX);
        let pause = rand::rng().random_range(STORE_PAUSE / 2..=ceiling);
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.leaving.cancelled() => false,
        }
    }

    /// Publishes a report without waiting for the PubAck; lost when NATS is unavailable.
    pub(crate) async fn report_unconfirmed(
        &self,
        queue: &ServedQueue,
        id: &MsgId,
        report: &Report,
        order: &JobMessage<'_>,
        parent: &trace::Parent,
    ) {
        if !self.nats.is_connected() {
            return;
        }
        let payload = serde_json::to_vec(report).expect("a report of plain values serializes");
        let mut headers = returning(Some(order));
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id.as_str());
        if let Some(traceparent) = &parent.traceparent {
            headers.insert(trace::TRACEPARENT, traceparent.as_str());
        }
        let sent = self.nats.client().publish_with_headers(queue.results_subject.clone(), headers, payload.into());
        let _ = tokio::time::timeout(STARTED_TIMEOUT, sent).await;
    }

    /// Acknowledges deliveries whose results are stored, together with those of other jobs. If that fails the messages are
    /// redelivered, which is harmless: the ledger recognises them here, the message id in the stream, the fence in SQL.
    pub(crate) async fn acknowledge(&self, queue: &ServedQueue, ack: Ack) {
        if !queue.acks.add(ack) {
            return;
        }
        tokio::select! {
            () = self.arrivals.notified() => {}
            () = queue.acks.urgent() => {}
            () = tokio::time::sleep(ACK_AFTER) => {}
            () = self.draining.cancelled() => {}
        }
        let (unconfirmed, error) = queue.acks.send_all(ACK_TIMEOUT).await;
        if let Some(error) = error {
            queue.counters.acks_unconfirmed.increment(unconfirmed);
            debug!(%error, unconfirmed, "acknowledgements were not confirmed");
        }
    }

    /// Hands a delivery back on purpose. The hand-back is counted first, so that the next worker does not take it for a lost
    /// worker; if the count fails, the delivery is handed back all the same.
    pub(crate) async fn hand_back(
        &self,
        queue: &ServedQueue,
        delivery: &Delivery,
        job: JobId,
        attempt: Attempt,
        delay: Option<Duration>,
    ) {
        if let Err(error) = Box::pin(self.buckets.count_handback(job, attempt)).await {
            warn!(error = &error as &dyn std::error::Error, %job, "a hand-back could not be counted; it will look like a lost worker");
        }
        queue.counters.handbacks.increment(1);
        if let Err(error) = delivery.nak(delay).await {
            debug!(%error, "a hand-back was not sent; redelivered after the ack wait");
        }
    }

    /// The slot of a job is free again.
    pub(crate) fn free_slot(&self, queue: usize) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.settled(queue, |queue, n| self.queues[queue].slots.grant(n));
    }

    /// A delivery took a slot.
    pub(crate) fn slot_taken(&self, queue: usize, waiting: u64) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.arrived(queue, waiting, |queue, n| self.queues[queue].slots.grant(n));
        self.arrivals.notify_waiters();
    }
}

/// The headers of a report that returns the token of its attempt. What is no header is left out: a message that is not
/// verified may say anything.
fn returning(order: Option<&JobMessage<'_>>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(token) = order.and_then(|job| job.token.as_deref()).and_then(|token| token.parse::<HeaderValue>().ok())
    {
        headers.insert(TASK_TOKEN, token);
    }
    headers
}
