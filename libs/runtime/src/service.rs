//! The contract of a service: how it is configured, built, asked for its addresses and run.

use crate::Runtime;
use agentforge_config::{Common, Reader, Setting};
use agentforge_metrics::Metric;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One service. `build` connects and binds; `run` ends when the runtime's stop fired and the drain
/// is done. A service touches no process global and spawns through its runtime's supervisor.
#[async_trait::async_trait]
pub trait Service: Sized + Send + 'static {
    /// The service's name, such as `orchestrator`.
    const NAME: &'static str;
    /// What `--version` prints.
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    /// All of its settings, parsed.
    type Config: Send + Sync + Clone + 'static;

    /// Every setting it reads, by group, for `--help` and the documentation.
    fn settings() -> Vec<(&'static str, Vec<Setting>)>;
    /// Reads its settings, the common ones too; faults stay in the reader.
    fn read_config(reader: &mut Reader<'_>) -> Self::Config;
    /// Additional checks when the settings are only checked: faults that a start tolerates, because they stop a part of
    /// the service and not the whole.
    fn check_config(_config: &Self::Config, _reader: &mut Reader<'_>) {}
    /// The common part of its configuration.
    fn common(config: &Self::Config) -> &Common;
    /// Every metric it records; those of the chassis are added.
    fn metrics() -> Vec<&'static [Metric]>;
    /// Connects and binds; ports may be 0. A server that is unavailable is connected to later; a port in use or a
    /// topology that does not fit is an error.
    async fn build(config: Self::Config, runtime: Runtime) -> Result<Self, anyhow::Error>;
    /// Where it listens, with the ports that were taken.
    fn endpoints(&self) -> Endpoints;
    /// Works until the runtime's stop fired and everything in flight is finished or handed back.
    async fn run(self) -> Result<(), anyhow::Error>;
}

/// The addresses a service listens on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// REST and health.
    pub http: Option<SocketAddr>,
    /// The gRPC listener, which only the orchestrator has.
    pub grpc: Option<SocketAddr>,
    /// /metrics on its own port.
    pub metrics: Option<SocketAddr>,
    /// Whether `http` and `grpc` use TLS.
    pub is_tls: bool,
    /// Whether `metrics` uses TLS.
    pub is_metrics_tls: bool,
}

impl Endpoints {
    /// The base URL of the HTTP listener, as reached from this machine.
    pub fn http_url(&self) -> Option<String> {
        self.http.map(|address| url(address, self.is_tls))
    }

    /// The URL of the gRPC listener, as reached from this machine.
    pub fn grpc_url(&self) -> Option<String> {
        self.grpc.map(|address| url(address, self.is_tls))
    }

    /// The URL of the metrics page, as reached from this machine.
    pub fn metrics_url(&self) -> Option<String> {
        self.metrics.map(|address| format!("{}/metrics", url(address, self.is_metrics_tls)))
    }
}

/// A wildcard address is not a destination: the loopback one is used instead.
fn url(address: SocketAddr, is_tls: bool) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_can_be_opened_from_here() {
        let endpoints = Endpoints {
            http: Some("0.0.0.0:8080".parse().unwrap()),
            grpc: Some("[::]:50051".parse().unwrap()),
            metrics: Some("127.0.0.1:7777".parse().unwrap()),
            ..Endpoints::default()
        };
        assert_eq!(endpoints.http_url().unwrap(), "http://127.0.0.1:8080");
        assert_eq!(endpoints.grpc_url().unwrap(), "http://[::1]:50051");
        assert_eq!(endpoints.metrics_url().unwrap(), "http://127.0.0.1:7777/metrics");
        let endpoints = Endpoints { is_tls: true, ..endpoints };
        assert_eq!(endpoints.http_url().unwrap(), "https://127.0.0.1:8080");
        assert_eq!(endpoints.metrics_url().unwrap(), "http://127.0.0.1:7777/metrics");
    }
}
