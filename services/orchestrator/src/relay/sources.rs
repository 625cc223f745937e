//! The two sources of the relay: attempts of jobs, and the outbox.
//!
//! A line of the first is a queue. Of the second it is all events, whose order is one, or the dead letters of one
//! queue: a subject that is denied, or a stream that is full, holds nothing else.

use super::capacity::{StreamCapacity, Verdict};
use super::source::{Shared, Source};
use crate::app::{Backlog, Committer, Lazy, PAUSED, Pauses};
use crate::keys::Keys;
use crate::model::JobError;
use crate::store::{self, EVENTS, OutboxPick, OutboxRow, Outgoing, Park, Pick};
use agentforge_jetstream::{publish, subjects, trace};
use agentforge_message_id::{MsgId, Queue};
use agentforge_proto::bus::{ErrorClass, JobMessage};
use agentforge_proto::time::Micros;
use agentforge_signing::leaf;
use async_nats::{HeaderMap, HeaderValue};
use async_trait::async_trait;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// As much of a message's id as the log has.
const NAME_CHARS_MAX: usize = 200;
/// Longest trace context or request id that becomes a header.
const ORIGIN_BYTES_MAX: usize = 512;

/// Attempts on their way to `swarm.jobs.<mission>.<queue>`.
pub struct JobSource {
    /// What due items are claimed with.
    pub shared: Shared,
    /// Takes the marks of what was published or refused.
    pub committer: Committer,
    /// What the committer knows of the backlog.
    pub backlog: Arc<Backlog>,
    /// How much of `swarm_jobs` each queue may use.
    pub capacity: StreamCapacity,
    /// Which queues are paused.
    pub(crate) pauses: Pauses,
    /// What signs them, and makes their tokens.
    pub keys: Keys,
    /// How long a signature is good.
    pub valid_for: Duration,
}

/// The size of a message in the stream besides the caller's part: the rest of its JSON, headers with the signature, the
/// record.
const OVERHEAD_BYTES: usize = 896;

fn bytes_of(o: &Outgoing) -> u64 {
    (o.args.len() + o.task.as_ref().map_or(0, String::len) + OVERHEAD_BYTES) as u64
}

fn queues(held: Vec<String>) -> Vec<Queue> {
    held.into_iter().filter_map(|line| Queue::new(line).ok()).collect()
}

#[async_trait]
impl Source for JobSource {
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

    fn line(o: &Outgoing) -> &str {
        o.queue.as_str()
    }

    fn queue_of(line: &str) -> &str {
        line
    }

    fn name(o: &Outgoing, _: usize) -> String {
        format!("{}:{}", o.id, o.attempt)
    }

    fn parts(_: &Outgoing) -> usize {
        1
    }

    fn keep(_: &mut Outgoing, _: &[usize]) {}

    fn messages(&self, o: &Outgoing) -> Vec<publish::Outgoing> {
        let message = JobMessage {
            job: o.id,
            attempt: o.attempt,
            mission: o.mission.clone(),
            queue: o.queue.clone(),
            tool: o.tool.clone(),
            task: o.task.clone(),
            args: Cow::Borrowed(serde_json::from_str(&o.args).unwrap_or(RawValue::NULL)),
            timeout_ms: u64::try_from(o.timeout.as_millis()).unwrap_or(u64::MAX),
            deadline: o.deadline,
            reuse: o.reuse,
            accepted_at: o.created_at,
            scheduled_at: o.scheduled_at,
            token: Some(self.keys.token(&o.mission, &o.queue, o.id, o.attempt)),
        };
        let mut headers = HeaderMap::new();
        add_origin(&mut headers, o.traceparent.as_deref(), o.request_id.as_deref());
        vec![publish::Outgoing {
            subject: subjects::job(&o.mission, &o.queue).into(),
            id: MsgId::republished(o.id, o.attempt, o.republished),
            headers,
            payload: serde_json::to_vec(&message).expect("job messages hold strings and numbers only").into(),
        }]
    }

    fn sign(&self, messages: &mut [publish::Outgoing]) {
        let issued = Micros::now();
        let until = issued.plus(self.valid_for);
        let leaves: Vec<_> = messages.iter().map(|m| leaf(&m.subject, m.id.as_str(), &m.payload)).collect();
        let signatures = self.keys.now().sign(&leaves, issued.millis(), until.millis());
        for (message, signature) in messages.iter_mut().zip(signatures) {
            message.headers.insert(agentforge_signing::HEADER, signature.as_str());
        }
    }

    fn waits(&self, line: &str) -> Option<&'static str> {
        self.pauses.holds(line).then_some(PAUSED)
    }

    fn reserve(&self, o: &Outgoing) -> Result<(), publish::Error> {
        let bytes = bytes_of(o);
        let subject = || subjects::job(&o.mission, &o.queue);
        match self.capacity.reserve(o.queue.as_str(), bytes) {
            Verdict::Fits => Ok(()),
            Verdict::Waits { used, max } => {
                let reason = format!(
                    "the queue uses {used} bytes of swarm_jobs and leaves fewer free of its {max}, JOBS_MAX_BYTES; \
                     each queue uses at most as much as is left for the others"
                );
                Err(publish::Error::Full { subject: subject(), reason })
            }
            Verdict::Never { max } => {
                let reason = format!("swarm_jobs takes {max} in all, JOBS_MAX_BYTES or EDGE_JS_MAX_BYTES");
                let size = usize::try_from(bytes).unwrap_or(usize::MAX);
                Err(publish::Error::TooLarge { subject: subject(), size, limit_of: publish::LimitOf::Stream, reason })
            }
        }
    }

    fn may_try(&self, line: &str) -> bool {
        self.capacity.has_room(line)
    }

    fn cancel_reservation(&self, o: &Outgoing) {
        self.capacity.release(o.queue.as_str(), bytes_of(o));
    }

    async fn claim(&self, limit: u32, held: Vec<String>) -> Result<Vec<Outgoing>, store::Error> {
        let (now, pick) = (Micros::now(), Pick::AllBut(queues(held)));
        self.shared.store.claim_due_of(&self.shared.owner, now, now.plus(self.shared.claim_for), limit, &pick).await
    }

    async fn claim_of(&self, line: &str) -> Result<Option<Outgoing>, store::Error> {
        let Ok(queue) = Queue::new(line) else { return Ok(None) };
        let (now, pick) = (Micros::now(), Pick::Only(queue));
        let until = now.plus(self.shared.claim_for);
        Ok(self.shared.store.claim_due_of(&self.shared.owner, now, until, 1, &pick).await?.pop())
    }

    async fn next_due(&self, held: Vec<String>) -> Result<Option<Micros>, store::Error> {
        self.shared.store.next_due_of(&Pick::AllBut(queues(held))).await
    }

    async fn settled(&self, o: Outgoing, ack: Option<publish::Ack>) {
        let Some(ack) = ack else { return };
        self.capacity.stored(o.queue.as_str(), bytes_of(&o));
        self.backlog.note_published();
        let seq = i64::try_from(ack.seq).unwrap_or(i64::MAX);
        self.committer.mark(Lazy::Queued(o.id, o.attempt, seq, Micros::now())).await;
    }

    async fn refused(&self, o: &Outgoing, _: usize, error: &publish::Error) {
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
fn add_origin(headers: &mut HeaderMap, traceparent: Option<&str>, request_id: Option<&str>) {
    let value = |text: Option<&str>| text.filter(|t| t.len() <= ORIGIN_BYTES_MAX)?.parse::<HeaderValue>().ok();
    if let Some(traceparent) = value(traceparent) {
        headers.insert(trace::TRACEPARENT, traceparent);
    }
    if let Some(request_id) = value(request_id) {
        headers.insert(trace::REQUEST_ID, request_id);
    }
}

/// Events and dead letters on their way out.
pub struct OutboxSource {
    /// What due items are claimed with.
    pub shared: Shared,
    /// Takes the marks of what was published or refused.
    pub committer: Committer,
    /// What the committer knows of the backlog.
    pub backlog: Arc<Backlog>,
}

#[async_trait]
impl Source for OutboxSource {
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

    fn line(row: &OutboxRow) -> &str {
        row.line()
    }

    fn queue_of(line: &str) -> &str {
        line.rsplit('.').find(|token| !token.is_empty()).unwrap_or_default()
    }

    fn name(row: &OutboxRow, part: usize) -> String {
        row.messages.get(part).map(|m| m.msg_id.chars().take(NAME_CHARS_MAX).collect()).unwrap_or_default()
    }

    fn parts(row: &OutboxRow) -> usize {
        row.messages.len()
    }

    fn keep(row: &mut OutboxRow, left: &[usize]) {
        let mut place = 0;
        row.messages.retain(|_| {
            place += 1;
            left.binary_search(&(place - 1)).is_ok()
        });
    }

    fn messages(&self, row: &OutboxRow) -> Vec<publish::Outgoing> {
        let messages = row.messages.iter().map(|m| {
            let mut headers = HeaderMap::new();
            let is_event = m.subject.starts_with(EVENTS);
            headers.insert("Content-Type", if is_event { "application/cloudevents+json" } else { "application/json" });
            add_origin(&mut headers, m.origin.traceparent.as_deref(), m.origin.requestid.as_deref());
            publish::Outgoing {
                subject: m.subject.as_str().into(),
                id: MsgId::outbox(&m.msg_id),
                headers,
                payload: m.payload.clone(),
            }
        });
        messages.collect()
    }

    /// Who reads events and dead letters is not known here: the server's limits are the only ones.
    fn reserve(&self, _: &OutboxRow) -> Result<(), publish::Error> {
        Ok(())
    }

    fn may_try(&self, _: &str) -> bool {
        true
    }

    fn cancel_reservation(&self, _: &OutboxRow) {}

    async fn claim(&self, limit: u32, held: Vec<String>) -> Result<Vec<OutboxRow>, store::Error> {
        let (now, pick) = (Micros::now(), OutboxPick::AllBut(held));
        self.shared.store.claim_outbox_of(&self.shared.owner, now, now.plus(self.shared.claim_for), limit, &pick).await
    }

    async fn claim_of(&self, line: &str) -> Result<Option<OutboxRow>, store::Error> {
        let (now, pick) = (Micros::now(), OutboxPick::Only(line.to_owned()));
        let until = now.plus(self.shared.claim_for);
        Ok(self.shared.store.claim_outbox_of(&self.shared.owner, now, until, 1, &pick).await?.pop())
    }

    async fn next_due(&self, _: Vec<String>) -> Result<Option<Micros>, store::Error> {
        Ok(None)
    }

    async fn settled(&self, row: OutboxRow, _: Option<publish::Ack>) {
        self.committer.mark(Lazy::OutboxSent(row.seq)).await;
    }

    async fn refused(&self, row: &OutboxRow, part: usize, error: &publish::Error) {
        let Some(message) = row.messages.get(part).cloned() else { return };
        let park = Park { seq: row.seq, message, code: error.code(), reason: error.to_string() };
        self.committer.mark(Lazy::OutboxParked(park)).await;
    }

    async fn release(&self, rows: Vec<OutboxRow>) -> Result<(), store::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        self.backlog.note_unclaimed();
        let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
        self.shared.store.release_outbox(&self.shared.owner, &seqs).await
    }
}
