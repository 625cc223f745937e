//! The wiring: settings in, one listener, the database, and the order of the stop.
//!
//! Ready means that the database can be used. NATS may be unavailable: what has to be published waits in the database.

use crate::{
    accounts::{self, Accounts, Keys},
    assets,
    bounds::BODY_BYTES_MAX,
    config::Config,
    error::Error,
    headers::{Headers, with_headers},
    intake, latency, metrics,
    own::Own,
    problem::forbidden,
    proxy::{self, Proxy},
    settings,
    store::Database,
};
use agentforge_config::{Common, ExposeSecret, Reader, Setting};
use agentforge_jetstream::{Nats, NatsConfig};
use agentforge_metrics::Metric;
use agentforge_runtime::{
    Endpoints, Gate, OnEnd, Runtime, Service, Tls, admin_router, bind,
    http::{Foreign, HTTP_PROTOCOLS, instrument, json_only, same_machine},
    serve_https, serve_metrics,
};
use async_trait::async_trait;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use std::time::Duration;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Between two tries to open the database, and between two checks of it.
const OPEN_RETRY_INTERVAL: Duration = Duration::from_secs(1);
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Closing the connection to NATS, and the database.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The console as a service: what was opened and bound before it runs.
pub struct Console {
    config: Config,
    runtime: Runtime,
    listener: TcpListener,
    tls: Option<Tls>,
    nats: Nats,
    database: Database,
    accounts: Accounts,
    proxy: Proxy,
    endpoints: Endpoints,
}

#[async_trait]
impl Service for Console {
    const NAME: &'static str = "console";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![
            ("Console", settings::SETTINGS.to_vec()),
            ("Services behind it", settings::UPSTREAMS.to_vec()),
            ("Latency", latency::settings::SETTINGS.to_vec()),
            ("Intake board", intake::settings::SETTINGS.to_vec()),
            ("Access", agentforge_door::SETTINGS.to_vec()),
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
        vec![
            metrics::METRICS,
            latency::metrics::METRICS,
            intake::metrics::METRICS,
            agentforge_door::metrics::CATALOGUE,
            agentforge_jetstream::metrics::CATALOGUE,
        ]
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        let keys = match &config.signing_key {
            Some(pem) => Keys::from_pem(pem.expose_secret()),
            None => Keys::dev(&config.common.data_dir),
        };
        let keys = keys.map_err(anyhow::Error::msg)?;
        let database = Database::open(config.database_url.expose_secret(), &config.common.data_dir, config.db_pool)
            .map_err(Error::Store)?;
        let listener = bind(config.common.listen(config.http_port), "HTTP_PORT").await?;
        let http = Some(listener.local_addr()?);
        let tls = Tls::of(&runtime, &config.common, HTTP_PROTOCOLS)?;
        // Closed before the first question: what is ready for a moment at the start gets callers.
        runtime.readiness().gate("database", true);
        let metrics_page = serve_metrics(&runtime, &config.common).await?;
        let nats = Nats::connect(&config.nats, "console").await?;
        metrics::begin();
        info!(?keys, place = database.place(), is_secure = config.is_secure(), "the console's keys and database");
        let accounts = Accounts::new(&config, database.clone(), keys, nats.clone()).map_err(anyhow::Error::msg)?;
        let proxy = Proxy::new(config.upstreams.clone(), accounts.identity())?;
        let is_tls = tls.is_some();
        let endpoints = Endpoints { http, grpc: None, metrics: metrics_page, is_tls, is_metrics_tls: is_tls };
        Ok(Self { config, runtime, listener, tls, nats, database, accounts, proxy, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { config, runtime, listener, tls, nats, database, accounts, proxy, .. } = self;
        let supervisor = runtime.supervisor();
        let gate = runtime.readiness().gate("database", true);
        gate.set(false, "not opened yet");
        let (opened, stop) = (database.clone(), runtime.stopping());
        supervisor.spawn("database", OnEnd::Stop, async move { Ok(keep_open(opened, gate, stop).await?) });
        let (door, kept) = (config.door.clone(), runtime.stopping());
        supervisor.spawn("access", OnEnd::Stop, async move {
            door.keep(kept).await;
            Ok(())
        });
        let (kept, stop) = (accounts.clone(), runtime.stopping());
        supervisor.spawn("accounts", OnEnd::Stop, async move {
            kept.keep(stop).await;
            Ok(())
        });
        let own = Own::new(&config, &database, accounts.identity())?;
        let own_routes = own.router(&config).layer(from_fn_with_state(accounts.clone(), accounts::recognised));
        own.spawn(supervisor, &nats, &runtime.stopping());
        // What needs a session, or a bearer token.
        let protected = Router::new()
            .merge(accounts::protected(accounts.clone()))
            .merge(proxy::router(proxy))
            .layer(from_fn_with_state(accounts.clone(), accounts::guarded));
        let router = Router::new()
            .merge(accounts::public(accounts))
            .merge(protected)
            .merge(own_routes)
            .fallback(assets::page)
            .layer(from_fn(json_only))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .merge(admin_router(&runtime))
            .layer(from_fn_with_state(Headers::new(config.grafana.as_ref(), config.is_tls()), with_headers));
        let is_local = config.common.is_dev() && config.common.bind_addr.is_loopback();
        let router = if is_local { router.layer(from_fn(by_local_name)) } else { router };
        let router = instrument(router, &runtime);
        let (stop, grace) = (runtime.stopping(), runtime.grace());
        supervisor.spawn(
            "http",
            OnEnd::Stop,
            async move { Ok(serve_https(listener, tls, router, stop, grace).await?) },
        );
        runtime.stopping().cancelled().await;
        info!("draining");
        if timeout(CLOSE_MAX, nats.drain()).await.is_err() {
            warn!("the NATS connection was closed without confirmation");
        }
        let _ = timeout(CLOSE_MAX, database.close()).await;
        Ok(())
    }
}

/// On a developer's machine: a name that its owner points here makes another site's page look like ours.
async fn by_local_name(request: Request, next: Next) -> Response {
    match same_machine(request.headers(), request.uri()) {
        Err(foreign @ Foreign::Host) => {
            forbidden(format!("in ENV=dev this port answers programs of this machine: {foreign}")).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Opens the database as soon as that is possible, and shows at the gate whether it can be used.
async fn keep_open(database: Database, gate: Gate, stop: CancellationToken) -> Result<(), Error> {
    let (mut is_prepared, mut told) = (false, String::new());
    loop {
        let looked = if is_prepared { database.ping().await } else { database.prepare().await };
        let wait = match looked {
            Ok(()) => {
                is_prepared = true;
                told.clear();
                gate.set(true, "can be used");
                CHECK_INTERVAL
            }
            Err(error) if is_prepared || error.is_retryable() => {
                let reason = error.to_string();
                gate.set(false, format!("{reason} (DATABASE_URL)"));
                if reason != told {
                    warn!(error = &error as &dyn std::error::Error, "the database cannot be used; trying again");
                    told = reason;
                }
                OPEN_RETRY_INTERVAL
            }
            Err(error) => return Err(error.into()),
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}
