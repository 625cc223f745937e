//! The compact family and the exporter's own metrics. Names and labels are an interface: rules and
//! `docs/METRICS.md` are made on them.
//!
//! The compact family comes and goes with what the servers have, so it is written from the tables of a
//! scrape and not kept by the recorder. What the exporter counts about itself is the recorder's.

use crate::table::{Column, Kind};
use agentforge_metrics::Metric;
use std::{borrow::Cow, sync::Arc};

const CONSUMER: &[&str] = &["account", "stream", "consumer"];
const STREAM: &[&str] = &["account", "stream"];
const PEER: &[&str] = &["account", "stream", "peer"];
const SOURCE: &[&str] = &["account", "stream", "source"];
const SERVER: &[&str] = &["server_name"];

/// A consumer, by its leader.
pub const CONSUMERS: [Metric; 16] = [
    Metric::gauge("nats_jetstream_consumer_num_pending", CONSUMER, "Messages not yet delivered to the consumer."),
    Metric::gauge(
        "nats_jetstream_consumer_num_ack_pending",
        CONSUMER,
        "Messages delivered and not yet acknowledged; never more than max_ack_pending.",
    ),
    Metric::gauge(
        "nats_jetstream_consumer_num_redelivered",
        CONSUMER,
        "Unacknowledged messages that were redelivered; falls with their acknowledgement.",
    ),
    Metric::gauge("nats_jetstream_consumer_num_waiting", CONSUMER, "Pull requests that wait for messages."),
    Metric::gauge(
        "nats_jetstream_consumer_delivered_consumer_seq",
        CONSUMER,
        "Deliveries so far, including redeliveries.",
    ),
    Metric::gauge(
        "nats_jetstream_consumer_delivered_stream_seq",
        CONSUMER,
        "Stream sequence of the latest delivered message.",
    ),
    Metric::gauge(
        "nats_jetstream_consumer_ack_floor_consumer_seq",
        CONSUMER,
        "Delivery sequence up to which all are acknowledged.",
    ),
    Metric::gauge(
        "nats_jetstream_consumer_ack_floor_stream_seq",
        CONSUMER,
        "Stream sequence up to which all are acknowledged.",
    ),
    Metric::gauge(
        "nats_jetstream_consumer_last_delivery_seconds",
        CONSUMER,
        "Time since the latest delivery, by the server's clock; absent if there was none.",
    ),
    Metric::gauge(
        "nats_jetstream_consumer_last_ack_seconds",
        CONSUMER,
        "Time since the latest acknowledgement, by the server's clock; absent if there was none.",
    ),
    Metric::gauge(
        "nats_jetstream_consumer_max_ack_pending",
        CONSUMER,
        "Configured limit of unacknowledged messages; -1 for none.",
    ),
    Metric::gauge("nats_jetstream_consumer_max_deliver", CONSUMER, "Configured limit of deliveries; -1 for none."),
    Metric::gauge("nats_jetstream_consumer_max_waiting", CONSUMER, "Configured limit of waiting pull requests."),
    Metric::gauge(
        "nats_jetstream_consumer_ack_wait_seconds",
        CONSUMER,
        "Configured time after which an unacknowledged message is redelivered.",
    ),
    Metric::gauge("nats_jetstream_consumer_paused", CONSUMER, "Whether the consumer is paused: 1 or 0."),
    Metric::gauge(
        "nats_jetstream_consumer_oldest_pending_timestamp_seconds",
        CONSUMER,
        "When the oldest unacknowledged message was stored; only if the server's answer has it.",
    ),
];
/// Who leads a consumer.
pub const LEADERS: [Metric; 1] = [Metric::gauge(
    "nats_jetstream_consumer_leader_info",
    &["account", "stream", "consumer", "leader", "server_name"],
    "1 for the server that leads the consumer; without a cluster for its only server.",
)];
/// A stream, by its leader.
pub const STREAMS: [Metric; 8] = [
    Metric::gauge("nats_jetstream_stream_messages", STREAM, "Messages in the stream."),
    Metric::gauge("nats_jetstream_stream_bytes", STREAM, "Bytes in the stream."),
    Metric::gauge("nats_jetstream_stream_first_seq", STREAM, "Sequence of the first message."),
    Metric::gauge("nats_jetstream_stream_last_seq", STREAM, "Sequence of the last message."),
    Metric::gauge("nats_jetstream_stream_consumers", STREAM, "Consumers of the stream, including ephemeral ones."),
    Metric::gauge("nats_jetstream_stream_subjects", STREAM, "Different subjects among the messages."),
    Metric::gauge("nats_jetstream_stream_limit_messages", STREAM, "Configured limit of messages; -1 for none."),
    Metric::gauge("nats_jetstream_stream_limit_bytes", STREAM, "Configured limit of bytes; -1 for none."),
];
/// The other replicas of a stream, as its leader sees them.
pub const REPLICAS: [Metric; 3] = [
    Metric::gauge("nats_jetstream_stream_replica_lag", PEER, "Operations that the replica is behind its leader."),
    Metric::gauge("nats_jetstream_stream_replica_current", PEER, "Whether the replica is up to date: 1 or 0."),
    Metric::gauge("nats_jetstream_stream_replica_offline", PEER, "Whether the replica is offline: 1 or 0."),
];
/// What a stream is filled from.
pub const SOURCES: [Metric; 1] = [Metric::gauge(
    "nats_jetstream_stream_source_lag",
    SOURCE,
    "Messages that the stream is behind one of its sources.",
)];
/// What a stream is a mirror of.
pub const MIRRORS: [Metric; 1] = [Metric::gauge(
    "nats_jetstream_stream_mirror_lag",
    SOURCE,
    "Messages that the stream is behind the stream it mirrors.",
)];
/// A server's JetStream.
pub const SERVERS: [Metric; 8] = [
    Metric::gauge("nats_jetstream_server_memory_bytes", SERVER, "Memory used by streams on the server."),
    Metric::gauge("nats_jetstream_server_storage_bytes", SERVER, "Storage used by streams on the server."),
    Metric::gauge("nats_jetstream_server_reserved_memory_bytes", SERVER, "Memory reserved for accounts and streams."),
    Metric::gauge("nats_jetstream_server_reserved_storage_bytes", SERVER, "Storage reserved for accounts and streams."),
    Metric::gauge("nats_jetstream_server_max_memory_bytes", SERVER, "Configured limit of memory."),
    Metric::gauge("nats_jetstream_server_max_storage_bytes", SERVER, "Configured limit of storage."),
    Metric::counter("nats_jetstream_api_requests_total", SERVER, "Requests to the JetStream API of the server."),
    Metric::counter("nats_jetstream_api_errors_total", SERVER, "Requests to the JetStream API that failed."),
];

/// Whether a target answered.
pub const TARGET_UP: Metric = Metric::gauge(
    "nats_exporter_target_up",
    &["server_id"],
    "1 if all endpoints of the server were read in this scrape, else 0.",
);
/// The end of what the server serves now, which a renewed file does not change before a reload.
pub const TARGET_CERTIFICATE: Metric = Metric::gauge(
    "nats_exporter_target_certificate_expiry_timestamp_seconds",
    &["server_id"],
    "When the certificate that the server has shown expires, seconds since 1970; absent without TLS.",
);
/// Whether an endpoint answered.
pub const SCRAPE_SUCCESS: Metric = Metric::gauge(
    "nats_exporter_scrape_success",
    &["server_id", "endpoint"],
    "1 if the endpoint was read in this scrape, else 0.",
);
/// How long an endpoint took.
pub const SCRAPE_DURATION: Metric = Metric::gauge(
    "nats_exporter_scrape_duration_seconds",
    &["server_id", "endpoint"],
    "How long reading the endpoint took in this scrape, or until it failed.",
);
/// Why endpoints could not be read.
pub const SCRAPE_ERRORS: Metric = Metric::counter(
    "nats_exporter_scrape_errors_total",
    &["server_id", "endpoint", "reason"],
    "Endpoints that could not be read: connect, timeout, broken, status, too_large, invalid, duplicate_server.",
)
.of(&[&[], &[], &["connect", "timeout", "broken", "status", "too_large", "invalid", "duplicate_server"]]);
/// What had no place.
pub const SERIES_DROPPED: Metric = Metric::counter(
    "nats_exporter_series_dropped_total",
    &["endpoint"],
    "Series left out of pages: beyond the limit, or named by two servers of different clusters.",
);
/// Which build this is.
pub const BUILD_INFO: Metric =
    Metric::gauge("nats_exporter_build_info", &["version", "revision"], "1, with the exporter's version.");
/// Scrapes, under prometheus-nats-exporter's name.
pub const REQUESTS: Metric = Metric::counter(
    "promhttp_metric_handler_requests_total",
    &["code"],
    "Scrapes by HTTP status code, under prometheus-nats-exporter's name.",
);
/// Scrapes that are being served.
pub const REQUESTS_IN_FLIGHT: Metric = Metric::gauge(
    "promhttp_metric_handler_requests_in_flight",
    &[],
    "Scrapes being served, under prometheus-nats-exporter's name.",
);

/// What the exporter says about itself.
pub const SELF: &[Metric] = &[
    TARGET_UP,
    TARGET_CERTIFICATE,
    SCRAPE_SUCCESS,
    SCRAPE_DURATION,
    SCRAPE_ERRORS,
    SERIES_DROPPED,
    BUILD_INFO,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
];

/// The columns of a table of the compact family.
pub fn columns(metrics: &[Metric]) -> Arc<[Column]> {
    metrics.iter().map(column).collect()
}

/// A declared metric as a column.
pub fn column(metric: &Metric) -> Column {
    let kind = match metric.kind {
        agentforge_metrics::Kind::Counter => Kind::Counter,
        _ => Kind::Gauge,
    };
    Column { name: Cow::Borrowed(metric.name), help: Cow::Borrowed(metric.help), kind }
}

/// Everything, for the catalogue.
pub fn catalogue() -> Vec<&'static [Metric]> {
    vec![&CONSUMERS, &LEADERS, &STREAMS, &REPLICAS, &SOURCES, &MIRRORS, &SERVERS, SELF]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&catalogue()), Vec::<String>::new());
    }
}
