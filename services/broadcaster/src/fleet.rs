//! All endpoints: started, stopped and changed as their declaration says.

use crate::{
    clock::ServerClock, config::Config, delivery_log::DeliveryLog, endpoint_file::Endpoint, metrics::CONFIGURED,
    room::Room, running::Running, state::States, topology::Made,
};
use agentforge_egress::Dialer;
use agentforge_jetstream::Nats;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

/// What all endpoints share.
pub struct Context {
    /// As it was read.
    pub config: Config,
    /// The connection.
    pub nats: Nats,
    /// Opens connections to endpoints.
    pub dialer: Dialer,
    /// The last attempts.
    pub log: Arc<DeliveryLog>,
    /// What replicas share.
    pub states: States,
    /// Fires when no more is taken.
    pub stop: CancellationToken,
    /// Fires when what is in flight is handed back.
    pub leaving: CancellationToken,
    /// The server's clock.
    pub clock: Arc<ServerClock>,
    /// Of the stream of retries.
    pub room: Arc<Room>,
    /// Set once streams and bucket are there.
    pub ready: watch::Receiver<Option<Made>>,
}

/// The endpoints at work. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    context: Arc<Context>,
    running: Arc<Mutex<BTreeMap<String, Arc<Running>>>>,
    tasks: TaskTracker,
}

impl Fleet {
    /// None yet.
    pub fn new(context: Context) -> Self {
        Self { context: Arc::new(context), running: Arc::default(), tasks: TaskTracker::new() }
    }

    /// What they share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Makes it so that these, and no others, are at work. One that did not change is not touched.
    pub fn apply(&self, endpoints: Vec<Arc<Endpoint>>) {
        let mut running = self.lock();
        let (mut next, mut changed) = (BTreeMap::new(), 0);
        for endpoint in endpoints {
            let kept = running.remove(&endpoint.name);
            let one = match kept {
                Some(one) if one.endpoint == endpoint => one,
                before => {
                    // Its requests end by themselves; what it held goes back.
                    before.iter().for_each(|one| one.stop.cancel());
                    changed += 1;
                    let one = Arc::new(Running::new(&self.context, endpoint));
                    self.tasks.spawn(one.clone().run(self.context.clone()));
                    one
                }
            };
            next.insert(one.endpoint.name.clone(), one);
        }
        let removed: Vec<&String> = running.keys().collect();
        if !removed.is_empty() {
            info!(?removed, "endpoints that are no more; their consumers stay, and what waits for them");
        }
        running.values().for_each(|one| one.stop.cancel());
        info!(endpoints = next.len(), changed, "endpoints");
        CONFIGURED.set(&[], next.len() as f64);
        *running = next;
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<Arc<Running>> {
        self.lock().get(name).cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Running>> {
        self.lock().values().cloned().collect()
    }

    /// Waits until all have ended, after the stop.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Those that have not.
    pub fn still_running(&self) -> usize {
        self.tasks.len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
