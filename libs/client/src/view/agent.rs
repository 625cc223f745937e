//! Agents.

use super::wire::{Moment, at};
use agentforge_proto::v1;
use serde::Serialize;

/// A worker that announced itself.
#[derive(Debug, Serialize)]
pub struct AgentView {
    /// The worker's name, unique among those that run.
    pub id: String,
    /// Mission it serves.
    pub mission: String,
    /// Site it belongs to.
    pub site: String,
    /// Host it runs on.
    pub host: String,
    /// Version of the worker's program, such as 0.2.0.
    pub version: String,
    /// Tools it offers.
    pub tools: Vec<String>,
    /// Queues it serves.
    pub queues: Vec<String>,
    /// Jobs it takes at once.
    pub capacity: u32,
    /// Jobs it has.
    pub inflight: u32,
    /// online, offline or left.
    pub status: String,
    /// Since when it is known.
    pub first_seen_at: Option<Moment>,
    /// Its last heartbeat.
    pub last_seen_at: Option<Moment>,
    /// When its client certificate ends.
    pub certificate_expires_at: Option<Moment>,
    /// How far its clock is ahead of the orchestrator's, seconds; behind is negative.
    pub clock_skew_seconds: Option<f64>,
    /// By which means commands of its tools file are not confined; empty: by all. None if it has no such commands.
    pub unconfined: Option<String>,
}

impl AgentView {
    /// From the wire.
    pub fn new(a: &v1::Agent) -> Self {
        Self {
            id: a.id.clone(),
            mission: a.mission.clone(),
            site: a.site.clone(),
            host: a.host.clone(),
            version: a.version.clone(),
            tools: a.tools.clone(),
            queues: a.queues.clone(),
            capacity: a.capacity,
            inflight: a.inflight,
            status: a.status().as_str_name().trim_start_matches("AGENT_STATUS_").to_ascii_lowercase(),
            first_seen_at: at(a.first_seen_at.as_ref()),
            last_seen_at: at(a.last_seen_at.as_ref()),
            certificate_expires_at: at(a.certificate_expires_at.as_ref()),
            clock_skew_seconds: a.clock_skew_seconds,
            unconfined: a.unconfined.clone(),
        }
    }
}
