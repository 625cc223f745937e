//! What the broadcaster counts. Names and labels are an interface: `docs/METRICS.md` is made from here.
//!
//! An endpoint's label is its name, at most 1,024 of them in a process's life, then `other`. URLs are not labels: they
//! hold secrets. Handles that are used per message are created once.

use agentforge_metrics::{Bounded, Counter, Gauge, Histogram, Metric, buckets};
use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

/// Endpoints in metrics, in the life of a process.
static ENDPOINTS: Bounded = Bounded::new(1024);

/// Why an attempt did not deliver.
const REASONS: [&str; 15] = [
    "redirect",
    "gone",
    "too_many_requests",
    "client_error",
    "service_unavailable",
    "server_error",
    "status",
    "egress_refused",
    "dns",
    "connect",
    "tls",
    "protocol",
    "reset",
    "timeout",
    "bad_url",
];
/// Why a message became a dead letter: the last attempt's reason, or that it is not an event, has no place among the
/// retries, or waited there too long.
const DEAD_REASONS: [&str; REASONS.len() + 3] = {
    let mut all = [""; REASONS.len() + 3];
    let mut n = 0;
    while n < REASONS.len() {
        all[n] = REASONS[n];
        n += 1;
    }
    (all[n], all[n + 1], all[n + 2]) = ("invalid", "too_large", "expired");
    all
};

/// Counts settled messages by what became of them; a retried one is settled again later.
pub const PROCESSED: Metric = Metric::counter(
    "broadcaster_messages_processed_total",
    &["status"],
    "Messages that were settled: delivered, retried, dead, set_aside (an open circuit), handed_back (a stop, or an endpoint that may not be called).",
)
.of(&[&["delivered", "retried", "dead", "set_aside", "handed_back"]]);
/// Requests with an answer.
pub const REQUESTS: Metric = Metric::counter(
    "broadcaster_webhook_requests_total",
    &["status_code", "endpoint"],
    "Requests that were answered, by status.",
);
/// Attempts that failed.
pub const ERRORS: Metric = Metric::counter(
    "broadcaster_webhook_errors_total",
    &["endpoint", "reason"],
    "Failed attempts, by reason: a class of status, dns, connect, tls, timeout, reset, egress_refused.",
)
.of(&[&[], &REASONS]);
/// Repeated on a fresh connection.
pub const RESENT: Metric = Metric::counter(
    "broadcaster_requests_resent_total",
    &["endpoint"],
    "Requests that were sent again on a new connection, because the endpoint had closed the idle one. They do not count \
     as attempts.",
);
/// Held by the operator's own settings.
pub const HELD: Metric = Metric::gauge(
    "broadcaster_endpoint_held",
    &["endpoint"],
    "1 while events wait because the egress rules forbid calls to the endpoint, else 0.",
);
/// Paused by an operator.
pub const PAUSED: Metric = Metric::gauge(
    "broadcaster_endpoint_paused",
    &["endpoint"],
    "1 while the endpoint is paused and its events wait, else 0.",
);
/// Whether the client is connected to NATS; without it nothing is delivered.
pub const NATS_CONNECTED: Metric =
    Metric::gauge("broadcaster_nats_connected", &[], "1 while the broadcaster is connected to NATS, else 0.");
/// Of a request.
pub const REQUEST_SECONDS: Metric = Metric::histogram(
    "broadcaster_request_duration_seconds",
    buckets::REQUEST_SECONDS,
    &["endpoint"],
    "How long a request took, including the connection, regardless of its outcome.",
);
/// Of a message.
pub const PROCESSING_SECONDS: Metric = Metric::histogram(
    "broadcaster_message_processing_duration_seconds",
    buckets::REQUEST_SECONDS,
    &[],
    "From taking a message to settling it, including the request.",
);
/// The state of each endpoint's circuit breaker, as a number that dashboards map to words.
pub const CIRCUIT: Metric = Metric::gauge(
    "broadcaster_endpoint_circuit_state",
    &["endpoint"],
    "0 closed, 1 open, 2 probing, 3 disabled (the endpoint answered 410).",
);
/// What an endpoint has still to get, without the retries that wait for their time.
pub const PENDING: Metric = Metric::gauge(
    "broadcaster_pending",
    &["endpoint"],
    "Events and due retries that wait for this endpoint, including those in work, but not parked retries.",
);
/// All messages of the stream of retries: those that wait for their time, and those that are due.
pub const PARKED: Metric = Metric::gauge(
    "broadcaster_retries_stored",
    &[],
    "Messages in the stream of retries, parked and due, of all endpoints.",
);
/// What waits, bytes.
pub const STORED_BYTES: Metric = Metric::gauge(
    "broadcaster_retries_stored_bytes",
    &[],
    "Bytes in the stream of retries, at most BROADCASTER_RETRIES_MAX_BYTES.",
);
/// What may wait, bytes.
pub const MAX_BYTES: Metric =
    Metric::gauge("broadcaster_retries_max_bytes", &[], "The value of BROADCASTER_RETRIES_MAX_BYTES.");
/// Messages that ended as dead letters.
pub const DEAD: Metric =
    Metric::counter("broadcaster_dead_letters_total", &["endpoint", "reason"], "Messages that became dead letters.")
        .of(&[&[], &DEAD_REASONS]);
/// Messages that were taken for an endpoint and are not settled yet.
pub const INFLIGHT: Metric =
    Metric::gauge("broadcaster_inflight", &["endpoint"], "Messages in work for this endpoint now.");
/// Since the event.
pub const LAG_SECONDS: Metric = Metric::histogram(
    "broadcaster_delivery_lag_seconds",
    buckets::END_TO_END_SECONDS,
    &["endpoint"],
    "From the storage of the event to its delivery, including retries.",
);
/// The number of endpoints, those of the settings and those of the API.
pub const CONFIGURED: Metric = Metric::gauge("broadcaster_endpoints", &[], "Endpoints that are currently configured.");
/// Of the file.
pub const RELOADS: Metric = Metric::counter(
    "broadcaster_endpoint_reloads_total",
    &["outcome"],
    "Changes of the endpoints file: applied, or refused (the old endpoints stay).",
)
.of(&[&["applied", "refused"]]);
/// That could not be kept.
pub const STORE_HELD: Metric = Metric::gauge(
    "broadcaster_store_held",
    &[],
    "Messages whose retry or dead letter cannot be stored now, because NATS is unavailable or the stream is full; each keeps its slot.",
);
/// Retries that the sweep made due, as the server's schedule had not: above 0, schedules fail.
pub const RESCUED: Metric = Metric::counter(
    "broadcaster_retries_rescued_total",
    &[],
    "Parked retries that the server's schedule did not make due in time, and that the broadcaster's own sweep did.",
);
/// Not written into the history.
pub const HISTORY_DROPPED: Metric = Metric::counter(
    "broadcaster_history_dropped_total",
    &[],
    "Attempts missing from the history of deliveries, because it could not be written. Deliveries continue.",
);
/// Alerts of Alertmanager that became events.
pub const ALERTS: Metric =
    Metric::counter("broadcaster_alerts_total", &[], "Alerts of Alertmanager that were published as events.");

/// All of them.
pub const METRICS: &[Metric] = &[
    PROCESSED,
    REQUESTS,
    ERRORS,
    RESENT,
    HELD,
    PAUSED,
    NATS_CONNECTED,
    REQUEST_SECONDS,
    PROCESSING_SECONDS,
    CIRCUIT,
    PENDING,
    PARKED,
    STORED_BYTES,
    MAX_BYTES,
    DEAD,
    INFLIGHT,
    LAG_SECONDS,
    CONFIGURED,
    RELOADS,
    STORE_HELD,
    RESCUED,
    HISTORY_DROPPED,
    ALERTS,
];

/// Statuses that have a counter: those of HTTP, and one for all others.
const STATUSES: usize = 501;
const FIRST_STATUS: u16 = 100;

/// Handles of one endpoint.
pub struct Meters {
    label: String,
    statuses: Vec<OnceLock<Counter>>,
    errors: Mutex<HashMap<&'static str, Counter>>,
    /// Times of requests to the endpoint, in seconds.
    pub request_seconds: Histogram,
    /// Times from a message's arrival to its end, in seconds.
    pub processing_seconds: Histogram,
    /// Since the event.
    pub lag_seconds: Histogram,
    /// Messages that were taken for the endpoint and are not settled yet.
    pub inflight: Gauge,
    /// Messages that the endpoint has still to get.
    pub pending: Gauge,
    /// The state of the endpoint's circuit breaker.
    pub circuit: Gauge,
    /// Whether it may not be called.
    pub held: Gauge,
    /// Whether it is paused.
    pub paused: Gauge,
    /// Requests that were sent again at once, because the endpoint had closed the idle connection.
    pub resent: Counter,
    delivered: Counter,
}

impl Meters {
    /// Makes the handles.
    pub fn new(endpoint: &str) -> Self {
        let label = ENDPOINTS.label(endpoint).to_owned();
        ERRORS.begin(&[&label]);
        DEAD.begin(&[&label]);
        Self {
            statuses: (0..STATUSES).map(|_| OnceLock::new()).collect(),
            errors: Mutex::default(),
            request_seconds: REQUEST_SECONDS.histogram_handle(&[&label]),
            processing_seconds: PROCESSING_SECONDS.histogram_handle(&[]),
            lag_seconds: LAG_SECONDS.histogram_handle(&[&label]),
            inflight: INFLIGHT.gauge_handle(&[&label]),
            pending: PENDING.gauge_handle(&[&label]),
            circuit: CIRCUIT.gauge_handle(&[&label]),
            held: HELD.gauge_handle(&[&label]),
            paused: PAUSED.gauge_handle(&[&label]),
            resent: RESENT.counter_handle(&[&label]),
            delivered: PROCESSED.counter_handle(&["delivered"]),
            label,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        let at = usize::from(status.saturating_sub(FIRST_STATUS)).min(STATUSES - 1);
        let make = || match at {
            at if at == STATUSES - 1 => REQUESTS.counter_handle(&["other", &self.label]),
            _ => REQUESTS.counter_handle(&[&status.to_string(), &self.label]),
        };
        self.statuses[at].get_or_init(make).increment(1);
    }

    /// Counts an attempt that did not deliver.
    pub fn failed(&self, reason: &'static str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.entry(reason).or_insert_with(|| ERRORS.counter_handle(&[&self.label, reason])).increment(1);
    }

    /// Counts a delivery.
    pub fn delivered(&self) {
        self.delivered.increment(1);
    }

    /// Counts a dead letter.
    pub fn dead(&self, reason: &'static str) {
        PROCESSED.inc(&["dead"]);
        DEAD.inc(&[&self.label, reason]);
    }
}

/// Counts a dead letter of an endpoint that may be declared no more.
pub fn dead(endpoint: &str, reason: &'static str) {
    PROCESSED.inc(&["dead"]);
    DEAD.inc(&[ENDPOINTS.label(endpoint), reason]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&[METRICS]), Vec::<String>::new());
    }
}
