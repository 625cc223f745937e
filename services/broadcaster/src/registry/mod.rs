//! The endpoint registry: a subscription for each endpoint that is declared in the settings or managed by the API.
//!
//! Settings and API each replace their own list; `reconcile` starts, restarts and stops subscriptions until they match
//! both lists. A subscription whose endpoint did not change is not touched, so that a reload costs no connection.

pub mod context;
pub mod managed;
pub mod managed_sync;
pub mod reload;
pub mod sealing;
pub mod state;
pub mod subscription;

use crate::{
    endpoints::declaration::Endpoint,
    metrics::CONFIGURED,
    registry::{context::Context, subscription::Subscription},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use tokio_util::task::TaskTracker;
use tracing::info;

/// Both lists of endpoints, and the subscriptions that match them.
#[derive(Default)]
struct Endpoints {
    declared: Vec<Arc<Endpoint>>,
    managed: Vec<Arc<Endpoint>>,
    subscriptions: BTreeMap<String, Arc<Subscription>>,
}

/// The endpoint registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    context: Arc<Context>,
    endpoints: Arc<Mutex<Endpoints>>,
    tasks: TaskTracker,
}

impl Registry {
    /// A registry without endpoints.
    pub fn new(context: Context) -> Self {
        Self { context: Arc::new(context), endpoints: Arc::default(), tasks: TaskTracker::new() }
    }

    /// What its subscriptions share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Replaces the endpoints of the settings.
    pub fn apply(&self, declared: Vec<Arc<Endpoint>>) {
        let mut endpoints = self.lock();
        endpoints.declared = declared;
        self.reconcile(&mut endpoints);
    }

    /// Replaces the managed endpoints. The consumers of one that was deleted are deleted with it.
    pub fn apply_managed(&self, managed: Vec<Arc<Endpoint>>) {
        let mut endpoints = self.lock();
        let is_deleted = |endpoint: &&Arc<Endpoint>| managed.iter().all(|other| other.name != endpoint.name);
        let is_undeclared =
            |endpoint: &&Arc<Endpoint>| endpoints.declared.iter().all(|other| other.name != endpoint.name);
        for endpoint in endpoints.managed.iter().filter(is_deleted).filter(is_undeclared) {
            if let Some(subscription) = endpoints.subscriptions.get(&endpoint.name) {
                subscription.delete_consumers.store(true, Ordering::SeqCst);
            }
        }
        endpoints.managed = managed;
        self.reconcile(&mut endpoints);
    }

    /// Makes the subscriptions match the lists. A name in the settings wins over the same name in the API.
    fn reconcile(&self, endpoints: &mut Endpoints) {
        let Endpoints { declared, managed, subscriptions } = endpoints;
        let is_free = |endpoint: &&Arc<Endpoint>| declared.iter().all(|other| other.name != endpoint.name);
        let (mut next, mut changed) = (BTreeMap::new(), 0);
        for endpoint in declared.iter().chain(managed.iter().filter(is_free)) {
            let endpoint = endpoint.clone();
            let subscription = match subscriptions.remove(&endpoint.name) {
                Some(subscription) if subscription.endpoint == endpoint => subscription,
                before => {
                    // Its requests end by themselves; what it held goes back.
                    before.iter().for_each(|subscription| subscription.stop.cancel());
                    changed += 1;
                    let subscription = Arc::new(Subscription::new(&self.context, endpoint));
                    self.tasks.spawn(subscription.clone().run(self.context.clone()));
                    subscription
                }
            };
            next.insert(subscription.endpoint.name.clone(), subscription);
        }
        let removed: Vec<&String> = subscriptions.keys().collect();
        if !removed.is_empty() {
            info!(?removed, "endpoints removed; their consumers and waiting events stay");
        }
        subscriptions.values().for_each(|subscription| subscription.stop.cancel());
        info!(endpoints = next.len(), changed, "endpoints");
        CONFIGURED.set(&[], next.len() as f64);
        *subscriptions = next;
    }

    /// The subscription of an endpoint.
    pub fn get(&self, name: &str) -> Option<Arc<Subscription>> {
        self.lock().subscriptions.get(name).cloned()
    }

    /// Whether the settings declare an endpoint of that name.
    pub fn is_declared(&self, name: &str) -> bool {
        self.lock().declared.iter().any(|endpoint| endpoint.name == name)
    }

    /// Whether the endpoint of that name is a managed one.
    pub fn is_managed(&self, name: &str) -> bool {
        let endpoints = self.lock();
        let is_of_name = |endpoint: &Arc<Endpoint>| endpoint.name == name;
        endpoints.managed.iter().any(is_of_name) && !endpoints.declared.iter().any(is_of_name)
    }

    /// All subscriptions, by name.
    pub fn all(&self) -> Vec<Arc<Subscription>> {
        self.lock().subscriptions.values().cloned().collect()
    }

    /// Waits until all have ended, after the stop.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Tasks that have not ended.
    pub fn still_running(&self) -> usize {
        self.tasks.len()
    }

    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
