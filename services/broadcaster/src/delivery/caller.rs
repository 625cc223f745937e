//! Calls one endpoint: builds the request, signs it, and keeps connections for the next.
//!
//! Relies on `libs/egress` for what may be called. A call has one bound on its time, connection and whole answer included,
//! so an endpoint that sends a byte now and then gains no more time than one that sends nothing.

use crate::{
    delivery::outcome::{AttemptEnd, retry_after},
    endpoints::declaration::Endpoint,
    retry::record::Record,
};
use agentforge_egress::{Answer, CallError, Connection, DialError, Dialer, Target, TargetError};
use agentforge_jetstream::{HeaderMap as NatsHeaders, trace};
use agentforge_metrics::Counter;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::{Span, warn};

/// Of an answer's body so much is read; more ends the connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A connection is given up after this, so that a name that moved is followed.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(300);
/// A connection that was idle for this long is closed. Servers close theirs after 5 s (node, uvicorn) or more, and a
/// request that crosses such a close has to be sent twice.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Connections that are opened at once. Names are resolved on a thread each, of which the process has a few
/// hundred: an endpoint whose name servers hang must not take them all.
const DIALS_MAX: usize = 8;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// The caller of one endpoint.
pub struct Caller {
    endpoint: Arc<Endpoint>,
    /// Where it is, if it may be called at all.
    target: Result<Target, TargetError>,
    /// What every request has.
    headers: HeaderMap,
    dialer: Dialer,
    /// Idle open connections; the last one used is taken first, so that few are kept.
    idle: Mutex<Vec<(Connection, Instant)>>,
    dials: Semaphore,
    resent: Counter,
}

impl Caller {
    /// Prepares what every request has. `resent` counts those that are sent once more.
    pub fn new(endpoint: Arc<Endpoint>, dialer: Dialer, resent: Counter) -> Self {
        let target = endpoint.target(dialer.policy());
        if let Err(error) = &target {
            warn!(endpoint = endpoint.name, %error, "this endpoint may not be called; its events wait");
        }
        let mut headers = HeaderMap::new();
        if let Ok(target) = &target {
            headers.insert(header::HOST, target.host_header().clone());
            if let Some(login) = target.authorization() {
                headers.insert(header::AUTHORIZATION, login.clone());
            }
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(endpoint.format.content_type()));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("agentforge/", env!("CARGO_PKG_VERSION"))));
        headers.extend(endpoint.headers.iter().cloned());
        let dials = Semaphore::new(DIALS_MAX);
        Self { endpoint, target, headers, dialer, idle: Mutex::default(), dials, resent }
    }

    /// Why it may not be called, because of its URL.
    pub fn fault(&self) -> Option<String> {
        self.target.as_ref().err().map(ToString::to_string)
    }

    /// Closes connections that were idle for a while.
    pub fn close_idle(&self) {
        let now = Instant::now();
        self.idle().retain(|(_, since)| now - *since < IDLE_MAX);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it. A connection that the endpoint closed while it was idle costs nothing: the request is sent once
    /// more on a fresh one. That is harmless even if the first one was read, for the endpoint knows the event by its
    /// `webhook-id`. A fresh connection that breaks is a failed attempt.
    pub async fn call(&self, record: &Record, body: Bytes, span: &Span, started: Instant) -> AttemptEnd {
        let target = match &self.target {
            Ok(target) => target,
            Err(TargetError::Refused(refusal)) => return AttemptEnd::Target(TargetError::Refused(refusal.clone())),
            Err(TargetError::Unusable) => return AttemptEnd::Target(TargetError::Unusable),
        };
        let until = started + self.endpoint.timeout;
        let exchange = async {
            if let Some(mut open) = self.usable().await {
                let answer = open.send(self.build(target, record, body.clone(), span), ANSWER_BYTES_MAX).await;
                match answer {
                    Ok(answer) if is_farewell(&answer) => {}
                    Ok(answer) => {
                        self.idle().push((open, Instant::now()));
                        return Ok(answer);
                    }
                    Err(CallError::NotSent(_) | CallError::Stale(_)) => {}
                    Err(error) => return Err(Failed::Call(error)),
                }
                self.resent.increment(1);
            }
            let mut open = self.dial(target).await.map_err(Failed::Dial)?;
            let answer = open.send(self.build(target, record, body.clone(), span), ANSWER_BYTES_MAX).await;
            let answer = answer.map_err(Failed::Call)?;
            self.idle().push((open, Instant::now()));
            Ok(answer)
        };
        match timeout_at(until, exchange).await {
            Ok(Ok(answer)) => {
                let retry_after =
                    if answer.status.is_success() { None } else { retry_after(&answer.headers, Timestamp::now()) };
                AttemptEnd::Answered { status: answer.status, retry_after }
            }
            Ok(Err(Failed::Dial(error))) => AttemptEnd::Dial(error),
            Ok(Err(Failed::Call(error))) => AttemptEnd::Call(error),
            Err(_) => AttemptEnd::TimedOut,
        }
    }

    async fn dial(&self, target: &Target) -> Result<Connection, DialError> {
        let _permit = self.dials.acquire().await.expect("this semaphore is never closed");
        self.dialer.connect(target).await
    }

    /// A connection on which another request may be sent.
    async fn usable(&self) -> Option<Connection> {
        loop {
            let (mut open, since) = self.idle().pop()?;
            let is_young = open.age() < CONNECTION_AGE_MAX && since.elapsed() < IDLE_MAX;
            if is_young && open.is_reusable().await {
                return Some(open);
            }
        }
    }

    fn build(&self, target: &Target, record: &Record, body: Bytes, span: &Span) -> Request<Full<Bytes>> {
        let timestamp = Timestamp::now().as_second();
        let mut headers = self.headers.clone();
        headers.reserve(5);
        // An id is printable: it was made so.
        if let Ok(id) = HeaderValue::from_str(&record.id) {
            headers.insert(WEBHOOK_ID, id);
        }
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
        if !self.endpoint.signer.is_empty()
            && let Ok(signature) = HeaderValue::try_from(self.endpoint.signer.sign(&record.id, timestamp, &body))
        {
            headers.insert(WEBHOOK_SIGNATURE, signature);
        }
        if let Some(trace) = &record.trace {
            trace_headers(trace, span, &mut headers);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = target.path().clone();
        *request.headers_mut() = headers;
        request
    }
}

/// What some servers say before they close an idle connection, and what is read as the answer to a request that
/// crossed it: RFC 9110, 15.5.9, lets the client send it again.
fn is_farewell(answer: &Answer) -> bool {
    let closes = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
    answer.status == StatusCode::REQUEST_TIMEOUT && answer.headers.get(header::CONNECTION).is_some_and(closes)
}

enum Failed {
    Dial(DialError),
    Call(CallError),
}

/// The trace continues with our span; where traces are not recorded, with the event's own. The request's id stays.
fn trace_headers(trace: &NatsHeaders, span: &Span, headers: &mut HeaderMap) {
    let mut own = NatsHeaders::new();
    trace::inject(span, &mut own);
    for (name, values) in trace.iter().chain(own.iter()) {
        let value = values.first().and_then(|value| HeaderValue::from_str(value.as_str()).ok());
        if let (Ok(name), Some(value)) = (HeaderName::try_from(AsRef::<str>::as_ref(name)), value) {
            headers.insert(name, value);
        }
    }
}
