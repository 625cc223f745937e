//! The metrics that this library records.

use agentforge_metrics::Metric;

/// Whether every NATS connection of the process is up.
pub const NATS_CONNECTED: Metric =
    Metric::gauge("agentforge_nats_connected", &[], "1 while every NATS connection of this process is up, else 0.");

/// When a loop last made progress; a loop that waits with nothing to do makes progress too.
pub const LOOP_LAST_PROGRESS: Metric = Metric::gauge(
    "agentforge_loop_last_progress_timestamp_seconds",
    &["loop"],
    "When the loop last heard from the server or had nothing to wait for, in seconds since 1970.",
);

/// All of them, for the recorder and the catalogue.
pub const CATALOGUE: &[Metric] = &[NATS_CONNECTED, LOOP_LAST_PROGRESS];
