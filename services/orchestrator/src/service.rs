//! Where the orchestrator is wired: the one place that knows all its parts.
//! Drain: the listeners first, then the readers of results, then relay and committer, then the store: everything
//! accepted is committed, everything committed may be published later.

use crate::api::{grpc, rest};
use crate::app::{self, App, Backlog, Committer, CommitterConfig, Hub, OutboxGauge, Outlets, Queues};
use crate::config::{self, Config};
use crate::housekeeping::{self, Ticking};
use crate::lanes::Lanes;
use crate::opening::Opening;
use crate::relay::{JobLane, OutboxLane, Relay, Room, Shared, look_loop, results_are_read};
use crate::slo::{Keeper, Sight, objectives};
use crate::store::{self, Owner, Store};
use crate::{clock, control, edge, metrics, outputs, presence, queues, reconcile, results, slo, streams};
use agentforge_config::{Common, Reader, Setting};
use agentforge_jetstream::consume::{PullOptions, Puller};
use agentforge_jetstream::{Nats, subjects};
use agentforge_metrics::Metric;
use agentforge_runtime::{Endpoints, OnEnd, Runtime, Service};
use anyhow::Context;
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// How long a claim holds: longer than any publish takes, short enough to be made up for soon.
const CLAIM_FOR: Duration = Duration::from_secs(30);
/// A start is not an outage: until the service was ready once, or for this long, it counts as not observed.
const START_MAX: Duration = Duration::from_secs(60);
/// What of the grace period is kept for the last commits.
const LAST_COMMITS: Duration = Duration::from_secs(2);

/// The service, built and bound.
pub struct Orchestrator {
    config: Config,
    runtime: Runtime,
    app: App,
    nats: Nats,
    store: Arc<dyn Store>,
    parts: Parts,
    http: TcpListener,
    grpc: TcpListener,
    endpoints: Endpoints,
}

/// What `run` sets going.
struct Parts {
    commit_loop: app::CommitLoop,
    committer: Committer,
    committer_config: CommitterConfig,
    backlog: Arc<Backlog>,
    outbox_backlog: Arc<Backlog>,
    gauge: OutboxGauge,
    jobs: mpsc::UnboundedReceiver<app::Handoff>,
    outbox: mpsc::UnboundedReceiver<app::Handoff>,
    orphans: mpsc::UnboundedReceiver<(agentforge_message_id::JobId, i64)>,
    cancels: mpsc::UnboundedReceiver<control::Cancelled>,
    lanes: Lanes,
    room: Room,
}

#[async_trait::async_trait]
impl Service for Orchestrator {
    const NAME: &'static str = "orchestrator";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        config::groups()
    }

    fn read_config(reader: &mut Reader<'_>) -> Config {
        Config::read(reader)
    }

    fn common(config: &Config) -> &Common {
        &config.common
    }

    fn metrics() -> Vec<&'static [Metric]> {
        vec![metrics::ALL, agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        let options = store::Options { pool_size: config.db_pool };
        let store =
            store::open(&config.database_url, &config.common.data_dir, &options).context("cannot open the database")?;
        let nats =
            Nats::connect(&config.nats, "agentforge-orchestrator").await.context("cannot set up the NATS client")?;
        let http = agentforge_runtime::bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        let grpc = agentforge_runtime::bind(config.common.listen(config.grpc_port), "GRPC_PORT").await?;
        edge::declare(&config.site);
        let metrics = agentforge_runtime::serve_metrics(&runtime, &config.common).await?;
        let endpoints = Endpoints { http: Some(http.local_addr()?), grpc: Some(grpc.local_addr()?), metrics };
        let (app, parts) = assemble(&config, &runtime, store.clone(), &nats);
        Ok(Self { config, runtime, app, nats, store, parts, http, grpc, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { config, runtime, app, nats, store, parts, http, grpc, .. } = self;
        let stop = runtime.stopping();
        let database = runtime.readiness().gate("database", true);
        let link = runtime.readiness().gate("nats", false);
        database.set(false, "opening");
        link.set(false, "connecting");
        let tasks = runtime.supervisor();
        // Before the database: the hub's state is reported even while the database is unavailable.
        let site = edge::Edge { nats: nats.clone(), hub: config.hub.clone(), site: config.site.clone() };
        tasks.spawn("edge-link", OnEnd::Stop, site.clone().link_loop(stop.clone()));
        tasks.spawn("edge-sites", OnEnd::Stop, site.sites_loop(stop.clone()));
        // And so are the listeners: probes are answered from the first moment, callers are refused until it is open.
        let (front, back) = (TaskTracker::new(), TaskTracker::new());
        let ready = runtime.readiness().clone();
        let router = rest::router(app.clone(), config.auth.clone(), config.http_concurrency)
            .merge(agentforge_runtime::admin_router(&runtime));
        let router = agentforge_runtime::http::instrument(router, &runtime);
        tasks.spawn("http", OnEnd::Stop, front.track_future(serve_http(http, router, stop.clone(), runtime.grace())));
        let serve_grpc = grpc::serve(
            grpc,
            app.clone(),
            config.auth.clone(),
            crate::api::trace::Root::of(&config.common),
            move || ready.is_ready(),
            stop.clone(),
            runtime.grace(),
        );
        tasks.spawn("grpc", OnEnd::Stop, front.track_future(async { serve_grpc.await.map_err(anyhow::Error::from) }));
        let opening =
            Opening { app: app.clone(), owner: parts.committer_config.owner.clone(), mission: config.mission.clone() };
        if !opening.run(&database, &stop).await? {
            front.close();
            let _ = tokio::time::timeout_at(runtime.drain_deadline(), front.wait()).await;
            return Ok(());
        }

        let last_stop = CancellationToken::new();
        let (forgets, forgets_rx) = mpsc::unbounded_channel();
        let (outbox_forgets, outbox_forgets_rx) = mpsc::unbounded_channel();
        // The outbox has nothing to forget; its lane's receiver stays open with this sender.
        let _outbox_forgets = outbox_forgets;

        // Behind: what must outlive the listeners.
        let commit = parts.commit_loop.run(last_stop.clone());
        tasks.spawn(
            "committer",
            OnEnd::Stop,
            back.track_future(async {
                commit.await;
                Ok(())
            }),
        );
        let shared = Shared { store: store.clone(), owner: parts.committer_config.owner.clone(), claim_for: CLAIM_FOR };
        let job_lane = JobLane {
            shared: shared.clone(),
            committer: parts.committer.clone(),
            backlog: parts.backlog.clone(),
            room: parts.room.clone(),
        };
        let outbox_lane =
            OutboxLane { shared, committer: parts.committer.clone(), backlog: parts.outbox_backlog.clone() };
        let relay = Relay::new(Arc::new(job_lane), nats.clone(), parts.jobs, forgets_rx);
        let outbox = Relay::new(Arc::new(outbox_lane), nats.clone(), parts.outbox, outbox_forgets_rx);
        let relay_stop = CancellationToken::new();

        // In front: what takes work from callers and workers.
        let starts = Starts { nats: nats.clone(), config: config.clone(), app: app.clone(), stop: stop.clone() };
        let (topology_ready, topology_is_ready) = watch::channel(false);
        let may_relay = topology_is_ready.clone();
        let topology = (config.topology.clone(), config.mission.clone());
        let (renewed, jobs_renewed) = watch::channel(0);
        let tellers =
            streams::Tellers { ready: topology_ready, renewed, gate: runtime.readiness().gate("streams", true) };
        tasks.spawn(
            "topology",
            OnEnd::Stop,
            streams::run(app.clone(), nats.clone(), topology, parts.lanes.clone(), tellers, stop.clone()),
        );
        let keeper = queues::Keeper {
            app: app.clone(),
            nats: nats.clone(),
            lanes: parts.lanes.clone(),
            room: parts.room.clone(),
            idle_after: config.queue_idle_after,
        };
        tasks.spawn("queues", OnEnd::Stop, keeper.run(stop.clone()));
        let room = look_loop(nats.clone(), parts.room, config.mission.clone(), stop.clone());
        tasks.spawn("room", OnEnd::Stop, room);
        tasks.spawn("results", OnEnd::Stop, front.track_future(starts.results(topology_is_ready)));
        let opening = results_are_read(
            app.clone(),
            nats.clone(),
            config.mission.clone(),
            config.topology.effective_ack_wait(),
            may_relay,
            relay_stop.clone(),
        );
        let runs = [
            ("relay", relay.run(opening, relay_stop.clone()).boxed()),
            ("outbox", outbox.run(std::future::ready(()), relay_stop.clone()).boxed()),
        ];
        for (name, relay_run) in runs {
            tasks.spawn(
                name,
                OnEnd::Stop,
                back.track_future(async {
                    relay_run.await;
                    Ok(())
                }),
            );
        }
        let mission = config.mission.clone();
        tasks.spawn(
            "control",
            OnEnd::Stop,
            control::run(nats.clone(), mission.clone(), parts.cancels, parts.orphans, forgets, stop.clone()),
        );
        tasks.spawn(
            "heartbeats",
            OnEnd::Stop,
            presence::beat_loop(app.clone(), nats.clone(), mission.clone(), parts.lanes, stop.clone()),
        );
        let attendance = presence::Attendance::default();
        let roll = presence::Roll::new(app.clone(), attendance.clone());
        tasks.spawn("presence", OnEnd::Stop, presence::look_loop(roll.clone(), stop.clone()));
        runtime.on_scrape(move || roll.clone().call());
        let keeper = Keeper::new(&app, objectives(config.slo), sights(&runtime, &nats, attendance));
        tasks.spawn("objectives", OnEnd::Stop, back.track_future(keeper.run(stop.clone())));
        tasks.spawn(
            "deadlines",
            OnEnd::Stop,
            reconcile::expire_loop(app.clone(), nats.clone(), mission.clone(), stop.clone()),
        );
        tasks.spawn("retention", OnEnd::Stop, reconcile::prune_loop(app.clone(), config.retention, stop.clone()));
        tasks.spawn(
            "reconcile",
            OnEnd::Stop,
            reconcile::stale_loop(
                app.clone(),
                nats.clone(),
                mission,
                config.reconcile_after,
                jobs_renewed,
                stop.clone(),
            ),
        );
        tasks.spawn(
            "health",
            OnEnd::Stop,
            housekeeping::health_loop(app.clone(), nats.clone(), database, link, stop.clone()),
        );
        tasks.spawn("clock", OnEnd::Stop, clock::steps_loop(app.clone(), stop.clone()));
        tasks.spawn("outbox-count", OnEnd::Stop, housekeeping::outbox_loop(app.clone(), parts.gauge, stop.clone()));
        let operations_owner = parts.committer_config.owner.clone();
        let depths = housekeeping::Depths::new(app.clone());
        runtime.on_scrape(move || depths.clone().count());
        tasks.spawn(
            "schedules",
            OnEnd::Stop,
            housekeeping::schedule_loop(app.clone(), Ticking { committer: parts.committer_config }, stop.clone()),
        );
        tasks.spawn(
            "operations",
            OnEnd::Stop,
            back.track_future(app::operations_loop(app.clone(), operations_owner, stop.clone())),
        );
        tasks.spawn("replicas", OnEnd::Stop, housekeeping::replica_loop(app, stop.clone()));

        stop.cancelled().await;
        front.close();
        let last_commits =
            runtime.drain_deadline().checked_sub(LAST_COMMITS).unwrap_or_else(|| runtime.drain_deadline());
        if tokio::time::timeout_at(last_commits, front.wait()).await.is_err() {
            warn!("callers were still being served at the end of the grace period (SHUTDOWN_GRACE)");
        }
        relay_stop.cancel();
        last_stop.cancel();
        back.close();
        let _ = tokio::time::timeout_at(runtime.drain_deadline(), back.wait()).await;
        if let Err(error) = nats.drain().await {
            info!(%error, "NATS was not drained");
        }
        store.close().await;
        Ok(())
    }
}

fn assemble(config: &Config, runtime: &Runtime, store: Arc<dyn Store>, nats: &Nats) -> (App, Parts) {
    let topology = &config.topology;
    let stream_max_bytes = topology.edge.as_ref().map_or(topology.jobs_max_bytes, |edge| edge.max_bytes);
    let hub = Hub::default();
    let gauge = OutboxGauge::new(config.outbox_max, config.scheduled_max);
    let (backlog, outbox_backlog) = (Arc::new(Backlog::default()), Arc::new(Backlog::default()));
    let (jobs_tx, jobs) = mpsc::unbounded_channel();
    let (outbox_tx, outbox) = mpsc::unbounded_channel();
    let (orphans_tx, orphans) = mpsc::unbounded_channel();
    let (cancels_tx, cancels) = mpsc::unbounded_channel();
    let committer_config = CommitterConfig {
        backoff: config.backoff,
        owner: Owner(format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple())),
        claim_for: CLAIM_FOR,
        events: config.events,
    };
    let outlets = Outlets {
        hub: hub.clone(),
        gauge: gauge.clone(),
        backlog: backlog.clone(),
        outbox_backlog: outbox_backlog.clone(),
        jobs: jobs_tx,
        outbox: outbox_tx,
        orphans: orphans_tx,
    };
    let (committer, commit_loop) = Committer::new(store.clone(), committer_config.clone(), outlets);
    let app = App::new(app::Inner {
        store,
        committer: committer.clone(),
        hub,
        outbox: gauge.clone(),
        backlog: backlog.clone(),
        queues: Queues::new(config.queues_max, config.queues.iter().cloned(), config.tool_grace),
        limits: config.limits.clone(),
        args_max_bytes: AtomicUsize::new(config.limits.args_max_bytes),
        stream_max_bytes: usize::try_from(stream_max_bytes).unwrap_or(usize::MAX),
        cancels: cancels_tx,
        outputs: Arc::new(outputs::ObjectStoreOutputs(nats.clone())),
        board: slo::Board::default(),
        opening: watch::Sender::new(app::Opening::UnderWay),
        watches: Arc::new(Semaphore::new(config.watches_max.min(Semaphore::MAX_PERMITS))),
        stopping: runtime.stopping(),
    });
    let parts = Parts {
        commit_loop,
        committer,
        committer_config,
        backlog,
        outbox_backlog,
        gauge,
        jobs,
        outbox,
        orphans,
        cancels,
        lanes: Lanes::new(config.queues_max, config.queues.iter().cloned()),
        room: Room::default(),
    };
    (app, parts)
}

/// What is looked at for the objectives in seconds.
fn sights(runtime: &Runtime, nats: &Nats, attendance: presence::Attendance) -> BTreeMap<&'static str, Sight> {
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

async fn serve_http(
    listener: TcpListener,
    router: axum::Router,
    stop: CancellationToken,
    grace: Duration,
) -> Result<(), anyhow::Error> {
    agentforge_runtime::serve_http(listener, router, stop, grace).await.map_err(anyhow::Error::from)
}

struct Starts {
    nats: Nats,
    config: Config,
    app: App,
    stop: CancellationToken,
}

impl Starts {
    /// Results are taken once their consumer is known to be there.
    async fn results(self, mut topology: watch::Receiver<bool>) -> Result<(), anyhow::Error> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(()),
            is_ready = async { topology.wait_for(|ready| *ready).await.is_ok() } => if !is_ready {
                // The task that maintains it has ended, in a stop or with an error that it reports itself.
                self.stop.cancelled().await;
                return Ok(());
            },
        }
        let options = PullOptions::new("results", results::IN_FLIGHT_MAX);
        let durable = subjects::orchestrator_durable(&self.config.mission);
        let puller = Puller::start(self.nats, subjects::STREAM_RESULTS, durable, options);
        results::run(self.app, puller, self.stop).await
    }
}
