//! All endpoints: started, stopped and changed as their declaration says.

pub mod managed;
pub mod reload;
pub mod state;
pub mod subscription;

use crate::{
    config::Config,
    endpoints::declaration::Endpoint,
    history::recent::DeliveryLog,
    metrics::CONFIGURED,
    registry::{managed::Kept, state::States, subscription::Running},
    retry::{quota::Room, server_clock::ServerClock},
    topology::streams::Made,
};
use agentforge_egress::Dialer;
use agentforge_jetstream::Nats;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use tokio::sync::{Notify, watch};
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
    /// The endpoints that the API made.
    pub made: Kept,
    /// Fires when no more is taken.
    pub stop: CancellationToken,
    /// Fires when what is in flight is handed back.
    pub leaving: CancellationToken,
    /// The server's clock.
    pub clock: Arc<ServerClock>,
    /// Of the stream of retries.
    pub room: Arc<Room>,
    /// Set once streams and bucket exist.
    pub ready: watch::Receiver<Option<Made>>,
    /// Somebody missed a stream, a consumer or the bucket: they are looked at now.
    pub doubt: Arc<Notify>,
}

/// What is declared, and what is at work for it.
#[derive(Default)]
struct Endpoints {
    of_settings: Vec<Arc<Endpoint>>,
    made: Vec<Arc<Endpoint>>,
    running: BTreeMap<String, Arc<Running>>,
}

/// The endpoints at work. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    context: Arc<Context>,
    endpoints: Arc<Mutex<Endpoints>>,
    tasks: TaskTracker,
}

impl Fleet {
    /// None yet.
    pub fn new(context: Context) -> Self {
        Self { context: Arc::new(context), endpoints: Arc::default(), tasks: TaskTracker::new() }
    }

    /// What they share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Makes it so that these, those of the API, and no others, are at work. One that did not change is not touched.
    pub fn apply(&self, of_settings: Vec<Arc<Endpoint>>) {
        let mut endpoints = self.lock();
        endpoints.of_settings = of_settings;
        self.follow(&mut endpoints);
    }

    /// The same for those that the API made.
    pub fn apply_made(&self, made: Vec<Arc<Endpoint>>) {
        let mut endpoints = self.lock();
        let gone = endpoints.made.iter().filter(|one| made.iter().all(|other| other.name != one.name));
        let gone: Vec<String> = gone.map(|one| one.name.clone()).collect();
        for one in gone.iter().filter(|name| endpoints.of_settings.iter().all(|other| other.name != **name)) {
            if let Some(running) = endpoints.running.get(one) {
                running.forget.store(true, Ordering::SeqCst);
            }
        }
        endpoints.made = made;
        self.follow(&mut endpoints);
    }

    /// A name of the settings is theirs, also when the API has one such.
    fn follow(&self, endpoints: &mut Endpoints) {
        let Endpoints { of_settings, made, running } = endpoints;
        let is_free = |one: &&Arc<Endpoint>| of_settings.iter().all(|other| other.name != one.name);
        let (mut next, mut changed) = (BTreeMap::new(), 0);
        for endpoint in of_settings.iter().chain(made.iter().filter(is_free)) {
            let endpoint = endpoint.clone();
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
            info!(?removed, "endpoints removed; their consumers and waiting events stay");
        }
        running.values().for_each(|one| one.stop.cancel());
        info!(endpoints = next.len(), changed, "endpoints");
        CONFIGURED.set(&[], next.len() as f64);
        *running = next;
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<Arc<Running>> {
        self.lock().running.get(name).cloned()
    }

    /// Whether one of that name is of the settings.
    pub fn is_of_settings(&self, name: &str) -> bool {
        self.lock().of_settings.iter().any(|one| one.name == name)
    }

    /// Whether one of that name is at work for the API.
    pub fn is_made(&self, name: &str) -> bool {
        let endpoints = self.lock();
        let is = |one: &Arc<Endpoint>| one.name == name;
        endpoints.made.iter().any(is) && !endpoints.of_settings.iter().any(is)
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Running>> {
        self.lock().running.values().cloned().collect()
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

    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
