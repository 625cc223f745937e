//! The wiring: settings in, one listener out.
//!
//! There is no loop: the servers are asked when the page is read, so a server that starts late or disappears is noticed
//! at the next scrape. Ready means that the page can be read, regardless of NATS.

use crate::{
    client::Client,
    collect::Collector,
    config::{self, Config},
    error::Error,
    metrics::{self, BUILD_INFO},
    page::Page,
};
use agentforge_config::{Common, Reader, Setting};
use agentforge_metrics::Metric;
use agentforge_runtime::{Endpoints, OnEnd, Runtime, Service, Tls, bind, serve_https};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::net::TcpListener;
use tracing::info;

/// The commit that this was built from, where the build says it.
const REVISION: &str = match option_env!("AGENTFORGE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The exporter as a service: its settings and its bound listener.
pub struct NatsExporter {
    config: Arc<Config>,
    runtime: Runtime,
    listener: TcpListener,
    tls: Option<Tls>,
    client: Client,
    endpoints: Endpoints,
}

#[async_trait]
impl Service for NatsExporter {
    const NAME: &'static str = "nats-exporter";
    type Config = Config;

    fn settings() -> Vec<(&'static str, Vec<Setting>)> {
        vec![("Nats-exporter", config::SETTINGS.to_vec()), ("Common", Common::SETTINGS.to_vec())]
    }

    fn read_config(reader: &mut Reader<'_>) -> Config {
        Config::read(reader)
    }

    fn common(config: &Config) -> &Common {
        &config.common
    }

    fn metrics() -> Vec<&'static [Metric]> {
        metrics::catalogue()
    }

    async fn build(config: Config, runtime: Runtime) -> Result<Self, anyhow::Error> {
        let client = Client::new(&config.nats_tls, &config.targets).map_err(Error::Client)?;
        let tls = config.tls.clone().map(|tls| Tls::open(&runtime, tls)).transpose()?;
        let listener = bind(config.common.listen(config.common.metrics_port), "METRICS_PORT").await?;
        let (address, is_tls) = (Some(listener.local_addr()?), tls.is_some());
        let endpoints = Endpoints { http: address, grpc: None, metrics: address, is_tls, is_metrics_tls: is_tls };
        BUILD_INFO.set(&[Self::VERSION, REVISION], 1.0);
        Ok(Self { config: Arc::new(config), runtime, listener, tls, client, endpoints })
    }

    fn endpoints(&self) -> Endpoints {
        self.endpoints
    }

    async fn run(self) -> Result<(), anyhow::Error> {
        let Self { config, runtime, listener, tls, client, .. } = self;
        let servers: Vec<&str> = config.targets.iter().map(|target| target.id.as_str()).collect();
        info!(?servers, path = config.path, is_tls = tls.is_some(), "the page can be read");
        let router = Page::new(Collector::new(config.clone(), client), runtime.clone(), &config).router(&config.path);
        let (stop, grace) = (runtime.stopping(), runtime.grace());
        runtime
            .supervisor()
            .spawn("page", OnEnd::Stop, async move { Ok(serve_https(listener, tls, router, stop, grace).await?) });
        runtime.stopping().cancelled().await;
        Ok(())
    }
}
