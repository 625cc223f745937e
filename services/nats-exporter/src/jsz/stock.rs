//! The stock family of JetStream: every row of every replica, under the known exporter's names.
//!
//! Absent fields give empty labels: nothing of the stream or consumer before is left in them.

use super::{
    detail::{Account, Head, StreamDetail, age, leadership, meta_values},
    plan::{Level, Plan},
    wire::Consumer,
};
use crate::{
    endpoint::{Endpoint, Namespace, float},
    table::{Column, Table},
};
use jiff::Timestamp;

const SERVER: [(&str, &str); 7] = [
    ("jetstream_disabled", "JetStream disabled or not"),
    ("total_streams", "Total number of streams in JetStream"),
    ("total_consumers", "Total number of consumers in JetStream"),
    ("total_messages", "Total number of stored messages in JetStream"),
    ("total_message_bytes", "Total number of bytes stored in JetStream"),
    ("max_memory", "JetStream Max Memory"),
    ("max_storage", "JetStream Max Storage"),
];
const ACCOUNT: [(&str, &str); 4] = [
    ("max_memory", "JetStream Account Max Memory in bytes"),
    ("max_storage", "JetStream Account Max Storage in bytes"),
    ("memory_used", "JetStream Account Memory Used in bytes"),
    ("storage_used", "JetStream Account Storage Used in bytes"),
];
const STREAM: [(&str, &str); 8] = [
    ("total_messages", "Total number of messages from a stream"),
    ("total_bytes", "Total stored bytes from a stream"),
    ("first_seq", "First sequence from a stream"),
    ("last_seq", "Last sequence from a stream"),
    ("consumer_count", "Total number of consumers from a stream"),
    ("subject_count", "Total number of subjects in a stream"),
    ("limit_bytes", "The maximum configured storage limit in bytes for a JetStream stream"),
    ("limit_messages", "The maximum number of messages allowed in a JetStream stream"),
];
const SOURCE: [(&str, &str); 2] = [
    ("source_lag", "Number of messages a stream source is behind"),
    ("source_active_duration_ns", "Stream source active duration in nanoseconds, -1 if inactive"),
];
const MIRROR: [(&str, &str); 2] = [
    ("mirror_lag", "Number of messages a stream mirror is behind"),
    ("mirror_active_duration_ns", "Stream mirror active duration in nanoseconds, -1 if inactive"),
];
const CONSUMER: [(&str, &str); 10] = [
    ("delivered_consumer_seq", "Latest sequence number of a stream consumer"),
    ("delivered_stream_seq", "Latest sequence number of a stream"),
    ("num_ack_pending", "Number of pending acks from a consumer"),
    ("num_redelivered", "Number of redelivered messages from a consumer"),
    ("num_waiting", "Number of inflight fetch requests from a pull consumer"),
    ("num_pending", "Number of pending messages from a consumer"),
    ("ack_floor_stream_seq", "Number of ack floor stream seq from a consumer"),
    ("ack_floor_consumer_seq", "Number of ack floor consumer seq from a consumer"),
    ("last_delivery_seconds", "Seconds since the last delivery to a consumer"),
    ("last_ack_seconds", "Seconds since the last acknowledgement of a consumer"),
];

/// The tables as they grow.
pub struct Stock {
    accounts: Table,
    streams: Table,
    sources: Table,
    mirrors: Table,
    consumers: Table,
    server: Vec<Column>,
    has_limits: bool,
}

impl Stock {
    pub fn new(names: &Namespace, plan: &Plan) -> Self {
        let columns = |part: &str, all: &[(&str, &'static str)]| -> Vec<Column> {
            all.iter().map(|(name, help)| Column::gauge(names.jetstream(part, name), *help)).collect()
        };
        let table = |columns: Vec<Column>| Table::new(Endpoint::Jsz, columns.into(), plan.rows_max);
        Self {
            accounts: table(columns("account", &ACCOUNT)),
            streams: table(columns("stream", &STREAM)),
            sources: table(columns("stream", &SOURCE)),
            mirrors: table(columns("stream", &MIRROR)),
            consumers: table(columns("consumer", &CONSUMER)),
            server: columns("server", &SERVER),
            has_limits: plan.level == Level::Consumers,
        }
    }

    pub fn account(&mut self, a: &Account) {
        let values = [a.reserved_memory, a.reserved_storage, a.memory, a.storage];
        self.accounts.push(&account_labels(a), &values);
    }

    /// Adds a stream, and closes the group of its consumers: the server names its Raft group after them.
    pub fn stream(&mut self, account: &Account, s: &StreamDetail, server_name: &str, plan: &Plan) {
        let (leader, is_leader) = leadership(s.cluster.as_ref().map(|c| c.leader.as_str()), server_name);
        let metadata = s.config.as_ref().and_then(|c| c.metadata.as_deref());
        let meta = meta_values(&plan.stream_meta, metadata);
        let mut labels = account_labels(account).to_vec();
        labels.extend([
            ("stream_name", s.name.as_str()),
            ("stream_leader", leader),
            ("is_stream_leader", if is_leader { "true" } else { "false" }),
            ("stream_raft_group", s.raft_group.as_str()),
        ]);
        let without_meta = labels.len();
        labels.extend(plan.stream_meta.iter().zip(&meta).map(|(key, value)| (key.label.as_str(), value.as_str())));
        let limits = match &s.config {
            Some(config) if self.has_limits => [config.max_bytes, config.max_msgs],
            _ => [f64::NAN; 2],
        };
        let st = &s.state;
        let counts = [st.messages, st.bytes, st.first_seq, st.last_seq, st.consumer_count, st.num_subjects];
        let [messages, bytes, first, last, consumers, subjects] = counts.map(float);
        self.streams.push(&labels, &[messages, bytes, first, last, consumers, subjects, limits[0], limits[1]]);
        self.consumers.end_group(&labels);
        labels.truncate(without_meta);
        for source in s.sources.iter().flatten() {
            let (api, deliver) = source.external.as_ref().map_or(("", ""), |e| (&e.api, &e.deliver));
            let own = [("source_name", source.name.as_str()), ("source_api", api), ("source_deliver", deliver)];
            self.sources.push(&[&labels[..], &own].concat(), &[source.lag, source.active]);
        }
        if let Some(mirror) = &s.mirror {
            let (api, deliver) = mirror.external.as_ref().map_or(("", ""), |e| (&e.api, &e.deliver));
            let own = [("mirror_name", mirror.name.as_str()), ("mirror_api", api), ("mirror_deliver", deliver)];
            self.mirrors.push(&[&labels[..], &own].concat(), &[mirror.lag, mirror.active]);
        }
    }

    /// Adds a consumer of the stream that is being read.
    pub fn consumer(&mut self, c: &Consumer<'_>, server_name: &str, now: Option<Timestamp>, plan: &Plan) {
        let (leader, is_leader) = leadership(c.cluster.as_ref().map(|cluster| &*cluster.leader), server_name);
        let config = c.config.as_ref();
        let base = [
            ("consumer_name", &*c.name),
            ("consumer_leader", leader),
            ("is_consumer_leader", if is_leader { "true" } else { "false" }),
            ("consumer_desc", config.map_or("", |config| &*config.description)),
        ];
        let counts = [
            c.delivered.consumer_seq,
            c.delivered.stream_seq,
            c.num_ack_pending,
            c.num_redelivered,
            c.num_waiting,
            c.num_pending,
            c.ack_floor.stream_seq,
            c.ack_floor.consumer_seq,
        ]
        .map(float);
        let mut values = [0.0; CONSUMER.len()];
        values[..8].copy_from_slice(&counts);
        values[8] = age(now, c.delivered.last_active.as_deref());
        values[9] = age(now, c.ack_floor.last_active.as_deref());
        if plan.consumer_meta.is_empty() {
            self.consumers.push(&base, &values);
            return;
        }
        let meta = meta_values(&plan.consumer_meta, config.and_then(|config| config.metadata));
        let chosen = plan.consumer_meta.iter().zip(&meta).map(|(key, value)| (key.label.as_str(), value.as_str()));
        let labels: Vec<_> = base.into_iter().chain(chosen).collect();
        self.consumers.push(&labels, &values);
    }

    pub fn finish(self, head: &Head, server_id: &str, server_name: &str) -> Vec<Table> {
        let (cluster, meta_leader) = head.meta.as_ref().map_or(("", ""), |m| (m.name.as_str(), m.leader.as_str()));
        let (_, is_leader) = leadership(head.meta.as_ref().map(|m| m.leader.as_str()), server_name);
        let labels = [
            ("server_id", server_id),
            ("server_name", server_name),
            ("cluster", cluster),
            ("domain", head.config.domain.as_str()),
            ("meta_leader", meta_leader),
            ("is_meta_leader", if is_leader { "true" } else { "false" }),
        ];
        let values = [
            f64::from(u8::from(head.is_disabled)),
            head.streams,
            head.consumers,
            head.messages,
            head.bytes,
            head.config.max_memory,
            head.config.max_storage,
        ];
        let mut tables = vec![Table::single(Endpoint::Jsz, self.server, &labels, &values)];
        for mut table in [self.accounts, self.streams, self.sources, self.mirrors, self.consumers] {
            table.set_prefix(&labels);
            tables.push(table);
        }
        tables
    }
}

fn account_labels(account: &Account) -> [(&'static str, &str); 3] {
    [("account", &account.name), ("account_name", &account.name), ("account_id", &account.id)]
}
