//! A dispatch task takes a message, delivers it, settles it, and takes the next. An endpoint has as many tasks as its
//! concurrency; they share one dispatcher.
//!
//! Relies on `outcome` and `schedule` for what follows an attempt. A redelivery is harmless: the receiver recognises the
//! message by its `webhook-id`, and our streams recognise our records by the event's origin.

use crate::{
    delivery::{
        caller::Caller,
        circuit::{Limits, Phase},
        flow::FlowControl,
        outcome::{AttemptEnd, Verdict},
        rate_limit::RateLimiter,
        source::{Assignment, FeedId, Message, Mode, SlotReturns, Source},
    },
    endpoints::declaration::Endpoint,
    history::{attempt::Attempt, recent::RecentAttempts},
    metrics::{Meters, PROCESSED},
    payload::{event, metadata::EventMetadata, render::render},
    retry::{
        record::Record,
        schedule::Schedule,
        store::{FailureReason, RetryStore},
    },
};
use agentforge_egress::Dialer;
use agentforge_jetstream::{Settler, trace};
use bytes::Bytes;
use jiff::Timestamp;
use rand::Rng;
use serde::Serialize;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, debug, info_span, warn};

/// What all dispatch tasks of an endpoint share.
pub struct Dispatcher {
    pub endpoint: Arc<Endpoint>,
    /// Sends the requests.
    pub caller: Caller,
    /// Stores what was not delivered.
    pub store: RetryStore,
    schedule: Schedule,
    /// Whether messages may go out now.
    pub flow: Arc<FlowControl>,
    pub meters: Arc<Meters>,
    recent: Arc<RecentAttempts>,
    limiter: Option<Mutex<RateLimiter>>,
    /// Notified when the endpoint answers 410.
    pub disabled: Notify,
}

/// What a dispatcher needs in addition to its endpoint.
pub struct DispatcherParts {
    pub dialer: Dialer,
    pub store: RetryStore,
    pub schedule: Schedule,
    pub circuit: Limits,
    pub meters: Arc<Meters>,
    pub recent: Arc<RecentAttempts>,
}

impl Dispatcher {
    /// Of an endpoint.
    pub fn new(endpoint: Arc<Endpoint>, parts: DispatcherParts) -> Self {
        let DispatcherParts { dialer, store, schedule, circuit, meters, recent } = parts;
        let caller = Caller::new(endpoint.clone(), dialer, meters.resent.clone());
        let flow = Arc::new(FlowControl::new(&endpoint.name, circuit, &meters));
        if let Some(why) = caller.fault() {
            flow.hold(why, false);
        }
        let limiter = endpoint.rate.map(|rate| Mutex::new(RateLimiter::new(rate)));
        Self { endpoint, caller, store, schedule, flow, meters, recent, limiter, disabled: Notify::new() }
    }

    /// One dispatch task: works until the stop. There are `concurrency` of them, and all take turns at the one source, so a
    /// message is taken only when a task is free for it, and a slow endpoint holds up only its own tasks.
    pub async fn run(
        self: Arc<Self>,
        source: Arc<tokio::sync::Mutex<Source>>,
        returns: Arc<SlotReturns>,
        stop: CancellationToken,
    ) {
        loop {
            let Some(assignment) = self.next(&mut *source.lock().await, &stop).await else { return };
            let feed = assignment.feed;
            // The slot is returned only after the message is settled: until then the server must not deliver another for it.
            self.meters.inflight.increment(1.0);
            let started = Instant::now();
            self.process(assignment).await;
            self.meters.processing_seconds.record(started.elapsed().as_secs_f64());
            self.meters.inflight.decrement(1.0);
            returns.release(feed);
        }
    }

    /// The next message, when the rate allows it. The source is locked, so that only one task is here: the moment that it
    /// waits for is still free when a message comes. It is reserved only then; a moment that a task reserved before there
    /// is a message would let a burst out after a quiet time.
    async fn next(&self, source: &mut Source, stop: &CancellationToken) -> Option<Assignment> {
        let Some(limiter) = &self.limiter else { return source.next().await };
        let lock = || limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let at = lock().next(Instant::now());
        tokio::select! {
            () = sleep_until(at) => {}
            () = stop.cancelled() => return None,
        }
        let assignment = source.next().await?;
        if assignment.mode != Mode::SetAside {
            lock().reserve(Instant::now());
        }
        Some(assignment)
    }

    async fn process(&self, assignment: Assignment) {
        let Assignment { message, feed, mode } = assignment;
        // From here on each way out, a dropped future included, must end the probe, or no other is ever let through.
        let probe = (mode == Mode::Probe).then(|| Probe(&self.flow));
        // A core message cannot be settled: what must not be lost of it is stored by us.
        let settler = match &message {
            Message::Stream(delivery) => Some(delivery.settler()),
            Message::Core(_) => None,
        };
        let settler = settler.as_ref();
        let Some(item) = WorkItem::read(&message, feed) else {
            // Only we publish there; a foreign message would be redelivered forever.
            warn!(endpoint = self.endpoint.name, "a message among the retries is not a record; removed");
            if let Some(settler) = settler {
                let _ = settler.term("no record of the broadcaster").await;
            }
            return;
        };
        let end = match mode {
            Mode::SetAside => {
                PROCESSED.inc(&["set_aside"]);
                self.store.set_aside(&item.record, &item.payload, settler).await
            }
            Mode::Attempt | Mode::Probe => {
                // At the end of the grace the attempt is dropped, possibly after the endpoint has taken the event: it is handed
                // back and sent again under the same webhook-id, by which the receiver knows it.
                tokio::select! {
                    settled = self.attempt_delivery(&item, settler, probe) => settled,
                    () = self.store.leaving.cancelled() => false,
                }
            }
        };
        let Some(settler) = settler else { return };
        // If the acknowledgement is lost the message is redelivered, which is harmless.
        let settled = if end {
            settler.ack().await
        } else {
            PROCESSED.inc(&["handed_back"]);
            settler.nak(None).await
        };
        if let Err(error) = settled {
            debug!(endpoint = self.endpoint.name, %error, "not settled; redelivered later");
        }
    }

    /// One attempt and what follows from it. `false`: nothing was stored, and the message is handed back.
    async fn attempt_delivery(&self, item: &WorkItem, settler: Option<&Settler>, probe: Option<Probe<'_>>) -> bool {
        let WorkItem { record, payload } = item;
        let event = match event::parse(payload) {
            Ok(event) => event,
            Err(error) => {
                drop(probe);
                return self
                    .dead_letter(item, "invalid", &error.to_string(), None, Duration::ZERO, "dead", settler)
                    .await;
            }
        };
        let about = EventMetadata { id: &record.id, subject: &record.subject, at: record.at };
        let body = render(self.endpoint.format, &event, about, payload);
        let attempt = record.attempts + 1;
        let span = match &record.trace {
            Some(headers) => {
                let span = info_span!(
                    "webhook",
                    endpoint = self.endpoint.name,
                    webhook_id = record.id,
                    attempt,
                    request_id = trace::request_id(Some(headers)),
                    otel.name = format!("POST {}", self.endpoint.name),
                    otel.kind = "client"
                );
                trace::set_parent(&span, Some(headers));
                trace::describe(&span, [("http.request.method", "POST".into())]);
                span
            }
            None => Span::none(),
        };
        let started = Instant::now();
        let end = self.caller.call(record, body, &span, started).instrument(span.clone()).await;
        let took = started.elapsed();
        let verdict = end.verdict(&self.endpoint.retry_4xx);
        match end.status() {
            Some(status) => trace::describe(&span, [("http.response.status_code", i64::from(status).into())]),
            None => trace::describe(&span, [("error.type", end.reason().into())]),
        }
        // Counted before the probe ends: `count` moves the circuit by its outcome, and ending an undecided probe would only
        // let the next one through.
        self.count(&end, &verdict, took, probe.is_some());
        drop(probe);
        if verdict == Verdict::Hold {
            // Nothing was sent, so no attempt is counted. An event that no stream keeps is stored here.
            return match settler {
                Some(_) => false,
                None => self.store.set_aside(record, payload, None).await,
            };
        }
        // Only now is it an attempt: what is stored below carries the number, so that no restart grants further ones.
        let item = WorkItem { record: Record { attempts: attempt, ..record.clone() }, payload: payload.clone() };
        match verdict {
            Verdict::Delivered => {
                span.in_scope(|| debug!("event delivered"));
                let lag = Timestamp::now().duration_since(item.record.at).as_secs_f64();
                self.meters.lag_seconds.record(lag.max(0.0));
                self.meters.delivered();
                self.recent.add(self.attempt(item.record, "delivered", &end, took, None));
                true
            }
            // With an open circuit the endpoint is at fault and not the event: such an event is retried.
            Verdict::Refused { .. } if self.flow.phase() == Phase::Closed => {
                self.dead_letter(&item, end.reason(), &end.detail(), end.status(), took, "dead", settler).await
            }
            Verdict::Retry { after } | Verdict::Refused { after } => {
                let random = rand::rng().random();
                match self.schedule.pause(attempt, after, random) {
                    Some(pause) => self.park(item, &end, pause, took, settler).await,
                    None => {
                        let detail = format!("{attempt} attempts, the last: {}", end.detail());
                        self.dead_letter(&item, end.reason(), &detail, end.status(), took, "dead", settler).await
                    }
                }
            }
            Verdict::Hold => false,
            Verdict::Disable => {
                warn!(endpoint = self.endpoint.name, "the endpoint answered 410; no more events until it is enabled");
                self.disabled.notify_one();
                self.dead_letter(&item, end.reason(), &end.detail(), end.status(), took, "disabled", settler).await
            }
        }
    }

    fn count(&self, end: &AttemptEnd, verdict: &Verdict, took: Duration, is_probe: bool) {
        self.meters.request_seconds.record(took.as_secs_f64());
        if let Some(status) = end.status() {
            self.meters.answered(status);
        }
        if *verdict != Verdict::Delivered {
            self.meters.failed(end.reason());
        }
        match verdict {
            Verdict::Delivered | Verdict::Disable => self.flow.succeeded(),
            // Many refusals in a row say more about the endpoint than about the events.
            Verdict::Retry { .. } | Verdict::Refused { .. } => self.flow.failed(is_probe),
            Verdict::Hold => self.flow.hold(end.detail(), is_probe),
        }
    }

    async fn park(
        &self,
        item: WorkItem,
        end: &AttemptEnd,
        pause: Duration,
        took: Duration,
        settler: Option<&Settler>,
    ) -> bool {
        let due = self.store.clock.now().checked_add(pause).unwrap_or(Timestamp::MAX);
        let detail = end.detail();
        let why = FailureReason { reason: end.reason(), detail: &detail };
        let stored = self.store.park(&item.record, why, due, &item.payload, settler).await;
        if stored {
            PROCESSED.inc(&["retried"]);
            self.recent.add(self.attempt(item.record, "retried", end, took, Some(due)));
        }
        stored
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a dead letter; a struct would only rename them")]
    async fn dead_letter(
        &self,
        item: &WorkItem,
        reason: &'static str,
        detail: &str,
        status: Option<u16>,
        took: Duration,
        outcome: &'static str,
        settler: Option<&Settler>,
    ) -> bool {
        let stored =
            self.store.dead_letter(&item.record, FailureReason { reason, detail }, &item.payload, settler).await;
        if stored {
            debug!(endpoint = self.endpoint.name, webhook_id = item.record.id, reason, detail, "dead letter");
            self.meters.dead(reason);
            let Record { id, subject, attempts, .. } = item.record.clone();
            let took_ms = took.as_secs_f64() * 1e3;
            let (endpoint, detail) = (self.endpoint.name.clone(), detail.to_owned());
            let at = Timestamp::now();
            #[rustfmt::skip] // a line for each field would be a page
            self.recent.add(Attempt { n: 0, replica: String::new(), at, endpoint, webhook_id: id, subject, attempt: attempts, outcome: outcome.into(), status, took_ms, reason: reason.into(), detail, next_at: None });
        }
        stored
    }

    fn attempt(
        &self,
        record: Record,
        outcome: &'static str,
        end: &AttemptEnd,
        took: Duration,
        next_at: Option<Timestamp>,
    ) -> Attempt {
        let is_good = outcome == "delivered";
        Attempt {
            n: 0,
            replica: String::new(),
            at: Timestamp::now(),
            endpoint: self.endpoint.name.clone(),
            webhook_id: record.id,
            subject: record.subject,
            attempt: record.attempts,
            outcome: outcome.into(),
            status: end.status(),
            took_ms: took.as_secs_f64() * 1e3,
            reason: if is_good { "".into() } else { end.reason().into() },
            detail: if is_good { String::new() } else { end.detail() },
            next_at,
        }
    }
}

/// A probe that ends without an answer of the endpoint lets the next one go.
struct Probe<'a>(&'a FlowControl);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.abandon_probe();
    }
}

/// A message with its record.
struct WorkItem {
    record: Record,
    payload: Bytes,
}

impl WorkItem {
    /// `None` for a message in the stream of retries that is not a record.
    fn read(message: &Message, feed: FeedId) -> Option<Self> {
        let (record, payload) = match (message, feed) {
            (Message::Core(m), _) => (Record::of_core(&m.subject, m.headers.as_ref(), Timestamp::now()), &m.payload),
            (Message::Stream(d), FeedId::Events(_)) => {
                (Record::of_event(d.info(), d.subject(), d.headers()), d.payload())
            }
            (Message::Stream(d), FeedId::Retries) => (Record::of_headers(d.headers())?, d.payload()),
        };
        Some(Self { record, payload: payload.clone() })
    }
}

/// The outcome of a test of an endpoint.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TestOutcome {
    /// Whether the endpoint answered 2xx.
    pub delivered: bool,
    /// The HTTP status of its answer; null when there was none.
    pub status: Option<u16>,
    /// The reason as in the labels of metrics, or `delivered`.
    pub reason: &'static str,
    /// The reason in words; empty when there is none.
    pub detail: String,
    /// From the request to the end of the answer, in milliseconds.
    pub took_ms: f64,
    /// The `webhook-id` of the event that was sent.
    pub webhook_id: String,
}

impl Dispatcher {
    /// Sends a test event now, signed like any other, and stores nothing of it.
    pub async fn test(&self) -> TestOutcome {
        let now = Timestamp::now();
        let id = format!("test-{}", uuid::Uuid::now_v7());
        let payload = Bytes::from(format!(
            r#"{{"specversion":"1.0","type":"agentforge.test","source":"/agentforge/broadcaster","id":"{id}","time":"{now}","data":{{"endpoint":"{}","message":"a test of this endpoint"}}}}"#,
            self.endpoint.name
        ));
        let subject = "agentforge.events.test".to_owned();
        let record = Record { id: id.clone(), origin: id, subject, attempts: 1, at: now, trace: None };
        let event = event::parse(&payload).unwrap_or_default();
        let about = EventMetadata { id: &record.id, subject: &record.subject, at: now };
        let body = render(self.endpoint.format, &event, about, &payload);
        let started = Instant::now();
        let end = self.caller.call(&record, body, &Span::none(), started).await;
        let took = started.elapsed();
        let delivered = end.verdict(&self.endpoint.retry_4xx) == Verdict::Delivered;
        let webhook_id = record.id.clone();
        self.recent.add(self.attempt(record, if delivered { "delivered" } else { "test_failed" }, &end, took, None));
        let (status, reason, detail) = (end.status(), end.reason(), end.detail());
        TestOutcome { delivered, status, reason, detail, took_ms: took.as_secs_f64() * 1e3, webhook_id }
    }
}
