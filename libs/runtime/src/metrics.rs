//! The metrics of the chassis: build, tasks, HTTP, and the async runtime.

use agentforge_metrics::{Metric, buckets};

/// The version that runs.
pub const BUILD_INFO: Metric = Metric::gauge(
    "agentforge_build_info",
    &["service", "version"],
    "Always 1; the labels describe the running binary.",
);
/// Supervised tasks that failed.
pub const TASK_FAILURES: Metric = Metric::counter(
    "agentforge_task_failures_total",
    &["service", "task"],
    "Supervised tasks that failed, panicked, or ended unexpectedly.",
);
/// Mirrors `/readyz`, so that alerts need no probe.
pub const READY: Metric =
    Metric::gauge("agentforge_ready", &["service"], "1 when the service can do its callers' work, else 0.");
/// Counts requests at their answer; the route is a template, so that ids make no series.
pub const HTTP_REQUESTS: Metric = Metric::counter(
    "agentforge_http_requests_total",
    &["service", "method", "route", "status"],
    "HTTP requests answered, by route template.",
);
/// The time up to the response's head: a stream that stays open counts only until it begins.
pub const HTTP_REQUEST_SECONDS: Metric = Metric::histogram(
    "agentforge_http_request_duration_seconds",
    buckets::REQUEST_SECONDS,
    &["service", "method", "route"],
    "Time from request to response head, by route template.",
);
/// Open connections of all listeners, idle ones included.
pub const HTTP_CONNECTIONS: Metric =
    Metric::gauge("agentforge_http_connections", &[], "Open HTTP connections of the process.");
/// What the bounds of listeners ended or refused. A flood shows here.
pub const CONNECTIONS_ENDED: Metric = Metric::counter(
    "agentforge_http_connections_ended_total",
    &["reason"],
    "Connections that a limit ended: silent (no byte), head (a request's head took too long), idle (no next request), unknown (gRPC, no caller with a token), stalled (the peer takes no answer), full (made room for another), address (the address has its share).",
)
.of(&[&["silent", "head", "idle", "unknown", "stalled", "full", "address"]]);
/// Of the budget for bodies.
pub const BODIES_BYTES: Metric =
    Metric::gauge("agentforge_request_bodies_bytes", &[], "Bodies of requests and gRPC messages in memory.");
/// The budget itself.
pub const BODIES_MAX_BYTES: Metric = Metric::gauge(
    "agentforge_request_bodies_limit_bytes",
    &[],
    "The most that bodies of requests and gRPC messages may take in memory (REQUEST_BODIES_MAX).",
);
/// Callers that got 503, 408 or RESOURCE_EXHAUSTED for their body.
pub const BODIES_REFUSED: Metric = Metric::counter(
    "agentforge_request_bodies_refused_total",
    &["reason"],
    "Requests refused because of their body: memory (all bodies together reach the limit), late (it did not arrive in time).",
)
.of(&[&["memory", "late"]]);
/// The end of what is served now, not of what is in the file.
pub const TLS_EXPIRY: Metric = Metric::gauge(
    "agentforge_tls_certificate_expiry_timestamp_seconds",
    &["service", "setting"],
    "When the certificate that a listener uses expires, seconds since 1970.",
);
/// A pair that is refused is counted once, not at each poll.
pub const TLS_RELOADS: Metric = Metric::counter(
    "agentforge_tls_reloads_total",
    &["service", "setting", "outcome"],
    "Changes of a listener's TLS files, by whether they could be used.",
)
.of(&[&[], &[], &["used", "refused"]]);
/// Stays 1 until the files can be used.
pub const TLS_FILES_UNUSABLE: Metric = Metric::gauge(
    "agentforge_tls_files_unusable",
    &["service", "setting"],
    "1 while a listener's TLS files cannot be used and those before them are, else 0.",
);
/// Scanners fail too, so that a few say nothing.
pub const TLS_HANDSHAKE_FAILURES: Metric = Metric::counter(
    "agentforge_tls_handshake_failures_total",
    &["reason"],
    "TLS handshakes of callers that did not end in a connection.",
)
.of(&[&["refused", "timeout"]]);
/// Tasks of the runtime; a number that only grows is a leak.
pub const ALIVE_TASKS: Metric =
    Metric::gauge("tokio_alive_tasks", &[], "Tasks of the async runtime that have not ended.");
/// The runtime's threads, which the busy ratio is a share of.
pub const WORKERS: Metric = Metric::gauge("tokio_workers", &[], "Worker threads of the async runtime.");
/// Tasks that could run and find no thread; above 0 for long, the process lacks CPU.
pub const QUEUE_DEPTH: Metric =
    Metric::gauge("tokio_global_queue_depth", &[], "Tasks waiting in the async runtime's global queue.");
/// The share of time in which the runtime's threads had work.
pub const BUSY_RATIO: Metric = Metric::gauge(
    "tokio_busy_ratio",
    &[],
    "Share of the last five seconds in which the async runtime's workers ran tasks.",
);

/// Every metric of the chassis.
pub const METRICS: &[Metric] = &[
    BUILD_INFO,
    TASK_FAILURES,
    READY,
    HTTP_REQUESTS,
    HTTP_REQUEST_SECONDS,
    HTTP_CONNECTIONS,
    CONNECTIONS_ENDED,
    BODIES_BYTES,
    BODIES_MAX_BYTES,
    BODIES_REFUSED,
    TLS_EXPIRY,
    TLS_RELOADS,
    TLS_FILES_UNUSABLE,
    TLS_HANDSHAKE_FAILURES,
    ALIVE_TASKS,
    WORKERS,
    QUEUE_DEPTH,
    BUSY_RATIO,
];

#[cfg(test)]
mod tests {
    #[test]
    fn names_keep_the_rules() {
        assert_eq!(agentforge_metrics::check(&[super::METRICS]), Vec::<String>::new());
    }
}
