//! What a service is handed at `build`: its stop, its supervisor, its readiness, the process.

use crate::{Process, Readiness, Supervisor};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// One service's share of the process. Cheap to clone; clones are the same runtime.
#[derive(Debug, Clone)]
pub struct Runtime {
    name: &'static str,
    stop: CancellationToken,
    grace: Duration,
    deadline: Arc<OnceLock<Instant>>,
    supervisor: Supervisor,
    readiness: Readiness,
    process: Process,
    serves_metrics: bool,
}

impl Runtime {
    /// A runtime that stops when `stop` fires and then has `grace` to drain. A fatal task fires `stop`, so services
    /// that should fail separately get a child token each.
    pub fn new(name: &'static str, stop: CancellationToken, grace: Duration, process: &Process) -> Self {
        Self {
            name,
            grace,
            deadline: Arc::default(),
            supervisor: Supervisor::new(name, stop.clone()),
            readiness: Readiness::new(name, stop.clone()),
            process: process.clone(),
            serves_metrics: true,
            stop,
        }
    }

    /// A runtime for tests: own stop, 5 s of grace, no metrics listener.
    pub fn for_tests(name: &'static str) -> Self {
        Self::new(name, CancellationToken::new(), Duration::from_secs(5), &Process::for_tests())
            .without_metrics_listener()
    }

    /// The same, if another listener of the process serves the metrics.
    pub fn without_metrics_listener(self) -> Self {
        Self { serves_metrics: false, ..self }
    }

    /// Has `refresh` set gauges whenever somebody scrapes, until the stop: for what is counted elsewhere, such as
    /// in a database. It may be dropped at any await, after a quarter of a second.
    pub fn on_scrape<F>(&self, refresh: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.process.refreshers().add(self.stop.clone(), refresh);
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Fires when the service should stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// How long a drain may take after the stop.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// When the drain must be over. Before the stop: a grace period from now; after it: fixed by
    /// the first call, so that every part of the drain has the same deadline.
    pub fn drain_deadline(&self) -> Instant {
        if self.stop.is_cancelled() {
            *self.deadline.get_or_init(|| Instant::now() + self.grace)
        } else {
            Instant::now() + self.grace
        }
    }

    /// Spawns and watches the service's tasks.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The service's readiness and liveness.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The process that this runtime shares.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether this service opens the METRICS_PORT listener.
    pub fn serves_metrics(&self) -> bool {
        self.serves_metrics
    }

    /// A span that names the service in every log line inside; it is not part of traces.
    pub fn scope(&self) -> Span {
        crate::telemetry::scope(self.name)
    }
}
