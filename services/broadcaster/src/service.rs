//! The broadcaster as a service: built, run, drained.
//! The only place that wires the parts together. Ready means that events can be processed: NATS is connected and our
//! streams exist. An endpoint that is unavailable, disabled or wrong shows in the list of endpoints and holds nothing
//! up.

use crate::{
    api,
    config::{self, Config},
    delivery::outcome::chain,
    error::Error,
    history::{
        recent::{Attempt, DeliveryLog},
        stream as history,
    },
    metrics::{self, NATS_CONNECTED},
    registry::{
        Context, Fleet,
        managed::{self as made, Kept},
        reload,
        state::States,
    },
    retry::{quota::Room, sweep},
    topology::streams::{self as topology, Made},
};
use agentforge_config::{Common, Reader, Setting};
use agentforge_egress::{Dialer, Policy};
use agentforge_jetstream::{Nats, NatsConfig, topology::TopologyConfig};
use agentforge_metrics::Metric;
use agentforge_runtime::{
    Endpoints, Gate, Heartbeat, OnEnd, Runtime, Service, admin_router, bind, serve_http, serve_metrics,
};
use async_trait::async_trait;
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is kept of the grace for handing back what is still in flight.
const LEAVE_MARGIN: Duration = Duration::from_secs(3);
/// For emptying the connection, however late it is.
const CLOSE_MIN: Duration = Duration::from_secs(1);
/// Before another attempt to create streams, and between checks whether they still exist: they may be deleted while we
/// run, and what is published meanwhile is not stored.
const MAKE_AGAIN: Duration = Duration::from_secs(1);
const MAKE_EVERY: Duration = Duration::from_secs(5);
/// A loop that took no turn for so long stands still: twice what one turn's requests take when each times out.
const LOOP_STALL_MAX: Duration = Duration::from_secs(120);
/// Between looks at how much is in the stream of retries.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// The broadcaster.
pub struct Broadcaster {
    runtime: Runtime,
    fleet: Fleet,
    made: watch::Sender<Option<Made>>,
    history: mpsc::Receiver<Attempt>,
    listener: TcpListener,
    endpoints: Endpoints,
}

#[async_trait]
impl Service for Broadcaster {
    const NAME: &'static str = "broadcaster";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![
            ("Broadcaster", config::SETTINGS.to_vec()),
            ("Outgoing calls", vec![Policy::SETTING]),
            ("Streams and consumers", TopologyConfig::SETTINGS.to_vec()),
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
        vec![metrics::METRICS, agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        let dialer = Dialer::new(config.egress.clone(), config.ca_file.as_deref()).map_err(Error::Egress)?;
        let dialer = match &config.resolver {
            Some(resolver) => dialer.with_resolver(resolver.clone()),
            None => dialer,
        };
        let listener = bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        let http = Some(listener.local_addr()?);
        let metrics = serve_metrics(&runtime, &config.common).await?;
        let nats = Nats::connect(&config.nats, "broadcaster").await?;
        let (made, ready) = watch::channel(None);
        let (attempts, history) = mpsc::channel(history::WAITING_MAX);
        let states = States::new(nats.clone(), &config.common.env);
        let context = Context {
            made: Kept::new(states.clone()),
            states,
            clock: Arc::default(),
            room: Arc::new(Room::new(config.keeping.retries_max_bytes)),
            nats,
            dialer,
            log: Arc::new(DeliveryLog::new(attempts)),
            stop: runtime.stopping(),
            leaving: CancellationToken::new(),
            ready,
            doubt: Arc::default(),
            config,
        };
        let endpoints = Endpoints { http, grpc: None, metrics };
        Ok(Self { runtime, fleet: Fleet::new(context), made, history, listener, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { runtime, fleet, made, history, listener, .. } = self;
        let (supervisor, readiness, stop) = (runtime.supervisor(), runtime.readiness(), runtime.stopping());
        let router = admin_router(&runtime).merge(health(&runtime)).merge(api::router(&fleet));
        let router = agentforge_runtime::http::instrument(router, &runtime);
        let grace = runtime.grace();
        let http = {
            let stop = stop.clone();
            async move { Ok(serve_http(listener, router, stop, grace).await?) }
        };
        supervisor.spawn("http", OnEnd::Stop, http);
        metrics::STORE_HELD.shift(&[], 0.0);
        metrics::MAX_BYTES.set(&[], fleet.context().room.limit() as f64);
        let gates = (readiness.gate("nats", true), readiness.gate("streams", true));
        let heartbeat = |name| readiness.heartbeat(name, LOOP_STALL_MAX);
        let streams = make_streams(fleet.clone(), made, gates.1, heartbeat("streams"), stop.clone());
        supervisor.spawn("streams", OnEnd::Stop, streams);
        supervisor.spawn("connection", OnEnd::Stop, watch_connection(fleet.clone(), gates.0, stop.clone()));
        supervisor.spawn("sweep", OnEnd::Stop, look_after_retries(fleet.clone(), heartbeat("sweep"), stop.clone()));
        let config = &fleet.context().config;
        fleet.apply(config.first_endpoints());
        let (over, written) = (CancellationToken::new(), CancellationToken::new());
        let history =
            history::write(fleet.context().clone(), history, heartbeat("history"), over.clone(), written.clone());
        supervisor.spawn("history", OnEnd::Stop, history);
        supervisor.spawn(
            "made",
            OnEnd::Stop,
            made::follow(fleet.clone(), heartbeat("managed-endpoints"), stop.clone()),
        );
        let path = config.endpoints_file.clone();
        if path.is_some() || !config.referenced("").is_empty() {
            let gate = readiness.gate("endpoints-file", false);
            supervisor.spawn("reload", OnEnd::Stop, reload::watch(fleet.clone(), path, gate, stop.clone()));
        } else if config.fixed.is_none() {
            info!("only endpoints of the API: neither WEBHOOK_URL nor BROADCASTER_ENDPOINTS_FILE is set");
        }
        stop.cancelled().await;
        let settled = drain(&runtime, &fleet).await;
        // The last attempts are recorded; bounded by itself.
        over.cancel();
        written.cancelled().await;
        let close_by = runtime.drain_deadline().max(Instant::now() + CLOSE_MIN);
        match timeout_at(close_by, fleet.context().nats.drain()).await {
            Ok(Ok(())) => {}
            _ => warn!("the NATS connection was closed without confirmation; missed messages are redelivered"),
        }
        Ok(settled?)
    }
}

/// Finishes what is in flight; near the end of the grace hands back the rest.
async fn drain(runtime: &Runtime, fleet: &Fleet) -> Result<(), Error> {
    let deadline = runtime.drain_deadline();
    info!("draining");
    tokio::select! {
        () = fleet.ended() => return Ok(()),
        () = sleep_until(deadline - LEAVE_MARGIN.min(runtime.grace() / 2)) => {}
    }
    info!("the grace period is nearly over; handing back the rest");
    fleet.context().leaving.cancel();
    match timeout_at(deadline, fleet.ended()).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::Unsettled(fleet.still_running())),
    }
}

/// Creates streams and bucket as soon as NATS is available, and recreates lost ones: checks them periodically, and at
/// once when one is reported missing.
async fn make_streams(
    fleet: Fleet,
    made: watch::Sender<Option<Made>>,
    gate: Gate,
    heartbeat: Heartbeat,
    stop: CancellationToken,
) -> Result<(), anyhow::Error> {
    let context = fleet.context();
    let mut connected = context.nats.connected();
    loop {
        heartbeat.beat();
        let looked = Instant::now();
        let pause = match context.nats.is_connected() {
            false => MAKE_EVERY,
            true => match topology::make(&context.nats, &context.config).await {
                Ok((now, created)) => {
                    let was_made = made.borrow().is_some();
                    made.send_if_modified(|was| was.replace(now) != Some(now));
                    match was_made && !created.is_empty() {
                        true => {
                            // Readers and writers find it in a moment; the next check confirms that it stayed.
                            let created = created.join(", ");
                            warn!(created, "was gone, and is made again");
                            gate.set(false, format!("was gone, and is made again: {created}"));
                            MAKE_AGAIN
                        }
                        false => {
                            gate.set(true, "made");
                            MAKE_EVERY
                        }
                    }
                }
                Err(error) => {
                    warn!(error = %chain(&error), "streams are not as planned");
                    gate.set(false, chain(&error));
                    MAKE_AGAIN
                }
            },
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = connected.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
            // A missing object is reported repeatedly; one check per second is enough.
            () = context.doubt.notified() => sleep_until(looked + MAKE_AGAIN).await,
            () = sleep(pause) => {}
        }
    }
}

async fn watch_connection(fleet: Fleet, gate: Gate, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let mut connected = fleet.context().nats.connected();
    loop {
        let is_connected = *connected.borrow_and_update();
        NATS_CONNECTED.set(&[], if is_connected { 1.0 } else { 0.0 });
        let (usable, words) = fleet.context().nats.told();
        gate.set(usable, words);
        tokio::select! {
            changed = connected.changed() => if changed.is_err() {
                stop.cancelled().await;
                return Ok(());
            },
            // The server may be another one after a short break.
            () = sleep(MAKE_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

async fn look_after_retries(fleet: Fleet, heartbeat: Heartbeat, stop: CancellationToken) -> Result<(), anyhow::Error> {
    let context = fleet.context();
    let max_age = context.config.keeping.retries_max_age;
    let mut measure = interval(MEASURE_EVERY);
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        heartbeat.beat();
        let made = *context.ready.borrow();
        let every = sweep::every(made.is_none_or(|made| made.schedules), max_age);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = measure.tick() => {
                sweep::measure(&context.nats, &context.clock, &context.room).await;
            }
            () = sleep_until(last + every) => {
                last = Instant::now();
                let Some(made) = made.filter(|_| context.nats.is_connected()) else { continue };
                let sweep = sweep::Sweep {
                    nats: &context.nats,
                    env: &context.config.common.env,
                    dlq_max_bytes: context.config.keeping.dlq_max_bytes,
                    now: context.clock.now(),
                    progress: &|| heartbeat.beat(),
                };
                // What is overdue must not wait for dead letters that cannot be stored, nor they for it.
                for swept in [sweep.bring_overdue(made.schedules).await, sweep.bury_expired(max_age).await] {
                    if let Err(error) = swept {
                        warn!(error = chain(&error), "the sweep over retries was incomplete; continuing with the next one");
                    }
                }
            }
        }
    }
}

/// /health answers as /readyz, under the name that the first version had.
fn health(runtime: &Runtime) -> Router {
    async fn health(State(runtime): State<Runtime>) -> impl IntoResponse {
        let body = runtime.readiness().ready_body();
        let status = if body["ready"] == true { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(body))
    }
    Router::new().route("/health", get(health)).with_state(runtime.clone())
}
