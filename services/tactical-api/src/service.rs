//! The wiring: settings in, one listener, the tail of the stream, the fan-out, and the order of the stop.

use crate::{
    api::{Api, router},
    config::{self, Config},
    error::Error,
    evidence::{Aliases, Store},
    expiry,
    fanout::{Ended, Fanout, ReplayRequest, Settings},
    live::Live,
    metrics,
    replay::{self, Replay},
    slots::Slots,
    source::Source,
    stream::Streams,
    tail::{Tail, Target},
};
use agentforge_config::{Common, Reader, Setting};
use agentforge_jetstream::{
    Nats, NatsConfig,
    subjects::{EVIDENCE_FILTER, STREAM_EVIDENCE, STREAM_TACTICAL, TACTICAL_FILTER},
    topology::{self, Maker, TacticalConfig, ensure_by, tactical_plan},
};
use agentforge_metrics::Metric;
use agentforge_runtime::{
    Endpoints, OnEnd, Runtime, Service, admin_router, bind,
    http::{Tls, instrument, serve_with_takeover},
    serve_metrics,
};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::{sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two tries to make the stream.
const ENSURE_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Between two checks of whether it is as planned: it may have been changed or recreated.
const ENSURE_INTERVAL: Duration = Duration::from_secs(20);
/// Between two checks of whether there is evidence to follow.
const EVIDENCE_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Between two tries to follow the stream.
const FOLLOW_RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// What the kernel keeps of an answer that its caller has not taken, bytes; it doubles the number for itself.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// What of the grace is left to clients for reading their last words.
const FAREWELL: Duration = Duration::from_secs(6);
/// Between two checks of which server it is: another one may answer after a short break.
const SERVER_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Closing the connection to NATS.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The tactical API.
pub struct TacticalApi {
    config: Config,
    runtime: Runtime,
    listener: TcpListener,
    tls: Option<Tls>,
    nats: Nats,
    hub: Fanout,
    ends: Vec<Ended>,
    wanted: mpsc::Receiver<ReplayRequest>,
    source: Source,
    endpoints: Endpoints,
}

#[async_trait]
impl Service for TacticalApi {
    const NAME: &'static str = "tactical-api";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![
            ("Tactical-api", config::SETTINGS.to_vec()),
            ("Access", agentforge_door::SETTINGS.to_vec()),
            ("Stream", TacticalConfig::SETTINGS.to_vec()),
            ("Topology", Maker::SETTINGS.to_vec()),
            ("NATS", NatsConfig::SETTINGS.to_vec()),
            ("Common", Common::SETTINGS.to_vec()),
        ]
    }

    fn read_config(reader: &mut Reader<'_>) -> Config {
        Config::read(reader)
    }

    fn common(config: &Config) -> &Common {
        &config.common
    }

    fn metrics() -> Vec<&'static [Metric]> {
        vec![metrics::METRICS, agentforge_door::metrics::CATALOGUE, agentforge_jetstream::metrics::CATALOGUE]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        let tls = config.tls.clone().map(|tls| Tls::open(&runtime, tls)).transpose()?;
        let listener = bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        // Accepted connections inherit it. More in the kernel would only make a slow reader look like a stalled one.
        let _ = socket2::SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER_BYTES);
        let address = listener.local_addr()?;
        // Closed before the first question: what is ready for a moment at the start gets callers.
        for gate in ["stream", "nats", "topology"] {
            runtime.readiness().gate(gate, true);
        }
        let metrics = serve_metrics(&runtime, &config.common).await?;
        let nats = Nats::connect(&config.nats, "tactical-api").await?;
        let source = Source::new();
        let settings = Settings {
            heartbeats: [config.limits.sse_heartbeat, config.limits.ws_heartbeat],
            client_buffer_bytes: config.limits.client_buffer_bytes,
            signer: config.signing.signer.clone(),
            source: source.clone(),
        };
        let (want, wanted) = replay::queue(config.limits.clients);
        let (hub, ends) = Fanout::start(&settings, &want).map_err(Error::FanOut)?;
        if config.access.is_open_to_strangers() {
            warn!("everybody who reaches this port may read without a token (TACTICAL_OPEN_TO_ANYONE)");
        }
        info!(%address, is_tls = tls.is_some(), clients_max = config.limits.clients, "listening");
        let (is_tls, is_metrics_tls) = (tls.is_some(), config.common.tls.is_some());
        let endpoints = Endpoints { http: Some(address), grpc: None, metrics, is_tls, is_metrics_tls };
        Ok(Self { config, runtime, listener, tls, nats, hub, ends, wanted, source, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { config, runtime, listener, tls, nats, hub, ends, wanted, source, .. } = self;
        let live = Live::new(hub.clone(), config.signing.signer.clone());
        // Clients that are still here after the stop get events until they are asked to leave.
        let farewell = CancellationToken::new();
        follow(&config, &runtime, &nats, &live, source, &farewell);
        let replay =
            Replay { nats: nats.clone(), live: live.clone(), signer: config.signing.signer.clone(), hub: hub.clone() };
        let aliases = Aliases::default();
        let evidence = Target {
            stream: STREAM_EVIDENCE,
            filter: EVIDENCE_FILTER,
            headers_only: true,
            again: EVIDENCE_RETRY_INTERVAL,
        };
        let supervisor = runtime.supervisor();
        let (door, kept) = (config.access.door.clone(), farewell.clone());
        supervisor.spawn("access", OnEnd::Stop, async move {
            door.keep(kept).await;
            Ok(())
        });
        let (signing, stop) = (config.signing.clone(), runtime.stopping());
        supervisor.spawn("signing", OnEnd::Stop, async move {
            signing.keep(stop).await;
            Ok(())
        });
        let stop = farewell.clone();
        supervisor.spawn("replay", OnEnd::Stop, async move {
            replay.run(wanted, stop).await;
            Ok(())
        });
        let (learning, tail, stop) =
            (aliases.clone(), Tail::new(nats.clone(), evidence, Source::new()), farewell.clone());
        supervisor.spawn("evidence-names", OnEnd::Stop, async move {
            learning.follow(tail, stop).await;
            Ok(())
        });
        let slots = Slots::new(config.limits.clients, config.limits.clients_per_address);
        let streams = Streams::new(config.access.clone(), slots, live.clone(), hub.clone());
        let api = Api {
            env: config.common.env.clone(),
            access: config.access.clone(),
            nats: nats.clone(),
            site: config.common.site.clone(),
            live,
            signer: config.signing.signer.clone(),
            evidence: Store::new(nats.clone(), aliases),
        };
        let router = instrument(router(api).merge(admin_router(&runtime)), &runtime);
        let (stop, grace) = (runtime.stopping(), runtime.grace());
        supervisor.spawn("http", OnEnd::Stop, async move {
            Ok(serve_with_takeover(listener, tls, router, streams, stop, grace).await?)
        });
        let (is_whole, threads) = (runtime.stopping(), async move {
            for ended in ends {
                ended.await.map_err(|_| Error::FanOutEnded)?;
            }
            Ok::<(), Error>(())
        });
        let mut threads = std::pin::pin!(threads);
        tokio::select! {
            () = is_whole.cancelled() => {}
            ended = &mut threads => {
                runtime.stopping().cancel();
                return Err(ended.err().unwrap_or(Error::FanOutEnded).into());
            }
        }
        let grace = runtime.grace();
        info!("asking clients to reconnect elsewhere");
        hub.stop(grace.saturating_sub(FAREWELL).max(grace / 2));
        let ended = timeout_at(runtime.drain_deadline(), threads).await;
        farewell.cancel();
        if timeout(CLOSE_MAX, nats.drain()).await.is_err() {
            warn!("the NATS connection was closed without confirmation");
        }
        // Clients that were still here at the deadline are cut with the process.
        Ok(ended.unwrap_or(Ok(()))?)
    }
}

/// The tasks that bring the stream to the picture, and the gates that show whether they can.
fn follow(config: &Config, runtime: &Runtime, nats: &Nats, live: &Live, source: Source, stop: &CancellationToken) {
    let supervisor = runtime.supervisor();
    let (gate, missing) = (runtime.readiness().gate("stream", true), Arc::new(Notify::new()));
    gate.set(false, "not followed yet");
    let connection = runtime.readiness().gate("nats", true);
    let (connection_of, connected, until) = (nats.clone(), nats.connected(), stop.clone());
    supervisor.spawn("connection", OnEnd::Stop, async move {
        let mut connected = connected;
        loop {
            connected.borrow_and_update();
            let (usable, words) = connection_of.readiness();
            connection.set(usable, words);
            tokio::select! {
                changed = connected.changed() => if changed.is_err() { break },
                () = sleep(SERVER_CHECK_INTERVAL) => {}
                () = until.cancelled() => break,
            }
        }
        Ok(())
    });
    let (plan, js, until, wake) =
        (tactical_plan(&config.stream), nats.jetstream().clone(), stop.clone(), missing.clone());
    let (up, shown, maker) = (nats.connected(), live.clone(), config.maker);
    let planned = runtime.readiness().gate("topology", true);
    planned.set(false, "not looked at yet");
    supervisor.spawn("topology", OnEnd::Stop, async move {
        let (mut was_made, mut told) = (false, String::new());
        loop {
            let wait = match ensure_by(&js, &plan, maker).await {
                // At the start it stops the start; later it may recover.
                Err(error @ topology::Error::Incompatible { .. }) if !was_made => {
                    return Err(Error::Topology(error).into());
                }
                Err(error) => {
                    let reason = error.to_string();
                    // While NATS is unavailable the gates of the connection and of the stream show it.
                    if *up.borrow() {
                        planned.set(false, reason.clone());
                    }
                    if reason != told {
                        warn!(error = &error as &dyn std::error::Error, "the stream cannot be checked");
                        told = reason;
                    }
                    ENSURE_RETRY_INTERVAL
                }
                Ok(_) => {
                    was_made = true;
                    told.clear();
                    planned.set(true, "as planned");
                    if let Ok(stream) = js.get_stream(STREAM_TACTICAL).await {
                        shown.forget_before(stream.cached_info().state.first_sequence);
                    }
                    ENSURE_INTERVAL
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = async { sleep(ENSURE_RETRY_INTERVAL).await; wake.notified().await } => {}
                () = until.cancelled() => return Ok(()),
            }
        }
    });
    let target =
        Target { stream: STREAM_TACTICAL, filter: TACTICAL_FILTER, headers_only: false, again: FOLLOW_RETRY_INTERVAL };
    let (tail, following, until) = (Tail::new(nats.clone(), target, source), live.clone(), stop.clone());
    supervisor.spawn("picture", OnEnd::Stop, async move {
        let told = |outcome: Result<(), String>| match outcome {
            Ok(()) => gate.set(true, "followed"),
            Err(reason) => {
                gate.set(false, reason);
                missing.notify_one();
            }
        };
        following.follow(tail, told, until).await;
        Ok(())
    });
    let (nats, live, max_age, until) = (nats.clone(), live.clone(), config.stream.max_age, stop.clone());
    supervisor.spawn("expiry", OnEnd::Stop, async move {
        expiry::run(nats, live, max_age, until).await;
        Ok(())
    });
}
