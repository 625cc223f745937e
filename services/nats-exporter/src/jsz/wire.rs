//! The parts of a jsz answer that are used, as the server writes them. What is absent has its zero.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The server's JetStream configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServerConfig {
    pub max_memory: f64,
    pub max_storage: f64,
    pub domain: String,
}

/// The meta group.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Meta {
    pub name: String,
    pub leader: String,
}

/// Requests to the JetStream API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Api {
    pub total: f64,
    pub errors: f64,
}

/// Who replicates a stream or consumer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Cluster<'a> {
    #[serde(borrow)]
    pub raft_group: Cow<'a, str>,
    #[serde(borrow)]
    pub leader: Cow<'a, str>,
    #[serde(borrow)]
    pub leader_since: Cow<'a, str>,
}

/// The same with all replicas, for streams.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamCluster {
    pub raft_group: String,
    pub leader: String,
    pub leader_since: String,
    pub replicas: Option<Vec<Peer>>,
}

/// Another server that has a replica of the stream, as its leader sees it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    pub name: String,
    pub current: bool,
    pub offline: bool,
    pub lag: f64,
}

/// A stream's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    pub max_msgs: f64,
    pub max_bytes: f64,
    pub metadata: Option<Box<RawValue>>,
}

/// A stream's contents.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct State {
    pub messages: u64,
    pub bytes: u64,
    pub first_seq: u64,
    pub first_ts: String,
    pub last_seq: u64,
    pub last_ts: String,
    pub num_subjects: u64,
    pub consumer_count: u64,
}

/// A source, or what is mirrored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Origin {
    pub name: String,
    pub external: Option<External>,
    pub lag: f64,
    pub active: f64,
}

/// Where a source is when it is elsewhere.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct External {
    pub api: String,
    pub deliver: String,
}

/// A consumer. Borrows from the answer: there are thousands.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Consumer<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub config: Option<ConsumerConfig<'a>>,
    #[serde(borrow)]
    pub delivered: Place<'a>,
    #[serde(borrow)]
    pub ack_floor: Place<'a>,
    pub num_ack_pending: u64,
    pub num_redelivered: u64,
    pub num_waiting: u64,
    pub num_pending: u64,
    #[serde(borrow)]
    pub cluster: Option<Cluster<'a>>,
    pub paused: bool,
    #[serde(borrow)]
    pub ts: Cow<'a, str>,
}

/// A consumer's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConsumerConfig<'a> {
    #[serde(borrow)]
    pub durable_name: Cow<'a, str>,
    #[serde(borrow)]
    pub description: Cow<'a, str>,
    #[serde(borrow)]
    pub deliver_policy: Cow<'a, str>,
    #[serde(borrow)]
    pub filter_subject: Cow<'a, str>,
    pub filter_subjects: Option<Vec<serde::de::IgnoredAny>>,
    pub ack_wait: f64,
    pub max_deliver: f64,
    pub max_waiting: f64,
    pub max_ack_pending: f64,
    #[serde(borrow)]
    pub metadata: Option<&'a RawValue>,
}

/// A place in the stream, and when it was reached.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Place<'a> {
    pub consumer_seq: u64,
    pub stream_seq: u64,
    #[serde(borrow)]
    pub last_active: Option<Cow<'a, str>>,
}
