//! Where the orchestrator is wired: the table of its tasks. `assembly` has their queues, `drain` the order of their ends:
//!
//! the listeners first, then the readers of results, then relay and committer, then the store: everything accepted is
//! committed, everything committed may be published later.

use crate::api::{self, grpc, rest};
use crate::app::{App, operations_loop, pauses_loop};
use crate::assembly::{Parts, assemble, sights};
use crate::config::{self, Config};
use crate::drain::Tasks;
use crate::housekeeping::{self, Ticking, schedule_loop};
use crate::keys::Keys;
use crate::opening::Opening;
use crate::relay::{poll_loop, results_are_read};
use crate::slo::{Keeper, objectives};
use crate::store::{self, Store};
use crate::{audit_check, auditing, clock, edge, metrics, presence, queues, reconcile, results, streams};
use agentforge_config::{Common, Reader, Setting};
use agentforge_jetstream::Nats;
use agentforge_metrics::Metric;
use agentforge_runtime::http::{GRPC_PROTOCOLS, HTTP_PROTOCOLS};
use agentforge_runtime::{Endpoints, Runtime, Service, Tls};
use anyhow::{Context, Error};
use futures_util::TryFutureExt as _;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The service, built and bound.
pub struct Orchestrator {
    config: Config,
    runtime: Runtime,
    app: App,
    nats: Nats,
    store: Arc<dyn Store>,
    parts: Parts,
    http: (TcpListener, Option<Tls>),
    grpc: (TcpListener, Option<Tls>),
    endpoints: Endpoints,
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
        vec![metrics::ALL, agentforge_door::metrics::CATALOGUE, agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, Error> {
        let options = store::Options { pool_size: config.db_pool, url_file: config.database_url_file.clone() };
        let store =
            store::open(&config.database_url, &config.common.data_dir, &options).context("cannot open the database")?;
        let keys = Keys::open(&config.keys).context("no key to sign attempts with")?;
        let nats =
            Nats::connect(&config.nats, "agentforge-orchestrator").await.context("cannot set up the NATS client")?;
        let http = agentforge_runtime::bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        let grpc = agentforge_runtime::bind(config.common.listen(config.grpc_port), "GRPC_PORT").await?;
        let tls = |protocols| Tls::of(&runtime, &config.common, protocols);
        let (http, grpc) = ((http, tls(HTTP_PROTOCOLS)?), (grpc, tls(GRPC_PROTOCOLS)?));
        edge::declare(&config.site);
        // Closed before the first question: what is ready for a moment at the start gets callers.
        for gate in ["database", "streams"] {
            runtime.readiness().gate(gate, true);
        }
        let metrics = agentforge_runtime::serve_metrics(&runtime, &config.common).await?;
        let is_tls = config.common.tls.is_some();
        let (http_address, grpc_address) = (Some(http.0.local_addr()?), Some(grpc.0.local_addr()?));
        let endpoints = Endpoints { http: http_address, grpc: grpc_address, metrics, is_tls, is_metrics_tls: is_tls };
        let (app, parts) = assemble(&config, &runtime, store.clone(), &nats, keys);
        Ok(Self { config, runtime, app, nats, store, parts, http, grpc, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), Error> {
        let Self { config, runtime, app, nats, store, parts, http, grpc, .. } = self;
        let mission = || config.mission.clone();
        let (app, nats, stop) = (|| app.clone(), || nats.clone(), || runtime.stopping());
        let (database, link) = (runtime.readiness().gate("database", true), runtime.readiness().gate("nats", false));
        database.set(false, "opening");
        link.set(false, "connecting");
        let (t, grace) = (Tasks::new(&runtime), runtime.grace());

        // Before the database: the hub's state is reported and probes are answered while it is unavailable; callers are
        // refused until it is open.
        let site = edge::Edge {
            nats: nats(),
            hub: config.hub.clone(),
            site: config.site.clone(),
            links: app().links().clone(),
        };
        t.spawn("edge-link", site.clone().link_loop(stop()));
        t.spawn("edge-sites", site.sites_loop(stop()));
        let (door, stopping) = (config.auth.door(), stop());
        t.spawn("access", async move {
            door.keep(stopping).await;
            Ok(())
        });
        let routes = rest::router(app(), config.auth.clone(), config.http_concurrency);
        let routes = routes.merge(agentforge_runtime::admin_router(&runtime));
        let routes = agentforge_runtime::http::instrument(routes, &runtime);
        t.front("http", agentforge_runtime::serve_https(http.0, http.1, routes, stop(), grace).map_err(Error::from));
        let (root, ready) = (api::trace::Root::of(&config.common), runtime.readiness().clone());
        let served = grpc::serve(grpc, app(), config.auth.clone(), root, move || ready.is_ready(), stop(), grace);
        t.front("grpc", served.map_err(Error::from));
        let owner = parts.committer_config.owner.clone();
        if !(Opening { app: app(), owner: owner.clone() }).run(&database, &stop()).await? {
            t.refuse_callers().await;
            return Ok(());
        }

        // Behind: what must outlive the listeners.
        let (topology_ready, topology_is_ready) = watch::channel(false);
        let (renewed, jobs_renewed) = watch::channel(0);
        let ack_wait = config.topology.effective_ack_wait();
        let audit_is_ready = topology_is_ready.clone();
        let opening = results_are_read(app(), nats(), mission(), ack_wait, topology_is_ready.clone(), t.last.clone());
        t.back_until_done("committer", parts.commit_loop.run(t.last.clone()));
        t.back_until_done("relay", parts.jobs.run(opening, t.last.clone()));
        t.back_until_done("outbox", parts.outbox.run(std::future::ready(()), t.last.clone()));

        // In front: what takes work from callers and workers, and what keeps it going.
        let topology = (config.topology.clone(), mission(), config.maker);
        let gate = runtime.readiness().gate("streams", true);
        let signals = streams::Signals { ready: topology_ready, renewed, gate };
        t.spawn("topology", streams::run(app(), nats(), topology, parts.consumers.clone(), signals, stop()));
        let (consumers, capacity) = (parts.consumers.clone(), parts.capacity.clone());
        let idle_after = config.queue_idle_after;
        t.spawn("queues", queues::Keeper { app: app(), nats: nats(), consumers, capacity, idle_after }.run(stop()));
        t.spawn("pauses", pauses_loop(app(), stop()));
        t.spawn("room", poll_loop(nats(), parts.capacity, mission(), stop()));
        t.front("results", results::results_loop(app(), nats(), topology_is_ready, stop()));
        t.spawn("control", parts.cancel_loop.run(nats(), mission(), parts.forgets, parts.deletions, stop()));
        t.spawn("deletions", parts.deletion_loop.run(nats(), stop()));
        t.spawn("heartbeats", presence::beat_loop(app(), nats(), mission(), parts.consumers, stop()));
        let attendance = presence::Attendance::default();
        let roll = presence::Roll::new(app(), attendance.clone());
        t.spawn("presence", presence::count_loop(roll.clone(), stop()));
        runtime.on_scrape(move || roll.clone().call());
        let keeper = Keeper::new(&app(), objectives(config.slo), sights(&runtime, &nats(), attendance));
        t.back("objectives", keeper.run(stop()));
        t.spawn("deadlines", reconcile::expire_loop(app(), nats(), mission(), stop()));
        let keep = (config.audit.retention, config.audit.entries_max);
        t.spawn("audit", auditing::keep_loop(app(), keep, stop()));
        t.spawn("audit-check", audit_check::check_loop(app(), config.audit.verify_interval, stop()));
        t.spawn("audit-intake", auditing::intake_loop(app(), nats(), audit_is_ready, stop()));
        t.spawn("retention", reconcile::prune_loop(app(), config.retention, stop()));
        let stale_after = config.reconcile_after;
        t.spawn("reconcile", reconcile::stale_loop(app(), nats(), mission(), stale_after, jobs_renewed, stop()));
        t.spawn("health", housekeeping::health_loop(app(), nats(), database, link, stop()));
        t.spawn("keys", app().keys().clone().follow(stop()));
        t.spawn("clock", clock::steps_loop(app(), stop()));
        t.spawn("outbox-count", housekeeping::outbox_loop(app(), parts.gauge, stop()));
        let depths = housekeeping::Depths::new(app());
        runtime.on_scrape(move || depths.clone().count());
        t.spawn("schedules", schedule_loop(app(), Ticking { committer: parts.committer_config }, stop()));
        t.back("operations", operations_loop(app(), owner, stop()));
        t.spawn("replicas", housekeeping::replica_loop(app(), stop()));

        t.drain(&nats(), &*store).await;
        Ok(())
    }
}
