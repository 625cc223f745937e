//! The broadcaster as a service: built, run, drained.
//!
//! The only place that wires the parts together. Ready means that events can be processed: NATS is connected and our
//! streams exist. An endpoint that is unavailable, disabled or wrong shows in the list of endpoints and holds nothing
//! up.

use crate::{
    api,
    config::Config,
    endpoints::declaration::Endpoint,
    error::Error,
    history::{
        attempt::Attempt,
        recent::RecentAttempts,
        stream::{self as history},
    },
    metrics,
    registry::{Registry, context::Context, managed::ManagedStore, managed_sync, reload, state::StateStore},
    retry::quota::RetryQuota,
    settings,
    topology::streams::Capabilities,
    upkeep,
};
use agentforge_config::{Common, Reader, Setting};
use agentforge_egress::{Dialer, Policy};
use agentforge_jetstream::{
    Nats, NatsConfig,
    topology::{Maker, TopologyConfig, webhooks::WebhookLimits},
};
use agentforge_metrics::Metric;
use agentforge_runtime::http::HTTP_PROTOCOLS;
use agentforge_runtime::{Endpoints, OnEnd, Runtime, Service, Tls, admin_router, bind, serve_https, serve_metrics};
use async_trait::async_trait;
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The last part of the grace, for handing back what is still in flight.
const HAND_BACK_MARGIN: Duration = Duration::from_secs(3);
/// At least this, for emptying the connection, even after the grace.
const CLOSE_TIME_MIN: Duration = Duration::from_secs(1);
/// A loop without a turn for this long hangs: twice what the requests of one turn take when each of them times out.
const LOOP_STALL_MAX: Duration = Duration::from_secs(120);

/// The broadcaster as a service: what was connected and bound before it runs.
pub struct Broadcaster {
    runtime: Runtime,
    registry: Registry,
    capabilities: watch::Sender<Option<Capabilities>>,
    history: mpsc::Receiver<Attempt>,
    listener: TcpListener,
    tls: Option<Tls>,
    endpoints: Endpoints,
}

#[async_trait]
impl Service for Broadcaster {
    const NAME: &'static str = "broadcaster";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![
            ("Broadcaster", settings::SETTINGS.to_vec()),
            ("Access", agentforge_door::SETTINGS.to_vec()),
            ("Outgoing calls", vec![Policy::SETTING]),
            ("Streams of webhooks", WebhookLimits::SETTINGS.to_vec()),
            ("Streams and consumers", TopologyConfig::SETTINGS.to_vec()),
            ("Topology", Maker::SETTINGS.to_vec()),
            ("NATS", NatsConfig::SETTINGS.to_vec()),
            ("Common", Common::SETTINGS.to_vec()),
        ]
    }

    fn read_config(reader: &mut Reader<'_>) -> Config {
        Config::read(reader)
    }

    fn check_config(config: &Config, reader: &mut Reader<'_>) {
        config.check_urls(reader);
    }

    fn common(config: &Config) -> &Common {
        &config.common
    }

    fn metrics() -> Vec<&'static [Metric]> {
        vec![metrics::METRICS, agentforge_door::metrics::CATALOGUE, agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        let dialer = Dialer::new(config.egress.clone(), config.ca_file.as_deref()).map_err(Error::Egress)?;
        let dialer = match &config.resolver {
            Some(resolver) => dialer.with_resolver(resolver.clone()),
            None => dialer,
        };
        let listener = bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        let http = Some(listener.local_addr()?);
        let tls = Tls::of(&runtime, &config.common, HTTP_PROTOCOLS)?;
        // Closed before the first question: what is ready for a moment at the start gets callers.
        for gate in ["nats", "streams"] {
            runtime.readiness().gate(gate, true);
        }
        let metrics = serve_metrics(&runtime, &config.common).await?;
        let nats = Nats::connect(&config.nats, "broadcaster").await?;
        let (capabilities, known) = watch::channel(None);
        let (attempts, history) = mpsc::channel(history::WAITING_MAX);
        let states = StateStore::new(nats.clone(), &config.common.env);
        let context = Context {
            managed: ManagedStore::new(states.clone(), config.state_keys.clone()),
            states,
            clock: Arc::default(),
            quota: Arc::new(RetryQuota::new(config.limits.retries_max_bytes)),
            nats,
            dialer,
            recent: Arc::new(RecentAttempts::new(attempts)),
            stop: runtime.stopping(),
            leaving: CancellationToken::new(),
            capabilities: known,
            topology_check: Arc::default(),
            config,
        };
        let is_tls = tls.is_some();
        let endpoints = Endpoints { http, grpc: None, metrics, is_tls, is_metrics_tls: is_tls };
        Ok(Self { runtime, registry: Registry::new(context), capabilities, history, listener, tls, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { runtime, registry, capabilities, history, listener, tls, .. } = self;
        let (supervisor, readiness, stop) = (runtime.supervisor(), runtime.readiness(), runtime.stopping());
        let router =
            admin_router(&runtime).merge(health(&runtime)).merge(api::router(&registry)).merge(api::openapi::router());
        let router = agentforge_runtime::http::instrument(router, &runtime);
        let grace = runtime.grace();
        let http = {
            let stop = stop.clone();
            async move { Ok(serve_https(listener, tls, router, stop, grace).await?) }
        };
        supervisor.spawn("http", OnEnd::Stop, http);
        let door = registry.context().config.door.clone();
        let kept = stop.clone();
        supervisor.spawn("access", OnEnd::Stop, async move {
            door.keep(kept).await;
            Ok(())
        });
        metrics::STORE_HELD.shift(&[], 0.0);
        metrics::MAX_BYTES.set(&[], registry.context().quota.limit() as f64);
        let gates = (readiness.gate("nats", true), readiness.gate("streams", true));
        let heartbeat = |name| readiness.heartbeat(name, LOOP_STALL_MAX);
        let context = registry.context();
        let streams = upkeep::keep_streams(context.clone(), capabilities, gates.1, heartbeat("streams"), stop.clone());
        supervisor.spawn("streams", OnEnd::Stop, streams);
        supervisor.spawn("connection", OnEnd::Stop, upkeep::watch_connection(context.clone(), gates.0, stop.clone()));
        supervisor.spawn(
            "sweep",
            OnEnd::Stop,
            upkeep::sweep_retries(context.clone(), heartbeat("sweep"), stop.clone()),
        );
        let config = &context.config;
        let first = config.first_endpoints();
        warn_of_unsigned(context, &first);
        registry.apply(first);
        let (over, written) = (CancellationToken::new(), CancellationToken::new());
        let history = history::write(context.clone(), history, heartbeat("history"), over.clone(), written.clone());
        supervisor.spawn("history", OnEnd::Stop, history);
        let gate = readiness.gate("managed-endpoints", false);
        let managed = managed_sync::follow(registry.clone(), gate, heartbeat("managed-endpoints"), stop.clone());
        supervisor.spawn("managed-endpoints", OnEnd::Stop, managed);
        let path = config.endpoints_file.clone();
        if path.is_some() || !config.referenced("").is_empty() {
            let gate = readiness.gate("endpoints-file", false);
            supervisor.spawn("reload", OnEnd::Stop, reload::watch(registry.clone(), path, gate, stop.clone()));
        } else if config.default_endpoint.is_none() {
            info!("only endpoints of the API: neither WEBHOOK_URL nor BROADCASTER_ENDPOINTS_FILE is set");
        }
        stop.cancelled().await;
        let settled = drain(&runtime, &registry).await;
        // The last attempts are recorded; bounded by itself.
        over.cancel();
        written.cancelled().await;
        let close_by = runtime.drain_deadline().max(Instant::now() + CLOSE_TIME_MIN);
        match timeout_at(close_by, registry.context().nats.drain()).await {
            Ok(Ok(())) => {}
            _ => warn!("the NATS connection was closed without confirmation; missed messages are redelivered"),
        }
        Ok(settled?)
    }
}

/// Once, at the start; the list of endpoints shows it for as long as it is so.
fn warn_of_unsigned(context: &Context, endpoints: &[Arc<Endpoint>]) {
    for endpoint in endpoints.iter().filter(|endpoint| context.is_unsigned(endpoint)) {
        warn!(
            endpoint = endpoint.name,
            "requests are not signed: the endpoint has no secret (WEBHOOK_SECRET, or `secret`)"
        );
    }
}

/// Finishes what is in flight; near the end of the grace hands back the rest.
async fn drain(runtime: &Runtime, registry: &Registry) -> Result<(), Error> {
    let deadline = runtime.drain_deadline();
    info!("draining");
    tokio::select! {
        () = registry.ended() => return Ok(()),
        () = sleep_until(deadline - HAND_BACK_MARGIN.min(runtime.grace() / 2)) => {}
    }
    info!("the grace period is nearly over; handing back the rest");
    registry.context().leaving.cancel();
    match timeout_at(deadline, registry.ended()).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::Unsettled(registry.still_running())),
    }
}

/// /health answers as /readyz does: the first release had this name.
fn health(runtime: &Runtime) -> Router {
    async fn health(State(runtime): State<Runtime>) -> impl IntoResponse {
        let body = runtime.readiness().ready_body();
        let status = if body["ready"] == true { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(body))
    }
    Router::new().route("/health", get(health)).with_state(runtime.clone())
}
