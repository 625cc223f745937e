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
