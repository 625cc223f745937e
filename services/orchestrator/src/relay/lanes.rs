//! The two lanes of the relay: attempts of jobs, and the outbox.

use super::{Lane, Message, Shared};
use crate::app::{Backlog, Committer, Handoff, Lazy};
use crate::lanes::Lanes;
use crate::model::JobError;
use crate::store::{self, OutboxRow, Outgoing, Park};
use agentforge_jetstream::{publish, subjects, trace};
use agentforge_message_id::MsgId;
use agentforge_proto::bus::{ErrorClass, JobMessage};
use agentforge_proto::time::Micros;
use async_nats::{HeaderMap, HeaderValue};
use async_trait::async_trait;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// As much of a message's id as the log has.
const NAME_CHARS_MAX: usize = 200;
/// Longest trace context or request id that becomes a header.
const SOURCE_BYTES_MAX: usize = 512;

/// Attempts on their way to `swarm.jobs.<mission>.<queue>`.
pub struct JobLane {
    /// Database and owner.
    pub shared: Shared,
    /// Where marks go.
    pub committer: Committer,
    /// What the committer knows of the backlog.
    pub backlog: Arc<Backlog>,
    /// Queues that have a consumer.
    pub lanes: Lanes,
}

#[async_trait]
impl Lane for JobLane {
    type Item = Outgoing;
    const NAME: &'static str = "jobs";
    const LINGER: Duration = Duration::ZERO;
    /// The job may have been cancelled elsewhere.
    const FRESH: Option<Duration> = Some(Duration::from_secs(2));

    fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    fn seq(item: &Outgoing) -> i64 {
        item.seq
    }

    fn name(o: &Outgoing) -> String {
        format!("{}:{}", o.id, o.attempt)
    }

    fn message(&self, o: &Outgoing) -> Message {
        self.lanes.note(&o.queue);
        let message = JobMessage {
            job: o.id,
            attempt: o.attempt,
            mission: o.mission.clone(),
            queue: o.queue.clone(),
            tool: o.tool.clone(),
            task: o.task.clone(),
            args: RawValue::from_string(o.args.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            timeout_ms: u64::try_from(o.timeout.as_millis()).unwrap_or(u64::MAX),
            deadline: o.deadline,
            reuse: o.reuse,
            accepted_at: o.created_at,
        };
        let mut headers = HeaderMap::new();
        add_source(&mut headers, o.traceparent.as_deref(), o.request_id.as_deref());
        Message {
            subject: subjects::job(&o.mission, &o.queue),
            msg_id: MsgId::republished(o.id, o.attempt, o.republished),
            headers,
            payload: serde_json::to_vec(&message).expect("job messages hold strings and numbers only").into(),
        }
    }

    fn accept(&self, handoff: Handoff) -> (Vec<Outgoing>, Option<Micros>) {
        match handoff {
            Handoff::Jobs(jobs) if jobs.is_empty() => (vec![], Some(Micros::now())),
            Handoff::Jobs(jobs) => (jobs, None),
            Handoff::WakeAt(at) => (vec![], Some(at)),
            Handoff::Outbox(..) => (vec![], None),
        }
    }

    async fn claim(&self, limit: u32) -> Result<Vec<Outgoing>, store::Error> {
        let now = Micros::now();
        self.shared.store.claim_due(&self.shared.owner, now, now.plus(self.shared.claim_for), limit).await
    }

    async fn next_due(&self) -> Result<Option<Micros>, store::Error> {
        self.shared.store.next_due().await
    }

    async fn published(&self, o: Outgoing, ack: publish::Ack) {
        let seq = i64::try_from(ack.seq).unwrap_or(i64::MAX);
        self.committer.mark(Lazy::Queued(o.id, o.attempt, seq, Micros::now())).await;
    }

    async fn refused(&self, o: Outgoing, error: &publish::Error) {
        let error = JobError {
            class: ErrorClass::Validation,
            message: format!(
                "{error}; the message of this job can never be published as it is: pass large input by its address, \
                 or raise the limit and redrive the job"
            ),
            log_tail: String::new(),
        };
        self.committer.mark(Lazy::Refused(o.id, o.attempt, Box::new(error), Micros::now())).await;
    }

    async fn release(&self, items: Vec<Outgoing>) -> Result<(), store::Error> {
        if items.is_empty() {
            return Ok(());
        }
        self.backlog.note_unclaimed();
        let ids: Vec<_> = items.iter().map(|o| o.id).collect();
        self.shared.store.release(&self.shared.owner, &ids).await
    }
}

/// The trace and the request that a message goes back to. They are for those who follow a job: what is no
/// header (workers' reports bring both) is left out, and the message goes without.
fn add_source(headers: &mut HeaderMap, traceparent: Option<&str>, request_id: Option<&str>) {
    let value = |text: Option<&str>| text.filter(|t| t.len() <= SOURCE_BYTES_MAX)?.parse::<HeaderValue>().ok();
    if let Some(traceparent) = value(traceparent) {
        headers.insert(trace::TRACEPARENT, traceparent);
    }
    if let Some(request_id) = value(request_id) {
        headers.insert(trace::REQUEST_ID, request_id);
    }
}

/// The trace and the request that an event names.
#[derive(Default, serde::Deserialize)]
struct Source {
    traceparent: Option<String>,
    requestid: Option<String>,
}

/// Events and dead letters on their way out.
pub struct OutboxLane {
    /// Database and owner.
    pub shared: Shared,
    /// Where marks go.
    pub committer: Committer,
    /// What the committer knows of the backlog.
    pub backlog: Arc<Backlog>,
}

#[async_trait]
impl Lane for OutboxLane {
    type Item = OutboxRow;
    const NAME: &'static str = "outbox";
    const LINGER: Duration = Duration::from_millis(50);
    /// What happened stays true.
    const FRESH: Option<Duration> = None;

    fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    fn seq(item: &OutboxRow) -> i64 {
        item.seq
    }

    fn name(row: &OutboxRow) -> String {
        row.msg_id.chars().take(NAME_CHARS_MAX).collect()
    }

    fn message(&self, row: &OutboxRow) -> Message {
        let mut headers = HeaderMap::new();
        let is_event = row.subject.starts_with("agentforge.events.");
        headers.insert("Content-Type", if is_event { "application/cloudevents+json" } else { "application/json" });
        if is_event {
            let source: Source = serde_json::from_slice(&row.payload).unwrap_or_default();
            add_source(&mut headers, source.traceparent.as_deref(), source.requestid.as_deref());
        }
        Message {
            subject: row.subject.clone(),
            msg_id: MsgId::outbox(&row.msg_id),
            headers,
            payload: row.payload.clone().into(),
        }
    }

    fn accept(&self, handoff: Handoff) -> (Vec<OutboxRow>, Option<Micros>) {
        match handoff {
            Handoff::Outbox(rows) if rows.is_empty() => (vec![], Some(Micros::now())),
            Handoff::Outbox(rows) => (rows, None),
            Handoff::WakeAt(at) => (vec![], Some(at)),
            Handoff::Jobs(..) => (vec![], None),
        }
    }

    async fn claim(&self, limit: u32) -> Result<Vec<OutboxRow>, store::Error> {
        let now = Micros::now();
        self.shared.store.claim_outbox(&self.shared.owner, now, now.plus(self.shared.claim_for), limit).await
    }

    async fn next_due(&self) -> Result<Option<Micros>, store::Error> {
        Ok(None)
    }

    async fn published(&self, row: OutboxRow, _: publish::Ack) {
        self.committer.mark(Lazy::OutboxSent(row.seq)).await;
    }

    async fn refused(&self, row: OutboxRow, error: &publish::Error) {
        let park = Park { seq: row.seq, code: error.code(), reason: error.to_string() };
        self.committer.mark(Lazy::OutboxParked(park)).await;
    }

    async fn release(&self, _: Vec<OutboxRow>) -> Result<(), store::Error> {
        Ok(())
    }
}
