//! One lane: takes a message, delivers it, settles it, takes the next.
//!
//! Relies on `outcome` and `schedule` for what follows an attempt. A redelivery is harmless: the receiver
//! knows the message by its `webhook-id`, and our records by the place that the event came from.

use crate::{
    delivery::{
        caller::Caller,
        circuit::{Limits, Phase},
        flow::Gate,
        outcome::{Ended, Verdict},
        rate_limit::Pace,
        source::{From, How, Message, Returns, Source, Taken},
    },
    endpoints::declaration::Endpoint,
    history::recent::{Attempt, DeliveryLog},
    metrics::{Meters, PROCESSED},
    payload::{
        event,
        render::{About, render},
    },
    retry::{
        record::Record,
        schedule::Schedule,
        store::{Store, Why},
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

/// What all lanes of an endpoint share.
pub struct Desk {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Calls it.
    pub caller: Caller,
    /// Keeps what was not delivered.
    pub store: Store,
    /// Pauses.
    schedule: Schedule,
    /// The circuit.
    pub gate: Arc<Gate>,
    /// Counters.
    pub meters: Arc<Meters>,
    /// For people.
    log: Arc<DeliveryLog>,
    pace: Option<Mutex<Pace>>,
    /// Fires when the endpoint answered 410.
    pub disabled: Notify,
}

/// The parts of a desk besides its endpoint.
pub struct Parts {
    /// Opens connections.
    pub dialer: Dialer,
    /// Keeps what was not delivered.
    pub store: Store,
    /// Pauses.
    pub schedule: Schedule,
    /// When the circuit opens.
    pub circuit: Limits,
    /// Counters.
    pub meters: Arc<Meters>,
    /// For people.
    pub log: Arc<DeliveryLog>,
}

impl Desk {
    /// Of an endpoint.
    pub fn new(endpoint: Arc<Endpoint>, parts: Parts) -> Self {
        let Parts { dialer, store, schedule, circuit, meters, log } = parts;
        let caller = Caller::new(endpoint.clone(), dialer, meters.resent.clone());
        let gate = Arc::new(Gate::new(&endpoint.name, circuit, &meters));
        if let Some(why) = caller.fault() {
            gate.hold(why, false);
        }
        let pace = endpoint.rate.map(|rate| Mutex::new(Pace::new(rate)));
        Self { endpoint, caller, store, schedule, gate, meters, log, pace, disabled: Notify::new() }
    }

    /// Works until the stop.
    pub async fn lane(
        self: Arc<Self>,
        source: Arc<tokio::sync::Mutex<Source>>,
        returns: Arc<Returns>,
        stop: CancellationToken,
    ) {
        loop {
            let Some(taken) = self.next(&mut *source.lock().await, &stop).await else { return };
            let from = taken.from;
            self.meters.inflight.increment(1.0);
            let started = Instant::now();
            self.work(taken).await;
            self.meters.processing_seconds.record(started.elapsed().as_secs_f64());
            self.meters.inflight.decrement(1.0);
            returns.release(from);
        }
    }

    /// The next message, when it may go. One lane at a time is here, so the moment that it waits for is still free
    /// when a message comes; it is taken then and not before, however long there was none.
    async fn next(&self, source: &mut Source, stop: &CancellationToken) -> Option<Taken> {
        let Some(pace) = &self.pace else { return source.next().await };
        let lock = || pace.lock().unwrap_or_else(PoisonError::into_inner);
        let at = lock().next(Instant::now());
        tokio::select! {
            () = sleep_until(at) => {}
            () = stop.cancelled() => return None,
        }
        let taken = source.next().await?;
        if taken.how != How::SetAside {
            lock().take(Instant::now());
        }
        Some(taken)
    }

    async fn work(&self, taken: Taken) {
        let Taken { message, from, how } = taken;
        let probe = (how == How::Probe).then(|| Probe(&self.gate));
        let settler = match &message {
            Message::Stream(delivery) => Some(delivery.settler()),
            Message::Core(_) => None,
        };
        let settler = settler.as_ref();
        let Some(work) = Work::read(&message, from) else {
            // Only we publish there; a foreign message would be redelivered forever.
            warn!(endpoint = self.endpoint.name, "a message among the retries is not a record; removed");
            if let Some(settler) = settler {
                let _ = settler.term("no record of the broadcaster").await;
            }
            return;
        };
        let ended = match how {
            How::SetAside => {
                PROCESSED.inc(&["set_aside"]);
                self.store.set_aside(&work.record, &work.payload, settler).await
            }
            How::Try | How::Probe => {
                tokio::select! {
                    settled = self.deliver(&work, settler, probe) => settled,
                    () = self.store.leaving.cancelled() => false,
                }
            }
        };
        let Some(settler) = settler else { return };
        // An acknowledgement that is lost brings the message again, which is harmless.
        let told = match ended {
            true => settler.ack().await,
            false => {
                PROCESSED.inc(&["handed_back"]);
                settler.nak(None).await
            }
        };
        if let Err(error) = told {
            debug!(endpoint = self.endpoint.name, %error, "not settled; redelivered later");
        }
    }

    /// One attempt and what follows. `false`: nothing was stored, the message goes back.
    async fn deliver(&self, work: &Work, settler: Option<&Settler>, probe: Option<Probe<'_>>) -> bool {
        let Work { record, payload } = work;
        let event = match event::parse(payload) {
            Ok(event) => event,
            Err(error) => {
                drop(probe);
                return self.bury(work, "invalid", &error.to_string(), None, Duration::ZERO, "dead", settler).await;
            }
        };
        let about = About { id: &record.id, subject: &record.subject, at: record.at };
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
        let ended = self.caller.call(record, body, &span, started).instrument(span.clone()).await;
        let took = started.elapsed();
        let verdict = ended.verdict(&self.endpoint.retry_4xx);
        match ended.status() {
            Some(status) => trace::describe(&span, [("http.response.status_code", i64::from(status).into())]),
            None => trace::describe(&span, [("error.type", ended.reason().into())]),
        }
        self.count(&ended, &verdict, took, probe.is_some());
        drop(probe);
        if verdict == Verdict::Hold {
            // Nothing was tried, so there is no attempt to count. What no stream keeps is kept by us.
            return match settler {
                Some(_) => false,
                None => self.store.set_aside(record, payload, None).await,
            };
        }
        let work = Work { record: Record { attempts: attempt, ..record.clone() }, payload: payload.clone() };
        match verdict {
            Verdict::Delivered => {
                span.in_scope(|| debug!("event delivered"));
                let lag = Timestamp::now().duration_since(work.record.at).as_secs_f64();
                self.meters.lag_seconds.record(lag.max(0.0));
                self.meters.delivered();
                self.log.add(self.attempt(work.record, "delivered", &ended, took, None));
                true
            }
            // While the circuit is open it is the endpoint that is doubted, and not the event.
            Verdict::Refused { .. } if self.gate.phase() == Phase::Closed => {
                self.bury(&work, ended.reason(), &ended.detail(), ended.status(), took, "dead", settler).await
            }
            Verdict::Retry { after } | Verdict::Refused { after } => {
                let random = rand::rng().random();
                match self.schedule.pause(attempt, after, random) {
                    Some(pause) => self.park(work, &ended, pause, took, settler).await,
                    None => {
                        let detail = format!("{attempt} attempts, the last: {}", ended.detail());
                        self.bury(&work, ended.reason(), &detail, ended.status(), took, "dead", settler).await
                    }
                }
            }
            Verdict::Hold => false,
            Verdict::Disable => {
                warn!(endpoint = self.endpoint.name, "the endpoint answered 410; no more events until it is enabled");
                self.disabled.notify_one();
                self.bury(&work, ended.reason(), &ended.detail(), ended.status(), took, "disabled", settler).await
            }
        }
    }

    fn count(&self, ended: &Ended, verdict: &Verdict, took: Duration, is_probe: bool) {
        self.meters.request_seconds.record(took.as_secs_f64());
        if let Some(status) = ended.status() {
            self.meters.answered(status);
        }
        if *verdict != Verdict::Delivered {
            self.meters.failed(ended.reason());
        }
        match verdict {
            Verdict::Delivered | Verdict::Disable => self.gate.succeeded(),
            // Many refusals in a row say more of the endpoint than of the events.
            Verdict::Retry { .. } | Verdict::Refused { .. } => self.gate.failed(is_probe),
            Verdict::Hold => self.gate.hold(ended.detail(), is_probe),
        }
    }

    async fn park(
        &self,
        work: Work,
        ended: &Ended,
        pause: Duration,
        took: Duration,
        settler: Option<&Settler>,
    ) -> bool {
        let due = self.store.clock.now().checked_add(pause).unwrap_or(Timestamp::MAX);
        let detail = ended.detail();
        let why = Why { reason: ended.reason(), detail: &detail };
        let stored = self.store.park(&work.record, why, due, &work.payload, settler).await;
        if stored {
            PROCESSED.inc(&["retried"]);
            self.log.add(self.attempt(work.record, "retried", ended, took, Some(due)));
        }
        stored
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a dead letter; a struct would only rename them")]
    async fn bury(
        &self,
        work: &Work,
        reason: &'static str,
        detail: &str,
        status: Option<u16>,
        took: Duration,
        outcome: &'static str,
        settler: Option<&Settler>,
    ) -> bool {
        let stored = self.store.bury(&work.record, Why { reason, detail }, &work.payload, settler).await;
        if stored {
            debug!(endpoint = self.endpoint.name, webhook_id = work.record.id, reason, detail, "dead letter");
            self.meters.dead(reason);
            let Record { id, subject, attempts, .. } = work.record.clone();
            let took_ms = took.as_secs_f64() * 1e3;
            let (endpoint, detail) = (self.endpoint.name.clone(), detail.to_owned());
            let at = Timestamp::now();
            #[rustfmt::skip] // one line a fact would be a page
            self.log.add(Attempt { n: 0, replica: String::new(), at, endpoint, webhook_id: id, subject, attempt: attempts, outcome: outcome.into(), status, took_ms, reason: reason.into(), detail, next_at: None });
        }
        stored
    }

    fn attempt(
        &self,
        record: Record,
        outcome: &'static str,
        ended: &Ended,
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
            status: ended.status(),
            took_ms: took.as_secs_f64() * 1e3,
            reason: if is_good { "".into() } else { ended.reason().into() },
            detail: if is_good { String::new() } else { ended.detail() },
            next_at,
        }
    }
}

/// A probe that ends without a word of the endpoint lets the next one go.
struct Probe<'a>(&'a Gate);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.abandon_probe();
    }
}

/// A message as it is worked on.
struct Work {
    record: Record,
    payload: Bytes,
}

impl Work {
    /// `None` for a message in the stream of retries that is not a record.
    fn read(message: &Message, from: From) -> Option<Self> {
        let (record, payload) = match (message, from) {
            (Message::Core(m), _) => (Record::of_core(&m.subject, m.headers.as_ref(), Timestamp::now()), &m.payload),
            (Message::Stream(d), From::Event(_)) => (Record::of_event(d.info(), d.subject(), d.headers()), d.payload()),
            (Message::Stream(d), From::Due) => (Record::of_headers(d.headers())?, d.payload()),
        };
        Some(Self { record, payload: payload.clone() })
    }
}

/// What a test of an endpoint found.
#[derive(Debug, Serialize)]
pub struct Tested {
    /// Whether the endpoint took it.
    pub delivered: bool,
    /// What it answered.
    pub status: Option<u16>,
    /// Short name of what went wrong, or `delivered`.
    pub reason: &'static str,
    /// In words.
    pub detail: String,
    /// Milliseconds.
    pub took_ms: f64,
    /// Of the event that was sent.
    pub webhook_id: String,
}

impl Desk {
    /// Sends one event of our own now, signed as any other, and keeps nothing of it.
    pub async fn test(&self) -> Tested {
        let now = Timestamp::now();
        let id = format!("test-{}", uuid::Uuid::now_v7());
        let payload = Bytes::from(format!(
            r#"{{"specversion":"1.0","type":"agentforge.test","source":"/agentforge/broadcaster","id":"{id}","time":"{now}","data":{{"endpoint":"{}","message":"a test of this endpoint"}}}}"#,
            self.endpoint.name
        ));
        let subject = "agentforge.events.test".to_owned();
        let record = Record { id: id.clone(), origin: id, subject, attempts: 1, at: now, trace: None };
        let event = event::parse(&payload).unwrap_or_default();
        let about = About { id: &record.id, subject: &record.subject, at: now };
        let body = render(self.endpoint.format, &event, about, &payload);
        let started = Instant::now();
        let ended = self.caller.call(&record, body, &Span::none(), started).await;
        let took = started.elapsed();
        let delivered = ended.verdict(&self.endpoint.retry_4xx) == Verdict::Delivered;
        let webhook_id = record.id.clone();
        self.log.add(self.attempt(record, if delivered { "delivered" } else { "test_failed" }, &ended, took, None));
        let (status, reason, detail) = (ended.status(), ended.reason(), ended.detail());
        Tested { delivered, status, reason, detail, took_ms: took.as_secs_f64() * 1e3, webhook_id }
    }
}
