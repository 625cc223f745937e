//! What accounts, streams and consumers have in common in both families.

use super::{
    plan::MetaKey,
    wire::{Api, Meta, Origin, ServerConfig, State, StreamCluster, StreamConfig},
};
use crate::duration::moment;
use jiff::Timestamp;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Whose answers are read, as its varz introduces it.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// The stock family's server_id.
    pub id: String,
    /// Its own name; leaders are named by it.
    pub name: String,
    /// Whether it reports since when it leads a group, as all do since 2.12.
    pub reports_since: bool,
}

/// What an answer begins with.
#[derive(Debug, Default)]
pub struct Head {
    pub is_disabled: bool,
    pub config: ServerConfig,
    pub meta: Option<Meta>,
    pub memory: f64,
    pub storage: f64,
    pub reserved_memory: f64,
    pub reserved_storage: f64,
    pub streams: f64,
    pub consumers: f64,
    pub messages: f64,
    pub bytes: f64,
    pub api: Api,
    pub now: Option<Timestamp>,
}

/// An account of an answer, without its streams.
#[derive(Debug, Default)]
pub struct Account {
    pub name: String,
    pub id: String,
    pub memory: f64,
    pub storage: f64,
    pub reserved_memory: f64,
    pub reserved_storage: f64,
}

/// A stream of an answer, without its consumers.
#[derive(Debug, Default)]
pub struct StreamDetail {
    pub name: String,
    pub cluster: Option<StreamCluster>,
    pub config: Option<StreamConfig>,
    pub state: State,
    pub mirror: Option<Origin>,
    pub sources: Option<Vec<Origin>>,
    pub raft_group: String,
}

/// Leader as a label, and whether it is this server. What has no cluster is led by its only server.
pub fn leadership<'a>(leader: Option<&'a str>, server_name: &str) -> (&'a str, bool) {
    leader.map_or(("", true), |leader| (leader, leader == server_name))
}

/// The values of the chosen keys, in their order; a missing one is empty.
pub fn meta_values(keys: &[MetaKey], metadata: Option<&RawValue>) -> Vec<String> {
    if keys.is_empty() {
        return Vec::new();
    }
    let all: BTreeMap<String, String> =
        metadata.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    keys.iter().map(|key| all.get(&key.key).cloned().unwrap_or_default()).collect()
}

/// Seconds from `then` to `now`; NaN where there is no `then`. Never negative, however clocks move.
pub fn age(now: Option<Timestamp>, then: Option<&str>) -> f64 {
    match (now, then.and_then(moment)) {
        (Some(now), Some(then)) => now.duration_since(then).as_secs_f64().max(0.0),
        _ => f64::NAN,
    }
}
