//! The worker as a service: built, run, drained.
//!
//! The only place that wires the parts together. Ready means that jobs can be taken: NATS is
//! connected and every queue's consumer is bound.

use crate::{
    acks::Acks,
    buckets::Buckets,
    bundle::Bundler,
    clock::Clock,
    config::{self, Config},
    consume::{self, Bindings, STALL_MAX},
    error::Error,
    keepalive::KeepAlive,
    ledger::Ledger,
    lifeline::{Identity, Lifeline},
    metrics::{self, CAPACITY, Handles, QueueCounters},
    orders::{self, Orders},
    refusals::Refusals,
    slots::Pool,
    stop::Cause,
    streams,
    tools::{
        Toolbox,
        echo::Echo,
        exec::{CgroupRoot, Exec, Files, Starter, TempRoot, confinement, is_launcher_enabled},
        fail::Fail,
        http::Http,
        sleep::Sleep,
    },
    worker::{ServedQueue, Worker},
};
use agentforge_config::{Common, Reader, Setting};
use agentforge_egress::{Policy, Timeouts};
use agentforge_jetstream::{Nats, NatsConfig, Puller, subjects};
use agentforge_metrics::Metric;
use agentforge_runtime::http::HTTP_PROTOCOLS;
use agentforge_runtime::{Endpoints, OnEnd, Runtime, Service, Tls, admin_router, bind, serve_https, serve_metrics};
use async_trait::async_trait;
use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// What is kept of the grace for stopping tools, counting hand-backs and saying farewell.
const LEAVE_MARGIN: Duration = Duration::from_secs(6);
/// Unconfirmed acknowledgements per slot: enough to hide a round trip, few enough to be a bound.
const ACKS_PER_SLOT: usize = 2;
/// For the last heartbeat.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// For emptying the connection, however late it is.
const CLOSE_MIN: Duration = Duration::from_secs(1);

/// Which tools are compiled in, in addition to the built-in ones.
pub trait CompiledIn: Send + Sync + 'static {
    /// The tools; called when the configuration is read.
    fn tools() -> Toolbox;
}

/// None but the built-in ones.
#[derive(Clone, Copy, Debug)]
pub struct BuiltInOnly;

impl CompiledIn for BuiltInOnly {
    fn tools() -> Toolbox {
        Toolbox::new()
    }
}

/// The worker with the built-in tools and those of the tools file.
pub type WorkerService = WorkerWith<BuiltInOnly>;

/// A worker with tools of your own: `agentforge_runtime::main::<WorkerWith<Mine>>()`.
pub struct WorkerWith<T> {
    config: Config,
    runtime: Runtime,
    worker: Arc<Worker>,
    pullers: Vec<(&'static str, Puller)>,
    listener: TcpListener,
    tls: Option<Tls>,
    endpoints: Endpoints,
    unconfined: Option<String>,
    compiled_in: PhantomData<fn() -> T>,
}

#[async_trait]
impl<T: CompiledIn> Service for WorkerWith<T> {
    const NAME: &'static str = "worker";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![
            ("Worker", config::SETTINGS.to_vec()),
            ("Signatures", orders::SETTINGS.to_vec()),
            ("Outgoing calls", vec![Policy::SETTING]),
            ("NATS", NatsConfig::SETTINGS.to_vec()),
            ("Common", Common::SETTINGS.to_vec()),
        ]
    }

    fn read_config(reader: &mut Reader<'_>) -> Config {
        Config::read(reader, T::tools())
    }

    fn common(config: &Config) -> &Common {
        &config.common
    }

    fn metrics() -> Vec<&'static [Metric]> {
        vec![metrics::METRICS, agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        let (tools, unconfined) = toolbox(&config)?;
        let listener = bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        let http = Some(listener.local_addr()?);
        let tls = Tls::of(&runtime, &config.common, HTTP_PROTOCOLS)?;
        // Closed before the first question: what is ready for a moment at the start gets callers.
        for gate in ["consumer", "nats", "streams"] {
            runtime.readiness().gate(gate, true);
        }
        let metrics = serve_metrics(&runtime, &config.common).await?;
        let nats = Nats::connect(&config.nats, &format!("worker {}", config.id)).await?;
        let pullers: Vec<_> = config.queues.iter().map(|queue| start_puller(&config, &nats, queue)).collect();
        let worker = Arc::new(assemble(&config, &runtime, nats, tools, &pullers));
        CAPACITY.set(&[], config.concurrency as f64);
        let is_tls = tls.is_some();
        let endpoints = Endpoints { http, grpc: None, metrics, is_tls, is_metrics_tls: is_tls };
        Ok(Self { config, runtime, worker, pullers, listener, tls, endpoints, unconfined, compiled_in: PhantomData })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { config, runtime, worker, pullers, listener, tls, unconfined, .. } = self;
        let (tasks, farewell) = (TaskTracker::new(), CancellationToken::new());
        let lifeline_ended = start_lifeline(&config, &runtime, &worker, unconfined, farewell.clone())?;
        spawn_loops(&runtime, &worker, pullers, &tasks);
        let (router, stop, grace) = (admin_router(&runtime), runtime.stopping(), runtime.grace());
        runtime
            .supervisor()
            .spawn("http", OnEnd::Stop, async move { Ok(serve_https(listener, tls, router, stop, grace).await?) });
        runtime.supervisor().spawn("verify-keys", OnEnd::Stop, worker.orders.clone().follow(runtime.stopping()));
        {
            let mut pool = worker.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.begin(|queue, n| worker.queues[queue].slots.grant(n));
        }
        info!(id = %worker.id, mission = %worker.mission, capacity = config.concurrency, tools = ?worker.tools, "taking jobs");

        runtime.stopping().cancelled().await;
        let settled = drain(&runtime, &worker, &tasks).await;
        farewell.cancel();
        let _ = timeout(FAREWELL_MAX, lifeline_ended.cancelled()).await;
        let close_by = runtime.drain_deadline().max(Instant::now() + CLOSE_MIN);
        match timeout_at(close_by, worker.nats.drain()).await {
            Ok(Ok(())) => {}
            _ => warn!("the NATS connection was closed without confirmation; missed messages are redelivered"),
        }
        Ok(settled?)
    }
}

/// The built-in tools, those of the tools file, those compiled in; and what commands are not confined by.
fn toolbox(config: &Config) -> Result<(Toolbox, Option<String>), Error> {
    let client = agentforge_egress::client(&config.egress, Timeouts::default())?;
    let mut tools = config.extra.clone();
    tools.add("echo", Echo)?;
    tools.add("sleep", Sleep)?;
    tools.add("fail", Fail)?;
    tools.add("http", Http::new(client, config.http_body_max_bytes))?;
    let (starter, unconfined) = starter(config)?;
    for (name, spec) in &config.commands {
        tools.add_shared(name.clone(), Arc::new(Exec::new(spec.clone(), starter.clone())))?;
    }
    Ok((tools, unconfined))
}

/// What starts the commands of the tools file, after a check of what this machine can confine; and what it cannot, in
/// the words of heartbeats.
fn starter(config: &Config) -> Result<(Starter, Option<String>), Error> {
    if config.commands.is_empty() {
        return Ok((Starter::default(), None));
    }
    if !is_launcher_enabled() {
        warn!(
            "commands are started without a launcher: they are not confined, processes that they detach by setsid \
             outlive them, and all their processes outlive a worker that is killed; call \
             agentforge_worker::enable_launcher() first in main"
        );
        return Ok((Starter::default(), Some("launcher".to_owned())));
    }
    let machine = confinement().map_err(Error::Confinement)?;
    let specs = || config.commands.iter();
    if let Some((name, problem)) =
        specs().find(|(_, spec)| !spec.network).and_then(|(name, _)| Some((name, machine.network.as_ref()?)))
    {
        return Err(Error::Network { tool: name.clone(), problem: problem.clone() });
    }
    if machine.files != "all" && specs().any(|(_, spec)| spec.files != Files::Any) {
        warn!(
            enforced = machine.files,
            "the kernel does not enforce all file rules of commands: Landlock is absent, switched off or old"
        );
    }
    let temp = TempRoot::make(&std::env::temp_dir())
        .inspect_err(|error| {
            let place = std::env::temp_dir();
            warn!(%error, place = %place.display(), "commands get no temporary directory; TMPDIR names another place");
        })
        .ok();
    let shares_ipc = specs().any(|(_, spec)| spec.files != Files::Any && spec.network);
    if let Some(reason) = machine.ipc.as_ref().filter(|_| shares_ipc) {
        info!(reason, "commands with a network share System V memory with other processes of their user");
    }
    let cgroup = CgroupRoot::take()
        .inspect_err(|reason| {
            info!(reason, "commands have no cgroups: their launchers measure them, and end their processes one by one");
        })
        .ok();
    info!(
        files = machine.files,
        network = machine.network.is_none(),
        ipc = machine.ipc.is_none(),
        temp = temp.is_some(),
        cgroup = cgroup.is_some(),
        cgroup_limits = ?cgroup.as_ref().map(CgroupRoot::limits).unwrap_or_default(),
        "commands are confined"
    );
    let limits = cgroup.as_ref().map(CgroupRoot::limits).unwrap_or_default();
    let missing = [
        ("files", machine.files != "all"),
        ("network", machine.network.is_some()),
        ("ipc", machine.ipc.is_some()),
        ("cgroup", cgroup.is_none()),
        ("pids", !limits.contains(&"pids")),
        ("memory", !limits.contains(&"memory")),
    ];
    let words: Vec<&str> = missing.into_iter().filter(|(_, is_missing)| *is_missing).map(|(word, _)| word).collect();
    Ok((Starter::new(temp, cgroup, config.concurrency), Some(words.join(" "))))
}

/// Names of loops are labels, and live as long as the process; there are at most 32 per worker.
fn start_puller(config: &Config, nats: &Nats, queue: &agentforge_message_id::Queue) -> (&'static str, Puller) {
    let name: &'static str = Box::leak(format!("worker-{queue}").into_boxed_str());
    (name, consume::puller(nats, &config.mission, queue, name, config.concurrency))
}

fn assemble(
    config: &Config,
    runtime: &Runtime,
    nats: Nats,
    tools: Toolbox,
    pullers: &[(&'static str, Puller)],
) -> Worker {
    let queue = |(queue, (_, puller)): (&agentforge_message_id::Queue, &(&'static str, Puller))| ServedQueue {
        name: queue.clone(),
        jobs_subject: subjects::job(&config.mission, queue),
        results_subject: subjects::results(&config.mission, queue),
        counters: QueueCounters::new(&config.mission, queue),
        bundler: Bundler::new(&subjects::results(&config.mission, queue)),
        acks: Acks::default(),
        slots: puller.slots(),
    };
    Worker {
        id: config.id.clone(),
        mission: config.mission.clone(),
        site: config.site.clone(),
        handles: Handles::new(&tools),
        tools,
        ledger: Arc::new(Ledger::default()),
        keepalive: Arc::new(KeepAlive::default()),
        clock: Arc::new(Clock::default()),
        refusals: Refusals::default(),
        orders: Orders::new(&config.verify),
        buckets: Buckets::new(nats.jetstream().clone(), config.mission.clone(), config.reuse_window),
        nats,
        queues: config.queues.iter().zip(pullers).map(queue).collect(),
        pool: Mutex::new(Pool::new(config.concurrency, config.queues.len())),
        suspects: Semaphore::new(1),
        acks: Arc::new(Semaphore::new(ACKS_PER_SLOT * config.concurrency)),
        arrivals: Notify::new(),
        max_lost: config.max_lost,
        started_after: config.started_after,
        reuse_window: config.reuse_window,
        output_inline_max_bytes: config.output_inline_max_bytes,
        draining: runtime.stopping(),
        leaving: CancellationToken::new(),
    }
}

/// Starts the lifeline; the token fires when it has ended.
fn start_lifeline(
    config: &Config,
    runtime: &Runtime,
    worker: &Arc<Worker>,
    unconfined: Option<String>,
    farewell: CancellationToken,
) -> Result<CancellationToken, Error> {
    let identity = Identity {
        id: config.id.clone(),
        mission: config.mission.clone(),
        site: config.site.clone(),
        queues: config.queues.clone(),
        tools: worker.tools.names().map(ToString::to_string).collect(),
        capacity: u32::try_from(config.concurrency).unwrap_or(u32::MAX),
        interval: config.heartbeat_interval,
        certificate: config.nats.tls.client.as_ref().map(|(cert, _)| cert.clone()),
        unconfined,
    };
    let (ledger, keepalive, clock) = (worker.ledger.clone(), worker.keepalive.clone(), worker.clock.clone());
    let outcome = Lifeline { identity, nats: config.nats.clone(), ledger, keepalive, clock }.start(farewell)?;
    let ended = CancellationToken::new();
    let report_unconfirmed = ended.clone().drop_guard();
    runtime.supervisor().spawn("lifeline", OnEnd::Stop, async move {
        let _tell = report_unconfirmed;
        let outcome = outcome.await.unwrap_or(Err(crate::lifeline::Error::Panicked));
        Ok(outcome.map_err(Error::Lifeline)?)
    });
    Ok(ended)
}

fn spawn_loops(runtime: &Runtime, worker: &Arc<Worker>, pullers: Vec<(&'static str, Puller)>, tasks: &TaskTracker) {
    let (supervisor, readiness) = (runtime.supervisor(), runtime.readiness());
    let bindings = Arc::new(Bindings::new(readiness.gate("consumer", true), worker));
    let nats_gate = readiness.gate("nats", true);
    supervisor.spawn(
        "connection",
        OnEnd::Stop,
        consume::watch_connection(worker.nats.clone(), nats_gate, worker.clone()),
    );
    supervisor.spawn("streams", OnEnd::Stop, streams::watch(worker.clone(), readiness.gate("streams", true)));
    for (queue, (name, puller)) in pullers.into_iter().enumerate() {
        let heart = readiness.heartbeat(name, 2 * STALL_MAX);
        supervisor.spawn(
            "binding",
            OnEnd::Stop,
            consume::watch_binding(worker.clone(), queue, puller.bound(), bindings.clone()),
        );
        supervisor.spawn(name, OnEnd::Stop, consume::serve(worker.clone(), queue, puller, tasks.clone(), heart));
    }
}

/// Finishes what runs; near the end of the grace stops and hands back the rest.
async fn drain(runtime: &Runtime, worker: &Worker, tasks: &TaskTracker) -> Result<(), Error> {
    let deadline = runtime.drain_deadline();
    let leave_at = deadline - LEAVE_MARGIN.min(runtime.grace() / 2);
    info!(inflight = worker.ledger.len(), "draining");
    tasks.close();
    tokio::select! {
        () = tasks.wait() => return Ok(()),
        () = sleep_until(leave_at) => {}
    }
    info!(inflight = worker.ledger.len(), "the grace period is nearly over; handing back the rest");
    worker.leaving.cancel();
    worker.ledger.stop_all(Cause::Draining);
    match timeout_at(deadline, tasks.wait()).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::Unsettled(worker.ledger.len())),
    }
}
