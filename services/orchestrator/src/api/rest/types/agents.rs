//! Workers as JSON.

use super::{Moment, moment};
use crate::model::Agent;
use agentforge_proto::time::Micros;
use serde::Serialize;
use utoipa::ToSchema;

/// A worker, as it announced itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Agent)]
pub struct AgentView {
    /// Its id.
    id: String,
    /// Whose queues it serves.
    mission: String,
    /// Where it is.
    site: String,
    /// Host name.
    host: String,
    /// Version of its binary.
    version: String,
    /// Names of its tools.
    tools: Vec<String>,
    /// Queues it serves.
    queues: Vec<String>,
    /// Jobs it runs at once, at most.
    capacity: u32,
    /// Jobs it runs now.
    inflight: u32,
    /// online, offline (missed three beats) or left (drained and said good-bye).
    pub(crate) status: &'static str,
    /// First beat.
    #[schema(value_type = String, format = DateTime)]
    first_seen_at: Moment,
    /// Last beat.
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: Moment,
    /// When its client certificate ends, where it uses one.
    #[schema(value_type = Option<String>, format = DateTime)]
    certificate_expires_at: Option<Moment>,
    /// How far its clock is ahead of the orchestrator's, seconds; behind is negative. Null until it is measured.
    clock_skew_seconds: Option<f64>,
    /// By which means commands of its tools file are not confined: words of launcher, files, network, ipc, cgroup, pids,
    /// memory. Empty: by all. Null if it has no such commands.
    unconfined: Option<String>,
}

impl AgentView {
    pub(crate) fn new(a: Agent, now: Micros) -> Self {
        Self {
            status: a.presence(now).as_str(),
            id: a.id.into(),
            mission: a.mission.into(),
            site: a.site.into(),
            host: a.host,
            version: a.version,
            tools: a.tools,
            queues: a.queues,
            capacity: a.capacity,
            inflight: a.inflight,
            first_seen_at: Moment(a.first_seen_at),
            last_seen_at: Moment(a.last_seen_at),
            certificate_expires_at: moment(a.certificate_expires_at),
            clock_skew_seconds: a.clock_skew_us.map(|us| us as f64 / 1e6),
            unconfined: a.unconfined,
        }
    }
}

/// A page of workers, by id.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentList {
    /// The workers.
    pub(crate) agents: Vec<AgentView>,
    /// Give it as `cursor` to get the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}
