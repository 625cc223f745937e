//! The monitoring endpoints of a NATS server: how each is asked, and what series its answer becomes.
//! One file per endpoint, pure: an answer in, tables out. Names, labels and values are those of
//! prometheus-nats-exporter, so that its dashboards keep working. Fetching is `client`'s.

pub mod accounts;
pub mod connz;
pub mod gatewayz;
pub mod healthz;
pub mod leafz;
pub mod walk;

use crate::table::Column;
use std::fmt;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// The server.
    Varz,
    /// Connections, summed up.
    Connz,
    /// Connections, each one.
    ConnzDetailed,
    /// Routes.
    Routez,
    /// Subscriptions.
    Subsz,
    /// Health.
    Healthz,
    /// Health of JetStream: enabled.
    HealthzJsEnabledOnly,
    /// Health of JetStream: the server's part.
    HealthzJsServerOnly,
    /// Traffic by account.
    Accstatz,
    /// Details by account.
    Accountz,
    /// Gateways.
    Gatewayz,
    /// Leaf nodes.
    Leafz,
    /// JetStream.
    Jsz,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Varz,
        Self::Connz,
        Self::ConnzDetailed,
        Self::Routez,
        Self::Subsz,
        Self::Healthz,
        Self::HealthzJsEnabledOnly,
        Self::HealthzJsServerOnly,
        Self::Accstatz,
        Self::Accountz,
        Self::Gatewayz,
        Self::Leafz,
        Self::Jsz,
    ];

    /// The name in settings and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Varz => "varz",
            Self::Connz => "connz",
            Self::ConnzDetailed => "connz_detailed",
            Self::Routez => "routez",
            Self::Subsz => "subsz",
            Self::Healthz => "healthz",
            Self::HealthzJsEnabledOnly => "healthz_js_enabled_only",
            Self::HealthzJsServerOnly => "healthz_js_server_only",
            Self::Accstatz => "accstatz",
            Self::Accountz => "accountz",
            Self::Gatewayz => "gatewayz",
            Self::Leafz => "leafz",
            Self::Jsz => "jsz",
        }
    }

    /// By its name; `subz` is what the known exporter calls `subsz`.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = if name == "subz" { "subsz" } else { name };
        Self::ALL.into_iter().find(|endpoint| endpoint.as_str() == name)
    }

    /// Path and query of the request; of the first where there are several.
    pub fn path(self) -> &'static str {
        match self {
            Self::Varz => "varz",
            Self::Connz | Self::ConnzDetailed => "connz",
            Self::Routez => "routez",
            Self::Subsz => "subsz",
            Self::Healthz => "healthz",
            Self::HealthzJsEnabledOnly => "healthz?js-enabled-only=true",
            Self::HealthzJsServerOnly => "healthz?js-server-only=true",
            Self::Accstatz => "accstatz?unused=1",
            Self::Accountz => "accountz",
            Self::Gatewayz => "gatewayz",
            Self::Leafz => "leafz",
            Self::Jsz => "jsz",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names of the stock family. A prefix replaces both of its namespaces, as it does in the known exporter.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    /// In place of `gnatsd` and `jetstream`.
    pub prefix: Option<String>,
}

impl Namespace {
    /// `gnatsd_<subsystem>_<name>`.
    pub fn core(&self, subsystem: &str, name: &str) -> String {
        format!("{}_{subsystem}_{name}", self.prefix.as_deref().unwrap_or("gnatsd"))
    }

    /// `jetstream_<subsystem>_<name>`.
    pub fn jetstream(&self, subsystem: &str, name: &str) -> String {
        format!("{}_{subsystem}_{name}", self.prefix.as_deref().unwrap_or("jetstream"))
    }

    /// Gauges of an endpoint; their help is their short name, as it is in the known exporter.
    fn gauges(&self, subsystem: &str, names: &[&'static str]) -> Vec<Column> {
        names.iter().map(|name| Column::gauge(self.core(subsystem, name), *name)).collect()
    }
}

/// Numbers in the answers fit into 2^53 or are as inexact in Prometheus.
#[expect(clippy::cast_precision_loss, reason = "samples are floating point numbers in Prometheus")]
pub fn float(n: u64) -> f64 {
    n as f64
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_name() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::by_name(endpoint.as_str()), Some(endpoint));
        }
        assert_eq!(Endpoint::by_name("subz"), Some(Endpoint::Subsz));
        assert_eq!(Endpoint::by_name("channelz"), None);
    }

    #[test]
    fn a_prefix_replaces_both_namespaces() {
        let stock = Namespace::default();
        assert_eq!(stock.core("varz", "mem"), "gnatsd_varz_mem");
        assert_eq!(stock.jetstream("consumer", "num_pending"), "jetstream_consumer_num_pending");
        let named = Namespace { prefix: Some("nats".into()) };
        assert_eq!(named.core("varz", "mem"), "nats_varz_mem");
        assert_eq!(named.jetstream("consumer", "num_pending"), "nats_consumer_num_pending");
    }
}
