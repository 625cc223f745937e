//! What every part of the broadcaster shares: the configuration, connections, and what replicas know of each other.
//!
//! Made once by the service. Parts take it as `Arc<Context>` and never build one.

use crate::{
    config::Config,
    endpoints::declaration::Endpoint,
    history::recent::RecentAttempts,
    registry::{managed::ManagedStore, state::StateStore},
    retry::{quota::RetryQuota, server_clock::ServerClock},
    topology::streams::Capabilities,
};
use agentforge_egress::Dialer;
use agentforge_jetstream::Nats;
use std::sync::Arc;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What all endpoints share.
pub struct Context {
    pub config: Config,
    pub nats: Nats,
    /// Opens connections to endpoints.
    pub dialer: Dialer,
    /// The last attempts of this replica.
    pub recent: Arc<RecentAttempts>,
    /// What replicas share about endpoints.
    pub states: StateStore,
    /// The endpoints that the API created.
    pub managed: ManagedStore,
    /// Cancelled when no more messages are taken.
    pub stop: CancellationToken,
    /// Cancelled near the end of a drain: messages in flight are handed back.
    pub leaving: CancellationToken,
    /// The server's clock.
    pub clock: Arc<ServerClock>,
    /// The quota of the stream of retries.
    pub quota: Arc<RetryQuota>,
    /// Set once streams and bucket exist.
    pub capabilities: watch::Receiver<Option<Capabilities>>,
    /// Notified when a stream, a consumer or the bucket is missing: the topology is checked now.
    pub topology_check: Arc<Notify>,
}

impl Context {
    /// Whether programs get requests of this endpoint that they cannot check. On somebody's own machine that is fine.
    pub fn is_unsigned(&self, endpoint: &Endpoint) -> bool {
        endpoint.signer.is_empty() && !endpoint.format.is_for_people() && !self.config.common.is_dev()
    }
}
