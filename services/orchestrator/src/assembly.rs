//! The parts of the service and how they hang together: who hands what to whom, each over a bounded queue of its own.

use crate::app::{
    self, App, CommitLoop, Committer, CommitterConfig, JobWatchers, OutboxGauge, Outlets, Queues, handoffs,
};
use crate::config::Config;
use crate::consumers::QueueConsumers;
use crate::control::{CancelLoop, cancels};
use crate::deletions::{DeletionLoop, Deletions, deletions};
use crate::keys::Keys;
use crate::links::Links;
use crate::relay::{Forgets, JobSource, OutboxSource, Relay, Shared, StreamCapacity};
use crate::slo::Sight;
use crate::store::{Owner, Store};
use crate::{outputs, presence, slo};
use agentforge_jetstream::Nats;
use agentforge_runtime::Runtime;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// How long a claim holds: longer than any publish takes, short enough to be made up for soon.
const CLAIM_FOR: Duration = Duration::from_secs(30);
/// A start is not an outage: until the service was ready once, or for this long, it counts as not observed.
const START_MAX: Duration = Duration::from_secs(60);

/// What is set going once the database is open.
pub(crate) struct Parts {
    pub(crate) commit_loop: CommitLoop,
    pub(crate) committer_config: CommitterConfig,
    pub(crate) jobs: Relay<JobSource>,
    pub(crate) outbox: Relay<OutboxSource>,
    pub(crate) forgets: Forgets,
    pub(crate) cancel_loop: CancelLoop,
    pub(crate) deletions: Deletions,
    pub(crate) deletion_loop: DeletionLoop,
    pub(crate) gauge: OutboxGauge,
    pub(crate) consumers: QueueConsumers,
    pub(crate) capacity: StreamCapacity,
}

/// The application, and what keeps it going.
pub(crate) fn assemble(
    config: &Config,
    runtime: &Runtime,
    store: Arc<dyn Store>,
    nats: &Nats,
    keys: Keys,
) -> (App, Parts) {
    let topology = &config.topology;
    let stream_max_bytes = topology.edge.as_ref().map_or(topology.jobs_max_bytes, |edge| edge.max_bytes);
    let (watchers, gauge) = (JobWatchers::default(), OutboxGauge::new(config.outbox_max, config.scheduled_max));
    let ((to_jobs, jobs), (to_outbox, outbox)) = (handoffs(), handoffs());
    let (deletions, deletion_loop) = deletions();
    let (cancels, cancel_loop) = cancels();
    let committer_config = CommitterConfig {
        backoff: config.backoff,
        owner: Owner(format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple())),
        claim_for: CLAIM_FOR,
        events: config.events,
        mission: config.mission.clone(),
    };
    let outlets = Outlets {
        watchers: watchers.clone(),
        gauge: gauge.clone(),
        jobs: to_jobs,
        outbox: to_outbox,
        orphans: deletions.clone(),
    };
    let (committer, commit_loop) = Committer::new(store.clone(), committer_config.clone(), outlets);
    let shared = Shared { store: store.clone(), owner: committer_config.owner.clone(), claim_for: CLAIM_FOR };
    let pauses = app::Pauses::default();
    let app = App::new(app::Inner {
        store,
        committer: committer.clone(),
        watchers,
        outbox: gauge.clone(),
        backlog: jobs.backlog().clone(),
        queues: Queues::new(config.queues_max, config.queues.iter().cloned(), config.tool_grace),
        limits: config.limits.clone(),
        args_max_bytes: AtomicUsize::new(config.limits.args_max_bytes),
        stream_max_bytes: usize::try_from(stream_max_bytes).unwrap_or(usize::MAX),
        cancels,
        outputs: Arc::new(outputs::ObjectStoreOutputs(nats.clone())),
        keys: keys.clone(),
        board: slo::Board::default(),
        links: Links::default(),
        marks: config.audit.marks.clone(),
        opening: watch::Sender::new(app::Opening::UnderWay),
        counts: app::Counts::default(),
        rates: app::Rates::default(),
        pauses: pauses.clone(),
        watches: Arc::new(Semaphore::new(config.watches_max.min(Semaphore::MAX_PERMITS))),
        stopping: runtime.stopping(),
    });
    let capacity = StreamCapacity::default();
    let source = JobSource {
        shared: shared.clone(),
        committer: committer.clone(),
        backlog: jobs.backlog().clone(),
        capacity: capacity.clone(),
        pauses,
        keys,
        valid_for: config.keys.valid_for,
    };
    let (jobs, forgets) = Relay::new(Arc::new(source), nats.clone(), jobs);
    let source = OutboxSource { shared, committer, backlog: outbox.backlog().clone() };
    // What happened is not forgotten: the handle goes.
    let (outbox, _) = Relay::new(Arc::new(source), nats.clone(), outbox);
    let consumers = QueueConsumers::new(config.queues_max, config.queues.iter().cloned());
    let parts = Parts {
        commit_loop,
        committer_config,
        jobs,
        outbox,
        forgets,
        cancel_loop,
        deletions,
        deletion_loop,
        gauge,
        consumers,
        capacity,
    };
    (app, parts)
}

/// The checks of the objectives that count seconds, by service.
pub(crate) fn sights(
    runtime: &Runtime,
    nats: &Nats,
    attendance: presence::Attendance,
) -> BTreeMap<&'static str, Sight> {
    let (readiness, nats) = (runtime.readiness().clone(), nats.clone());
    let (begun, was_ready) = (tokio::time::Instant::now(), AtomicBool::new(false));
    BTreeMap::from([
        (
            "orchestrator",
            Box::new(move || {
                let is_ready = readiness.is_ready();
                was_ready.fetch_or(is_ready, Ordering::Relaxed);
                let counts = was_ready.load(Ordering::Relaxed) || begun.elapsed() >= START_MAX;
                (counts && !readiness.is_stopping()).then_some(is_ready)
            }) as Sight,
        ),
        ("worker", Box::new(move || attendance.is_up())),
        ("nats", Box::new(move || Some(nats.is_connected()))),
    ])
}
